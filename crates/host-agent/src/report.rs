//! What the user is told of a job: one line for an error, one when something ended the code, the timeline. Text out, no
//! I/O.

use protocol::job::{Clock, Interpreter, Timings};
use protocol::{HostError, JobResponse, Termination};

/// The one line of an error.
pub(crate) fn error_line(error: &HostError) -> String {
    format!("error[{}]: {error}", error.code)
}

/// Says what killed the code, unless it ended by itself. `timeout` is the job's, in seconds.
pub(crate) fn killed_by(response: &JobResponse, timeout: f64) -> Option<String> {
    let what = match response.termination.as_ref()? {
        Termination::Exit => return None,
        Termination::Signal { name } => format!("signal {name}"),
        Termination::Timeout { clock: Clock::Wall } => format!("timeout after {timeout} s"),
        Termination::Timeout { clock: Clock::Cpu } => "timeout, its processor time was up".to_owned(),
        Termination::Oom { peak_bytes: 0 } => "oom, its memory was used up".to_owned(),
        Termination::Oom { peak_bytes } => format!("oom, it had {} MiB of memory", peak_bytes >> 20),
        Termination::OutputLimit { stream } => format!("output_limit on {stream}"),
        Termination::PidsLimit { limit } => format!("pids_limit of {limit} processes"),
        Termination::DiskFull => "disk_full".to_owned(),
        Termination::Seccomp { syscall } => format!("seccomp, it called {syscall}"),
        Termination::VmCrash { console } => match console.last() {
            Some(last) => format!("vm_crash; last on its console: {last}"),
            None => "vm_crash".to_owned(),
        },
        Termination::Cancelled => "cancelled".to_owned(),
        Termination::HostDrain => "host_drain".to_owned(),
    };
    Some(format!("killed: {what}"))
}

/// The phases of a job, aligned, with a bar that shows where the time went.
pub(crate) fn timeline(timings: &Timings) -> String {
    const BAR: f64 = 40.0;
    let start: &[_] = match timings.path.as_deref() {
        Some("pool") => &[],
        Some("restore") => &[
            ("VMM spawn", timings.vmm_spawn),
            ("restore", timings.restore),
            ("identity", timings.identity),
        ],
        _ => &[
            ("VMM spawn", timings.vmm_spawn),
            ("API configuration", timings.configure),
            ("kernel", timings.kernel),
            ("init", timings.init),
            ("runner ready", timings.ready),
        ],
    };
    let job = [
        ("connect", timings.connect),
        ("execute", timings.execute),
        ("shutdown", timings.shutdown),
    ];
    let queue = timings.queue.map(|waited| ("queue", Some(waited)));
    let phases: Vec<_> = queue
        .into_iter()
        .chain(start.iter().copied())
        .chain(job)
        .collect();
    let whole: f64 = phases.iter().filter_map(|(_, took)| *took).sum();
    let mut text = String::new();
    let mut begun = 0.0;
    for (name, took) in phases {
        let Some(took) = took else {
            text += &format!("{name:<18} {:>10}\n", "-");
            continue;
        };
        let column = |at: f64| (at / whole.max(f64::MIN_POSITIVE) * BAR).round() as usize;
        let (from, to) = (column(begun), column(begun + took).max(column(begun) + 1));
        text += &format!(
            "{name:<18} {took:>7.1} ms  {}{}\n",
            " ".repeat(from),
            "█".repeat(to - from)
        );
        begun += took;
    }
    let interpreter = match timings.interpreter {
        Some(Interpreter::Parked) => ", parked interpreter",
        Some(Interpreter::Fresh) | None => "",
    };
    text + &format!(
        "{:<18} {whole:>7.1} ms  ({}{interpreter})\n",
        "total",
        timings.path.as_deref().unwrap_or("unknown")
    )
}

#[cfg(test)]
mod tests {
    use protocol::ErrorCode;

    use super::*;

    #[test]
    fn an_error_is_one_line() {
        let error = HostError::new(ErrorCode::VmmFailed, "it said\nno").remedy("ask again");
        assert_eq!(error_line(&error), r"error[vmm_failed]: it said\nno; ask again");
    }

    #[test]
    fn the_timeline_shows_every_phase() {
        let timings = Timings {
            path: Some("cold".to_owned()),
            vmm_spawn: Some(50.0),
            kernel: Some(100.0),
            execute: Some(50.0),
            ..Timings::default()
        };
        let text = timeline(&timings);
        assert_eq!(text.lines().count(), 9, "{text}");
        assert!(
            text.contains("kernel               100.0 ms            ████████████████████\n"),
            "{text}"
        );
        assert!(
            text.ends_with("total                200.0 ms  (cold)\n"),
            "{text}"
        );
    }

    #[test]
    fn code_that_ends_by_itself_needs_no_word() {
        let mut response = JobResponse {
            termination: Some(Termination::Exit),
            ..JobResponse::default()
        };
        assert_eq!(killed_by(&response, 2.0), None);
        response.termination = Some(Termination::Timeout { clock: Clock::Wall });
        assert_eq!(killed_by(&response, 2.0).unwrap(), "killed: timeout after 2 s");
    }
}

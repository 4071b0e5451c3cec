//! What the user sees of a job: its output as it comes, one line when something ended it, the timeline. Pure but for
//! [`Output`].

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::job::{Chunk, Clock, Timings};
use protocol::{Event, HostError, JobResponse, Termination};

/// Standard output and standard error, as long as somebody reads them.
#[derive(Debug, Default)]
pub(crate) struct Output {
    closed: bool,
}

impl Output {
    /// Passes a piece of output on, exact to the byte. Returns whether it still makes sense to go on.
    pub(crate) fn pass(&mut self, event: &Event) -> bool {
        let written = match event {
            Event::Started => Ok(()),
            Event::Stdout(chunk) => write_chunk(&mut io::stdout().lock(), chunk),
            Event::Stderr(chunk) => write_chunk(&mut io::stderr().lock(), chunk),
        };
        self.closed |= written.is_err();
        !self.closed
    }
}

fn write_chunk(to: &mut impl Write, chunk: &Chunk) -> io::Result<()> {
    match chunk
        .data_base64
        .as_ref()
        .and_then(|exact| STANDARD.decode(exact).ok())
    {
        Some(exact) => to.write_all(&exact)?,
        None => to.write_all(chunk.data.as_bytes())?,
    }
    to.flush()
}

/// The one line of an error.
pub(crate) fn error_line(error: &HostError) -> String {
    format!("error[{}]: {error}", error.code)
}

/// Says what ended the code, unless it ended by itself.
pub(crate) fn ended_by(response: &JobResponse, timeout: f64) -> Option<String> {
    let why = match response.termination.as_ref()? {
        Termination::Exit => return None,
        Termination::Signal { name } => format!("signal: {name}"),
        Termination::Timeout { clock: Clock::Wall } => format!("timeout: {timeout} s were up"),
        Termination::Timeout { clock: Clock::Cpu } => "timeout: its processor time was up".to_owned(),
        Termination::Oom { peak_bytes } => format!("oom: its memory was used up ({} MiB)", peak_bytes >> 20),
        Termination::OutputLimit { stream } => format!("output_limit: too much on {stream}"),
        Termination::PidsLimit { limit } => format!("pids_limit: more than {limit} processes"),
        Termination::DiskFull => "disk_full: its disk was full".to_owned(),
        Termination::Seccomp { syscall } => format!("seccomp: it called {syscall}"),
        Termination::VmCrash { console } => match console.last() {
            Some(last) => format!("vm_crash: its machine died (last on the console: {last})"),
            None => "vm_crash: its machine died".to_owned(),
        },
        Termination::Cancelled => "cancelled".to_owned(),
        Termination::HostDrain => "host_drain: the host was shut down".to_owned(),
    };
    Some(format!("ended by {why}"))
}

/// The phases of a job, aligned, with a bar that shows where the time went.
pub(crate) fn timeline(timings: &Timings) -> String {
    const BAR: f64 = 40.0;
    let phases = [
        ("VMM spawn", timings.vmm_spawn),
        ("API configuration", timings.configure),
        ("kernel", timings.kernel),
        ("init", timings.init),
        ("runner ready", timings.ready),
        ("connect", timings.connect),
        ("execute", timings.execute),
        ("shutdown", timings.shutdown),
    ];
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
    text + &format!(
        "{:<18} {whole:>7.1} ms  ({})\n",
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
        assert_eq!(ended_by(&response, 2.0), None);
        response.termination = Some(Termination::Timeout { clock: Clock::Wall });
        assert_eq!(ended_by(&response, 2.0).unwrap(), "ended by timeout: 2 s were up");
    }
}

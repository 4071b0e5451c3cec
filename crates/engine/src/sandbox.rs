//! A machine with a guest-runner that answers, for as long as somebody holds it.
//!
//! ```text
//! acquire ── boot ─► hello ─► Ready ── exec ─► Ready … ── destroy / drop ─► gone
//!                │       │       └─ the VMM dies: vm_crash, as the job's response
//!                └───────┴─ error: gone
//! ```

use std::time::{Duration, Instant};

use protocol::control::Boot;
use protocol::job::{Timings, Usage};
use protocol::{Event, Hello, JobRequest, JobResponse, Termination, limits};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use vmm::{Channel, Console, Machine, MachineConfig, Shutdown, VmmBinary, VmmError};

use crate::conversation::{Conversation, guarded};
use crate::error::EngineError;

/// What a guest may take beyond a job's own timeout: to confine it, to kill it, and to send what it wrote.
const SLACK: Duration = Duration::from_secs(20);
/// Lines of the console in the response to a job whose machine died.
const CRASH_LINES: usize = 20;
/// The exit code of a job that was killed.
const KILLED: i32 = 137;

/// A leased machine. Dropping it destroys it.
#[derive(Debug)]
pub struct Sandbox {
    machine: Machine,
    vcpus: u8,
    hello: Hello,
    /// How it came to be; the jobs' own phases are added to it.
    timings: Timings,
    began: Instant,
}

impl Sandbox {
    /// Boots a machine and waits until its guest-runner has said who it is.
    ///
    /// # Errors
    /// Whatever kept the machine from starting or the guest from answering by `deadline`; nothing is left behind then.
    pub async fn acquire(
        vmm: &VmmBinary,
        config: MachineConfig,
        deadline: Instant,
    ) -> Result<Self, EngineError> {
        let began = Instant::now();
        let vcpus = config.vcpus;
        let machine = Machine::boot(vmm, config).await?;
        let started = Instant::now();
        let asked = async {
            let channel = machine.connect(limits::CONTROL_PORT, deadline).await?;
            Conversation::new(channel).hello().await
        };
        let hello = guarded(asked, machine.failed(), deadline).await;
        let hello = hello.unwrap_or_else(|| Err(silent("hello", began, &machine.console())))?;
        let timings = Timings {
            boot: Some(milliseconds(began.elapsed())),
            ..cold(&machine, &hello.boot, started.elapsed())
        };
        Ok(Self::new(machine, vcpus, hello, timings, began))
    }

    pub(crate) fn new(machine: Machine, vcpus: u8, hello: Hello, timings: Timings, began: Instant) -> Self {
        Self {
            machine,
            vcpus,
            hello,
            timings,
            began,
        }
    }

    pub(crate) fn into_machine(self) -> Machine {
        self.machine
    }

    pub(crate) async fn connect(&self, port: u32, deadline: Instant) -> Result<Channel, VmmError> {
        self.machine.connect(port, deadline).await
    }

    /// Waits until the machine cannot go on. May be dropped and called again.
    pub async fn failed(&self) -> VmmError {
        self.machine.failed().await
    }

    /// Whether its VMM has ended, as the kernel says at this moment and perhaps nobody has noticed yet.
    #[must_use]
    pub fn has_died(&self) -> bool {
        let Some(pid) = i32::try_from(self.machine.pid()).ok().and_then(Pid::from_raw) else {
            return true;
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // One that has been reaped is no child any more.
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }

    /// What the machine takes of the host's memory and shares with no other, in bytes; `None` when the kernel does not tell.
    #[must_use]
    pub fn private_memory(&self) -> Option<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.machine.pid());
        private_dirty(&std::fs::read_to_string(path).ok()?)
    }

    /// From now on it counts as one that waited: what its restore took was not the next job's time.
    pub fn pooled(&mut self) {
        self.timings = Timings {
            path: Some("pool".to_owned()),
            ..Timings::default()
        };
    }

    /// The time that a job waited for its sandbox counts from there.
    pub fn leased(&mut self, since: Instant) {
        self.began = since;
    }

    /// What the guest is and can do.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The guest's serial console.
    #[must_use]
    pub fn console(&self) -> Console {
        self.machine.console()
    }

    /// The VMM's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.machine.pid()
    }

    /// Runs a job and passes its events on as they come (none unless the request says `stream`).
    ///
    /// A machine that dies under the job is an outcome of the job, not an error: its response then says `vm_crash`.
    ///
    /// # Errors
    /// The request is out of bounds, the machine failed before it had the job, or the guest broke the protocol or did not
    /// answer within the job's timeout and some slack. Only after the first of these is the sandbox of any further use.
    pub async fn exec(
        &mut self,
        request: &JobRequest,
        on_event: impl FnMut(Event),
    ) -> Result<JobResponse, EngineError> {
        request.validate().map_err(EngineError::Request)?;
        let asked = Instant::now();
        let deadline = asked + Duration::from_secs_f64(request.timeout) + SLACK;
        let channel = self.machine.connect(limits::JOB_PORT, deadline).await?;
        let mut conversation = Conversation::new(channel);
        let connected = Instant::now();
        let mut submitted = false;
        let answered = async {
            conversation.submit(request).await?;
            submitted = true;
            conversation.response(request, on_event).await
        };
        let answered = guarded(answered, self.machine.failed(), deadline).await;
        let mut response = match answered {
            Some(Ok(response)) => response,
            Some(Err(EngineError::Vmm(death @ VmmError::Died { .. }))) if submitted => {
                self.crashed(request, &death)
            }
            Some(Err(error)) => return Err(error),
            None => return Err(silent("the job", asked, &self.console())),
        };
        let host = self.machine.layers().iter().map(|layer| layer.name().to_owned());
        response.layers.extend(host);
        let execute = connected.elapsed();
        if let Some(usage) = &mut response.usage {
            plausible(usage, execute, self.vcpus);
        }
        let guest = response.timings.take().unwrap_or_default();
        response.timings = Some(Timings {
            confine: guest.confine,
            compile: guest.compile,
            exec: guest.exec,
            interpreter: guest.interpreter,
            connect: Some(milliseconds(connected - asked)),
            execute: Some(milliseconds(execute)),
            total: Some(milliseconds(self.began.elapsed())),
            ..self.timings.clone()
        });
        Ok(response)
    }

    /// Ends the machine; everything it had is released on return.
    pub async fn destroy(self) -> Shutdown {
        self.machine.shutdown().await
    }

    fn crashed(&self, request: &JobRequest, death: &VmmError) -> JobResponse {
        tracing::warn!(
            trace_id = request.trace_id,
            "The machine died under its job. {death}"
        );
        let console = self.console().tail_lines(CRASH_LINES);
        JobResponse {
            trace_id: request.trace_id.clone(),
            exit_code: KILLED,
            termination: Some(Termination::VmCrash { console }),
            ..JobResponse::default()
        }
    }
}

pub(crate) fn silent(request: &'static str, since: Instant, console: &Console) -> EngineError {
    EngineError::Silent {
        request,
        after: since.elapsed(),
        console: console.tail_lines(CRASH_LINES),
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Private_Dirty of a smaps_rollup (proc_pid_smaps(5)), in bytes.
fn private_dirty(rollup: &str) -> Option<u64> {
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// A guest cannot have used more than there was.
fn plausible(usage: &mut Usage, elapsed: Duration, vcpus: u8) {
    let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    usage.wall_ms = usage.wall_ms.min(elapsed);
    usage.cpu_ms = usage.cpu_ms.min(elapsed.saturating_mul(vcpus.into()));
}

/// The phases of a cold start. `answered` is the time from the machine's start to its hello.
///
/// The guest's clock starts somewhere in its kernel, so the kernel's part is what is left of the host's measure.
fn cold(machine: &Machine, boot: &Boot, answered: Duration) -> Timings {
    let host = machine.boot_timings();
    let phases = phases(boot, milliseconds(answered));
    Timings {
        path: Some("cold".to_owned()),
        vmm_spawn: Some(milliseconds(host.vmm_spawn)),
        configure: Some(milliseconds(host.configure)),
        kernel: phases.map(|(kernel, ..)| kernel),
        init: phases.map(|(_, init, _)| init),
        ready: phases.map(|(.., ready)| ready),
        ..Timings::default()
    }
}

/// Kernel, init and ready in milliseconds, which make up `answered`; none if the guest's account of it cannot be true.
fn phases(boot: &Boot, answered: f64) -> Option<(f64, f64, f64)> {
    let order = [0.0, boot.init, boot.listening, boot.now];
    let rises = order.windows(2).all(|pair| pair[0] <= pair[1]);
    let kernel = answered - (boot.now - boot.init);
    (rises && kernel >= 0.0).then(|| {
        let round = |number: f64| (number * 1e3).round() / 1e3;
        (
            round(kernel),
            round(boot.listening - boot.init),
            round(boot.now - boot.listening),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(init: f64, listening: f64, now: f64) -> Boot {
        Boot {
            init,
            listening,
            now,
            ..Boot::default()
        }
    }

    #[test]
    fn phases_add_up_to_what_the_host_measured() {
        assert_eq!(
            phases(&boot(500.0, 650.0, 651.5), 1000.0),
            Some((848.5, 150.0, 1.5))
        );
    }

    #[test]
    fn a_guest_s_impossible_clock_is_not_believed() {
        for boot in [
            boot(-1.0, 2.0, 3.0),
            boot(5.0, 2.0, 3.0),
            boot(1.0, 2.0, 1e9),
            boot(f64::NAN, 2.0, 3.0),
        ] {
            assert_eq!(phases(&boot, 1000.0), None, "{boot:?}");
        }
    }

    #[test]
    fn private_memory_is_read() {
        let rollup =
            "00400000-7fff ---p 00000000 00:00 0    [rollup]\nRss:  9 kB\nPrivate_Dirty:     18432 kB\n";
        assert_eq!(private_dirty(rollup), Some(18 << 20));
        assert_eq!(private_dirty("Rss: 9 kB\n"), None);
    }

    #[test]
    fn usage_is_at_most_what_there_was() {
        let mut usage = Usage {
            wall_ms: 99_999,
            cpu_ms: 99_999,
            peak_memory_bytes: None,
        };
        plausible(&mut usage, Duration::from_secs(1), 2);
        assert_eq!((usage.wall_ms, usage.cpu_ms), (1000, 2000));
    }
}

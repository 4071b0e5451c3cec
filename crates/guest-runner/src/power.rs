//! The end of the machine: asked for on the control port, or by Ctrl-Alt-Del, which is how Firecracker asks.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

use crate::sys;

/// How long written data may take to reach disks that are thrown away in most cases.
const SYNCING: Duration = Duration::from_millis(500);
/// How long an answer that is on its way may take to leave.
const FAREWELL: Duration = Duration::from_millis(20);

/// Makes Ctrl-Alt-Del a signal to PID 1, and that signal the end of the machine. To be called before any thread starts.
pub(crate) fn obey_ctrl_alt_del() -> io::Result<()> {
    let mut signals: File = sys::signals_as_file(&[libc::SIGINT, libc::SIGTERM])?;
    reboot(RebootCommand::CadOff)?;
    let wait = move || {
        // The size of a signalfd_siginfo.
        if signals.read(&mut [0; 128]).is_ok() {
            end();
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(crate::THREAD_STACK)
        .spawn(wait)?;
    Ok(())
}

/// Ends the machine, after an answer that was just given.
pub(crate) fn off() {
    std::thread::sleep(FAREWELL);
    end();
}

/// Ends the machine. A restart, which ends both VMMs: neither has a switch that a kernel without ACPI drivers can turn off.
pub(crate) fn end() {
    let (done, synced) = channel();
    let sync = move || {
        rustix::fs::sync();
        let _ = done.send(());
    };
    if std::thread::Builder::new()
        .stack_size(crate::THREAD_STACK)
        .spawn(sync)
        .is_ok()
    {
        let _ = synced.recv_timeout(SYNCING);
    }
    if let Err(error) = reboot(RebootCommand::Restart) {
        eprintln!("guest-runner: cannot end the machine: {error}");
    }
}

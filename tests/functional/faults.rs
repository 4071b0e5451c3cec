//! Something dies in mid-run. There is an answer, and nothing is left behind.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Host, process, skip};
use rustix::process::{Pid, Signal, kill_process};

const LONG: &str = "echo running; sleep 60";

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("a process id");
    kill_process(pid, Signal::KILL).expect("it lives");
}

#[test]
fn the_vmm_is_killed() {
    let host = Host::new();
    let run = host.run("bash", LONG).start();
    run.wait_for_stdout("running\n");
    kill(run.vmm());
    let killed = Instant::now();
    let finished = run.finish();
    assert!(
        killed.elapsed() < Duration::from_secs(5),
        "{:?}",
        killed.elapsed()
    );
    assert_eq!(finished.code(), 137);
    assert!(
        finished.stderr_text().contains("vm_crash"),
        "{}",
        finished.stderr_text()
    );
}

#[test]
fn the_vmm_is_killed_while_it_boots() {
    let host = Host::new();
    let run = host.run("bash", LONG).cold().arg("--json").start();
    let vmm = run.vmm();
    // It has to be up: one that dies earlier never started.
    thread::sleep(Duration::from_millis(500));
    kill(vmm);
    run.finish().refusal().is("vmm_died", "");
}

#[test]
fn ctrl_c() {
    let host = Host::new();
    let run = host.run("bash", LONG).start();
    run.wait_for_stdout("running\n");
    let interrupted = Instant::now();
    run.signal(Signal::INT);
    let finished = run.finish();
    assert!(
        interrupted.elapsed() < Duration::from_secs(5),
        "{:?}",
        interrupted.elapsed()
    );
    assert_eq!(finished.code(), 130);
    assert!(
        finished.stderr_text().contains("error[cancelled]"),
        "{}",
        finished.stderr_text()
    );
}

#[test]
fn ctrl_c_while_the_machine_boots() {
    let host = Host::new();
    let run = host.run("bash", LONG).start();
    let vmm = run.vmm();
    run.signal(Signal::INT);
    let finished = run.finish();
    assert_eq!(finished.code(), 130);
    assert!(!process::lives(vmm));
}

#[test]
fn host_agent_is_killed_and_the_next_start_cleans_up() {
    let host = Host::new();
    let run = host.run("bash", LONG).start();
    run.wait_for_stdout("running\n");
    let vmm = run.vmm();
    run.signal(Signal::KILL);
    run.finish();
    let machines = host.runtime().join("vms");
    assert_eq!(
        fs::read_dir(&machines).unwrap().count(),
        1,
        "a killed process cleans nothing"
    );

    host.run("bash", "echo next").answer().printed("next\n").exited(0);
    assert!(!process::lives(vmm));
    assert_eq!(fs::read_dir(&machines).unwrap().count(), 0);
}

#[test]
fn the_host_s_disk_is_full() {
    if !rustix::process::geteuid().is_root() {
        return skip("a small filesystem can be mounted by root only");
    }
    let host = Host::new();
    let runtime = host.runtime();
    // The mount is in a namespace of its own and goes with it.
    let script = format!(
        "mount -t tmpfs -o size=64k,mode=700 tmpfs {} && exec \"$@\"",
        runtime.display()
    );
    let run = host.run(
        "bash",
        "dd if=/dev/urandom of=big bs=64k count=64; sync; sleep 20",
    );
    let run = run.through(&[
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        &script,
        "sh",
    ]);
    let refusal = run.refusal();
    assert_eq!(refusal.code, "disk_full", "{refusal:?}");
}

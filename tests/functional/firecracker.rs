//! What only the Firecracker backend does.

use harness::{Host, backend_is, skip};

/// Milliseconds after which a machine that was told to end is killed.
const KILLED_AFTER: f64 = 1000.0;

/// From the timeline's line of that phase, in milliseconds.
fn phase(timeline: &str, name: &str) -> f64 {
    let line = timeline
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {timeline}"))
}

#[test]
fn ctrl_alt_del_ends_a_machine() {
    if !backend_is("firecracker") {
        return skip("QEMU's machines are killed at once");
    }
    let host = Host::new();
    let took = || {
        let run = host.run("bash", "true").arg("--timeline");
        phase(&run.finish().succeeded().stderr_text(), "shutdown")
    };
    // A machine that is killed has had its second; a busy host may take longer than that now and then.
    let tries: Vec<f64> = (0..5).map(|_| took()).collect();
    assert!(
        tries.iter().any(|&took| took < KILLED_AFTER),
        "killed every time: {tries:?} ms"
    );
}

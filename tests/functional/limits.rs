//! Code that takes too much ends, says of what, and the runner lives to tell it.

use std::time::Duration;

use harness::{Answer, Host};

/// Two seconds were up: the job ended between 2.0 and 2.5 s, by the guest's clock.
#[track_caller]
fn ended_after_two_seconds(answer: &Answer) {
    let wall = answer.wall();
    assert!(
        (Duration::from_secs(2)..=Duration::from_millis(2500)).contains(&wall),
        "{wall:?}"
    );
}

#[test]
fn time() {
    let host = Host::new();
    let answer = host
        .run("bash", "echo before; sleep 60")
        .args(["--timeout", "2"])
        .answer();
    let answer = answer.printed("before\n").ended_by("timeout", 124);
    assert_eq!(answer.json["termination"]["clock"], "wall");
    ended_after_two_seconds(&answer);
}

#[test]
fn time_of_a_process_that_has_cut_itself_loose() {
    let host = Host::new();
    let code = "
import os, signal, time
for _ in range(2):
    if os.fork():
        time.sleep(60)
    os.setsid()
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
print('loose', flush=True)
while True:
    pass
";
    let answer = host.run("python", code).args(["--timeout", "2"]).answer();
    let answer = answer.ended_by("timeout", 124);
    ended_after_two_seconds(&answer);
}

#[test]
fn processor_time() {
    let host = Host::new();
    let code = "while :; do :; done";
    let answer = host.run("bash", code).args(["--limit", "cpu_ms=1500"]).answer();
    let answer = answer.ended_by("timeout", 124);
    assert_eq!(answer.json["termination"]["clock"], "cpu");
    let used = answer.json["usage"]["cpu_ms"].as_u64().unwrap();
    assert!((1500..4000).contains(&used), "{used} ms");
}

#[test]
fn output() {
    let host = Host::new();
    let answer = host.run("bash", "yes").args(["--timeout", "60"]).answer();
    let answer = answer.ended_by("output_limit", 137);
    assert_eq!(answer.json["termination"]["stream"], "stdout");
    assert_eq!(answer.json["truncated"]["stdout"], true);
    assert_eq!(answer.stdout().len(), 1 << 20);
}

#[test]
fn processes() {
    let host = Host::new();
    let answer = host.run("bash", "bomb() { bomb | bomb & }; bomb; sleep 20");
    let answer = answer.args(["--timeout", "30"]).answer();
    let answer = answer.ended_by("pids_limit", 137);
    assert_eq!(answer.json["termination"]["limit"], 256);
}

#[test]
fn memory() {
    let host = Host::new();
    let code = "hog = []\nwhile True: hog.append(bytearray(b'x') * (8 << 20))";
    let answer = host.run("python", code).time_enough(60).answer();
    let answer = answer.ended_by("oom", 137);
    let peak = answer.json["termination"]["peak_bytes"].as_u64().unwrap();
    assert!(peak > 128 << 20, "{peak} bytes");
    // So close to the limit the kernel would rather read the program from the disk for minutes than kill it.
    let code = "hog = []\nwhile True: hog.append(bytearray(1 << 20))";
    let answer = host.run("python", code).args(["--timeout", "60"]).answer();
    answer.ended_by("oom", 137);
}

#[test]
fn disk() {
    let host = Host::new();
    let answer = host.run("bash", "dd if=/dev/zero of=big bs=1M count=4096");
    let answer = answer.time_enough(120).within(Duration::from_secs(180)).answer();
    answer.ended_by("disk_full", 137);
}

#[test]
fn a_signal_is_named() {
    let host = Host::new();
    let answer = host.run("bash", "kill -SEGV $$; sleep 5").answer();
    let answer = answer.ended_by("signal", 139);
    assert_eq!(answer.json["termination"]["name"], "SIGSEGV");
}

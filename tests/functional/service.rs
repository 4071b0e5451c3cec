//! `serve`: jobs over its socket, by `run` or any other client, and machines kept ready for them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Host, Service, Snapshots, process};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const ECHO: &str = "echo hi";

fn echo() -> Value {
    json!({ "lang": "bash", "code": ECHO })
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("a process id");
    kill_process(pid, Signal::KILL).expect("it lives");
}

/// A service that keeps that many machines ready, and nothing else.
fn with_pool(host: &Host, size: &str) -> Service {
    let service = host.serve(&["--pool", size, "--prespawned", "0"]);
    service.wait_until_ready();
    service
}

#[test]
fn run_finds_it_and_a_machine_is_ready() {
    let host = Host::new();
    let service = with_pool(&host, "1");
    host.run("bash", ECHO)
        .answer()
        .took("pool", "parked")
        .printed("hi\n")
        .exited(0);
    // The next one may not be ready yet, but the one that was used is gone for good.
    assert_eq!(service.pool("base")["counts"]["ready"], 1);
    let boots = host.run("bash", ECHO).cold().answer();
    boots.took("cold", "fresh").printed("hi\n").exited(0);
    service.stop();
    host.run("bash", ECHO)
        .answer()
        .took("restore", "parked")
        .printed("hi\n")
        .exited(0);
}

#[test]
fn the_timeline_names_the_path() {
    let host = Host::new();
    let timeline = |cold: bool| {
        let run = host.run("bash", ECHO).arg("--timeline");
        let run = if cold { run.cold() } else { run };
        run.finish().succeeded().stderr_text().to_lowercase()
    };
    assert!(timeline(true).contains("cold"));
    let restored = timeline(false);
    assert!(
        restored.contains("restore") && restored.contains("parked"),
        "{restored}"
    );
    let service = with_pool(&host, "1");
    let pooled = timeline(false);
    assert!(pooled.contains("pool") && pooled.contains("parked"), "{pooled}");
    service.stop();
}

#[test]
fn run_streams_through_it() {
    let host = Host::new();
    let service = with_pool(&host, "0");
    let run = host
        .run("bash", "echo early; echo oops >&2; sleep 2; echo late; exit 5")
        .start();
    run.wait_for_stdout("early\n");
    let early = Instant::now();
    run.wait_for_stdout("late\n");
    assert!(
        early.elapsed() > Duration::from_millis(1500),
        "{:?}",
        early.elapsed()
    );
    let finished = run.finish();
    assert_eq!(finished.code(), 5);
    assert_eq!(finished.stdout_text(), "early\nlate\n");
    assert!(finished.stderr_text().contains("oops\n"));
    let bytes = host
        .run("bash", r"printf 'gr\xc3'; sleep 0.2; printf '\xbc\xc3\x9f\xff\n'")
        .finish();
    assert_eq!(bytes.stdout, b"gr\xc3\xbc\xc3\x9f\xff\n");
    service.stop();
}

#[test]
fn ctrl_c_of_the_client_ends_the_machine() {
    let host = Host::new();
    let service = with_pool(&host, "0");
    let run = host.run("bash", "echo running; sleep 60").start();
    run.wait_for_stdout("running\n");
    let machines = service.process().vmms();
    assert_eq!(machines.len(), 1, "one machine, for that job");
    run.signal(Signal::INT);
    assert_eq!(run.finish().code(), 130);
    let interrupted = Instant::now();
    service.wait_until("the machine is gone", || !process::lives(machines[0]));
    assert!(
        interrupted.elapsed() < Duration::from_millis(1500),
        "{:?}",
        interrupted.elapsed()
    );
    service.stop();
}

#[test]
fn a_client_that_hangs_up_ends_its_machine() {
    let host = Host::new();
    let service = with_pool(&host, "0");
    let mut events = service.events(&json!({ "lang": "bash", "code": "echo running; sleep 60" }));
    assert!(events.any(|moment| moment.event == "stdout"));
    let machines = service.process().vmms();
    drop(events);
    service.wait_until("the machine is gone", || !process::lives(machines[0]));
    service.stop();
}

#[test]
fn jobs_end_as_they_do_without_it() {
    let host = Host::new();
    let service = with_pool(&host, "0");
    host.run("bash", "exit 42").answer().exited(42);
    host.run("bash", "kill -SEGV $$; sleep 5")
        .answer()
        .ended_by("signal", 139);
    host.run("bash", "sleep 60")
        .args(["--timeout", "1"])
        .answer()
        .ended_by("timeout", 124);
    let hog = "hog = []\nwhile True: hog.append(bytearray(b'x') * (8 << 20))";
    let hog = host.run("python", hog).time_enough(60);
    hog.answer().ended_by("oom", 137);
    let killed = host.run("bash", "sleep 60").args(["--timeout", "1"]).finish();
    assert_eq!(killed.code(), 124);
    assert!(
        killed.stderr_text().contains("timeout"),
        "{}",
        killed.stderr_text()
    );
    let input = host.file("in.txt", "from a file\n");
    let output = host.path("out.txt");
    let copies = host.run("bash", "cat in.txt >out.txt");
    let copies = copies
        .arg("--file")
        .arg(input)
        .arg("--collect")
        .arg(format!("out.txt:{}", output.display()));
    copies.finish().succeeded();
    assert_eq!(fs::read_to_string(output).unwrap(), "from a file\n");
    let refused = host
        .run("bash", "true")
        .args(["--cwd", "/proc/nowhere"])
        .refusal();
    refused.is("invalid_request", "cwd");
    service.stop();
}

#[test]
fn what_it_cannot_run_is_run_without_it() {
    let host = Host::new();
    let service = with_pool(&host, "0");
    let run = host.run("bash", "nproc").args(["--vcpus", "2"]);
    run.answer().took("cold", "fresh").printed("2\n").exited(0);
    let run = host.run("bash", ECHO).args(["--kernel-arg", "nothing.at.all"]);
    run.answer().took("cold", "fresh").exited(0);
    service.stop();
}

#[test]
fn bad_requests_are_problems() {
    let host = Host::new();
    let service = with_pool(&host, "0");
    let refused = |body: &str, status| service.post("/v1/execute", body.as_bytes()).refusal(status);
    refused("{", 400).is("invalid_request", "not a job");
    refused("\u{0}", 400).is("invalid_request", "not a job");
    refused("[]", 400).is("invalid_request", "not a job");
    refused(r#"{"lang":"bash"}"#, 400).is("invalid_request", "code");
    refused(r#"{"lang":"cobol","code":"x"}"#, 400).is("unknown_language", "cobol");
    refused(r#"{"lang":"bash","code":" "}"#, 400).is("empty_code", "empty");
    refused(r#"{"lang":"bash","code":"x","timeout":0}"#, 400).is("invalid_timeout", "");
    refused(r#"{"lang":"bash","code":"x","template":"none"}"#, 400).is("invalid_request", "none");
    refused(
        &format!(r#"{{"lang":"bash","code":"{}"}}"#, "#".repeat((1 << 20) + 1)),
        413,
    )
    .is("code_too_large", "1048576");
    refused(&" ".repeat((33 << 20) + 1), 413).is("request_too_large", "");
    service
        .post("/v2/execute", b"{}")
        .refusal(404)
        .is("not_found", "path");
    service
        .get("/v1/execute")
        .refusal(405)
        .is("method_not_allowed", "");
    let error = service.events_refused(&json!({ "lang": "bash", "code": "" }));
    error.refusal(400).is("empty_code", "");
    // It has come to no harm.
    service.execute(&echo()).printed("hi\n").exited(0);
    service.stop();
}

#[test]
fn jobs_wait_for_their_turn_or_are_told_when_to_come_again() {
    let host = Host::new();
    let service = host.serve(&["--pool", "0", "--prespawned", "0", "--jobs", "1", "--queue", "1"]);
    service.wait_until_ready();
    let jobs = || service.get("/readyz").json()["jobs"].clone();
    let mut first = service.events(&json!({ "lang": "bash", "code": "echo running; sleep 60" }));
    assert!(first.any(|moment| moment.event == "stdout"));
    let post = |job: Value| service.post("/v1/execute", job.to_string().as_bytes());
    let impatient = post(json!({ "lang": "bash", "code": ECHO, "queue_timeout": 0 }));
    impatient.refusal(503).is("queue_full", "it would wait for about");
    let invalid = post(json!({ "lang": "bash", "code": ECHO, "queue_timeout": -1 }));
    invalid.refusal(400).is("invalid_request", "queue_timeout");
    thread::scope(|scope| {
        let second = scope.spawn(|| service.execute(&echo()));
        service.wait_until("it waits", || jobs() == json!({ "running": 1, "waiting": 1 }));
        let third = post(echo());
        third.refusal(503).is("queue_full", "the queue is full");
        assert!(third.number("retry-after") > 0);
        // Who hangs up makes room.
        drop(first);
        let second = second.join().unwrap();
        assert!(
            second.json["timings"]["queue"].as_f64().unwrap() > 0.0,
            "{:?}",
            second.json
        );
        second.printed("hi\n").exited(0);
    });
    assert_eq!(jobs(), json!({ "running": 0, "waiting": 0 }));
    service.stop();
}

#[test]
fn what_only_waits_is_refused_when_the_service_ends() {
    let host = Host::new();
    let service = host.serve(&["--pool", "0", "--prespawned", "0", "--jobs", "1"]);
    service.wait_until_ready();
    thread::scope(|scope| {
        let mut running =
            service.events(&json!({ "lang": "bash", "code": "echo running; sleep 3; echo done" }));
        assert!(running.any(|moment| moment.event == "stdout"));
        let waiting = scope.spawn(|| service.post("/v1/execute", echo().to_string().as_bytes()));
        service.wait_until("it waits", || {
            service.get("/readyz").json()["jobs"]["waiting"] == 1
        });
        service.process().signal(Signal::TERM);
        let refused = waiting.join().unwrap();
        refused.refusal(503).is("queue_full", "being stopped");
        let last = running.last().unwrap();
        assert_eq!(
            (last.event.as_str(), &last.data["exit_code"]),
            ("result", &json!(0))
        );
    });
    service.ended();
}

#[test]
fn a_pool_over_the_memory_budget_is_refused() {
    let host = Host::new();
    let serve = host
        .verb("serve")
        .args(["--pool", "8", "--memory-budget", "100M"]);
    let refusal = serve.refusal();
    refusal.is("invalid_request", "");
    assert!(
        refusal.cause.contains("budget") && refusal.remedy.contains("--pool"),
        "{refusal:?}"
    );
}

#[test]
fn a_second_one_in_the_same_place_is_refused() {
    let host = Host::new();
    let service = with_pool(&host, "0");
    host.verb("serve").refusal().is("state_unusable", "agent.sock");
    service.execute(&echo()).printed("hi\n").exited(0);
    service.stop();
}

#[test]
fn one_that_was_killed_leaves_nothing_after_the_next_start() {
    let host = Host::new();
    let service = with_pool(&host, "2");
    let job = thread::scope(|scope| {
        let client = scope.spawn(|| host.run("bash", "echo running; sleep 60").start());
        let job = client.join().unwrap();
        job.wait_for_stdout("running\n");
        job
    });
    let machines = service.process().vmms();
    assert!(machines.len() >= 2, "{machines:?}");
    service.kill();
    assert_eq!(job.finish().refusal_line().code, "internal");

    let service = with_pool(&host, "0");
    assert!(!machines.into_iter().any(process::lives));
    assert_eq!(fs::read_dir(host.runtime().join("vms")).unwrap().count(), 0);
    service.execute(&echo()).printed("hi\n").exited(0);
    service.stop();
}

#[test]
fn a_machine_that_dies_while_it_waits_is_replaced() {
    let host = Host::new();
    let service = with_pool(&host, "1");
    for _ in 0..3 {
        let &[waiting] = service.process().vmms().as_slice() else {
            panic!("one machine waits");
        };
        kill(waiting);
        while process::lives(waiting) {
            thread::yield_now();
        }
        // At once: whether or not the pool knows, it must not be handed out.
        service.execute(&echo()).printed("hi\n").exited(0);
        service.wait_until("another one waits", || {
            let machines = service.process().vmms();
            service.pool("base")["idle"] == 1 && machines.len() == 1 && machines[0] != waiting
        });
    }
    service.stop();
}

#[test]
fn a_vmm_that_dies_while_it_waits_for_a_snapshot_is_replaced() {
    let host = Host::new();
    let service = host.serve(&["--pool", "0", "--prespawned", "1"]);
    service.wait_until("one waits", || service.pool("base")["prespawned"] == 1);
    let &[waiting] = service.process().vmms().as_slice() else {
        panic!("one VMM waits");
    };
    kill(waiting);
    service.execute(&echo()).printed("hi\n").exited(0);
    service.stop();
}

#[test]
fn a_hundred_at_once_with_eight_ready() {
    let host = Host::new();
    // More than a quarter of what a small host has available.
    let service = host.serve(&["--pool", "8", "--memory-budget", "2G"]);
    service.wait_until_ready();
    let failures: Vec<String> = thread::scope(|scope| {
        let service = &service;
        let jobs: Vec<_> = (0..100)
            .map(|number| {
                scope.spawn(move || {
                    let code = format!("echo {number}");
                    let reply = service.post(
                        "/v1/execute",
                        json!({ "lang": "bash", "code": code }).to_string().as_bytes(),
                    );
                    (reply.status != 200 || reply.json()["stdout"] != format!("{number}\n"))
                        .then(|| reply.text())
                })
            })
            .collect();
        jobs.into_iter().filter_map(|job| job.join().unwrap()).collect()
    });
    assert!(
        failures.is_empty(),
        "{} of 100 failed: {failures:?}",
        failures.len()
    );
    service.stop();
}

#[test]
fn jobs_boot_while_the_snapshot_is_being_built() {
    let host = Host::with_own_state(Snapshots::Absent);
    let service = host.serve(&["--pool", "1", "--prespawned", "0"]);
    let slow = service.get("/readyz").json();
    assert_eq!(slow["ready"], true);
    assert!(slow["slow"]["base"].is_string(), "{slow}");
    service.wait_until("it says so", || {
        let slow = service.get("/readyz").json();
        slow["slow"]["base"]
            .as_str()
            .is_some_and(|why| why.contains("being built"))
    });
    service
        .execute(&echo())
        .took("cold", "fresh")
        .printed("hi\n")
        .exited(0);
    service.wait_until_ready();
    service
        .execute(&echo())
        .took("pool", "parked")
        .printed("hi\n")
        .exited(0);
    service.stop();
}

#[test]
fn sigterm_waits_for_jobs_and_leaves_nothing() {
    let host = Host::new();
    let service = with_pool(&host, "2");
    let job = host.run("bash", "echo running; sleep 3; echo done").start();
    job.wait_for_stdout("running\n");
    service.stop();
    let finished = job.finish().succeeded();
    assert_eq!(finished.stdout_text(), "running\ndone\n");
    assert_eq!(host.left_behind(), [""; 0]);
}

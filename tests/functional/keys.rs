//! API keys, and what `serve --listen` does for who has one.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::{Host, Reply, Service, Snapshots};
use serde_json::{Value, json};

/// One verb of `host-agent api-key`, and what it printed as JSON.
fn api_key(host: &Host, arguments: &[&str]) -> Value {
    let done = host
        .verb("api-key")
        .args(arguments)
        .arg("--json")
        .finish()
        .succeeded();
    serde_json::from_slice(&done.stdout).expect("JSON")
}

/// A new key: its id, and all of it.
fn create(host: &Host, arguments: &[&str]) -> (String, String) {
    let made = api_key(host, &[&["create"], arguments].concat());
    let text = |field: &str| made[field].as_str().expect("a text").to_owned();
    (text("id"), text("key"))
}

fn listening(host: &Host) -> Service {
    let service = host.serve(&["--pool", "0", "--prespawned", "0", "--listen", "127.0.0.1:0"]);
    service.wait_until_ready();
    service
}

fn with_key(service: &Service, key: &str, job: &Value) -> Reply {
    let headers = format!("Authorization: Bearer {key}\r\n");
    service.over_tcp("POST", "/v1/execute", job.to_string().as_bytes(), &headers)
}

#[test]
fn only_a_good_key_opens_the_port() {
    let host = Host::with_own_state(Snapshots::Copied);
    let (id, key) = create(&host, &["acme"]);
    let service = listening(&host);
    let echo = json!({ "lang": "bash", "code": "echo hi" });
    let answered = with_key(&service, &key, &echo);
    assert_eq!(
        (answered.status, &answered.json()["stdout"]),
        (200, &json!("hi\n")),
        "{}",
        answered.text()
    );

    let none = service.over_tcp("POST", "/v1/execute", b"{}", "");
    assert_eq!(none.headers["www-authenticate"], "Bearer");
    none.refusal(401).is("unauthorized", "no key");
    let other = if key.ends_with('A') { 'E' } else { 'A' };
    let wrong = format!("{}{other}", &key[..key.len() - 1]);
    for wrong in [wrong.as_str(), "rc_", "é"] {
        let refused = with_key(&service, wrong, &echo).refusal(401);
        refused.is("unauthorized", "");
    }
    service
        .over_tcp("GET", "/v1/pool", b"", "")
        .refusal(401)
        .is("unauthorized", "");
    service
        .over_tcp("GET", "/readyz", b"", "")
        .refusal(401)
        .is("unauthorized", "");
    assert_eq!(service.over_tcp("GET", "/healthz", b"", "").text(), "ok\n");

    let (_, observer) = create(&host, &["acme", "--scope", "observe"]);
    with_key(&service, &observer, &echo)
        .refusal(403)
        .is("forbidden", "execute");
    let headers = format!("Authorization: Bearer {observer}\r\n");
    assert_eq!(service.over_tcp("GET", "/v1/pool", b"", &headers).status, 200);

    let (_, expired) = create(&host, &["acme", "--expires-in", "0s"]);
    with_key(&service, &expired, &echo)
        .refusal(401)
        .is("unauthorized", "expired");

    let rotated = api_key(&host, &["rotate", &id]);
    let new = rotated["key"].as_str().unwrap();
    assert_eq!(with_key(&service, new, &echo).status, 200);
    with_key(&service, &key, &echo)
        .refusal(401)
        .is("unauthorized", "expired");
    api_key(&host, &["revoke", rotated["id"].as_str().unwrap()]);
    with_key(&service, new, &echo)
        .refusal(401)
        .is("unauthorized", "revoked");

    let listed = host.verb("api-key").arg("list").finish().succeeded();
    let text = listed.stdout_text();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(!text.contains(&key[20..]) && !service.process().stderr_text().contains(&key[20..]));
    service.stop();
}

#[test]
fn run_uses_a_service_that_is_named() {
    let host = Host::with_own_state(Snapshots::Copied);
    let (_, key) = create(&host, &["acme"]);
    let service = listening(&host);
    // Somewhere else, where there is nothing to run anything with.
    let elsewhere = Host::new();
    let url = format!("http://{}", service.address());
    let run = |code: &str| {
        let run = elsewhere.run("bash", code).args(["--server", &url]);
        run.env("RUNNER_CODES_API_KEY", &key)
            .env("RUNNER_CODES_STATE_DIR", "/nonexistent")
    };
    let finished = run("echo out; echo err >&2; exit 5").finish();
    assert_eq!((finished.code(), finished.stdout_text().as_str()), (5, "out\n"));
    assert!(finished.stderr_text().contains("err\n"));
    run("echo hi")
        .answer()
        .took("restore", "parked")
        .printed("hi\n")
        .exited(0);
    let input = elsewhere.file("in.txt", "from a file\n");
    let output = elsewhere.path("out.txt");
    let copies = run("cat in.txt >out.txt").arg("--file").arg(input);
    let copies = copies
        .arg("--collect")
        .arg(format!("out.txt:{}", output.display()));
    copies.finish().succeeded();
    assert_eq!(fs::read_to_string(output).unwrap(), "from a file\n");
    let wrong = run("echo hi").args(["--key", "rc_0_0"]).refusal();
    wrong.is("unauthorized", "unknown");
    for (url, cause) in [
        ("https://a", "only http"),
        ("http://a/b", "path"),
        ("x y", "no URL"),
    ] {
        let refused = elsewhere.run("bash", "true").args(["--server", url]).refusal();
        refused.is("invalid_request", cause);
    }
    service.stop();
    run("echo hi").refusal().is("service_unreachable", "refused");
}

#[test]
fn what_a_key_allows_is_a_bound() {
    let host = Host::with_own_state(Snapshots::Copied);
    let limits = ["--rate", "3", "--max-timeout", "5", "--max-memory", "1G"];
    let (_, key) = create(&host, &[&["small"], limits.as_slice()].concat());
    let service = listening(&host);
    let job = |timeout: f64| json!({ "lang": "bash", "code": "echo hi", "timeout": timeout });
    let long = with_key(&service, &key, &job(6.0));
    assert_eq!(
        (long.number("ratelimit-limit"), long.number("ratelimit-remaining")),
        (3, 2)
    );
    long.refusal(400).is("invalid_timeout", "the key allows 5");
    let mut large = job(5.0);
    large["memory_mib"] = json!(2048);
    with_key(&service, &key, &large)
        .refusal(403)
        .is("forbidden", "the key allows 1024");
    // What it does not speak of is as the service has it.
    let mut wide = job(5.0);
    wide["vcpus"] = json!(8);
    with_key(&service, &key, &wide)
        .refusal(403)
        .is("forbidden", "8 processors, and the key allows 1024 and 1");
    let third = with_key(&service, &key, &job(5.0));
    assert!((1..=21).contains(&third.number("retry-after")));
    assert_eq!(third.number("ratelimit-remaining"), 0);
    third.refusal(429).is("rate_limited", "3 jobs a minute");
    // Who is on the machine has no such limit.
    service.execute(&job(6.0)).printed("hi\n").exited(0);
    service.stop();
}

#[test]
fn a_port_needs_a_key_and_stays_on_the_machine() {
    let host = Host::with_own_state(Snapshots::Copied);
    let listen = |address: &str| host.verb("serve").args(["--listen", address]);
    listen("127.0.0.1:0")
        .refusal()
        .is("unauthorized", "there is none");
    let refused = listen("0.0.0.0:0").refusal();
    refused.is("invalid_request", "0.0.0.0");
    assert!(refused.remedy.contains("TLS"), "{refused:?}");
    create(&host, &["a"]);
    let local = host.verb("api-key").args(["create", "local"]);
    local.refusal().is("invalid_request", "needs no key");
    let (expired, _) = create(&host, &["a", "--expires-in", "0s"]);
    let rotate = host.verb("api-key").args(["rotate", &expired]);
    rotate.refusal().is("invalid_request", "is expired");
    let unknown = host.verb("api-key").args(["revoke", "0000000000000000"]);
    unknown.refusal().is("invalid_request", "there is no key");
    let name = host.verb("api-key").args(["create", "Not A Name"]).finish();
    assert_eq!(name.code(), 2);
    assert!(name.stderr_text().contains("a-z"), "{}", name.stderr_text());
}

#[test]
fn slow_and_endless_clients_do_not_hold_up_others() {
    let host = Host::with_own_state(Snapshots::Copied);
    let (_, key) = create(&host, &["acme"]);
    let service = listening(&host);
    let connect = || {
        let connection = TcpStream::connect(service.address()).unwrap();
        connection
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        connection
    };
    // Heads that never end, and one that is too long.
    let slow: Vec<_> = (0..200)
        .map(|_| {
            let mut connection = connect();
            connection.write_all(b"POST /v1/execute HTTP/1.1\r\nX: ").unwrap();
            connection
        })
        .collect();
    let mut endless = connect();
    let head = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(1 << 20));
    let _ = endless.write_all(head.as_bytes());
    let mut answer = String::new();
    let _ = endless.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    // A body that is announced and would be too long is not waited for.
    let mut large = connect();
    let head = format!(
        "POST /v1/execute HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 104857600\r\n\r\n"
    );
    large.write_all(head.as_bytes()).unwrap();
    let mut start = [0; 12];
    large.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    let answered = with_key(&service, &key, &json!({ "lang": "bash", "code": "echo hi" }));
    assert_eq!(answered.json()["stdout"], "hi\n");
    drop(slow);
    service.stop();
}

//! The service's HTTP: what it says, and what it does with clients that mean no good. On a machine that answers at once, which is
//! the service's own affair: no VM is started here.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use harness::{Host, Reply, Service};
use serde_json::{Value, json};

/// How long a client waits for the service.
const DEADLINE: Duration = Duration::from_secs(100);
const MIB: usize = 1 << 20;

/// A new key of that tenant.
fn key(host: &Host, tenant: &str, more: &[&str]) -> String {
    let create = host.verb("api-key").args(["create", tenant, "--json"]).args(more);
    let made: Value = serde_json::from_slice(&create.finish().succeeded().stdout).expect("JSON");
    made["key"].as_str().expect("a key").to_owned()
}

/// A service whose machines take so long, and a key to it.
fn instant(host: &Host, takes: &str, more: &[&str]) -> (Service, String) {
    let key = key(host, "acme", &[]);
    let service = host.serve(&[&["--instant-machine", takes, "--listen", "127.0.0.1:0"], more].concat());
    (service, key)
}

fn connect(service: &Service) -> TcpStream {
    let connection = TcpStream::connect(service.address()).expect("it listens");
    let limited = connection.set_read_timeout(Some(DEADLINE));
    limited
        .and_then(|()| connection.set_write_timeout(Some(DEADLINE)))
        .expect("a socket takes timeouts");
    connection
}

/// What is answered to these bytes, after which the client sends no more.
fn raw(service: &Service, bytes: &[u8]) -> Reply {
    let mut connection = connect(service);
    // A service that refuses a request need not read all of it.
    let _ = connection.write_all(bytes);
    let _ = connection.shutdown(std::net::Shutdown::Write);
    Reply::read(BufReader::new(connection))
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn job() -> Value {
    json!({ "lang": "bash", "code": "echo hi" })
}

/// It must be a problem that carries its trace id twice.
#[track_caller]
fn refused(reply: &Reply, status: u16, code: &str) {
    reply.refusal(status).is(code, "");
    assert_eq!(
        reply.json()["trace_id"],
        reply.headers["x-trace-id"].as_str(),
        "{}",
        reply.text()
    );
}

/// A number of a status file (proc_pid_status(5)), in bytes.
fn memory(service: &Service, field: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", service.process().pid())).expect("it lives");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .expect("the field");
    let kibibytes: usize = line
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number");
    kibibytes << 10
}

/// A metric of the service.
#[track_caller]
fn metric(service: &Service, name: &str) -> f64 {
    let text = service.get("/metrics").text();
    let value = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.strip_prefix("{}").unwrap_or(rest).strip_prefix(' ')
    });
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

#[test]
fn what_there_is_can_be_looked_up() {
    let host = Host::without_images();
    let (service, key) = instant(&host, "0s", &[]);
    let languages = service.get("/v1/languages").json()["languages"].clone();
    let names: Vec<_> = languages
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["python", "bash", "node", "rust", "ruby"]);
    assert_eq!(languages[0]["template"], "base");
    let templates = service.get("/v1/templates").json();
    assert_eq!(templates["templates"][1]["name"], "rust");
    assert_eq!(service.get("/v1/pool").json()["keys"], json!([]));
    assert_eq!(
        service.get("/readyz").json()["jobs"],
        json!({ "running": 0, "waiting": 0 })
    );
    assert_eq!(service.get("/healthz").text(), "ok\n");
    // Documents are for everybody, and the rest for whoever has the scope.
    let tcp = |path: &str, headers: &str| service.over_tcp("GET", path, b"", headers);
    let document = tcp("/v1/openapi.json", "").json();
    assert_eq!(
        document["openapi"].as_str().map(|version| &version[..3]),
        Some("3.1")
    );
    assert!(document["paths"]["/v1/execute"]["post"].is_object());
    for closed in ["/v1/languages", "/v1/templates", "/metrics", "/v1/pool"] {
        refused(&tcp(closed, ""), 401, "unauthorized");
    }
    let runs_only = self::key(&host, "other", &["--scope", "execute"]);
    assert_eq!(tcp("/v1/languages", &bearer(&runs_only)).status, 200);
    refused(&tcp("/metrics", &bearer(&runs_only)), 403, "forbidden");
    assert_eq!(tcp("/metrics", &bearer(&key)).status, 200);
    service.stop();
}

#[test]
fn the_documentation_needs_no_other_host() {
    let host = Host::without_images();
    let (service, _) = instant(&host, "0s", &[]);
    let page = service.over_tcp("GET", "/docs", b"", "");
    assert_eq!(
        (page.status, page.content_type.as_str()),
        (200, "text/html; charset=utf-8")
    );
    let policy = &page.headers["content-security-policy"];
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let text = page.text();
    assert!(
        text.contains("/v1/openapi.json") && !text.contains("https://"),
        "{text}"
    );
    service.stop();
}

#[test]
fn every_answer_has_its_trace_id() {
    let host = Host::without_images();
    let (service, key) = instant(&host, "0s", &[]);
    let execute = |job: &Value, headers: &str| {
        let headers = bearer(&key) + headers;
        let reply = service.over_tcp("POST", "/v1/execute", job.to_string().as_bytes(), &headers);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["trace_id"], reply.headers["x-trace-id"].as_str());
        reply.headers["x-trace-id"].clone()
    };
    let parent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    assert_eq!(execute(&job(), "").len(), 32);
    assert_eq!(execute(&job(), parent), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(execute(&job(), &format!("{parent}X-Trace-Id: mine\r\n")), "mine");
    let named = json!({ "lang": "bash", "code": "x", "trace_id": "the job's" });
    assert_eq!(execute(&named, parent), "the job's");
    let invalid = service.over_tcp("POST", "/v1/execute", b"{}", &(bearer(&key) + parent));
    refused(&invalid, 400, "invalid_request");
    assert_eq!(invalid.headers["x-trace-id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let bad = json!({ "lang": "bash", "code": "x", "trace_id": "a\nb" }).to_string();
    refused(
        &service.post("/v1/execute", bad.as_bytes()),
        400,
        "invalid_request",
    );
    let mut events = service.events(&json!({ "lang": "bash", "code": "hi", "trace_id": "streamed" }));
    assert!(events.any(|moment| moment.event == "stdout" && moment.data["data"] == "hi"));
    let last = events.last().expect("a result");
    assert_eq!(
        (last.event.as_str(), &last.data["trace_id"]),
        ("result", &json!("streamed"))
    );
    drop(last);
    service.stop();
}

#[test]
fn what_http_itself_forbids_is_a_problem_too() {
    let host = Host::without_images();
    let (service, key) = instant(&host, "0s", &[]);
    let with = |method: &str, path: &str, headers: &str| {
        service.over_tcp(
            method,
            path,
            job().to_string().as_bytes(),
            &(bearer(&key) + headers),
        )
    };
    refused(&with("GET", "/v2/execute", ""), 404, "not_found");
    refused(&with("GET", "/v1/%ff", ""), 404, "not_found");
    let wrong = with("PUT", "/v1/execute", "");
    assert_eq!(wrong.headers["allow"], "POST");
    refused(&wrong, 405, "method_not_allowed");
    refused(&with("BREW", "/v1/execute", ""), 405, "method_not_allowed");
    refused(&with("POST", "/v1/languages", ""), 405, "method_not_allowed");
    refused(
        &with("POST", "/v1/execute", "Accept: text/html\r\n"),
        406,
        "not_acceptable",
    );
    refused(
        &with("GET", "/v1/languages", "Accept: text/event-stream\r\n"),
        406,
        "not_acceptable",
    );
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    refused(&with("POST", "/v1/execute", form), 415, "unsupported_media_type");
    refused(
        &with("POST", "/v1/execute", "Content-Encoding: gzip\r\n"),
        415,
        "unsupported_media_type",
    );
    assert_eq!(
        with(
            "POST",
            "/v1/execute",
            "Content-Type: application/json; charset=utf-8\r\n"
        )
        .status,
        200
    );

    // What never becomes a request.
    refused(
        &raw(&service, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        400,
        "invalid_request",
    );
    refused(
        &raw(
            &service,
            b"POST /v1/execute HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n",
        ),
        400,
        "invalid_request",
    );
    let fields: String = (0..1000).map(|field| format!("X-{field}: y\r\n")).collect();
    let flood = format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    refused(&raw(&service, flood.as_bytes()), 431, "request_too_large");
    let long = format!(
        "GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "y".repeat(MIB)
    );
    refused(&raw(&service, long.as_bytes()), 431, "request_too_large");
    let path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(MIB));
    let path = raw(&service, path.as_bytes());
    assert!(matches!(path.status, 414 | 431), "{}", path.status);
    refused(&path, path.status, "request_too_large");

    // Older clients, and impatient ones.
    let old = raw(&service, b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!((old.status, old.text().as_str()), (200, "ok\n"));
    let body = job().to_string();
    let one = format!(
        "POST /v1/execute HTTP/1.1\r\nHost: a\r\n{}Content-Length: {}\r\n\r\n{body}",
        bearer(&key),
        body.len()
    );
    let mut connection = connect(&service);
    connection.write_all(one.repeat(20).as_bytes()).unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    connection.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 20, "{answers}");
    service.stop();
}

#[test]
fn no_body_takes_more_than_it_may() {
    let host = Host::without_images();
    let (service, key) = instant(&host, "0s", &[]);
    let post = |body: &[u8]| service.over_tcp("POST", "/v1/execute", body, &bearer(&key));
    // One that says how long it is is not read, and one that does not is read that far.
    let head = |length: &str| {
        format!(
            "POST /v1/execute HTTP/1.1\r\nHost: a\r\n{}{length}\r\n\r\n",
            bearer(&key)
        )
    };
    let announced = raw(&service, head("Content-Length: 104857600").as_bytes());
    refused(&announced, 413, "request_too_large");
    let mut connection = connect(&service);
    connection
        .write_all(head("Transfer-Encoding: chunked").as_bytes())
        .unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; MIB], b"\r\n"].concat();
    let sent = (0..100)
        .take_while(|_| connection.write_all(&chunk).is_ok())
        .count();
    assert!((32..100).contains(&sent), "{sent} MiB were taken");
    refused(&Reply::read(BufReader::new(connection)), 413, "request_too_large");

    let deep = format!(r#"{{"lang":"bash","code":"x","files":{}"#, "[".repeat(4 * MIB));
    refused(&post(deep.as_bytes()), 400, "invalid_request");
    let elsewhere = format!(r#"{{"lang":"bash","code":"x","unknown":{}"#, "[".repeat(4 * MIB));
    refused(&post(elsewhere.as_bytes()), 400, "invalid_request");
    refused(
        &post(b"{\"lang\":\"bash\",\"code\":\"\xff\"}"),
        400,
        "invalid_request",
    );
    let tiny_body = 8 * MIB;
    for field in ["unknown", "args", "files", "env", "lang"] {
        let tiny = match field {
            "env" => (0..tiny_body / 16)
                .map(|name| format!("\"{name}\":\"\""))
                .collect::<Vec<_>>()
                .join(","),
            "files" => vec![r#"{"path":"a"}"#; tiny_body / 16].join(","),
            _ => vec![r#""""#; tiny_body / 4].join(","),
        };
        let (open, close) = if field == "env" { ("{", "}") } else { ("[", "]") };
        let body = format!(r#"{{"code":"x","{field}":{open}{tiny}{close},"lang":"bash"}}"#);
        // From here on the kernel measures the peak anew (proc_pid_clear_refs(5)).
        fs::write(format!("/proc/{}/clear_refs", service.process().pid()), "5").expect("it is ours");
        let before = memory(&service, "VmRSS:");
        let reply = post(body.as_bytes());
        match field {
            "unknown" => assert_eq!(reply.status, 200, "{}", reply.text()),
            _ => refused(&reply, 400, "invalid_request"),
        }
        let grown = memory(&service, "VmHWM:").saturating_sub(before);
        assert!(grown < 4 * tiny_body, "{field}: {} MiB", grown / MIB);
    }
    service.stop();
}

#[test]
fn slow_clients_lose_their_places_and_hold_up_nobody() {
    let host = Host::without_images();
    let (service, key) = instant(&host, "0s", &[]);
    let heads: Vec<_> = (0..100)
        .map(|_| {
            let mut connection = connect(&service);
            connection.write_all(b"POST /v1/execute HTTP/1.1\r\nX: ").unwrap();
            connection
        })
        .collect();
    let mut body = connect(&service);
    let head = format!(
        "POST /v1/execute HTTP/1.1\r\nHost: a\r\n{}Content-Length: 1000\r\n\r\n",
        bearer(&key)
    );
    body.write_all(head.as_bytes()).unwrap();
    // One that asks and asks, and takes no answer.
    let mut deaf = connect(&service);
    let code = "#".repeat(MIB - 1);
    let large = json!({ "lang": "bash", "code": code }).to_string();
    let head = format!(
        "POST /v1/execute HTTP/1.1\r\nHost: a\r\n{}Content-Length: {}\r\n\r\n",
        bearer(&key),
        large.len()
    );
    let one = [head.as_bytes(), large.as_bytes()].concat();
    deaf.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let asked = (0..64).take_while(|_| deaf.write_all(&one).is_ok()).count();
    assert!(asked < 64, "it takes {asked} MiB from who takes nothing");
    // A byte at a time does not help.
    let drips = thread::spawn(move || {
        let dripped = (0..1000).take_while(|_| {
            thread::sleep(Duration::from_millis(500));
            body.write_all(b" ").is_ok()
        });
        let dripped = dripped.count();
        (dripped, Reply::read(BufReader::new(body)))
    });
    for _ in 0..20 {
        let answered = service.over_tcp("POST", "/v1/execute", job().to_string().as_bytes(), &bearer(&key));
        assert_eq!(answered.status, 200, "{}", answered.text());
        thread::sleep(Duration::from_millis(100));
    }
    for mut head in heads {
        let mut answer = Vec::new();
        let _ = head.read_to_end(&mut answer);
    }
    let (dripped, late) = drips.join().unwrap();
    assert!(dripped < 200, "{dripped}");
    refused(&late, 408, "request_timeout");
    let open = || metric(&service, "runner_codes_process_open_descriptors{kind=\"socket\"}");
    service.wait_until("all of them are gone", || open() < 10.0);
    drop(deaf);
    service.stop();
}

#[test]
fn one_tenant_leaves_room_for_another() {
    let host = Host::without_images();
    let (service, flood) = instant(&host, "0s", &[]);
    let other = key(&host, "other", &[]);
    let length = 24 * MIB;
    let head = |key: &str| {
        format!(
            "POST /v1/execute HTTP/1.1\r\nHost: a\r\n{}Content-Length: {length}\r\n\r\n",
            bearer(key)
        )
    };
    // Each holds all but its last byte.
    let body = vec![b' '; length - 1];
    let held: Vec<_> = (0..6)
        .map(|_| {
            let mut connection = connect(&service);
            let _ = connection.write_all(head(&flood).as_bytes());
            let _ = connection.write_all(&body);
            connection
        })
        .collect();
    let refusals = held.into_iter().filter_map(|mut connection| {
        connection
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut start = [0; 12];
        match connection.read_exact(&mut start) {
            Ok(()) => Some(String::from_utf8_lossy(&start).into_owned()),
            // It waits for the last byte: kept open.
            Err(_) => {
                std::mem::forget(connection);
                None
            }
        }
    });
    assert_eq!(
        refusals.collect::<Vec<_>>(),
        ["HTTP/1.1 503"],
        "of six times 24 MiB, five fit half of 256"
    );
    let padded = format!("{}{}", " ".repeat(length), job());
    let answered = service.over_tcp("POST", "/v1/execute", padded.as_bytes(), &bearer(&other));
    assert_eq!(answered.status, 200, "{}", answered.text());
    service.kill();
}

#[test]
fn who_asks_again_with_a_key_gets_the_same_answer() {
    let host = Host::without_images();
    let (service, key) = instant(&host, "2s", &["--jobs", "1", "--queue", "0"]);
    let (other, third) = (self::key(&host, "other", &[]), self::key(&host, "third", &[]));
    let ask = |key: &str, job: &Value, headers: &str| {
        let headers = format!("{}{headers}Idempotency-Key: 8e03978e\r\n", bearer(key));
        service.over_tcp("POST", "/v1/execute", job.to_string().as_bytes(), &headers)
    };
    let ran = || {
        metric(
            &service,
            "runner_codes_jobs_total{language=\"bash\",termination=\"exit\"}",
        )
    };
    // At the same time, where there is room for one.
    let replies: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| ask(&key, &job(), ""))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let first = &replies[0];
    assert_eq!(first.status, 200, "{}", first.text());
    assert!(
        replies
            .iter()
            .all(|reply| reply.body == first.body
                && reply.headers["x-trace-id"] == first.headers["x-trace-id"])
    );
    let replayed = replies
        .iter()
        .filter(|reply| reply.headers.contains_key("idempotent-replayed"));
    assert_eq!((replayed.count(), ran()), (7, 1.0));
    // Later, and called something else.
    let again = ask(
        &key,
        &json!({ "code": "echo hi", "lang": "bash", "trace_id": "again" }),
        "",
    );
    assert_eq!((again.body == first.body, ran()), (true, 1.0));
    refused(
        &ask(&key, &json!({ "lang": "bash", "code": "echo ho" }), ""),
        422,
        "idempotency_mismatch",
    );
    refused(
        &ask(&key, &job(), "Accept: text/event-stream\r\n"),
        400,
        "invalid_request",
    );
    assert_eq!(ask(&other, &job(), "").status, 200);
    assert_eq!(ran(), 2.0, "another tenant's is another key");

    // Who hangs up finds the answer when it comes again.
    let send = |id: &str| {
        let mut connection = connect(&service);
        let body = job().to_string();
        let length = body.len();
        let head = bearer(&key);
        write!(connection, "POST /v1/execute HTTP/1.1\r\nHost: a\r\n{head}Idempotency-Key: {id}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        connection
    };
    let gone = send("gone");
    service.wait_until("it runs", || {
        service.get("/readyz").json()["jobs"]["running"] == 1
    });
    drop(gone);
    let mut back = send("gone");
    let mut answer = [0; 15];
    back.read_exact(&mut answer).unwrap();
    assert_eq!((&answer, ran()), (b"HTTP/1.1 200 OK", 3.0));

    // What was refused has not run, and may be tried again.
    let busy = send("busy");
    service.wait_until("it runs", || {
        service.get("/readyz").json()["jobs"]["running"] == 1
    });
    let full = ask(&third, &job(), "");
    refused(&full, 503, "queue_full");
    drop(busy);
    service.stop();
}

#[test]
fn metrics_tell_what_happened() {
    let host = Host::without_images();
    let (service, key) = instant(&host, "0s", &[]);
    for _ in 0..3 {
        assert_eq!(
            service.post("/v1/execute", job().to_string().as_bytes()).status,
            200
        );
    }
    service.get("/nowhere").refusal(404);
    service.over_tcp("GET", "/metrics", b"", "").refusal(401);
    let reply = service.over_tcp("GET", "/metrics", b"", &bearer(&key));
    assert!(
        reply.content_type.starts_with("application/openmetrics-text"),
        "{}",
        reply.content_type
    );
    assert!(reply.text().ends_with("# EOF\n"));
    assert_eq!(
        metric(
            &service,
            "runner_codes_jobs_total{language=\"bash\",termination=\"exit\"}"
        ),
        3.0
    );
    assert_eq!(
        metric(&service, "runner_codes_refusals_total{code=\"not_found\"}"),
        1.0
    );
    assert_eq!(
        metric(&service, "runner_codes_refusals_total{code=\"unauthorized\"}"),
        1.0
    );
    assert_eq!(metric(&service, "runner_codes_queue_wait_seconds_count"), 3.0);
    assert_eq!(metric(&service, "runner_codes_machine_directories"), 0.0);
    let resident = metric(&service, "runner_codes_process_resident_memory_bytes");
    assert!(resident > 1e6, "{resident}");
    service.stop();
}

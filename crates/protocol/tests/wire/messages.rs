//! Messages survive JSON; what the first version said is still understood, and what a later one adds is ignored.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use protocol::control::{Boot, Confinement, Confirmed, Identity, Park, Parked};
use protocol::frame::{HEADER, decode_message, encode_message};
use protocol::job::{Chunk, Clock, Interpreter, JobLimits, Timings, Truncated, Usage};
use protocol::{
    ControlRequest, ControlResponse, ErrorCode, Event, FileSpec, Hello, HostError, JobRequest, JobResponse,
    Language, Termination,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

/// Numbers with few enough digits that every JSON library reads back what it wrote.
fn number() -> impl Strategy<Value = f64> {
    any::<u32>().prop_map(|thousandths| f64::from(thousandths) / 1000.0)
}

fn language() -> impl Strategy<Value = Language> {
    prop::sample::select(Language::ALL.to_vec())
}

fn file() -> impl Strategy<Value = FileSpec> {
    (text(), of(text()), of(text()), of(any::<u32>()), any::<bool>()).prop_map(
        |(path, content, content_base64, mode, collect)| FileSpec {
            path,
            content,
            content_base64,
            mode,
            collect,
        },
    )
}

fn limits() -> impl Strategy<Value = JobLimits> {
    prop::array::uniform6(of(any::<u64>())).prop_map(
        |[memory_bytes, pids, output_bytes, file_bytes, open_files, cpu_ms]| JobLimits {
            memory_bytes,
            pids,
            output_bytes,
            file_bytes,
            open_files,
            cpu_ms,
        },
    )
}

fn request() -> impl Strategy<Value = JobRequest> {
    let fixed = (text(), language(), text(), number());
    let input = (
        text(),
        of(text()),
        vec(text(), 0..4),
        btree_map(text(), text(), 0..4),
    );
    let rest = (vec(file(), 0..4), of(text()), limits(), any::<[bool; 2]>());
    (fixed, input, rest).prop_map(
        |(
            (trace_id, lang, code, timeout),
            (stdin, stdin_base64, args, env),
            (files, cwd, limits, [stream, fresh]),
        )| {
            JobRequest {
                trace_id,
                lang,
                code,
                timeout,
                stdin,
                stdin_base64,
                args,
                env,
                files,
                cwd,
                limits,
                stream,
                fresh,
            }
        },
    )
}

fn error() -> impl Strategy<Value = HostError> {
    let code = prop::sample::select(ErrorCode::ALL.to_vec());
    (code, text(), text(), text()).prop_map(|(code, cause, remedy, trace_id)| HostError {
        code,
        cause,
        remedy,
        trace_id,
    })
}

fn termination() -> impl Strategy<Value = Termination> {
    prop_oneof![
        Just(Termination::Exit),
        text().prop_map(|name| Termination::Signal { name }),
        Just(Termination::Timeout { clock: Clock::Wall }),
        Just(Termination::Timeout { clock: Clock::Cpu }),
        any::<u64>().prop_map(|peak_bytes| Termination::Oom { peak_bytes }),
        text().prop_map(|stream| Termination::OutputLimit { stream }),
        any::<u64>().prop_map(|limit| Termination::PidsLimit { limit }),
        Just(Termination::DiskFull),
        text().prop_map(|syscall| Termination::Seccomp { syscall }),
        vec(text(), 0..4).prop_map(|console| Termination::VmCrash { console }),
        Just(Termination::Cancelled),
        Just(Termination::HostDrain),
    ]
}

fn usage() -> impl Strategy<Value = Usage> {
    (any::<u64>(), any::<u64>(), of(any::<u64>())).prop_map(|(wall_ms, cpu_ms, peak_memory_bytes)| Usage {
        wall_ms,
        cpu_ms,
        peak_memory_bytes,
    })
}

fn timings() -> impl Strategy<Value = Timings> {
    let interpreter = of(prop_oneof![Just(Interpreter::Parked), Just(Interpreter::Fresh)]);
    (prop::array::uniform17(of(number())), of(text()), interpreter).prop_map(|(n, path, interpreter)| {
        Timings {
            interpreter,
            restore: n[12],
            identity: n[13],
            host: n[14],
            queue: n[15],
            boot: n[16],
            confine: n[0],
            compile: n[1],
            exec: n[2],
            path,
            vmm_spawn: n[3],
            configure: n[4],
            kernel: n[5],
            init: n[6],
            ready: n[7],
            connect: n[8],
            execute: n[9],
            shutdown: n[10],
            total: n[11],
        }
    })
}

fn response() -> impl Strategy<Value = JobResponse> {
    let fixed = (text(), text(), text(), any::<i32>());
    let truncated = any::<[bool; 2]>().prop_map(|[stdout, stderr]| Truncated { stdout, stderr });
    let account = (of(termination()), of(usage()), of(timings()), of(truncated));
    let rest = (
        of(text()),
        of(text()),
        vec(file(), 0..4),
        vec(text(), 0..4),
        of(error()),
    );
    (fixed, account, rest).prop_map(
        |(
            (trace_id, stdout, stderr, exit_code),
            (termination, usage, timings, truncated),
            (stdout_base64, stderr_base64, files, layers, error),
        )| JobResponse {
            trace_id,
            stdout,
            stderr,
            exit_code,
            termination,
            usage,
            timings,
            truncated,
            stdout_base64,
            stderr_base64,
            files,
            layers,
            error,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let chunk = || (text(), of(text())).prop_map(|(data, data_base64)| Chunk { data, data_base64 });
    prop_oneof![
        Just(Event::Started),
        chunk().prop_map(Event::Stdout),
        chunk().prop_map(Event::Stderr),
    ]
}

fn confinement() -> impl Strategy<Value = Confinement> {
    (any::<[bool; 4]>(), of(text()), of(any::<u32>())).prop_map(
        |([cgroup_v2, namespaces, seccomp, overlay], cgroup_v2_missing, landlock_abi)| Confinement {
            cgroup_v2,
            cgroup_v2_missing,
            namespaces,
            seccomp,
            landlock_abi,
            overlay,
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    let names = (any::<u32>(), text(), text(), vec(text(), 0..4));
    let languages = (btree_map(language(), text(), 0..5), vec(language(), 0..5));
    let boot = prop::array::uniform5(number()).prop_map(|[init, modules, root, listening, now]| Boot {
        init,
        modules,
        root,
        listening,
        now,
    });
    (names, languages, confinement(), boot).prop_map(
        |((version, runner_version, kernel, features), (languages, parked), confinement, boot)| Hello {
            version,
            runner_version,
            kernel,
            features,
            languages,
            parked,
            confinement,
            boot,
        },
    )
}

fn control_request() -> impl Strategy<Value = ControlRequest> {
    prop_oneof![
        Just(ControlRequest::Hello),
        btree_map(language(), any::<u8>(), 0..4)
            .prop_map(|languages| ControlRequest::Park(Park { languages })),
        (text(), any::<u64>(), text(), text()).prop_map(|(entropy, realtime_ns, machine_id, hostname)| {
            ControlRequest::Identity(Identity {
                entropy,
                realtime_ns,
                machine_id,
                hostname,
            })
        }),
        Just(ControlRequest::Shutdown),
    ]
}

fn control_response() -> impl Strategy<Value = ControlResponse> {
    prop_oneof![
        hello().prop_map(ControlResponse::Hello),
        Just(ControlResponse::Shutdown),
        (
            btree_map(language(), any::<u8>(), 0..4),
            btree_map(language(), text(), 0..4)
        )
            .prop_map(|(languages, refused)| ControlResponse::Parked(Parked { languages, refused })),
        (text(), any::<u64>()).prop_map(|(machine_id, realtime_ns)| ControlResponse::Identity(Confirmed {
            machine_id,
            realtime_ns
        })),
        error().prop_map(ControlResponse::Error),
    ]
}

/// The message after a way through the wire, and after one where a later version added a field to every object.
fn there_and_back<T: Serialize + DeserializeOwned>(message: &T) -> [T; 2] {
    let frame = encode_message(message).unwrap();
    let mut value: Value = decode_message(&frame[HEADER..]).unwrap();
    add_unknown(&mut value);
    let later = value.to_string();
    [
        decode_message(&frame[HEADER..]).unwrap(),
        decode_message(later.as_bytes()).unwrap(),
    ]
}

/// Adds a field to every object whose keys are the protocol's (those of `env` and `languages` are not).
fn add_unknown(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if !matches!(name.as_str(), "env" | "languages" | "refused") {
                    add_unknown(field);
                }
            }
            fields.insert("added_later".to_owned(), json!({"x": [1, null]}));
        }
        Value::Array(values) => values.iter_mut().for_each(add_unknown),
        _ => {}
    }
}

proptest! {
    #[test]
    fn requests_survive(message in request()) {
        for other in there_and_back(&message) {
            prop_assert_eq!(&other, &message);
        }
    }

    #[test]
    fn responses_survive(message in response()) {
        for other in there_and_back(&message) {
            prop_assert_eq!(&other, &message);
        }
    }

    #[test]
    fn events_survive_and_are_told_from_responses(message in event()) {
        for other in there_and_back(&message) {
            prop_assert_eq!(&other, &message);
        }
        let value = serde_json::to_value(&message).unwrap();
        prop_assert!(value.get("event").is_some());
        prop_assert!(serde_json::from_value::<JobResponse>(value).is_err());
    }

    #[test]
    fn control_requests_survive(message in control_request()) {
        for other in there_and_back(&message) {
            prop_assert_eq!(&other, &message);
        }
    }

    #[test]
    fn control_survives(message in control_response()) {
        for other in there_and_back(&message) {
            prop_assert_eq!(&other, &message);
        }
    }

    #[test]
    fn garbage_is_an_error(bytes in vec(any::<u8>(), 0..100)) {
        prop_assert!(decode_message::<JobRequest>(&bytes).is_err());
        prop_assert!(decode_message::<JobResponse>(&bytes).is_err());
        prop_assert!(decode_message::<ControlRequest>(&bytes).is_err());
    }

    #[test]
    fn an_error_is_one_line_whatever_the_guest_wrote(error in error()) {
        prop_assert!(!error.to_string().chars().any(char::is_control));
    }
}

#[test]
fn the_first_version_is_understood() {
    let request: JobRequest =
        serde_json::from_str(r#"{"trace_id":"t","lang":"bash","code":"true","timeout":30}"#).unwrap();
    assert_eq!(request, JobRequest::new("t", Language::Bash, "true"));
    let response: JobResponse =
        serde_json::from_str(r#"{"trace_id":"t","stdout":"out","stderr":"err","exit_code":3}"#).unwrap();
    let expected = JobResponse {
        trace_id: "t".to_owned(),
        stdout: "out".to_owned(),
        stderr: "err".to_owned(),
        exit_code: 3,
        ..JobResponse::default()
    };
    assert_eq!(response, expected);
}

#[test]
fn the_first_version_is_what_is_written_when_nothing_else_is_asked_for() {
    let request = JobRequest::new("t", Language::Python, "print(1)");
    assert_eq!(
        serde_json::to_string(&request).unwrap(),
        r#"{"trace_id":"t","lang":"python","code":"print(1)","timeout":30.0}"#
    );
    let response = JobResponse {
        trace_id: "t".to_owned(),
        ..JobResponse::default()
    };
    assert_eq!(
        serde_json::to_string(&response).unwrap(),
        r#"{"trace_id":"t","stdout":"","stderr":"","exit_code":0}"#
    );
}

#[test]
fn shapes_that_clients_match_on() {
    let shapes = [
        (json!(Termination::Exit), json!({"kind": "exit"})),
        (
            json!(Termination::Timeout { clock: Clock::Wall }),
            json!({"kind": "timeout", "clock": "wall"}),
        ),
        (
            json!(Termination::VmCrash { console: vec![] }),
            json!({"kind": "vm_crash", "console": []}),
        ),
        (json!(Event::Started), json!({"event": "started"})),
        (
            json!(Event::Stdout(Chunk {
                data: "x".to_owned(),
                data_base64: None
            })),
            json!({"event": "stdout", "data": "x"}),
        ),
        (json!(ControlRequest::Hello), json!({"type": "hello"})),
        (json!(ControlResponse::Shutdown), json!({"type": "shutdown"})),
        (
            json!(
                HostError::new(ErrorCode::EmptyCode, "c")
                    .remedy("r")
                    .trace_id("t")
            ),
            json!({"code": "empty_code", "cause": "c", "remedy": "r", "trace_id": "t"}),
        ),
    ];
    for (message, shape) in shapes {
        assert_eq!(message, shape);
    }
}

#[test]
fn languages_have_one_name() {
    for language in Language::ALL {
        assert_eq!(json!(language), json!(language.name()));
        assert_eq!(language.name().parse(), Ok(language));
    }
    let error = "perl".parse::<Language>().unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownLanguage);
    let as_key: BTreeMap<Language, u8> = serde_json::from_str(r#"{"ruby": 1}"#).unwrap();
    assert_eq!(as_key, BTreeMap::from([(Language::Ruby, 1)]));
}

#[test]
fn error_codes_have_one_name_and_later_ones_are_unknown() {
    for code in ErrorCode::ALL {
        assert_eq!(json!(code), json!(code.name()));
    }
    let error: HostError =
        serde_json::from_str(r#"{"code":"from_the_future","cause":"c","remedy":"r"}"#).unwrap();
    assert_eq!(error.code, ErrorCode::Unknown);
    assert_eq!(json!(error.code), json!("unknown"));
}

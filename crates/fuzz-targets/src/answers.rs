//! What the host believes of what a guest says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::control::Identity;
use protocol::frame::encode;
use protocol::job::{Chunk, JobLimits};
use protocol::{Event, FileSpec, HostError, JobRequest, JobResponse, Language, Termination};

use crate::memory::within;
use crate::messages::room;
use crate::wait;

/// The longest name in a termination or of a layer, and the longest text of an error.
const MAX_NAME: usize = 64;
const MAX_ERROR_TEXT: usize = 2 << 10;

/// The job that is answered: it asks for one file, and for so much output.
fn request(flags: u8) -> JobRequest {
    let file = FileSpec {
        path: "out".to_owned(),
        collect: true,
        ..FileSpec::default()
    };
    JobRequest {
        stream: flags & 1 == 1,
        limits: JobLimits {
            output_bytes: Some(u64::from(flags >> 1) + 1),
            ..JobLimits::default()
        },
        files: vec![file],
        ..JobRequest::new("t", Language::Bash, "true")
    }
}

/// The first byte is of the job; each line after that is a frame of the guest's.
pub(crate) fn job(data: &[u8]) {
    let Some((&flags, lines)) = data.split_first() else {
        return;
    };
    let request = request(flags);
    let frames = lines
        .split(|byte| *byte == b'\n')
        .flat_map(|line| encode(line).expect("it is short"));
    let frames: Vec<u8> = frames.collect();
    let (mut started, mut stdout, mut stderr) = (0, 0, 0);
    let answer = within(room(frames.len()), || {
        wait(engine::fuzzing::job(&request, &frames, |event| match event {
            Event::Started => started += 1,
            Event::Stdout(chunk) => stdout += size(&chunk),
            Event::Stderr(chunk) => stderr += size(&chunk),
        }))
    });
    let cap = request.limits.output_bytes.expect("it is set") as usize;
    assert!(started <= 1 && stdout <= cap && stderr <= cap);
    assert!(request.stream || started + stdout + stderr == 0);
    match answer {
        Ok(response) => believed(&response, &request, cap),
        Err(error) => short(&error),
    }
}

/// An error has not much of what the guest said, and nothing that drives a terminal.
fn short(error: &HostError) {
    assert!(
        error.cause.len() <= MAX_ERROR_TEXT + 100,
        "{} bytes",
        error.cause.len()
    );
    assert!(!error.to_string().contains(char::is_control), "{error:?}");
}

/// The bytes that a piece of output stands for.
fn size(chunk: &Chunk) -> usize {
    match &chunk.data_base64 {
        Some(exact) => STANDARD.decode(exact).expect("it was checked").len(),
        None => chunk.data.len(),
    }
}

fn believed(response: &JobResponse, request: &JobRequest, cap: usize) {
    assert_eq!(response.trace_id, request.trace_id);
    assert!((0..=255).contains(&response.exit_code));
    for (text, exact) in [
        (&response.stdout, &response.stdout_base64),
        (&response.stderr, &response.stderr_base64),
    ] {
        match exact {
            Some(exact) => assert!(STANDARD.decode(exact).expect("it was checked").len() <= cap),
            None => assert!(text.len() <= cap),
        }
    }
    assert!(response.files.len() <= 1 && response.files.iter().all(|file| file.path == "out"));
    assert!(response.layers.len() <= engine::fuzzing::MAX_LAYERS);
    assert!(response.layers.iter().all(|layer| layer.len() <= MAX_NAME));
    match &response.termination {
        Some(Termination::Signal { name } | Termination::Seccomp { syscall: name }) => {
            assert!(name.len() <= MAX_NAME && !name.contains(char::is_control));
        }
        Some(Termination::VmCrash { .. } | Termination::HostDrain) => panic!("that only the host knows"),
        _ => {}
    }
    if let Some(timings) = &response.timings {
        assert!(
            timings.path.is_none() && timings.total.is_none(),
            "that only the host knows"
        );
        let times = [timings.confine, timings.compile, timings.exec];
        assert!(
            times
                .into_iter()
                .flatten()
                .all(|time| time.is_finite() && time >= 0.0)
        );
    }
    if let Some(error) = &response.error {
        assert!(error.cause.len() <= MAX_ERROR_TEXT && error.remedy.len() <= MAX_ERROR_TEXT);
        assert!(!error.cause.contains(char::is_control) && !error.remedy.contains(char::is_control));
    }
}

/// All of it is the answer to a control request.
pub(crate) fn control(data: &[u8]) {
    let frame = encode(data).expect("it is short");
    let most = room(frame.len());
    let identity = Identity {
        entropy: STANDARD.encode([7; 64]),
        realtime_ns: 1,
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
        hostname: "runner-1".to_owned(),
    };
    let refusals = [
        within(most, || wait(engine::fuzzing::hello(&frame)).err()),
        within(most, || wait(engine::fuzzing::park(&frame)).err()),
        within(most, || {
            match wait(engine::fuzzing::identity(&identity, &frame)) {
                Ok(confirmed) => {
                    assert_eq!(confirmed.machine_id, identity.machine_id);
                    None
                }
                Err(error) => Some(error),
            }
        }),
    ];
    for error in refusals.into_iter().flatten() {
        short(&error);
    }
}

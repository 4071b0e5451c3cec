//! A job's files and output, as the guest-runner handles them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::job::Chunk;
use protocol::limits::MAX_FILE_BYTES;
use protocol::{FileSpec, JobRequest, Language};

use crate::memory::within;

const SECRET: &str = "what is outside stays outside";

/// The files of a job as JSON, written and read back in a directory with links that lead out of it. Only its own user stops a job from
/// naming places outside, so absolute paths are taken as relative here.
pub(crate) fn both_ways(data: &[u8]) {
    let Ok(mut files) = serde_json::from_slice::<Vec<FileSpec>>(data) else {
        return;
    };
    for file in &mut files {
        file.path = file.path.trim_start_matches('/').to_owned();
    }
    let job = JobRequest {
        files,
        ..JobRequest::new("t", Language::Bash, "true")
    };
    if job.validate().is_err() {
        return;
    }
    let parent = tempfile::tempdir().expect("the temporary directory can be written");
    let directory = parent.path().join("job");
    fs::create_dir(&directory).expect("it is our own");
    let secret = parent.path().join("secret");
    fs::write(&secret, SECRET).expect("it is our own");
    for (target, link) in [("../secret", "link"), ("../new", "dangling"), ("loop", "loop")] {
        symlink(target, directory.join(link)).expect("it is our own");
    }
    let most = 4 * MAX_FILE_BYTES + 16 * data.len();
    let written = within(most, || guest_runner_fuzzing::write_files(&job.files, &directory));
    let back = within(most, || {
        guest_runner_fuzzing::collect_files(&job.files, &directory)
    });
    assert_eq!(fs::read_to_string(&secret).expect("it is there"), SECRET);
    assert_eq!(fs::read_dir(parent.path()).expect("it is our own").count(), 2);
    let asked: Vec<&str> = asked(&job).map(|file| file.path.as_str()).collect();
    let given: Vec<&str> = back.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(given, asked);
    let total: usize = back.iter().filter_map(content).map(|content| content.len()).sum();
    assert!(total <= MAX_FILE_BYTES);
    for file in &back {
        assert_ne!(content(file).as_deref(), Some(SECRET.as_bytes()), "{}", file.path);
    }
    if written.is_ok() {
        arrived(&job, &back, &directory);
    }
}

fn asked(job: &JobRequest) -> impl Iterator<Item = &FileSpec> {
    job.files.iter().filter(|file| file.collect)
}

/// What was written last to a place is what comes back from there.
fn arrived(job: &JobRequest, back: &[FileSpec], directory: &Path) {
    for (given, found) in asked(job).zip(back) {
        let place = |file: &FileSpec| fs::canonicalize(directory.join(&file.path)).ok();
        let last = job
            .files
            .iter()
            .rfind(|file| content(file).is_some() && place(file) == place(given));
        let unreadable = last.is_some_and(|last| last.mode.is_some_and(|mode| mode & 0o400 == 0));
        if let Some(last) = last.filter(|_| !unreadable) {
            assert_eq!(content(found), content(last), "{}", given.path);
        }
    }
}

fn content(file: &FileSpec) -> Option<Vec<u8>> {
    let exact = |text: &String| STANDARD.decode(text).expect("it is base64");
    let text = file.content.as_ref().map(|text| text.clone().into_bytes());
    text.or_else(|| file.content_base64.as_ref().map(exact))
}

/// The first byte is the cap, the second how the rest is cut.
pub(crate) fn output(data: &[u8]) {
    let [cap, cut, stream @ ..] = data else { return };
    let cap = usize::from(*cap) * 4;
    let most = 16 * data.len() + (64 << 10);
    let pieces = stream.chunks(usize::from(*cut) + 1);
    let (text, exact, truncated, chunks) = within(most, || guest_runner_fuzzing::output(pieces, cap as u64));
    let kept = &stream[..stream.len().min(cap)];
    assert_eq!(truncated, stream.len() > cap);
    assert_eq!(bytes(&text, exact.as_ref()), kept);
    let mut events = Vec::new();
    for Chunk { data, data_base64 } in &chunks {
        let piece = bytes(data, data_base64.as_ref());
        assert!(!piece.is_empty());
        events.extend(piece);
    }
    assert_eq!(events, kept);
    // No character is split: text that is valid as a whole is valid in every piece.
    assert!(exact.is_some() || chunks.iter().all(|chunk| chunk.data_base64.is_none()));
}

fn bytes(text: &str, exact: Option<&String>) -> Vec<u8> {
    exact.map_or_else(
        || text.into(),
        |exact| STANDARD.decode(exact).expect("it is base64"),
    )
}

//! The seeds that are made of real messages are what the code makes of them today. `UPDATE_SEEDS=1` writes them; files beside them are
//! what fuzzing found, and stay.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use engine::admission::{Allowance, ApiKey, KEY_BYTES, Scope};
use flate2::Compression;
use flate2::write::GzEncoder;
use fuzz_targets::TARGETS;
use image::Sha256Sum;
use image::snapshot::{PartRecord, SnapshotKey, SnapshotManifest};
use protocol::control::{Confinement, Confirmed, Identity, Park, Parked};
use protocol::frame::encode_message;
use protocol::job::{Chunk, Clock, Interpreter, JobLimits, Timings, Truncated, Usage};
use protocol::{
    ControlRequest, ControlResponse, ErrorCode, Event, FileSpec, Hello, HostError, JobRequest, JobResponse,
    Language, Termination,
};
use serde::Serialize;
use serde_json::json;

type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

struct Made(Seeds);

impl Made {
    fn add(&mut self, target: &'static str, name: &str, seed: impl Into<Vec<u8>>) {
        let before = self.0.insert((target, name.to_owned()), seed.into());
        assert!(before.is_none(), "{target}/{name} is made twice");
    }

    /// Behind a byte that says what it is.
    fn tagged(&mut self, target: &'static str, name: &str, tag: u8, seed: &[u8]) {
        self.add(target, name, [&[tag], seed].concat());
    }
}

fn json_of(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap()
}

#[test]
fn the_seeds_are_what_the_code_makes() {
    let mut made = Made(Seeds::new());
    messages(&mut made);
    answers(&mut made);
    vmm(&mut made);
    images(&mut made);
    archives(&mut made);
    mux(&mut made);
    snapshots(&mut made);
    files(&mut made);
    texts(&mut made);
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus-seeds");
    let mut stale = BTreeSet::new();
    for ((target, name), seed) in made.0 {
        let path = seeds.join(target).join(name);
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &seed).unwrap();
        } else if fs::read(&path).ok().as_ref() != Some(&seed) {
            stale.insert(path);
        }
    }
    assert!(
        stale.is_empty(),
        "run `UPDATE_SEEDS=1 cargo test -p fuzz-targets`: {stale:#?}"
    );
}

#[test]
fn cargo_fuzz_knows_every_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let programs = manifest["bin"].as_array().unwrap();
    let programs: BTreeSet<_> = programs
        .iter()
        .map(|program| program["name"].as_str().unwrap())
        .collect();
    let named: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(programs, named);
    for name in named {
        let program = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(
            program.contains(&format!("run({name:?}, data)")),
            "{name}: {program}"
        );
    }
}

fn full_request() -> JobRequest {
    JobRequest {
        timeout: 2.5,
        stdin: "in\n".into(),
        args: vec!["one".into(), "ünï".into()],
        env: BTreeMap::from([("A".into(), "b=c".into())]),
        files: vec![
            FileSpec {
                path: "data/in.txt".into(),
                content: Some("text".into()),
                mode: Some(0o640),
                ..FileSpec::default()
            },
            FileSpec {
                path: "out".into(),
                content_base64: Some("/wA=".into()),
                collect: true,
                ..FileSpec::default()
            },
        ],
        cwd: Some("/tmp/x".into()),
        limits: JobLimits {
            memory_bytes: Some(1 << 27),
            pids: Some(9),
            output_bytes: Some(1 << 16),
            cpu_ms: Some(1500),
            ..JobLimits::default()
        },
        stream: true,
        fresh: true,
        ..JobRequest::new("t-1", Language::Python, "print(1)")
    }
}

fn full_response() -> JobResponse {
    JobResponse {
        trace_id: "t".into(),
        stdout: "hi\u{fffd}".into(),
        stdout_base64: Some("aGn/".into()),
        exit_code: 137,
        termination: Some(Termination::Oom { peak_bytes: 1 << 28 }),
        usage: Some(Usage {
            wall_ms: 12,
            cpu_ms: 10,
            peak_memory_bytes: Some(1 << 20),
        }),
        timings: Some(Timings {
            confine: Some(1.25),
            exec: Some(10.5),
            interpreter: Some(Interpreter::Parked),
            ..Timings::default()
        }),
        truncated: Some(Truncated {
            stdout: true,
            stderr: false,
        }),
        files: vec![FileSpec {
            path: "out".into(),
            content: Some("x".into()),
            mode: Some(0o644),
            ..FileSpec::default()
        }],
        layers: vec!["cgroup".into(), "no_new_privs".into()],
        ..JobResponse::default()
    }
}

fn terminations() -> Vec<Termination> {
    vec![
        Termination::Exit,
        Termination::Signal {
            name: "SIGSEGV".into(),
        },
        Termination::Timeout { clock: Clock::Cpu },
        Termination::OutputLimit {
            stream: "stdout".into(),
        },
        Termination::PidsLimit { limit: 256 },
        Termination::DiskFull,
        Termination::Seccomp {
            syscall: "bpf".into(),
        },
        Termination::VmCrash {
            console: vec!["panic".into()],
        },
        Termination::Cancelled,
        Termination::HostDrain,
    ]
}

fn identity() -> Identity {
    Identity {
        entropy: "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBw=="
            .into(),
        realtime_ns: 1_764_230_400_000_000_000,
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        hostname: "runner-1".into(),
    }
}

fn hello() -> Hello {
    Hello {
        version: 1,
        runner_version: "0.1.0".into(),
        kernel: "6.1.0-40-cloud-amd64".into(),
        features: vec!["stream".into(), "files".into()],
        languages: BTreeMap::from([(Language::Python, "/usr/bin/python3".into())]),
        parked: vec![Language::Python],
        confinement: Confinement {
            cgroup_v2: true,
            landlock_abi: Some(2),
            ..Confinement::default()
        },
        ..Hello::default()
    }
}

fn control_requests() -> Vec<ControlRequest> {
    let languages = BTreeMap::from([(Language::Bash, 1), (Language::Node, 2)]);
    vec![
        ControlRequest::Hello,
        ControlRequest::Park(Park { languages }),
        ControlRequest::Identity(identity()),
        ControlRequest::Shutdown,
    ]
}

fn control_responses() -> Vec<ControlResponse> {
    vec![
        ControlResponse::Hello(hello()),
        ControlResponse::Parked(Parked {
            languages: BTreeMap::from([(Language::Ruby, 1)]),
            refused: BTreeMap::from([(Language::Node, "no addon".into())]),
        }),
        ControlResponse::Identity(Confirmed {
            machine_id: identity().machine_id,
            realtime_ns: 1,
        }),
        ControlResponse::Shutdown,
        ControlResponse::Error(HostError::new(ErrorCode::UnknownRequest, "what?\n")),
    ]
}

fn events() -> Vec<Event> {
    let chunk = Chunk {
        data: "\u{fffd}".into(),
        data_base64: Some("/w==".into()),
    };
    let text = Chunk {
        data: "hello\n".into(),
        data_base64: None,
    };
    vec![Event::Started, Event::Stdout(text), Event::Stderr(chunk)]
}

fn messages(made: &mut Made) {
    let requests = [JobRequest::new("", Language::Bash, "true"), full_request()];
    let mut stream = vec![6];
    for (number, request) in requests.iter().enumerate() {
        made.tagged("messages", &format!("request-{number}"), 0, &json_of(request));
        stream.extend(encode_message(request).unwrap());
    }
    made.add("frames", "two", stream.clone());
    made.add("frames", "cut-short", stream[..stream.len() - 3].to_vec());
    made.add("frames", "empty-and-too-large", [0, 0, 0, 0, 0, 2, 0, 0, 1]);
    made.add("frames", "announces-much", [255, 2, 0, 0, 0, b'{', b'}']);
    made.tagged("messages", "response", 1, &json_of(&full_response()));
    for (number, termination) in terminations().into_iter().enumerate() {
        let response = JobResponse {
            termination: Some(termination),
            ..JobResponse::default()
        };
        made.tagged(
            "messages",
            &format!("termination-{number}"),
            1,
            &json_of(&response),
        );
    }
    for (number, event) in events().iter().enumerate() {
        made.tagged("messages", &format!("event-{number}"), 2, &json_of(event));
    }
    for (number, request) in control_requests().iter().enumerate() {
        made.tagged(
            "messages",
            &format!("control-request-{number}"),
            3,
            &json_of(request),
        );
    }
    for (number, response) in control_responses().iter().enumerate() {
        made.tagged(
            "messages",
            &format!("control-response-{number}"),
            4,
            &json_of(response),
        );
        made.add("control", &format!("response-{number}"), json_of(response));
    }
    let error = HostError::new(ErrorCode::GuestSilent, "a\u{1b}[2Jb").trace_id("t");
    made.tagged("messages", "error", 5, &json_of(&error));
}

fn answers(made: &mut Made) {
    let mut lines: Vec<Vec<u8>> = events().iter().map(json_of).collect();
    lines.push(json_of(&full_response()));
    made.tagged("answers", "streamed", 0xff, &lines.join(&b'\n'));
    made.tagged("answers", "events-unasked", 0xfe, &lines.join(&b'\n'));
    made.tagged("answers", "over-the-cap", 1, &lines.join(&b'\n'));
    for (number, termination) in terminations().into_iter().enumerate() {
        let response = JobResponse {
            trace_id: "t".into(),
            termination: Some(termination),
            ..JobResponse::default()
        };
        made.tagged(
            "answers",
            &format!("termination-{number}"),
            0x40,
            &json_of(&response),
        );
    }
    let refused = JobResponse::refused("t", HostError::new(ErrorCode::ConfineFailed, "no\tcgroup"));
    made.tagged("answers", "refused", 0x40, &json_of(&refused));
    let endless = format!(
        r#"{{"trace_id":"t","timings":{{"interpreter":"{}"}}}}"#,
        "x".repeat(3000)
    );
    made.tagged("answers", "an-endless-name", 0x40, endless.as_bytes());
}

fn vmm(made: &mut Made) {
    for (name, line) in [
        ("good", "OK 1073741824\nhello"),
        ("largest", "OK 4294967295\n"),
        ("too-large", "OK 4294967296\n"),
        ("signed", "OK +5\n"),
        ("http", "HTTP/1.1 400 \r\n"),
        ("endless", "OK 00000000000000000000"),
        ("cut-short", "OK 5"),
    ] {
        made.add("handshake", name, line);
    }
    for (name, answer) in [
        (
            "empty",
            "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "version",
            "HTTP/1.1 200 \r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n{\"firecracker_version\":\"1.16.1\"}",
        ),
        (
            "fault",
            "HTTP/1.1 400 \r\nContent-Length: 29\r\n\r\n{\"fault_message\":\"Not so\\n \"}",
        ),
        (
            "chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nA: b\r\n\r\n",
        ),
        ("until-the-end", "HTTP/1.0 200 OK\r\n\r\nall that comes"),
        ("continue", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\n\r\n"),
        (
            "too-long",
            "HTTP/1.1 200 \r\nContent-Length: 99999999999999999999\r\n\r\nx",
        ),
    ] {
        made.add("http_answer", name, answer);
    }
    let greeting =
        r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}"#;
    let lines = [
        greeting,
        r#"{"return": {}}"#,
        r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}"#,
        r#"{"error": {"class": "GenericError", "desc": "not today"}}"#,
        r#"{"event": "MIGRATION", "data": {"status": "completed"}}"#,
        r#"{"event": "BLOCK_IO_ERROR", "data": {"nospace": true, "reason": "No space left on device"}}"#,
    ];
    made.add("qmp", "all", lines.join("\r\n") + "\r\n");
    made.add("qmp", "no-greeting", lines[1..].join("\n"));
    made.add(
        "qmp",
        "nested",
        format!("{greeting}\n{{\"data\":{}\n", "[".repeat(200)),
    );
    made.add(
        "metrics",
        "lines",
        "{\"utc_timestamp_ms\":1,\"net\":{}}\n{\"vsock\":{\"rx_bytes_count\":7}}\n",
    );
    made.add("metrics", "nonsense", "{\"a\":1}\nno\n\n{\"a\":");
    made.add(
        "metrics",
        "numbers",
        "{\"a\":1e308,\"b\":-0.0,\"c\":18446744073709551615}\n",
    );
    made.add(
        "console",
        "colours",
        "\u{1b}[31mred\u{1b}[0m\u{7} \u{9b}x\r\n[    0.0] Linux\n",
    );
    made.add("console", "long", "é".repeat(500));
    made.add("console", "bytes", b"\xff\xfe\x1b[\x1b\x1b[12;5\x1bHx\n".to_vec());
}

fn kernel() -> Vec<u8> {
    let mut kernel = b"\x7fELF\x02\x01\x01".to_vec();
    kernel.extend((0..2000_u32).map(|i| (i / 7 % 251) as u8));
    kernel
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As the kernel's build packs it.
fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    options.set_check_sum_type(lzma_rust2::CheckType::Crc32);
    options.prepend_pre_filter(lzma_rust2::FilterType::BcjX86, 0);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let block = lz4_flex::block::compress(bytes);
    let length = u32::try_from(block.len()).unwrap().to_le_bytes();
    let size = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    [&[0x02, 0x21, 0x4c, 0x18], &length[..], &block, &size].concat()
}

/// A file with one section, `.modinfo`.
fn module(information: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let names_at = 64 + information.len();
    let sections_at = (names_at + names.len()).next_multiple_of(8);
    let mut elf = vec![0; 64];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (elf[16], elf[18], elf[20], elf[52], elf[58], elf[60], elf[62]) = (1, 62, 1, 64, 64, 3, 2);
    elf[40..48].copy_from_slice(&(sections_at as u64).to_le_bytes());
    elf.extend_from_slice(information.as_bytes());
    elf.extend_from_slice(names);
    elf.resize(sections_at + 64, 0);
    for (name, kind, at, size) in [
        (1_u32, 1_u32, 64, information.len()),
        (10, 3, names_at, names.len()),
    ] {
        let start = elf.len();
        elf.extend_from_slice(&name.to_le_bytes());
        elf.extend_from_slice(&kind.to_le_bytes());
        elf.resize(start + 24, 0);
        elf.extend_from_slice(&(at as u64).to_le_bytes());
        elf.extend_from_slice(&(size as u64).to_le_bytes());
        elf.resize(start + 64, 0);
    }
    elf
}

fn superblock(fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = 1_000_000_u64.to_le_bytes().to_vec();
    bytes.resize(8 + 2048, 0);
    for (at, field) in fields {
        bytes[8 + at..8 + at + field.len()].copy_from_slice(field);
    }
    bytes
}

fn images(made: &mut Made) {
    let kernel = kernel();
    let zstd = ruzstd::encoding::compress_to_vec(&kernel[..], ruzstd::encoding::CompressionLevel::Fastest);
    let packed = [
        ("gzip", gzip(&kernel)),
        ("xz", xz(&kernel)),
        ("zstd", zstd),
        ("lz4", lz4(&kernel)),
        ("plain", kernel[..100].to_vec()),
        ("bzip2", b"BZh91AY".to_vec()),
    ];
    for (name, payload) in packed {
        made.tagged("bzimage", name, 1, &payload);
        made.tagged("bzimage", &format!("raw-{name}"), 0, &payload);
    }
    let mut image = vec![0; 1536];
    (image[0x1f1], image[0x207]) = (2, 2);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x248..0x24c].copy_from_slice(&u32::MAX.to_le_bytes());
    made.tagged("bzimage", "lying-header", 0, &image);

    let plain = module("license=GPL\0depends=virtio,virtio-ring\0name=x\0");
    let mut signed = plain.clone();
    signed.extend([7; 40]);
    signed.extend([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 40]);
    signed.extend(b"~Module signature appended~\n");
    made.add("module", "plain", plain.clone());
    made.add("module", "signed", signed);
    made.add("module", "xz", xz(&plain));

    let squashfs = [(0, &b"hsqs"[..]), (40, &5000_u64.to_le_bytes())];
    made.add("disks", "squashfs", superblock(&squashfs));
    let ext4 = [
        (1024 + 0x38, &0xef53_u16.to_le_bytes()[..]),
        (1024 + 0x04, &100_u32.to_le_bytes()),
        (1024 + 0x18, &2_u32.to_le_bytes()),
        (1024 + 0x60, &0x80_u32.to_le_bytes()),
        (1024 + 0x150, &1_u32.to_le_bytes()),
    ];
    made.add("disks", "ext4", superblock(&ext4));
    let shifted = [ext4[0], ext4[1], (1024 + 0x18, &60_u32.to_le_bytes()[..])];
    made.add("disks", "ext4-blocks-of-no-size", superblock(&shifted));
    let elf = [
        (0, &b"\x7fELF\x02\x01\x01"[..]),
        (18, &62_u16.to_le_bytes()),
        (32, &64_u64.to_le_bytes()),
        (54, &56_u16.to_le_bytes()),
        (56, &1_u16.to_le_bytes()),
        (64, &1_u32.to_le_bytes()),
        (64 + 8, &100_u64.to_le_bytes()),
        (64 + 32, &1000_u64.to_le_bytes()),
    ];
    made.add("disks", "elf", superblock(&elf)[..200].to_vec());
}

fn tar(entries: &[(&str, &[u8], tar::EntryType)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, contents, kind) in entries {
        let mut header = tar::Header::new_gnu();
        // Without the checks of `set_path`: what is hostile is what is wanted.
        let name = &mut header.as_gnu_mut().unwrap().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(*kind);
        header.set_cksum();
        archive.append(&header, *contents).unwrap();
    }
    archive.into_inner().unwrap()
}

fn archives(made: &mut Made) {
    use tar::EntryType;
    let file = EntryType::Regular;
    let release = tar(&[
        ("release-v1.16.1-x86_64/LICENSE", b"free", file),
        ("release-v1.16.1-x86_64/firecracker", b"\x7fELF", file),
    ]);
    made.tagged("release", "plain", 0, &release);
    made.tagged("release", "packed", 1, &gzip(&release));
    let named = tar(&[
        ("firecracker", b"", EntryType::Symlink),
        ("../../firecracker", b"x", file),
    ]);
    made.tagged("release", "links-and-climbing", 0, &named);
    let package = tar(&[
        ("./boot/vmlinuz-6.1.0-40-cloud-amd64", b"kernel", file),
        (
            "./lib/modules/6.1.0/modules.builtin",
            b"kernel/fs/ext4/ext4.ko\n",
            file,
        ),
        (
            "./usr/lib/modules/6.1.0/kernel/net/virtio-net.ko.xz",
            b"module",
            file,
        ),
    ]);
    made.add("kernel_package", "whole", package);
    let climbing = tar(&[
        ("/boot/vmlinuz-../../../x", b"a", file),
        ("boot/../../vmlinuz-x", b"b", file),
        ("lib/modules/x/...ko", b"c", file),
        ("lib/modules/x/link.ko", b"", EntryType::Symlink),
    ]);
    made.add("kernel_package", "climbing", climbing);
    let sparse = tar(&[("lib/modules/x/hole.ko", b"", EntryType::GNUSparse)]);
    made.add("kernel_package", "sparse", sparse);
}

fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, stream, 0, 0, 0, 1];
    body.extend(payload);
    let mut frame = cobs::encode_vec(&body);
    frame.push(0);
    frame
}

fn mux(made: &mut Made) {
    let spoken = [
        frame(3, 4, &5000_u32.to_be_bytes()),
        frame(4, 0, b"data"),
        frame(5, 0, &100_u32.to_be_bytes()),
        frame(6, 1, &[]),
        frame(7, 1, &[]),
        frame(1, 0, &[]),
    ];
    made.tagged("mux_bytes", "to-the-host", 0xfc, &spoken[1..5].concat());
    made.tagged("mux_bytes", "to-the-guest", 0xfd, &spoken.concat());
    made.tagged("mux_bytes", "garbage", 1, &[0, 0xff, 3, 7, 0, 9, 9, 9, 0]);
    let records = [
        [4, 0, 5, 1],
        [4, 0, 6, 2],
        [5, 0, 2, 0xff],
        [6, 0, 0, 0],
        [7, 0, 0, 0],
        [4, 1, 7, 3],
        [3, 5, 2, 9],
    ];
    made.tagged("mux_bytes", "records-to-the-host", 2, records.as_flattened());
    made.tagged("mux_bytes", "records-to-the-guest", 3, records.as_flattened());
    let conversation = [
        [0, 0, 0],
        [1, 0, 200],
        [3, 0, 255],
        [4, 0, 255],
        [0x85, 0, 255],
        [0x81, 0, 255],
        [0x83, 0, 255],
        [0x84, 0, 255],
        [5, 0, 255],
        [6, 0, 0],
        [0x86, 0, 0],
        [3, 0, 255],
        [4, 0, 255],
        [0x85, 0, 0],
    ];
    made.add("mux_dialogue", "a-question", conversation.as_flattened());
    let flood: Vec<[u8; 3]> = (0..40)
        .flat_map(|n| [[0, 0, 0], [1, n, 255], [3, 0, 90], [4, 0, 70]])
        .collect();
    made.add("mux_dialogue", "many-streams", flood.as_flattened());
    let abandoned: Vec<[u8; 3]> = (0..20)
        .flat_map(|n| {
            [
                [0, 0, 0],
                [1, n, 40],
                [3, 0, 20],
                [7, n, 0],
                [4, 0, 255],
                [0x85, 0, 0],
                [0x83, 0, 0],
                [0x84, 0, 9],
            ]
        })
        .collect();
    made.add("mux_dialogue", "abandoned", abandoned.as_flattened());
}

fn snapshots(made: &mut Made) {
    let sum = Sha256Sum::of(b"part");
    let part = PartRecord {
        sha256: sum,
        bytes: 4,
    };
    let key = SnapshotKey {
        template: "base".into(),
        kernel: sum,
        rootfs: sum,
        initramfs: sum,
        vcpus: 1,
        memory_mib: 256,
        network: "none".into(),
        backend: "qemu".into(),
        vmm: "QEMU 7.2".into(),
        cpu: "max".into(),
        runner: "0.1.0".into(),
    };
    let manifest = SnapshotManifest {
        format: SnapshotManifest::FORMAT,
        serial: 1,
        created_unix: 1_764_230_400,
        signer: "0123456789abcdef".parse().unwrap(),
        key,
        memory: part,
        state: part,
        scratch: part,
        parked: vec!["python".into()],
        hello: json!({ "version": 1 }),
    };
    let text = serde_json::to_vec_pretty(&manifest).unwrap();
    made.add("manifest", "whole", text.clone());
    made.add("manifest", "compact", json_of(&manifest));
    made.add("manifest", "other-format", r#"{"format":18446744073709551615}"#);
    let old = SnapshotManifest {
        created_unix: u64::MAX,
        serial: u64::MAX,
        ..manifest
    };
    made.add("manifest", "far-future", json_of(&old));
    made.tagged("snapshot", "manifest", 0, &text);
    made.tagged("snapshot", "manifest-signed", 8, &text);
    made.tagged("snapshot", "signature", 1, b"0123456789abcdef:00\n");
    made.tagged("snapshot", "memory", 2, b"port");
    made.tagged("snapshot", "state", 3, b"part");
    made.tagged("snapshot", "scratch", 4, b"par");
}

fn files(made: &mut Made) {
    let files = |list: serde_json::Value| serde_json::to_vec(&list).unwrap();
    made.add(
        "files",
        "both-ways",
        files(json!([
            { "path": "a.txt", "content": "hé", "collect": true },
            { "path": "deep/er/b", "content_base64": "/wA=", "mode": 0o755, "collect": true },
            { "path": "missing", "collect": true },
        ])),
    );
    made.add(
        "files",
        "links",
        files(json!([
            { "path": "link", "content": "x", "collect": true },
            { "path": "dangling", "content": "x" },
            { "path": "loop", "collect": true },
            { "path": "link/under", "content": "x" },
        ])),
    );
    made.add(
        "files",
        "reads-links",
        files(json!([{ "path": "link", "collect": true }, { "path": "./link", "collect": true }])),
    );
    made.add(
        "files",
        "twice",
        files(json!([
            { "path": "a", "content": "1", "mode": 0, "collect": true },
            { "path": "./a", "content": "2", "collect": true },
            { "path": "a/b", "content": "3" },
        ])),
    );
    made.add(
        "output",
        "text",
        [&[255, 2][..], "grüße ✓ 𝄞\n".as_bytes()].concat(),
    );
    made.add("output", "cut", [&[1, 0][..], "ab✓✓".as_bytes()].concat());
    made.add(
        "output",
        "bytes",
        [255, 0, b'a', 0xff, 0xe2, 0x9c, b'b', 0xf0, 0x9d],
    );
}

fn texts(made: &mut Made) {
    let (key, shown) = ApiKey::new(
        &[7; KEY_BYTES],
        "acme".parse().unwrap(),
        Scope::ALL.into_iter().collect(),
        Allowance {
            rate: Some(std::num::NonZeroU32::MIN),
            max_timeout: Some(1.5),
            ..Allowance::UNBOUNDED
        },
        Duration::from_secs(900),
        Some(Duration::from_secs(2000)),
    );
    let kept = json_of(&key);
    made.add("keys", "whole", [&kept[..], b"\n", shown.as_bytes()].concat());
    made.add(
        "keys",
        "another-secret",
        [&kept[..], b"\n", shown.replace("BwcH", "BwcI").as_bytes()].concat(),
    );
    made.add("keys", "no-key", "{}\nrc_a5a5a5a5a5a5a5a5_");
    for (name, text) in [
        ("version", "1.16.1"),
        ("version-v", "v1.7.0"),
        ("kernel", "debian-bookworm"),
        ("kernel-file", "/boot/vmlinux"),
        (
            "command-line",
            "quiet runner.transport=serial runner.root=/dev/vda runner.rootfs=ext4 runner.mode=system",
        ),
        (
            "modules",
            "core virtio.ko\nserial virtio_console.ko\nx ../evil.ko\n",
        ),
        (
            "digest",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  firecracker\n",
        ),
        (
            "mirrors",
            "http://mirror.example/debian\nhttps://security.example/debian-security",
        ),
        (
            "list",
            "deb [arch=amd64] http://mirror.example/debian bookworm main\ndeb http://mirror.example/debian bookworm-updates main # x\n",
        ),
        (
            "deb822",
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\n\nTypes: deb-src\n",
        ),
        ("packages", "python3\nlibstdc++6 # c\n\nnodejs:amd64\n"),
    ] {
        made.add("configuration", name, text);
    }
}

//! Everything that may be wrong with a snapshot is made to be wrong, one thing at a time.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use protocol::{ErrorCode, HostError};
use serde_json::json;

use super::*;
use crate::guarded::Unsafe;
use crate::{BootFiles, TemplateManifest};

/// A store with the files that a machine boots from, and keys.
struct Fixture {
    root: tempfile::TempDir,
    snapshots: Snapshots,
    keys: SigningKeys,
    artefacts: Artefacts,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        Self::at(root, "state")
    }

    fn at(root: tempfile::TempDir, name: &str) -> Self {
        let state = root.path().join(name);
        let artefacts = artefacts(&state);
        for (path, contents) in [
            (&artefacts.boot.kernel, "kernel"),
            (&artefacts.boot.initramfs, "initramfs"),
            (&artefacts.rootfs, "rootfs"),
        ] {
            fs::create_dir_all(path.parent().expect("in the store")).expect("made");
            fs::write(path, contents).expect("written");
        }
        let mut snapshots = Snapshots::open(&Store::open(&state));
        snapshots.digests = DigestCache::settling(&state, Duration::ZERO);
        Self {
            root,
            snapshots,
            keys: SigningKeys::open(&state),
            artefacts,
        }
    }

    fn key(&self) -> SnapshotKey {
        self.key_of("base")
    }

    fn key_of(&self, template: &str) -> SnapshotKey {
        let sums = self.snapshots.sums(&self.artefacts).expect("there");
        SnapshotKey {
            template: template.to_owned(),
            kernel: sums.kernel,
            rootfs: sums.rootfs,
            initramfs: sums.initramfs,
            vcpus: 1,
            memory_mib: 256,
            network: "none".to_owned(),
            backend: "firecracker".to_owned(),
            vmm: "Firecracker v1.16.1".to_owned(),
            cpu: "AuthenticAMD 25/1/1 avx2".to_owned(),
            runner: "0.1.0".to_owned(),
        }
    }

    fn build(&self, key: &SnapshotKey, replacing: Option<u64>) -> Box<SnapshotBuild> {
        match self.snapshots.begin(key, replacing, &|_| {}).expect("writable") {
            Begun::Build(build) => build,
            Begun::Exists(found) => panic!("{found:?}"),
        }
    }

    /// With contents that tell the template.
    fn publish_of(&self, template: &str, replacing: Option<u64>) -> Snapshot {
        let key = self.key_of(template);
        let build = self.build(&key, replacing);
        write_parts(&build, template);
        build.publish(details(), &self.keys).expect("published")
    }

    fn publish(&self) -> Snapshot {
        self.publish_of("base", None)
    }

    fn open(&self, snapshot: &Snapshot) -> Result<VerifiedSnapshot, SnapshotError> {
        snapshot.open(&self.keys, &self.key())
    }

    /// The reason why it is refused.
    fn refusal(&self, snapshot: &Snapshot) -> Refusal {
        refusal(self.open(snapshot))
    }
}

fn artefacts(state: &Path) -> Artefacts {
    Artefacts {
        boot: BootFiles {
            kernel: state.join("kernels/debian/vmlinux"),
            initramfs: state.join("initramfs/1.cpio"),
        },
        rootfs: state.join("templates/base/rootfs.squashfs"),
        scratch: state.join("scratch.ext4"),
        template: TemplateManifest {
            name: "base".to_owned(),
            suite: String::new(),
            languages: Vec::new(),
            rootfs_sha256: String::new(),
            rootfs_bytes: 6,
            recipe_sha256: String::new(),
            packages: Vec::new(),
        },
    }
}

fn details() -> SnapshotDetails {
    SnapshotDetails {
        parked: vec!["python".to_owned()],
        hello: json!({"version": 1}),
    }
}

fn write_parts(build: &SnapshotBuild, text: &str) {
    let memory = File::create(build.memory()).expect("made");
    memory.set_len(1 << 20).expect("grown");
    memory.write_all_at(text.as_bytes(), 500_000).expect("written");
    fs::write(build.state(), format!("state of {text}")).expect("written");
    fs::write(build.scratch(), format!("scratch of {text}")).expect("written");
}

fn refusal(result: Result<VerifiedSnapshot, SnapshotError>) -> Refusal {
    match result {
        Err(SnapshotError::Refused { reason, .. }) => *reason,
        other => panic!("{other:?}"),
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

/// As the owner may do, whatever the mode.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut contents = fs::read(path).expect("readable");
    change(&mut contents);
    let mode = fs::metadata(path).expect("there").permissions().mode();
    // Longer than the step in which an older kernel counts time.
    std::thread::sleep(Duration::from_millis(20));
    set_mode(path, 0o600);
    fs::write(path, contents).expect("written");
    set_mode(path, mode);
}

fn flip(path: &Path, bit: usize) {
    change(path, |contents| {
        let bit = bit % (contents.len() * 8);
        contents[bit / 8] ^= 1 << (bit % 8);
    });
}

fn swap(one: &Path, other: &Path) {
    let between = one.with_extension("between");
    fs::rename(one, &between).expect("moved");
    fs::rename(other, one).expect("moved");
    fs::rename(&between, other).expect("moved");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    set_mode(to, 0o700);
    for name in [MEMORY, STATE, SCRATCH, MANIFEST, SIGNATURE] {
        fs::copy(from.join(name), to.join(name)).expect("copied");
    }
}

/// Puts a manifest of any kind in place, properly signed.
fn sign(fixture: &Fixture, snapshot: &Snapshot, manifest: &[u8]) {
    let signature = fixture.keys.sign(SIGNATURE_DOMAIN, manifest).expect("signed");
    change(&snapshot.path().join(MANIFEST), |text| *text = manifest.to_vec());
    change(&snapshot.path().join(SIGNATURE), |text| {
        *text = format!("{signature}\n").into_bytes();
    });
}

#[test]
fn what_was_built_is_found_and_opened() {
    let fixture = Fixture::new();
    let key = fixture.key();
    assert!(fixture.snapshots.find(&key).expect("readable").is_none());
    let built = fixture.publish();
    assert_eq!((built.id(), built.serial()), (key.id(), 1));
    for name in [MEMORY, STATE, SCRATCH, MANIFEST, SIGNATURE] {
        let mode = fs::metadata(built.path().join(name))
            .expect(name)
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o444, "{name}");
    }

    let found = fixture.snapshots.find(&key).expect("readable").expect("there");
    assert_eq!(found.path(), built.path());
    let opened = fixture.open(&found).expect("good");
    let manifest = opened.manifest();
    assert_eq!(manifest.key, key);
    assert_eq!(manifest.memory.bytes, 1 << 20);
    assert_eq!(manifest.signer, fixture.keys.public().expect("made").id());
    assert_eq!(
        (&manifest.parked, &manifest.hello),
        (&details().parked, &details().hello)
    );
    assert_eq!(io_text(opened.state()), "state of base");
    assert_eq!(opened.state_path(), built.path().join("state"));
    assert_eq!(opened.memory().metadata().expect("open").len(), 1 << 20);
    opened.check_unchanged().expect("nobody touched it");
}

fn io_text(file: &File) -> String {
    std::io::read_to_string(file).expect("readable")
}

#[test]
fn an_unchanged_snapshot_is_not_read_again() {
    let fixture = Fixture::new();
    let snapshot = fixture.publish();
    assert!(!fixture.open(&snapshot).expect("good").verified_from_cache());
    assert!(fixture.open(&snapshot).expect("good").verified_from_cache());
    let verified = snapshot
        .verify_all(&fixture.keys, &fixture.key(), &fixture.artefacts)
        .expect("good");
    assert!(!verified.verified_from_cache());

    // The same contents in another file.
    let memory = snapshot.path().join(MEMORY);
    fs::copy(&memory, memory.with_extension("copy")).expect("copied");
    fs::rename(memory.with_extension("copy"), &memory).expect("moved");
    assert!(!fixture.open(&snapshot).expect("good").verified_from_cache());
    assert!(fixture.open(&snapshot).expect("good").verified_from_cache());
}

#[test]
fn a_change_is_seen_through_an_equal_size_and_a_restored_time() {
    let fixture = Fixture::new();
    let snapshot = fixture.publish();
    let opened = fixture.open(&snapshot).expect("good");
    let memory = snapshot.path().join(MEMORY);
    let modified = fs::metadata(&memory)
        .and_then(|metadata| metadata.modified())
        .expect("known");
    flip(&memory, 4_000_000);
    set_mode(&memory, 0o600);
    File::options()
        .write(true)
        .open(&memory)
        .and_then(|file| file.set_modified(modified))
        .expect("set");
    set_mode(&memory, 0o400);
    assert!(matches!(
        fixture.refusal(&snapshot),
        Refusal::Digest {
            part: Part::Memory,
            ..
        }
    ));
    let error = opened.check_unchanged().expect_err("changed");
    assert!(
        error
            .to_string()
            .ends_with("its memory has changed while it was in use"),
        "{error}"
    );
    flip(&memory, 4_000_000);
    fixture.open(&snapshot).expect("as it was");
}

#[test]
fn a_part_that_was_replaced_after_opening_is_noticed() {
    let fixture = Fixture::new();
    let snapshot = fixture.publish();
    let opened = fixture.open(&snapshot).expect("good");
    fs::rename(snapshot.path().join(MANIFEST), snapshot.path().join(STATE)).expect("moved");
    let error = opened.check_unchanged().expect_err("replaced");
    assert!(error.to_string().contains("its state has changed"), "{error}");
}

#[test]
fn a_bit_in_each_part_is_noticed() {
    for (name, expected) in [
        (MEMORY, "its memory has the SHA-256"),
        (STATE, "its state has the SHA-256"),
        (MANIFEST, "its manifest is not what the key"),
        (SIGNATURE, "its manifest is not what the key"),
    ] {
        let fixture = Fixture::new();
        let snapshot = fixture.publish();
        fixture.open(&snapshot).expect("good");
        let contents = fs::read(snapshot.path().join(name)).expect("there");
        // The lowest bit of a decimal digit makes another digit of it, and so another signature.
        let digit = contents.iter().rposition(u8::is_ascii_digit);
        let bit = match name {
            SIGNATURE => 8 * digit.expect("128 hexadecimal digits"),
            _ => 77,
        };
        flip(&snapshot.path().join(name), bit);
        let reason = fixture.refusal(&snapshot).to_string();
        assert!(reason.contains(expected), "{name}: {reason}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_bit_anywhere_is_noticed(part in 0_usize..4, bit: usize) {
        let fixture = Fixture::new();
        let snapshot = fixture.publish();
        fixture.open(&snapshot).expect("good");
        let path = snapshot.path().join([MEMORY, STATE, SCRATCH, MANIFEST, SIGNATURE][part]);
        flip(&path, bit);
        fixture.refusal(&snapshot);
        flip(&path, bit);
        fixture.open(&snapshot).expect("as it was");
    }

    #[test]
    fn no_signed_manifest_makes_opening_fall_over(text in proptest::collection::vec(any::<u8>(), 0..200), field in 0_usize..10) {
        let fixture = Fixture::new();
        let snapshot = fixture.publish();
        let good = fs::read(snapshot.path().join(MANIFEST)).expect("there");
        sign(&fixture, &snapshot, &text);
        let is_refused = matches!(fixture.refusal(&snapshot), Refusal::ManifestMalformed { .. });
        prop_assert!(is_refused);

        let mut manifest: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&good).expect("JSON");
        let name = manifest.keys().nth(field).expect("ten fields").clone();
        manifest.remove(&name);
        sign(&fixture, &snapshot, &serde_json::to_vec(&manifest).expect("plain"));
        let refusal = fixture.refusal(&snapshot);
        prop_assert!(matches!(refusal, Refusal::ManifestMalformed { .. }), "{}: {}", name, refusal);
    }
}

#[test]
fn a_bit_in_what_the_machine_boots_from_is_noticed() {
    for (part, expected) in [
        ("kernels/debian/vmlinux", "it was made for the kernel "),
        ("initramfs/1.cpio", "it was made for the initramfs "),
        (
            "templates/base/rootfs.squashfs",
            "it was made for the root filesystem ",
        ),
    ] {
        let fixture = Fixture::new();
        let snapshot = fixture.publish();
        let before = fixture.key();
        flip(&fixture.snapshots.state.join(part), 3);
        let reason = fixture.refusal(&snapshot).to_string();
        assert!(reason.starts_with(expected), "{part}: {reason}");
        let result = snapshot.verify_all(&fixture.keys, &before, &fixture.artefacts);
        assert!(refusal(result).to_string().starts_with(expected), "{part}");

        let key = fixture.key();
        assert!(fixture.snapshots.find(&key).expect("readable").is_none());
        let error: HostError = fixture.snapshots.why_missing(&key, &fixture.keys).into();
        assert_eq!(error.code, ErrorCode::SnapshotInvalid);
        assert!(error.cause.contains(expected), "{error}");
        assert!(
            error.remedy.contains("host-agent template build --force base"),
            "{error}"
        );
    }
}

#[test]
fn a_root_filesystem_that_is_not_what_was_recorded_is_refused() {
    let mut fixture = Fixture::new();
    fixture.artefacts.template.rootfs_sha256 = Sha256Sum::of(b"rootfs").to_string();
    fixture.snapshots.sums(&fixture.artefacts).expect("as recorded");
    flip(&fixture.artefacts.rootfs, 3);
    let error = fixture.snapshots.sums(&fixture.artefacts).expect_err("changed");
    assert!(matches!(error, ImageError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("when it was made"), "{error}");
}

#[test]
fn what_a_machine_boots_from_is_no_link_in_the_store_but_may_be_elsewhere() {
    let mut fixture = Fixture::new();
    let outside = fixture.root.path().join("vmlinuz");
    fs::rename(&fixture.artefacts.boot.kernel, &outside).expect("moved");
    symlink(&outside, &fixture.artefacts.boot.kernel).expect("linked");
    assert!(fixture.snapshots.sums(&fixture.artefacts).is_err());

    let link = fixture.root.path().join("link");
    symlink(&outside, &link).expect("linked");
    fixture.artefacts.boot.kernel = link;
    fixture.snapshots.sums(&fixture.artefacts).expect("a user's own");
    fixture.artefacts.boot.kernel = fixture.root.path().to_owned();
    assert!(fixture.snapshots.sums(&fixture.artefacts).is_err());
}

#[test]
fn every_difference_of_the_machine_is_refused_by_name() {
    let fixture = Fixture::new();
    let snapshot = fixture.publish();
    let other = Sha256Sum::of(b"other");
    type Change = fn(&mut SnapshotKey, Sha256Sum);
    let changes: [(&str, Change); 11] = [
        ("template base", |key, _| key.template = "rust".to_owned()),
        ("kernel", |key, other| key.kernel = other),
        ("root filesystem", |key, other| key.rootfs = other),
        ("initramfs", |key, other| key.initramfs = other),
        ("number of vCPUs 1, and here it is 2", |key, _| key.vcpus = 2),
        ("memory size in MiB 256", |key, _| key.memory_mib = 512),
        ("network none", |key, _| key.network = "egress".to_owned()),
        ("backend firecracker", |key, _| key.backend = "qemu".to_owned()),
        (
            "VMM version Firecracker v1.16.1, and here it is Firecracker v1.16.2",
            |key, _| {
                key.vmm = "Firecracker v1.16.2".to_owned();
            },
        ),
        ("CPU AuthenticAMD", |key, _| key.cpu = "GenuineIntel".to_owned()),
        ("guest-runner version 0.1.0", |key, _| {
            key.runner = "0.2.0".to_owned()
        }),
    ];
    let mut ids = std::collections::BTreeSet::from([fixture.key().id()]);
    for (expected, change) in changes {
        let mut key = fixture.key();
        change(&mut key, other);
        assert!(ids.insert(key.id()), "{expected}");
        let Refusal::Mismatch(mismatches) = refusal(snapshot.open(&fixture.keys, &key)) else {
            panic!("{expected}")
        };
        let [mismatch] = mismatches.as_slice() else {
            panic!("{mismatches:?}")
        };
        let text = mismatch.to_string();
        assert!(
            text.starts_with(&format!("it was made for the {expected}")),
            "{text}"
        );
    }
}

#[test]
fn parts_of_another_snapshot_are_refused() {
    type Expected = fn(&Refusal) -> bool;
    let cases: [(&[&str], Expected); 5] = [
        (&[MEMORY], |reason| {
            matches!(
                reason,
                Refusal::Digest {
                    part: Part::Memory,
                    ..
                }
            )
        }),
        (&[STATE], |reason| {
            matches!(
                reason,
                Refusal::Digest {
                    part: Part::State,
                    ..
                }
            )
        }),
        (&[MANIFEST], |reason| {
            matches!(reason, Refusal::BadSignature { .. })
        }),
        (&[SIGNATURE], |reason| {
            matches!(reason, Refusal::BadSignature { .. })
        }),
        (&[MEMORY, STATE, SCRATCH, MANIFEST, SIGNATURE], |reason| {
            matches!(reason, Refusal::Misplaced)
        }),
    ];
    for (names, expected) in cases {
        let fixture = Fixture::new();
        // As long as one another, so that only the contents tell them apart.
        let (base, rust) = (fixture.publish_of("base", None), fixture.publish_of("rust", None));
        fixture.open(&base).expect("good");
        rust.open(&fixture.keys, &fixture.key_of("rust")).expect("good");
        for name in names {
            swap(&base.path().join(name), &rust.path().join(name));
        }
        let reason = fixture.refusal(&base);
        assert!(expected(&reason), "{names:?}: {reason}");
        let reason = refusal(rust.open(&fixture.keys, &fixture.key_of("rust")));
        assert!(expected(&reason), "{names:?}: {reason}");
    }
}

#[test]
fn only_trusted_keys_count() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    fixture.keys.create().expect("made");
    let theirs = other.publish();
    let id = theirs.id().to_string();
    let here = fixture.snapshots.directory().join(&id);
    crate::guarded::private_directory(&fixture.snapshots.state, &[DIRECTORY, &id]).expect("made");
    copy(&theirs.path(), &here.join("1"));
    let snapshot = fixture
        .snapshots
        .find(&fixture.key())
        .expect("readable")
        .expect("there");
    let reason = fixture.refusal(&snapshot);
    assert!(matches!(reason, Refusal::UnknownSigner { .. }), "{reason}");
    assert!(
        reason.to_string().contains("which is not trusted here"),
        "{reason}"
    );

    // Their manifest under our name.
    let signature = fs::read_to_string(here.join("1").join(SIGNATURE)).expect("there");
    let (our, their) = (
        fixture.keys.public().expect("made").id().to_string(),
        other.keys.public().expect("made").id().to_string(),
    );
    change(&here.join("1").join(SIGNATURE), |text| {
        *text = signature.replace(&their, &our).into_bytes();
    });
    let reason = fixture.refusal(&snapshot);
    assert!(matches!(reason, Refusal::BadSignature { .. }), "{reason}");
    change(&here.join("1").join(SIGNATURE), |text| {
        *text = signature.into_bytes()
    });

    let public = other.keys.public().expect("made").to_string();
    let id = fixture.keys.trust(&public).expect("a key");
    fixture.open(&snapshot).expect("trusted");
    fixture.keys.untrust(id).expect("it was");
    // Although the files are known to be unchanged.
    let reason = fixture.refusal(&snapshot);
    assert!(matches!(reason, Refusal::UnknownSigner { .. }), "{reason}");
}

#[test]
fn a_rotated_keys_snapshots_stay_good_unless_it_is_dropped() {
    let fixture = Fixture::new();
    let snapshot = fixture.publish();
    fixture.keys.rotate(false).expect("rotated");
    fixture.open(&snapshot).expect("good");
    let second = fixture.publish_of("base", Some(1));
    fixture.open(&second).expect("good");
    fixture.keys.rotate(true).expect("rotated");
    let reason = fixture.refusal(&second);
    assert!(matches!(reason, Refusal::UnknownSigner { .. }), "{reason}");
}

#[test]
fn a_signature_for_another_purpose_does_not_count() {
    let fixture = Fixture::new();
    let snapshot = fixture.publish();
    let manifest = fs::read(snapshot.path().join(MANIFEST)).expect("there");
    let signature = fixture
        .keys
        .sign("runner-codes receipt v1", &manifest)
        .expect("signed");
    change(&snapshot.path().join(SIGNATURE), |text| {
        *text = format!("{signature}\n").into_bytes();
    });
    assert!(matches!(fixture.refusal(&snapshot), Refusal::BadSignature { .. }));
}

#[test]
fn an_older_snapshot_is_a_replay() {
    let fixture = Fixture::new();
    let first = fixture.publish();
    fixture.open(&first).expect("good");
    let kept = fixture.root.path().join("kept");
    copy(&first.path(), &kept);
    let second = fixture.publish_of("base", Some(1));
    assert_eq!(second.serial(), 2);
    let reason = fixture.refusal(&first);
    assert_eq!(
        reason.to_string(),
        "it is a replay: its serial number is 1, and 2 has been accepted before"
    );

    // Also when the newer one is gone.
    fixture.snapshots.remove(second.id()).expect("removed");
    crate::guarded::private_directory(&fixture.snapshots.state, &[DIRECTORY, &first.id().to_string()])
        .expect("made");
    copy(&kept, &first.path());
    let found = fixture
        .snapshots
        .find(&fixture.key())
        .expect("readable")
        .expect("there");
    assert!(matches!(
        fixture.refusal(&found),
        Refusal::Replayed { serial: 1, newest: 2 }
    ));
    // And under another number.
    fs::rename(first.path(), second.path()).expect("moved");
    let found = fixture
        .snapshots
        .find(&fixture.key())
        .expect("readable")
        .expect("there");
    assert!(matches!(fixture.refusal(&found), Refusal::Misplaced));
    // What is built next is above all of them.
    assert_eq!(fixture.publish_of("base", Some(2)).serial(), 3);
}

#[test]
fn other_formats_are_refused() {
    let fixture = Fixture::new();
    let snapshot = fixture.publish();
    let text = fs::read_to_string(snapshot.path().join(MANIFEST)).expect("there");
    sign(
        &fixture,
        &snapshot,
        text.replace("\"format\": 1", "\"format\": 2").as_bytes(),
    );
    let reason = fixture.refusal(&snapshot);
    assert_eq!(reason.to_string(), "its format 2 is not supported");
    let more = text.replacen('{', "{\"more\": 1,", 1);
    sign(&fixture, &snapshot, more.as_bytes());
    assert!(matches!(
        fixture.refusal(&snapshot),
        Refusal::ManifestMalformed { .. }
    ));
}

#[test]
fn a_manifest_is_bounded() {
    let fixture = Fixture::new();
    let key = fixture.key();
    let build = fixture.build(&key, None);
    write_parts(&build, "base");
    let details = SnapshotDetails {
        hello: json!("x".repeat(1 << 20)),
        ..details()
    };
    let error = build.publish(details, &fixture.keys).expect_err("too large");
    assert!(error.to_string().contains("more than 1048576"), "{error}");
    assert!(fixture.snapshots.find(&key).expect("readable").is_none());

    let snapshot = fixture.publish();
    sign(&fixture, &snapshot, &vec![b' '; (1 << 20) + 1]);
    let reason = fixture.refusal(&snapshot);
    assert_eq!(
        reason.to_string(),
        "its manifest cannot be used: it is larger than 1048576 bytes"
    );
}

#[test]
fn files_that_are_not_plain_are_refused() {
    for name in [MEMORY, STATE, SCRATCH, MANIFEST, SIGNATURE] {
        let fixture = Fixture::new();
        let snapshot = fixture.publish();
        let (path, real) = (snapshot.path().join(name), fixture.root.path().join("real"));
        fs::rename(&path, &real).expect("moved");
        let reason = fixture.refusal(&snapshot).to_string();
        assert!(
            reason.ends_with("cannot be used: it is missing"),
            "{name}: {reason}"
        );
        symlink(&real, &path).expect("linked");
        let reason = fixture.refusal(&snapshot).to_string();
        assert!(reason.contains("it is a symbolic link"), "{name}: {reason}");
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        let reason = fixture.refusal(&snapshot).to_string();
        assert!(reason.contains("not of the right kind"), "{name}: {reason}");
    }
}

#[test]
fn directories_that_are_links_are_refused() {
    let fixture = Fixture::new();
    let snapshot = fixture.publish();
    let machine = fixture.snapshots.directory_of(snapshot.id());
    for path in [snapshot.path(), machine, fixture.snapshots.directory()] {
        let real = fixture.root.path().join("real");
        fs::rename(&path, &real).expect("moved");
        symlink(&real, &path).expect("linked");
        let reason = fixture.refusal(&snapshot);
        let is_link = matches!(
            reason,
            Refusal::Unsafe {
                part: Part::Directory,
                reason: Unsafe::WrongKind
            }
        );
        assert!(is_link, "{reason}");
        fs::remove_file(&path).expect("removed");
        fs::rename(&real, &path).expect("moved");
        fixture.open(&snapshot).expect("as it was");
    }
}

#[test]
fn what_others_could_write_is_refused() {
    let fixture = Fixture::new();
    let snapshot = fixture.publish();
    for name in [MEMORY, STATE, MANIFEST, SIGNATURE, ""] {
        let path = snapshot.path().join(name);
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        set_mode(&path, mode | 0o020);
        let reason = fixture.refusal(&snapshot).to_string();
        assert!(
            reason.contains("its permissions are too wide: others can write to it"),
            "{name}: {reason}"
        );
        set_mode(&path, mode);
    }
    fixture.open(&snapshot).expect("as it was");
}

#[test]
fn what_belongs_to_others_is_refused() {
    let fixture = Fixture::new();
    let snapshot = fixture.publish();
    let nobody = rustix::fs::Uid::from_raw(65533);
    let path = snapshot.path().join(MEMORY);
    if let Err(error) = rustix::fs::chown(&path, Some(nobody), None) {
        eprintln!("skipped: cannot give a file away: {error}");
        return;
    }
    let reason = fixture.refusal(&snapshot).to_string();
    assert_eq!(reason, "its memory cannot be used: it belongs to user 65533");
}

#[test]
fn truncated_and_longer_parts_are_refused() {
    for (name, part) in [(MEMORY, "memory"), (STATE, "state")] {
        let fixture = Fixture::new();
        let snapshot = fixture.publish();
        let length = fs::metadata(snapshot.path().join(name)).expect("there").len();
        change(&snapshot.path().join(name), |contents| {
            contents.pop();
        });
        let reason = fixture.refusal(&snapshot).to_string();
        assert_eq!(
            reason,
            format!("its {part} is {} bytes, not {length}", length - 1)
        );
        change(&snapshot.path().join(name), |contents| contents.extend([0, 0]));
        let reason = fixture.refusal(&snapshot).to_string();
        assert_eq!(
            reason,
            format!("its {part} is {} bytes, not {length}", length + 1)
        );
    }
}

#[test]
fn a_build_without_its_files_leaves_nothing() {
    type Make = fn(&SnapshotBuild);
    let cases: [(&str, Make); 4] = [
        ("it is missing", |_| {}),
        ("it is missing", |build| {
            fs::write(build.memory(), "memory").expect("written")
        }),
        ("it is empty", |build| {
            write_parts(build, "base");
            fs::write(build.state(), "").expect("written");
        }),
        ("symbolic link", |build| {
            write_parts(build, "base");
            fs::remove_file(build.memory()).expect("removed");
            symlink("/etc/passwd", build.memory()).expect("linked");
        }),
    ];
    let fixture = Fixture::new();
    for (expected, make) in cases {
        let build = fixture.build(&fixture.key(), None);
        make(&build);
        let error = build.publish(details(), &fixture.keys).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(left(&fixture), [] as [String; 0]);
    }
    drop(fixture.build(&fixture.key(), None));
    assert_eq!(left(&fixture), [] as [String; 0]);
}

fn left(fixture: &Fixture) -> Vec<String> {
    names(&fixture.snapshots.directory_of(fixture.key().id())).expect("readable")
}

#[test]
fn what_an_interrupted_build_left_is_swept() {
    let fixture = Fixture::new();
    fixture.publish();
    let leave = || {
        let path = fixture
            .snapshots
            .directory_of(fixture.key().id())
            .join(".new-left");
        fs::create_dir(&path).expect("made");
        fs::write(path.join(MEMORY), "half").expect("written");
    };
    leave();
    fixture.publish_of("base", Some(1));
    assert_eq!(left(&fixture), ["1", "2"]);
    leave();
    let collected = fixture
        .snapshots
        .gc(&fixture.keys, &GcPolicy::default(), SystemTime::now())
        .expect("writable");
    assert_eq!(left(&fixture), ["2"]);
    assert_eq!(collected.removed.len(), 1);
}

#[test]
fn of_two_builders_the_second_finds_what_the_first_built() {
    let fixture = Fixture::new();
    let key = fixture.key();
    let first = fixture.build(&key, None);
    write_parts(&first, "base");
    let (waits, waiting) = mpsc::channel();
    std::thread::scope(|scope| {
        let (snapshots, key) = (&fixture.snapshots, &key);
        let second = scope.spawn(move || {
            let report = |progress: crate::Progress<'_>| {
                if matches!(progress, crate::Progress::Waiting { .. }) {
                    waits.send(()).expect("awaited");
                }
            };
            snapshots.begin(key, None, &report).expect("writable")
        });
        waiting.recv_timeout(Duration::from_secs(60)).expect("it waits");
        assert!(!second.is_finished());
        // Nothing of what is being built is removed meanwhile, nor found.
        let policy = GcPolicy::default();
        fixture
            .snapshots
            .gc(&fixture.keys, &policy, SystemTime::now())
            .expect("writable");
        assert!(fixture.snapshots.find(key).expect("readable").is_none());
        assert!(matches!(
            fixture.snapshots.remove(key.id()),
            Err(SnapshotError::InUse { .. })
        ));
        let published = first.publish(details(), &fixture.keys).expect("published");
        let begun = second.join().expect("no panic");
        let Begun::Exists(found) = begun else {
            panic!("{begun:?}")
        };
        assert_eq!(found.path(), published.path());
    });
}

#[test]
fn of_many_that_replace_a_snapshot_one_does() {
    let fixture = Fixture::new();
    let first = fixture.publish();
    let built: usize = std::thread::scope(|scope| {
        let build = || match fixture
            .snapshots
            .begin(&fixture.key(), Some(first.serial()), &|_| {})
            .expect("writable")
        {
            Begun::Build(build) => {
                write_parts(&build, "base");
                build.publish(details(), &fixture.keys).expect("published");
                1
            }
            Begun::Exists(found) => {
                fixture.open(&found).expect("good");
                0
            }
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(build)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    });
    assert_eq!(built, 1);
    assert_eq!(left(&fixture), ["1", "2"]);
}

#[test]
fn what_is_in_use_is_not_removed() {
    let fixture = Fixture::new();
    let first = fixture.publish();
    let in_use = fixture.open(&first).expect("good");
    let gc = || {
        fixture
            .snapshots
            .gc(&fixture.keys, &GcPolicy::default(), SystemTime::now())
            .expect("writable")
    };
    assert_eq!(gc(), Collected::default());
    fixture.publish_of("base", Some(1));
    assert_eq!(gc().in_use, [first.path()]);
    assert!(matches!(
        fixture.snapshots.remove(first.id()),
        Err(SnapshotError::InUse { .. })
    ));
    assert_eq!(left(&fixture), ["1", "2"]);
    in_use.check_unchanged().expect("nobody touched it");
    drop(in_use);
    let collected = gc();
    let [removed] = collected.removed.as_slice() else {
        panic!("{collected:?}")
    };
    assert_eq!(
        (&removed.path, removed.reason),
        (&first.path(), GcReason::Superseded)
    );
    assert!(removed.bytes >= 4096, "{removed:?}");
    assert_eq!(left(&fixture), ["2"]);
    let error: HostError = fixture.open(&first).expect_err("gone").into();
    assert_eq!(error.code, ErrorCode::SnapshotMissing);

    assert_eq!(fixture.snapshots.remove(first.id()).expect("unused"), 1);
    assert!(!fixture.snapshots.directory_of(first.id()).exists());
    assert_eq!(fixture.snapshots.remove(first.id()).expect("nothing to do"), 0);
}

#[test]
fn old_and_orphaned_snapshots_go() {
    let fixture = Fixture::new();
    let gc = |policy: &GcPolicy, after: u64| {
        let now = SystemTime::now() + Duration::from_secs(after);
        let collected = fixture
            .snapshots
            .gc(&fixture.keys, policy, now)
            .expect("writable");
        collected
            .removed
            .iter()
            .map(|removed| removed.reason)
            .collect::<Vec<_>>()
    };
    let day = GcPolicy {
        max_age: Some(Duration::from_secs(86_400)),
        ..GcPolicy::default()
    };
    fixture.publish();
    assert_eq!(gc(&day, 86_000), []);
    assert_eq!(gc(&GcPolicy::default(), 1_000_000), []);
    assert_eq!(gc(&day, 87_000), [GcReason::TooOld]);

    for part in [
        &fixture.artefacts.boot.kernel,
        &fixture.artefacts.boot.initramfs,
        &fixture.artefacts.rootfs,
    ] {
        fixture.publish_of("base", Some(u64::MAX));
        let before = fixture.key();
        flip(part, 1);
        let named = GcPolicy {
            present: [before.kernel, before.initramfs, before.rootfs].into(),
            ..GcPolicy::default()
        };
        assert_eq!(gc(&named, 0), []);
        assert_eq!(gc(&GcPolicy::default(), 0), [GcReason::Orphaned]);
    }
    assert_eq!(
        names(&fixture.snapshots.directory()).expect("readable"),
        [] as [String; 0]
    );
}

#[test]
fn a_list_says_what_is_wrong_and_goes_on() {
    let fixture = Fixture::new();
    let base = fixture.publish_of("base", None);
    fixture.publish_of("base", Some(1));
    let rust = fixture.publish_of("rust", None);
    fs::remove_file(rust.path().join(MANIFEST)).expect("removed");
    fs::write(fixture.snapshots.directory().join("junk"), "").expect("written");
    fs::create_dir(fixture.snapshots.directory_of(base.id()).join("01")).expect("made");
    let list = fixture.snapshots.list(&fixture.keys).expect("readable");
    let line = |template: &str, serial| {
        list.iter()
            .find(|info| {
                info.snapshot.id() == fixture.key_of(template).id() && info.snapshot.serial() == serial
            })
            .unwrap_or_else(|| panic!("{template} {serial}"))
    };
    assert_eq!(list.len(), 3);
    let (old, new, damaged) = (line("base", 1), line("base", 2), line("rust", 1));
    assert!(old.superseded && !new.superseded);
    assert!(
        old.problem
            .as_ref()
            .is_some_and(|problem| problem.to_string().contains("replay"))
    );
    assert!(new.problem.is_none() && new.disk_bytes > 0);
    assert_eq!(new.manifest.as_ref().map(|manifest| manifest.serial), Some(2));
    assert!(damaged.manifest.is_none());
    let problem = damaged.problem.as_ref().expect("it is damaged").to_string();
    assert!(
        problem.contains("its manifest cannot be used: it is missing"),
        "{problem}"
    );
}

#[test]
fn age_makes_stale_and_so_does_a_time_to_come() {
    let fixture = Fixture::new();
    let snapshot = fixture.publish();
    let opened = fixture.open(&snapshot).expect("good");
    let manifest = opened.manifest();
    let after = |seconds| manifest.created() + Duration::from_secs(seconds);
    let max_age = SnapshotManifest::MAX_AGE;
    assert!(!manifest.is_stale(after(0), max_age));
    assert!(!manifest.is_stale(after(86_400), max_age));
    assert!(manifest.is_stale(after(86_401), max_age));
    assert!(manifest.is_stale(manifest.created() - Duration::from_secs(1), max_age));
    let ancient = SnapshotManifest {
        created_unix: u64::MAX,
        ..manifest.clone()
    };
    assert!(ancient.is_stale(after(0), max_age));
}

#[test]
fn errors_have_codes_and_remedies() {
    let fixture = Fixture::new();
    let error: HostError = fixture
        .snapshots
        .why_missing(&fixture.key(), &fixture.keys)
        .into();
    assert_eq!(error.code, ErrorCode::SnapshotMissing);
    assert_eq!(
        error.to_string(),
        "There is no snapshot of template 'base' for this machine; run `host-agent template build base`"
    );
    let snapshot = fixture.publish();
    flip(&snapshot.path().join(MEMORY), 0);
    let error: HostError = fixture.open(&snapshot).expect_err("damaged").into();
    assert_eq!(error.code, ErrorCode::SnapshotInvalid);
    assert_eq!(error.remedy, "run `host-agent template build --force base`");
    set_mode(&fixture.snapshots.state.join("keys"), 0o755);
    let error: HostError = fixture.open(&snapshot).expect_err("unsafe keys").into();
    assert_eq!(error.code, ErrorCode::SigningKeyUnusable);
}

/// On a disk of 1 MiB that only this thread sees.
#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let test = || {
        let root = tempfile::tempdir().expect("a directory");
        let state = root.path().join("state");
        fs::create_dir(&state).expect("made");
        if let Err(error) = mount_small(&state) {
            eprintln!("skipped: cannot mount a small disk: {error}");
            return;
        }
        let fixture = Fixture::at(root, "state");
        fixture.keys.create().expect("fits");
        let build = fixture.build(&fixture.key(), None);
        fs::write(build.state(), "state").expect("fits");
        fs::write(build.scratch(), "scratch").expect("fits");
        let mut memory = File::create(build.memory()).expect("made");
        while memory.write_all(&[1; 512]).is_ok() {}
        let error: HostError = build.publish(details(), &fixture.keys).expect_err("full").into();
        assert_eq!(error.code, ErrorCode::DiskFull);
        assert!(error.cause.ends_with("/state"), "{error}");
        assert_eq!(left(&fixture), [] as [String; 0]);
        drop(memory);
        fixture.publish();
        // The directory that it is mounted at could not be removed otherwise.
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(&state, flags).expect("mounted");
    };
    std::thread::spawn(test).join().expect("no panic");
}

fn mount_small(path: &Path) -> rustix::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    #[expect(unsafe_code, reason = "the call is marked unsafe for the sake of other flags")]
    // SAFETY: a mount namespace shares no memory and no descriptors; this thread alone gets one.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(c"size=1m"))
}

/// `cargo test -p image -- --ignored --nocapture opening_costs`
#[test]
#[ignore = "a measurement"]
fn opening_costs() {
    let fixture = Fixture::new();
    let build = fixture.build(&fixture.key(), None);
    let memory = File::create(build.memory()).expect("made");
    memory.set_len(512 << 20).expect("grown");
    let block: Vec<u8> = (0..1_u32 << 20)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8)
        .collect();
    for at in 0..128 {
        memory.write_all_at(&block, (at * 4) << 20).expect("written");
    }
    fs::write(build.state(), &block).expect("written");
    fs::write(build.scratch(), &block).expect("written");
    let start = std::time::Instant::now();
    let snapshot = build.publish(details(), &fixture.keys).expect("published");
    println!("publish, 512 MiB of which 128 are data: {:?}", start.elapsed());
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let key = fixture.key();
        let sums = start.elapsed();
        let opened = snapshot.open(&fixture.keys, &key).expect("good");
        println!(
            "sums {sums:?}, with open {:?}, from cache: {}",
            start.elapsed(),
            opened.verified_from_cache()
        );
    }
}

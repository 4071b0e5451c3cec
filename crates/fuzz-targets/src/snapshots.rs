//! Snapshots: their manifests, and opening them.

use std::cell::LazyCell;
use std::fs;
use std::path::Path;

use image::signing::SigningKeys;
use image::snapshot::{Begun, Snapshot, SnapshotDetails, SnapshotKey, Snapshots};
use image::{Sha256Sum, Store};

use crate::memory::within;

/// A manifest whose signature is good.
pub(crate) fn manifest(data: &[u8]) {
    let most = 64 * data.len() + (64 << 10);
    let Ok(manifest) = within(most, || image::fuzzing::manifest(data)) else {
        return;
    };
    let text = serde_json::to_vec(&manifest).expect("a manifest has a JSON form");
    let again = image::fuzzing::manifest(&text).expect("what was written is read");
    assert_eq!(again.key, manifest.key);
    assert_eq!(again.key.id(), manifest.key.id());
    assert!(again.key.mismatches(&manifest.key).is_empty());
    let _ = manifest.created();
}

/// A snapshot in a store of its own, with what its files held when it was made.
struct Fixture {
    _state: tempfile::TempDir,
    keys: SigningKeys,
    key: SnapshotKey,
    snapshot: Snapshot,
    whole: [Vec<u8>; 5],
}

const FILES: [&str; 5] = ["manifest.json", "manifest.sig", "memory", "state", "scratch"];

impl Fixture {
    fn new() -> Self {
        let state = tempfile::tempdir().expect("the temporary directory can be written");
        let keys = SigningKeys::open(state.path());
        let sum = Sha256Sum::of(b"part");
        let key = SnapshotKey {
            template: "base".to_owned(),
            kernel: sum,
            rootfs: sum,
            initramfs: sum,
            vcpus: 1,
            memory_mib: 256,
            network: "none".to_owned(),
            backend: "qemu".to_owned(),
            vmm: "QEMU 7.2".to_owned(),
            cpu: "max".to_owned(),
            runner: "0.1.0".to_owned(),
        };
        let snapshots = Snapshots::open(&Store::open(state.path()));
        let Ok(Begun::Build(build)) = snapshots.begin(&key, None, &|_| {}) else {
            panic!("the store is new");
        };
        for part in [build.memory(), build.state(), build.scratch()] {
            fs::write(part, "part").expect("it is our own");
        }
        let details = SnapshotDetails {
            parked: vec!["python".to_owned()],
            hello: serde_json::json!({ "version": 1 }),
        };
        let snapshot = build.publish(details, &keys).expect("it is whole");
        let whole = FILES.map(|name| fs::read(snapshot.path().join(name)).expect("it is there"));
        Self {
            _state: state,
            keys,
            key,
            snapshot,
            whole,
        }
    }
}

/// The first byte says which file has the rest instead of what it had, and whether the signature is made to fit. Only what was made
/// is opened.
pub(crate) fn opening(data: &[u8]) {
    thread_local! {
        static FIXTURE: LazyCell<Fixture> = LazyCell::new(Fixture::new);
    }
    let Some((&which, content)) = data.split_first() else {
        return;
    };
    FIXTURE.with(|fixture| {
        let file = usize::from(which & 7) % FILES.len();
        put(&fixture.snapshot.path(), file, content);
        let signed = which & 8 != 0 && file == 0;
        if signed {
            let signature = fixture.keys.sign(image::fuzzing::MANIFEST_DOMAIN, content);
            let text = format!("{}\n", signature.expect("there is a key"));
            put(&fixture.snapshot.path(), 1, text.as_bytes());
        }
        let opened = within((4 << 20) + 64 * content.len(), || {
            fixture.snapshot.open(&fixture.keys, &fixture.key)
        });
        match opened {
            Ok(opened) => {
                let manifest = opened.manifest();
                assert!(
                    content == fixture.whole[file] || signed,
                    "{} was changed",
                    FILES[file]
                );
                assert_eq!(manifest.key, fixture.key);
                assert_eq!(manifest.serial, fixture.snapshot.serial());
                assert_eq!(manifest.memory.sha256, Sha256Sum::of(&fixture.whole[2]));
            }
            Err(error) => {
                assert_ne!(content, fixture.whole[file], "{error}");
                assert!(!error.to_string().is_empty());
            }
        }
        put(&fixture.snapshot.path(), file, &fixture.whole[file]);
        put(&fixture.snapshot.path(), 1, &fixture.whole[1]);
    });
}

/// In place of the file, as its owner can, and with the mode that it must have.
fn put(directory: &Path, file: usize, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join(FILES[file]);
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    fs::remove_file(&path).expect("it is our own");
    fs::write(&path, content).expect("it is our own");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is our own");
}

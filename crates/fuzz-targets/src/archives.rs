//! Archives that set-up fetches: a release of Firecracker, a kernel package.

use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::memory::within;

/// The first byte says whether the rest is packed already.
pub(crate) fn release(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    if kind % 2 == 0 {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        let written = packed.write_all(rest).and_then(|()| packed.finish());
        let packed = written.expect("memory takes anything");
        let program = within((1 << 20) + 16 * rest.len(), || {
            image::fuzzing::release(&packed, "firecracker")
        });
        assert!(program.is_err() || program.is_ok_and(|program| program.len() <= rest.len()));
    } else {
        // What is packed may be a thousand times as much.
        let most = (1 << 20) + 4096 * rest.len();
        let _ = within(most, || image::fuzzing::release(rest, "jailer"));
    }
}

/// A package is unpacked nowhere but where it should be.
pub(crate) fn kernel_package(data: &[u8]) {
    let parent = tempfile::tempdir().expect("the temporary directory can be written");
    let work = parent.path().join("work");
    fs::create_dir(&work).expect("it is our own");
    let most = (1 << 20) + 16 * data.len();
    let unpacked = within(most, || image::fuzzing::kernel_package(data, &work));
    if let Ok(release) = unpacked {
        assert!(!release.contains('/'));
    }
    let names = |directory| -> Vec<_> {
        let entries = fs::read_dir(directory).expect("it is our own");
        entries
            .map(|entry| entry.expect("it is there").file_name())
            .collect()
    };
    assert_eq!(names(parent.path()), ["work"]);
    let expected = ["packaged-modules", "vmlinuz"];
    assert!(
        names(&work)
            .iter()
            .all(|name| expected.iter().any(|known| name == known))
    );
    for module in fs::read_dir(work.join("packaged-modules")).expect("it was made") {
        let kind = module.expect("it is there").file_type().expect("it is there");
        assert!(kind.is_file(), "links and devices are not made");
    }
}

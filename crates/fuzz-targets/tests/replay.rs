//! Every committed seed, and every beginning of it, is given to its target on stable Rust. One test in a program of its own: the targets
//! measure the memory of the whole process.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fuzz_targets::TARGETS;

/// A seed is small: it is read at every test run, and by whoever reviews it.
const MAX_SEED: usize = 8 << 10;
/// How many beginnings of a seed are tried.
const CUTS: usize = 6;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus-seeds")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_seed_holds() {
    let mut failures = Vec::new();
    for target in TARGETS {
        let seeds = files(&seeds().join(target.name));
        assert!(seeds.len() >= 3, "{} has {} seeds", target.name, seeds.len());
        for path in seeds {
            let seed = fs::read(&path).unwrap();
            assert!(
                seed.len() <= MAX_SEED,
                "{} has {} bytes",
                path.display(),
                seed.len()
            );
            for cut in 0..=CUTS {
                let length = seed.len() - seed.len() * cut / (CUTS + 1);
                if catch_unwind(|| (target.run)(&seed[..length])).is_err() {
                    failures.push(format!("{}, {length} bytes of {}", path.display(), seed.len()));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));

    let named: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let directories = files(&seeds());
    let directories = directories
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    assert_eq!(
        directories.collect::<BTreeSet<_>>(),
        named,
        "a target for each directory of seeds"
    );
}

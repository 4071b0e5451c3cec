//! `test`: everything, real microVMs included. Output passes through; what libtest counts and what the tests skipped is
//! added up for the last line, `N passed, N failed, N skipped`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

use anyhow::Context;

use crate::build::{self, Profile};
use crate::metal;

/// The part of the functional suite that is run once more in machines that boot.
const COLD: [&str; 8] = [
    "--package",
    "system-tests",
    "--test",
    "functional",
    "--",
    "languages::",
    "limits::",
    "input::",
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also what takes longer than a few minutes, and the emulated bare-metal host when there is a Firecracker binary.
    #[arg(long)]
    all: bool,
    /// Only the tests whose name contains this.
    filter: Option<String>,
}

/// What came of the tests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let host_agent = build::prepare(Profile::Dev, &["base", "rust"])?;
    let skips = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let mut environment: Vec<(&str, OsString)> = vec![
        ("RUNNER_CODES_HOST_AGENT", host_agent.into()),
        ("RUNNER_CODES_TEST_SKIPS", skips.path().into()),
    ];
    if arguments.all {
        environment.push(("RUNNER_CODES_TEST_ALL", "1".into()));
    }
    let everything = ["--workspace", "--no-fail-fast"].into_iter();
    let mut counts = cargo_test(everything.chain(arguments.filter.as_deref()), &environment)?;
    if arguments.filter.is_none() {
        // What does not depend on how a machine came to be is run in machines that boot, too.
        environment.push(("RUNNER_CODES_TEST_COLD", "1".into()));
        counts.add(cargo_test(COLD.into_iter(), &environment)?);
    }
    let skipped = fs::read_to_string(skips.path()).context("cannot read which tests were skipped")?;
    // A test may say so more than once.
    let mut skipped: BTreeSet<_> = skipped.lines().map(str::to_owned).collect();
    counts.move_to_skipped(skipped.len() as u64);
    if arguments.filter.is_none() {
        match why_not_metal(arguments.all) {
            Some(reason) => {
                counts.skipped += 1;
                skipped.insert(format!("metal: {reason}"));
            }
            None => counts.add_one("metal", metal::suite()),
        }
    }
    for skip in &skipped {
        println!("SKIP: {skip}");
    }
    let Counts {
        passed,
        failed,
        skipped,
    } = counts;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    // The line above stays the last one: no error text after it.
    Ok(if failed > 0 || passed == 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Why the functional suite does not run with Firecracker too.
fn why_not_metal(all: bool) -> Option<&'static str> {
    if !all {
        Some(
            "Firecracker on an emulated bare-metal host runs with `cargo xtask test --all` or `cargo xtask metal`",
        )
    } else if metal::firecracker().is_none() {
        Some("there is no Firecracker in FIRECRACKER_BIN or PATH")
    } else {
        None
    }
}

/// Runs `cargo test`. A test binary that dies without counting is one failure.
fn cargo_test<'a>(
    arguments: impl Iterator<Item = &'a str>,
    environment: &[(&str, OsString)],
) -> anyhow::Result<Counts> {
    let mut command = build::cargo();
    command
        .arg("test")
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut counts = Counts::default();
    let mut terminal = std::io::stdout().lock();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read the output of cargo test")?;
        if let Some(more) = Counts::of_result_line(&String::from_utf8_lossy(&line)) {
            counts.add(more);
        }
        terminal.write_all(&line)?;
        terminal.write_all(b"\n")?;
        terminal.flush()?;
    }
    if !child.wait()?.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

impl Counts {
    /// What one binary's closing line says: `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; …`.
    fn of_result_line(line: &str) -> Option<Self> {
        let (_verdict, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let number = |what: &str| {
            numbers
                .split("; ")
                .find_map(|part| part.strip_suffix(what)?.trim_end().parse::<u64>().ok())
        };
        Some(Self {
            passed: number("passed")?,
            failed: number("failed")?,
            skipped: number("ignored")?,
        })
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    fn add_one(&mut self, name: &str, result: anyhow::Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                eprintln!("{name}: {error:#}");
            }
        }
    }

    /// libtest knows no skipping: a test that skipped itself has passed for it.
    fn move_to_skipped(&mut self, count: u64) {
        let count = count.min(self.passed);
        self.passed -= count;
        self.skipped += count;
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Counts {
        Counts {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn result_lines_are_read_and_others_are_not() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.52s";
        assert_eq!(Counts::of_result_line(line), Some(counts(12, 3, 1)));
        assert_eq!(Counts::of_result_line("test a_result ... ok"), None);
        assert_eq!(Counts::of_result_line("test result: nonsense"), None);
    }

    #[test]
    fn skipped_tests_are_no_longer_passed_ones() {
        let mut total = counts(5, 0, 1);
        total.move_to_skipped(2);
        assert_eq!(total, counts(3, 0, 3));
        total.move_to_skipped(9);
        assert_eq!(total, counts(0, 0, 6));
    }
}

//! `test`: everything, real microVMs included. Output passes through; what libtest counts and what the tests skipped is
//! added up for the last line, `N passed, N failed, N skipped`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

use anyhow::Context;

use crate::build::{self, Profile};
use crate::counts::Counts;
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
    println!("{counts}");
    // The line above stays the last one: no error text after it.
    Ok(if counts.failed > 0 || counts.passed == 0 {
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

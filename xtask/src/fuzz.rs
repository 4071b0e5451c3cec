//! `fuzz`: the targets of crates/fuzz-targets under libFuzzer, one after the other. What came of each is a line of a table; a crash makes
//! the command fail.
//!
//! ```text
//! fuzz/corpus-seeds/NAME (committed, read) ─┐
//! fuzz/corpus/NAME (read and added to) ─────┴─► NAME ─► table, fuzz/artifacts/NAME/crash-…
//! ```

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

use crate::build;

/// What cargo-fuzz builds for.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Seconds that one input may take, and memory that the program may have in MiB.
const INPUT_SECONDS: u32 = 20;
const MEMORY_MIB: u32 = 2048;
/// A file system in memory, for targets that write files.
const IN_MEMORY: &str = "/dev/shm";

const EXAMPLES: &str = "\
Examples:
  cargo xtask fuzz                                each target for a minute
  cargo xtask fuzz --minutes 10 frames mux_bytes
  cargo xtask fuzz --executions 1000000

A crash is kept below fuzz/artifacts; docs/fuzzing.md says what to do with it.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Minutes for each target, fractions allowed
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    minutes: f64,
    /// So many executions of each target instead, however long they take
    #[arg(long, value_name = "NUMBER", conflicts_with = "minutes")]
    executions: Option<u64>,
    /// As rustc has it; `address` also finds what dependencies with unsafe code do wrong, at half the speed
    #[arg(long, value_name = "NAME", default_value = "none", value_parser = ["none", "address"])]
    sanitizer: String,
    /// Only these targets
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if !(arguments.minutes > 0.0 && arguments.minutes <= 60.0 * 24.0) {
        bail!(
            "--minutes {} is out of range: above 0, at most a day",
            arguments.minutes
        );
    }
    let directory = build::workspace().join("fuzz");
    let targets = chosen(&directory, &arguments.targets)?;
    cargo_fuzz(&["--version"]).context(
        "cargo-fuzz is missing: `cargo install cargo-fuzz --locked`, and `rustup toolchain install nightly`",
    )?;
    let target_dir = directory.join("target").to_string_lossy().into_owned();
    let sanitizer = ["--sanitizer", &arguments.sanitizer];
    let build = [&["build", "--target-dir", &target_dir][..], &sanitizer].concat();
    if arguments.targets.is_empty() {
        cargo_fuzz(&build)?;
    }
    for target in &arguments.targets {
        cargo_fuzz(&[&build[..], &[target]].concat())?;
    }
    let mut table = Table::default();
    for target in &targets {
        eprintln!("Fuzzing {target}");
        let outcome = fuzz(&directory, target, arguments)?;
        println!("{}", table.add(target, outcome));
    }
    println!("\n{}", table.text());
    Ok(if table.crashed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The names in fuzz/fuzz_targets that were asked for.
fn chosen(directory: &Path, asked: &[String]) -> anyhow::Result<Vec<String>> {
    let programs = directory.join("fuzz_targets");
    let entries = fs::read_dir(&programs).with_context(|| format!("cannot read {}", programs.display()))?;
    let mut all = Vec::new();
    for entry in entries {
        let name = PathBuf::from(entry?.file_name());
        all.extend(name.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    all.sort();
    if let Some(unknown) = asked.iter().find(|name| !all.contains(name)) {
        bail!("no target is called {unknown}; there are {}", all.join(", "));
    }
    Ok(if asked.is_empty() { all } else { asked.to_vec() })
}

/// With the nightly compiler that it needs, whichever one runs this.
fn cargo_fuzz(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "fuzz"]).args(arguments);
    command.current_dir(build::workspace()).stdout(Stdio::null());
    build::run(&mut command)
}

/// What came of a target.
#[derive(Debug, Default)]
struct Outcome {
    executions: u64,
    per_second: u64,
    /// Edges of the program that were reached, as libFuzzer counts them.
    coverage: u64,
    new_inputs: u64,
    crashes: Vec<PathBuf>,
    /// It ended otherwise than it should.
    failed: bool,
}

fn fuzz(directory: &Path, target: &str, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let [corpus, artifacts] = ["corpus", "artifacts"].map(|name| directory.join(name).join(target));
    for made in [&corpus, &artifacts] {
        fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
    }
    let before = files(&artifacts)?;
    let program = directory.join("target").join(TRIPLE).join("release").join(target);
    let mut command = Command::new(program);
    command
        .arg(&corpus)
        .arg(directory.join("corpus-seeds").join(target));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-print_final_stats=1", "-verbosity=1"]);
    command
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.arg(match arguments.executions {
        Some(executions) => format!("-runs={executions}"),
        None => format!("-max_total_time={}", (arguments.minutes * 60.0).ceil()),
    });
    if Path::new(IN_MEMORY).is_dir() {
        command.env("TMPDIR", IN_MEMORY);
    }
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {target}"))?;
    let log_path = artifacts.join("log");
    let mut log =
        fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(child.stderr.take().context("it has no output")?).split(b'\n') {
        let line = line?;
        outcome.note(&String::from_utf8_lossy(&line));
        log.write_all(&[&line[..], b"\n"].concat())?;
    }
    outcome.failed = !child.wait()?.success();
    outcome.crashes = files(&artifacts)?
        .into_iter()
        .filter(|file| !before.contains(file))
        .collect();
    outcome.crashes.retain(|file| *file != log_path);
    if outcome.failed {
        eprintln!("{target} failed: see {}", log_path.display());
    }
    Ok(outcome)
}

fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

impl Outcome {
    /// Takes what a line of libFuzzer's says: `#1024 pulse cov: 85 ft: 120 corp: 9/100b …`, `stat::new_units_added: 5`.
    fn note(&mut self, line: &str) {
        if let Some((name, value)) = line.strip_prefix("stat::").and_then(|rest| rest.split_once(':')) {
            let value = value.trim().parse().unwrap_or(0);
            match name {
                "number_of_executed_units" => self.executions = value,
                "average_exec_per_sec" => self.per_second = value,
                "new_units_added" => self.new_inputs = value,
                _ => {}
            }
        } else if line.starts_with('#')
            && let Some(coverage) = line
                .split_once(" cov: ")
                .and_then(|(_, rest)| rest.split(' ').next())
        {
            self.coverage = coverage.parse().unwrap_or(self.coverage);
        }
    }
}

/// What came of all of them.
#[derive(Debug, Default)]
struct Table {
    rows: Vec<(String, Outcome)>,
    crashed: bool,
}

impl Table {
    /// Gives the new line.
    fn add(&mut self, target: &str, outcome: Outcome) -> String {
        self.crashed |= outcome.failed || !outcome.crashes.is_empty();
        let row = row(target, &outcome);
        self.rows.push((target.to_owned(), outcome));
        row
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{:<16} {:>12} {:>8} {:>9} {:>11} {:>8}\n",
            "target", "executions", "per s", "coverage", "new inputs", "crashes"
        );
        for (target, outcome) in &self.rows {
            text += &row(target, outcome);
            text.push('\n');
        }
        for (target, outcome) in &self.rows {
            for crash in &outcome.crashes {
                let _ = writeln!(text, "{target}: {}", crash.display());
            }
        }
        text
    }
}

fn row(target: &str, outcome: &Outcome) -> String {
    format!(
        "{target:<16} {:>12} {:>8} {:>9} {:>11} {:>8}",
        outcome.executions,
        outcome.per_second,
        outcome.coverage,
        outcome.new_inputs,
        if outcome.failed {
            outcome.crashes.len().max(1)
        } else {
            outcome.crashes.len()
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_libfuzzer_are_read() {
        let mut outcome = Outcome::default();
        for line in [
            "INFO: Seed: 1",
            "#2\tINITED cov: 85 ft: 86 corp: 1/1b exec/s: 0 rss: 40Mb",
            "#1048576\tpulse  cov: 120 ft: 300 corp: 9/100b lim: 4096 exec/s: 52428 rss: 44Mb",
            "#1048577\tDONE   cov: 121 ft: 300 corp: 9/100b lim: 4096 exec/s: 52428 rss: 44Mb",
            "stat::number_of_executed_units: 1048577",
            "stat::average_exec_per_sec:     52428",
            "stat::new_units_added:          8",
        ] {
            outcome.note(line);
        }
        let found = (
            outcome.executions,
            outcome.per_second,
            outcome.coverage,
            outcome.new_inputs,
        );
        assert_eq!(found, (1_048_577, 52_428, 121, 8));
    }
}

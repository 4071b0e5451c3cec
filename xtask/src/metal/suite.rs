//! The functional suite in several emulated hosts, one after the other: one that dies takes only its own tests along, which are
//! then run once more.
//!
//! ```text
//! functional --list ─► groups of whole modules ─► an emulated host for each, all with the same payload ─► Summary
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::{Emulator, End, Run, SUITE};
use crate::counts::Counts;

/// How many emulated hosts share the suite. Each has snapshots to build first.
const GROUPS: usize = 5;
/// What precedes the names of a group's tests. Why one failed is told at once: at the end, the host may not be there any more.
const OPTIONS: [&str; 2] = ["--nocapture", "--exact"];
/// What a run ends with that has lost its emulated host: libtest's own for tests that failed.
const LOST: u8 = 101;

/// The commands that run the whole suite, one for each emulated host.
pub(super) fn commands(functional: &Path) -> anyhow::Result<Vec<Vec<String>>> {
    let listed = Command::new(functional)
        .arg("--list")
        .output()
        .with_context(|| format!("cannot start {}", functional.display()))?;
    let tests = names(&String::from_utf8_lossy(&listed.stdout));
    if tests.is_empty() {
        bail!("{} --list: {}, no test", functional.display(), listed.status);
    }
    Ok(groups(&tests, GROUPS).into_iter().map(command).collect())
}

/// The command that runs a group.
fn command(group: Vec<String>) -> Vec<String> {
    let before = [SUITE].into_iter().chain(OPTIONS).map(str::to_owned);
    before.chain(group).collect()
}

/// Runs each of the emulator's commands, says what came of all, and returns the exit status of all.
pub(super) fn run(emulator: &Emulator, commands: &[Vec<String>]) -> anyhow::Result<u8> {
    let mut summary = Summary::default();
    for (index, command) in commands.iter().enumerate() {
        let name = name(command);
        println!("\nEmulated host {} of {}: {name}", index + 1, commands.len());
        let mut run = emulator.run(index)?;
        if let End::Died(how) = run.end {
            eprintln!("\nTHE EMULATED HOST DIED ({how}), NOT A TEST. ONCE MORE FROM THE START: {name}");
            summary.forget(&run);
            run = emulator.run(index)?;
        }
        summary.add(&name, &run);
    }
    println!("{summary}");
    Ok(summary.status)
}

/// The names in the output of `--list`: lines such as `service::bad_requests_are_problems: test`.
fn names(list: &str) -> Vec<String> {
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(str::to_owned).collect()
}

/// The module that a test is in.
fn module(test: &str) -> &str {
    test.split("::").next().unwrap_or(test)
}

/// At most so many groups of tests, in their order, as even as they can be without dividing a module.
fn groups(tests: &[String], most: usize) -> Vec<Vec<String>> {
    let mut groups = vec![Vec::new(); most];
    let mut before = 0;
    for module in tests.chunk_by(|one, other| module(one) == module(other)) {
        // Where the module's middle is.
        let group = (2 * before + module.len()) * most / (2 * tests.len());
        groups[group].extend_from_slice(module);
        before += module.len();
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// What to call a command: the modules that it has tests of, or what the user gave.
fn name(command: &[String]) -> String {
    let words: Vec<&str> = command.iter().skip(1).map(String::as_str).collect();
    let Some(tests) = words.strip_prefix(&OPTIONS) else {
        return words.join(" ");
    };
    let mut modules: Vec<&str> = tests.iter().map(|test| module(test)).collect();
    modules.dedup();
    modules.join(" ")
}

/// What came of all runs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    counts: Counts,
    failures: Vec<String>,
    /// What failed on a host that died after it; not counted, because it was run once more.
    forgotten: Vec<String>,
    skips: BTreeSet<String>,
    /// The highest one.
    status: u8,
}

impl Summary {
    /// Keeps of a run that is repeated only which tests had failed: the host may have been the reason, or the test.
    fn forget(&mut self, run: &Run) {
        let failed = run.output.lines().filter_map(failed_test);
        self.forgotten.extend(failed.map(str::to_owned));
    }

    /// Adds one run, of which `name` says what it was.
    fn add(&mut self, name: &str, run: &Run) {
        let before = self.counts.failed;
        for line in run.output.lines() {
            self.read(line);
        }
        let lost = match &run.end {
            End::Exit(status) => {
                self.status = self.status.max(*status);
                // One that did not get as far as to count.
                (*status != 0 && self.counts.failed == before).then(|| format!("exit status {status}"))
            }
            End::Died(how) => Some(format!("its emulated host died twice: {how}")),
            End::Late => Some("its emulated host did not end in time".to_owned()),
        };
        if let Some(why) = lost {
            self.counts.failed += 1;
            self.failures.push(format!("{name} ({why})"));
            self.status = self.status.max(LOST);
        }
    }

    /// Takes from a line of libtest's or of the emulated host's what it counts.
    fn read(&mut self, line: &str) {
        if let Some(counts) = Counts::of_result_line(line) {
            self.counts.add(counts);
        } else if let Some(skip) = line.strip_prefix("SKIP: ") {
            self.skips.insert(skip.to_owned());
        } else if let Some(test) = failed_test(line) {
            self.failures.push(test.to_owned());
        }
    }
}

/// The test that libtest's line says has failed.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// As `cargo xtask test` ends, with the names of what failed.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for failure in &self.failures {
            writeln!(f, "FAILED: {failure}")?;
        }
        for failure in &self.forgotten {
            writeln!(f, "FAILED BEFORE ITS HOST DIED, RUN AGAIN: {failure}")?;
        }
        for skip in &self.skips {
            writeln!(f, "SKIP: {skip}")?;
        }
        let mut counts = self.counts;
        counts.move_to_skipped(self.skips.len() as u64);
        write!(f, "{counts}")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn tests(modules: &[(&str, usize)]) -> Vec<String> {
        let tests = modules
            .iter()
            .flat_map(|(module, count)| (0..*count).map(move |number| format!("{module}::test_{number}")));
        tests.collect()
    }

    #[test]
    fn names_are_read_from_a_list() {
        let list = "a::one: test\na::b::two: test\nc: benchmark\n\n2 tests, 1 benchmark\n";
        assert_eq!(names(list), ["a::one", "a::b::two"]);
        assert_eq!(names("").len(), 0);
    }

    #[test]
    fn groups_are_even_and_divide_no_module() {
        let all = tests(&[("a", 3), ("b", 9), ("c", 1), ("d", 2), ("e", 20), ("f", 5)]);
        let groups = groups(&all, 5);
        let modules: Vec<String> = groups.iter().map(|group| name(&command(group.clone()))).collect();
        assert_eq!(modules, ["a b", "c d", "e", "f"]);
        assert_eq!(groups.concat(), all, "every test once");
    }

    #[test]
    fn few_tests_make_few_groups() {
        assert_eq!(groups(&tests(&[("a", 1)]), 5), [["a::test_0"]]);
        assert_eq!(groups(&[], 5).len(), 0);
        assert_eq!(groups(&tests(&[("a", 1), ("b", 1)]), 5).len(), 2);
        assert_eq!(groups(&tests(&[("a", 4), ("b", 4)]), 1).len(), 1);
    }

    #[test]
    fn a_command_of_the_user_s_is_called_what_it_is() {
        let command = [SUITE, "languages::", "--skip", "corpus"].map(str::to_owned);
        assert_eq!(name(&command), "languages:: --skip corpus");
    }

    fn run(end: End, output: &str) -> Run {
        Run {
            end,
            output: output.to_owned(),
        }
    }

    fn died() -> End {
        End::Died(ExitStatus::from_raw(0))
    }

    const GOOD: &str = "running 2 tests\ntest a::one ... ok\ntest a::two ... ok\n\n\
        test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.00s\n\
        SKIP: a::two: no such thing here\n";
    const BAD: &str = "running 2 tests\ntest b::one has been running for over 60 seconds\ntest b::one ... FAILED\n\
        test b::two ... ok\n\nfailures:\n    b::one\n\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.00s\n";

    #[test]
    fn runs_are_added_up() {
        let mut summary = Summary::default();
        summary.add("a", &run(End::Exit(0), GOOD));
        assert_eq!(summary.status, 0);
        summary.add("b", &run(End::Exit(101), BAD));
        summary.add("a", &run(End::Exit(0), GOOD));
        assert_eq!(summary.status, 101);
        assert_eq!(
            summary.to_string(),
            "\nFAILED: b::one\nSKIP: a::two: no such thing here\n4 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn what_failed_before_its_host_died_is_told_but_not_counted() {
        let mut summary = Summary::default();
        summary.forget(&run(died(), "test b::one ... FAILED\ntest b::two ... ok\n"));
        summary.add("a", &run(End::Exit(0), GOOD));
        assert_eq!(summary.status, 0);
        assert_eq!(
            summary.to_string(),
            "\nFAILED BEFORE ITS HOST DIED, RUN AGAIN: b::one\nSKIP: a::two: no such thing here\n\
             1 passed, 0 failed, 1 skipped"
        );
    }

    #[test]
    fn a_run_that_was_lost_has_failed() {
        let killed = "running 2 tests\ntest c::one ... ok\n";
        for (end, why) in [
            (End::Exit(137), "exit status 137"),
            (died(), "its emulated host died twice: exit status: 0"),
            (End::Late, "its emulated host did not end in time"),
        ] {
            let mut summary = Summary::default();
            summary.add("a", &run(End::Exit(0), GOOD));
            summary.add("c", &run(end, killed));
            assert_eq!(summary.failures, [format!("c ({why})")]);
            assert_eq!((summary.counts.passed, summary.counts.failed), (2, 1));
            assert!(summary.status >= 101);
        }
    }
}

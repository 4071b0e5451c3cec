//! What libtest counts, added up.

use std::fmt;

/// What came of the tests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// What one binary's closing line says: `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; …`.
    pub(crate) fn of_result_line(line: &str) -> Option<Self> {
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

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    pub(crate) fn add_one(&mut self, name: &str, result: anyhow::Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                eprintln!("{name}: {error:#}");
            }
        }
    }

    /// libtest knows no skipping: a test that skipped itself has passed for it.
    pub(crate) fn move_to_skipped(&mut self, count: u64) {
        let count = count.min(self.passed);
        self.passed -= count;
        self.skipped += count;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
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

//! The exploit corpus, and what counts as held. Text in, verdicts out, no I/O.
//!
//! ```text
//! tests/security/corpus/<language>/<name> ─► Check ─► JobRequest ── a machine ──► JobResponse ─► judge ─► Verdict, why
//! ```
//!
//! The corpus' README describes its form.

use std::fmt;

use protocol::job::JobLimits;
use protocol::{ErrorCode, FileSpec, HostError, JobRequest, JobResponse, Language, Termination};
use serde::Serialize;

use crate::report;

const CORPUS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/isolation.rs"));
/// What a script prints in front of its verdict.
const MARK: &str = "ISOLATION ";
/// The longest reason that is shown, in characters.
const MAX_WHY: usize = 160;

/// Something that is tried.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    /// As in `python/bpf`.
    pub(crate) name: String,
    pub(crate) lang: Language,
    code: &'static str,
    /// What it attempts.
    pub(crate) tries: String,
    /// What has to happen.
    pub(crate) passes: String,
    /// What makes it red.
    pub(crate) fails: String,
    /// The kinds of termination that count as a pass where it says nothing.
    ends: Vec<String>,
    limits: JobLimits,
    timeout: f64,
    /// How often it is run, each time in a new machine.
    pub(crate) runs: u32,
    /// Files that have to come back without content.
    withheld: Vec<String>,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Pass,
    Fail,
    /// This host cannot make what it needs.
    NotApplicable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::NotApplicable => "n/a",
        })
    }
}

impl Check {
    /// All of them, by name.
    ///
    /// # Errors
    /// One is not in the form that it should have. The tests see to it that this does not happen.
    pub(crate) fn all() -> Result<Vec<Self>, String> {
        let scripts = CORPUS.iter().filter(|(path, _)| path.contains('/'));
        scripts
            .map(|(path, code)| Self::parse(path, code).map_err(|why| format!("{path}: {why}")))
            .collect()
    }

    fn parse(path: &str, code: &'static [u8]) -> Result<Self, String> {
        let code = str::from_utf8(code).map_err(|_| "it is no text")?;
        let (lang, file) = path.split_once('/').ok_or("it is in no language's directory")?;
        let (name, _) = file.rsplit_once('.').ok_or("its name has no ending")?;
        let mut check = Self {
            name: format!("{lang}/{name}"),
            lang: lang.parse().map_err(|error: HostError| error.cause)?,
            code,
            tries: String::new(),
            passes: String::new(),
            fails: String::new(),
            ends: Vec::new(),
            limits: JobLimits::default(),
            timeout: 30.0,
            runs: 1,
            withheld: Vec::new(),
        };
        let comments = code
            .lines()
            .map_while(|line| line.strip_prefix("# ").or_else(|| line.strip_prefix("// ")));
        for comment in comments {
            check.take(comment)?;
        }
        if [&check.tries, &check.passes, &check.fails]
            .iter()
            .any(|text| text.is_empty())
        {
            return Err("it does not say what it tries, passes and fails".to_owned());
        }
        Ok(check)
    }

    fn take(&mut self, comment: &str) -> Result<(), String> {
        let (key, value) = comment
            .split_once(": ")
            .ok_or_else(|| format!("no line of a header: {comment}"))?;
        let list = || value.split(", ").map(str::to_owned).collect();
        let wrong = |_| format!("{key} is no number: {value}");
        match key {
            "tries" => value.clone_into(&mut self.tries),
            "passes" => value.clone_into(&mut self.passes),
            "fails" => value.clone_into(&mut self.fails),
            "ends" => self.ends = list(),
            "withheld" => self.withheld = list(),
            "timeout" => self.timeout = value.parse().map_err(|_| format!("no time: {value}"))?,
            "runs" => self.runs = value.parse().map_err(wrong)?,
            "limits" => {
                let given: Vec<String> = value.split(' ').map(str::to_owned).collect();
                self.limits = crate::job::limits(&given).map_err(|error| error.cause)?;
            }
            _ => return Err(format!("no line of a header: {comment}")),
        }
        Ok(())
    }

    /// The job that tries it.
    pub(crate) fn job(&self, trace_id: String, fresh: bool) -> JobRequest {
        let withheld = self.withheld.iter().map(|path| FileSpec {
            path: path.clone(),
            collect: true,
            ..FileSpec::default()
        });
        JobRequest {
            timeout: self.timeout,
            limits: self.limits.clone(),
            files: withheld.collect(),
            fresh,
            ..JobRequest::new(trace_id, self.lang, self.code)
        }
    }

    /// What is to be thought of the answer.
    pub(crate) fn judge(&self, answer: &Result<JobResponse, HostError>) -> (Verdict, String) {
        let (verdict, why) = match answer {
            Err(error) if error.code == ErrorCode::LanguageMissing => {
                (Verdict::NotApplicable, error.cause.clone())
            }
            Err(error) => (Verdict::Fail, format!("{}: {}", error.code, error.cause)),
            Ok(response) => self.judge_response(response),
        };
        let printable = why.chars().map(|c| if c.is_control() { ' ' } else { c });
        (verdict, printable.take(MAX_WHY).collect())
    }

    fn judge_response(&self, response: &JobResponse) -> (Verdict, String) {
        let given = response
            .files
            .iter()
            .find(|file| file.content.is_some() || file.content_base64.is_some());
        if let Some(file) = given {
            return (Verdict::Fail, format!("{} came back with content", file.path));
        }
        let said = response
            .stdout
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(MARK));
        let ended = report::killed_by(response, self.timeout);
        match (said.and_then(verdict), &ended) {
            // What was said before does not count when the end is worse.
            (_, Some(ended)) if !self.may_end(response.termination.as_ref()) => {
                (Verdict::Fail, ended.clone())
            }
            (Some((Verdict::Fail, why)), _) => (Verdict::Fail, why),
            (_, Some(ended)) => (Verdict::Pass, ended.clone()),
            (Some(said), None) => said,
            (None, None) => {
                let last = response.stderr.lines().last().unwrap_or_default();
                let why = format!("it gave no verdict; exit code {} {last}", response.exit_code);
                (Verdict::Fail, why)
            }
        }
    }

    /// Whether that end is one of those that stop what is tried.
    fn may_end(&self, termination: Option<&Termination>) -> bool {
        let kind = match termination {
            None | Some(Termination::Exit) => return true,
            // The call that was tried did not happen.
            Some(Termination::Seccomp { .. }) => return true,
            Some(Termination::Signal { .. }) => "signal",
            Some(Termination::Timeout { .. }) => "timeout",
            Some(Termination::Oom { .. }) => "oom",
            Some(Termination::OutputLimit { .. }) => "output_limit",
            Some(Termination::PidsLimit { .. }) => "pids_limit",
            Some(Termination::DiskFull) => "disk_full",
            Some(Termination::VmCrash { .. } | Termination::Cancelled | Termination::HostDrain) => {
                return false;
            }
        };
        self.ends.iter().any(|end| end == kind)
    }
}

/// `pass: why` and so on.
fn verdict(said: &str) -> Option<(Verdict, String)> {
    let (word, why) = said.split_once(": ")?;
    let verdict = match word {
        "pass" => Verdict::Pass,
        "fail" => Verdict::Fail,
        "not-applicable" => Verdict::NotApplicable,
        _ => return None,
    };
    Some((verdict, why.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SCRIPT: &[u8] =
        b"# tries: x\n# passes: y\n# fails: z\n# ends: oom, timeout\n# limits: pids=9\n# withheld: out\n";

    fn check() -> Check {
        Check::parse("bash/name.sh", SCRIPT).unwrap()
    }

    fn judged(response: JobResponse) -> (Verdict, String) {
        check().judge(&Ok(response))
    }

    fn said(stdout: &str, termination: Termination) -> JobResponse {
        JobResponse {
            stdout: stdout.to_owned(),
            termination: Some(termination),
            ..JobResponse::default()
        }
    }

    #[test]
    fn the_whole_corpus_is_in_form() {
        let checks = Check::all().unwrap();
        assert!(checks.len() > 40, "{}", checks.len());
        let names: BTreeSet<_> = checks.iter().map(|check| &check.name).collect();
        assert_eq!(names.len(), checks.len());
        for check in &checks {
            let job = check.job("t".to_owned(), false);
            job.validate()
                .unwrap_or_else(|error| panic!("{}: {error}", check.name));
            assert!(
                check.code.contains(MARK) || !check.ends.is_empty(),
                "{} says nothing",
                check.name
            );
            let kinds = [
                "signal",
                "timeout",
                "oom",
                "output_limit",
                "pids_limit",
                "disk_full",
            ];
            assert!(
                check.ends.iter().all(|end| kinds.contains(&end.as_str())),
                "{}",
                check.name
            );
            assert!(check.tries.len() <= 130, "{}: {}", check.name, check.tries.len());
        }
    }

    #[test]
    fn headers_are_read_and_mistakes_told() {
        let check = check();
        assert_eq!(
            (check.name.as_str(), check.runs, check.timeout),
            ("bash/name", 1, 30.0)
        );
        let job = check.job("t".to_owned(), true);
        assert_eq!(
            (job.limits.pids, job.files[0].path.as_str(), job.fresh),
            (Some(9), "out", true)
        );
        for wrong in [
            &b"# tries: x\n# passes: y\n"[..],
            b"# tries: x\n# trise: y\n",
            b"# runs: many\n",
            b"# limits: x=1\n",
        ] {
            assert!(Check::parse("bash/name.sh", wrong).is_err());
        }
        assert!(Check::parse("perl/name.pl", SCRIPT).is_err());
    }

    #[test]
    fn what_is_said_counts_when_the_end_is_its_own() {
        let pass = judged(said("x\nISOLATION pass: EPERM\n", Termination::Exit));
        assert_eq!(pass, (Verdict::Pass, "EPERM".to_owned()));
        let fail = judged(said("ISOLATION fail: got\tin\n", Termination::Exit));
        assert_eq!(fail, (Verdict::Fail, "got in".to_owned()));
        let crash = Termination::VmCrash { console: Vec::new() };
        assert_eq!(judged(said("ISOLATION pass: EPERM\n", crash)).0, Verdict::Fail);
        let oom = Termination::Oom { peak_bytes: 0 };
        assert_eq!(judged(said("ISOLATION fail: all of it\n", oom)).0, Verdict::Fail);
    }

    #[test]
    fn silence_passes_only_where_something_stopped_it() {
        assert_eq!(judged(said("", Termination::Exit)).0, Verdict::Fail);
        assert_eq!(
            judged(said("ISOLATION maybe: x", Termination::Exit)).0,
            Verdict::Fail
        );
        assert_eq!(
            judged(said("", Termination::Oom { peak_bytes: 1 })).0,
            Verdict::Pass
        );
        assert_eq!(
            judged(said("", Termination::PidsLimit { limit: 9 })).0,
            Verdict::Fail
        );
        let seccomp = Termination::Seccomp {
            syscall: "bpf".to_owned(),
        };
        let (verdict, why) = judged(said("", seccomp));
        assert!(verdict == Verdict::Pass && why.contains("bpf"), "{why}");
    }

    #[test]
    fn a_file_that_comes_back_fails() {
        let file = FileSpec {
            path: "out".to_owned(),
            content: Some("root:".to_owned()),
            ..FileSpec::default()
        };
        let response = JobResponse {
            files: vec![file],
            ..said("ISOLATION pass: laid out\n", Termination::Exit)
        };
        assert_eq!(judged(response).0, Verdict::Fail);
    }

    #[test]
    fn errors_of_the_host_fail_and_missing_languages_do_not() {
        let judge = |code| check().judge(&Err(HostError::new(code, "why"))).0;
        assert_eq!(judge(ErrorCode::GuestSilent), Verdict::Fail);
        assert_eq!(judge(ErrorCode::LanguageMissing), Verdict::NotApplicable);
    }
}

//! `host-agent verify-isolation`: the exploit corpus, in machines as this host makes them for jobs.
//!
//! ```text
//! Check ─► machine of its own ─► exec ─► judge ─► a line of the table
//!   └───── again, in another one, where it says so
//! ```

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

use engine::EngineError;
use futures_util::StreamExt as _;
use futures_util::stream;
use protocol::{ErrorCode, HostError, JobResponse, Language, Termination};
use rustix::process::Signal;
use serde::Serialize;
use vmm::RuntimeDir;

use super::fail;
use super::run::{cannot, random_trace_id};
use crate::app::{App, Parts};
use crate::cli::{GlobalArgs, VerifyIsolationArgs};
use crate::interrupts::Interrupts;
use crate::isolation::{Check, Verdict};
use crate::machine::{self, Machine, Root};
use crate::output::{complain, print};

/// What came of a check.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    tries: String,
    verdict: Verdict,
    why: String,
    /// How the code ended, where it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    termination: Option<Termination>,
    /// The layers of confinement that were in force.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    layers: BTreeSet<String>,
}

/// The table.
#[derive(Debug, Serialize)]
struct Score {
    passed: usize,
    failed: usize,
    not_applicable: usize,
    /// In force in every check that ran.
    layers: BTreeSet<String>,
    checks: Vec<Row>,
}

/// Runs the checks; the exit status is 1 when one failed.
pub(crate) fn verify_isolation(global: &GlobalArgs, args: &VerifyIsolationArgs) -> ExitCode {
    let checks = match chosen(&args.only) {
        Ok(checks) => checks,
        Err(error) => return fail(&error, global.json),
    };
    if args.list {
        list(&checks, global.json);
        return ExitCode::SUCCESS;
    }
    match verify(global, args, &checks) {
        Ok(Ok(score)) => {
            if global.json {
                print(serde_json::json!(score));
            } else {
                print(summary(&score));
            }
            ExitCode::from(u8::from(score.failed > 0))
        }
        Ok(Err(signal)) => {
            let cause = format!("signal {} interrupted the checks", signal.as_raw());
            fail(&HostError::new(ErrorCode::Cancelled, cause), global.json);
            ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX))
        }
        Err(error) => fail(&error, global.json),
    }
}

fn chosen(only: &[String]) -> Result<Vec<Check>, HostError> {
    let all = Check::all().map_err(|why| HostError::new(ErrorCode::Internal, why))?;
    if let Some(unknown) = only
        .iter()
        .find(|part| !all.iter().any(|check| check.name.contains(*part)))
    {
        let cause = format!("no check has {unknown:?} in its name");
        return Err(HostError::new(ErrorCode::InvalidRequest, cause)
            .remedy("see `host-agent verify-isolation --list`"));
    }
    let wanted = |check: &Check| only.is_empty() || only.iter().any(|part| check.name.contains(part));
    Ok(all.into_iter().filter(wanted).collect())
}

fn list(checks: &[Check], json: bool) {
    if json {
        let line = |check: &Check| {
            serde_json::json!({
                "name": check.name, "tries": check.tries, "passes": check.passes, "fails": check.fails,
            })
        };
        print(serde_json::Value::Array(checks.iter().map(line).collect()));
        return;
    }
    for check in checks {
        print(format_args!(
            "{}\n    tries   {}\n    passes  {}\n    fails   {}",
            check.name, check.tries, check.passes, check.fails
        ));
    }
}

/// The score, or the signal that came before there was one.
fn verify(
    global: &GlobalArgs,
    args: &VerifyIsolationArgs,
    checks: &[Check],
) -> Result<Result<Score, Signal>, HostError> {
    let app = App::new(global)?;
    let runtime = app.runtime()?;
    // One thread: a VMM is killed by the kernel when the thread that started it ends.
    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot("start the event loop"))?;
    let bench = Bench {
        app: &app,
        runtime: &runtime,
        args,
        told: OnceLock::new(),
    };
    waiting.block_on(async {
        let mut interrupts = Interrupts::new().map_err(cannot("watch for signals"))?;
        // Whether machines can be made at all, before any check could fail for that.
        let (machine, parts) = bench.parts(Language::Bash).await?;
        let first = app
            .sandbox(&machine, parts, args.cold, &runtime, |why| bench.note(why))
            .await?;
        first.destroy().await;
        tokio::select! {
            biased;
            signal = interrupts.next() => Ok(Err(signal)),
            score = bench.all(checks, global.json) => Ok(Ok(score)),
        }
    })
}

/// Where checks are run.
struct Bench<'a> {
    app: &'a App,
    runtime: &'a RuntimeDir,
    args: &'a VerifyIsolationArgs,
    /// Why machines boot has been told.
    told: OnceLock<()>,
}

impl Bench<'_> {
    async fn all(&self, checks: &[Check], json: bool) -> Score {
        let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        let mut running = stream::iter(checks)
            .map(|check| self.check(check))
            .buffered(self.args.jobs.get());
        let mut rows: Vec<Row> = Vec::with_capacity(checks.len());
        while let Some(row) = running.next().await {
            let done = rows.len() + 1;
            let line = format!("{:<width$}  {:<4}  {}", row.name, row.verdict, row.why);
            if json {
                complain(format_args!("{done}/{} {line}", checks.len()));
            } else {
                print(line);
                let _ = io::stdout().flush();
            }
            rows.push(row);
        }
        Score::of(rows)
    }

    /// One check, as often as it says; the first fail is what counts.
    async fn check(&self, check: &Check) -> Row {
        let mut row = Row {
            name: check.name.clone(),
            tries: check.tries.clone(),
            verdict: Verdict::NotApplicable,
            why: String::new(),
            termination: None,
            layers: BTreeSet::new(),
        };
        for _ in 0..check.runs {
            let answer = match self.answer(check).await {
                Err(error) if is_missing(&error) => {
                    return Row {
                        why: error.cause,
                        ..row
                    };
                }
                answer => answer,
            };
            (row.verdict, row.why) = check.judge(&answer);
            if let Ok(response) = answer {
                row.layers = response.layers.into_iter().collect();
                row.termination = response.termination;
            }
            if row.verdict != Verdict::Pass {
                break;
            }
        }
        row
    }

    async fn answer(&self, check: &Check) -> Result<JobResponse, HostError> {
        let (machine, parts) = self.parts(check.lang).await?;
        let made = self
            .app
            .sandbox(&machine, parts, self.args.cold, self.runtime, |why| {
                self.note(why)
            });
        let mut sandbox = made.await?;
        let job = check.job(random_trace_id(), self.args.fresh);
        let answered: Result<_, EngineError> = sandbox.exec(&job, |_| {}).await;
        sandbox.destroy().await;
        let mut response = answered?;
        match response.error.take() {
            Some(error) => Err(error),
            None => Ok(response),
        }
    }

    /// The machine for code in that language, and what it is made of. Nothing is made that is missing.
    async fn parts(&self, lang: Language) -> Result<(Machine, Parts), HostError> {
        let root = Root::Template(machine::template_with(lang)?);
        let machine = Machine::of(root, &self.args.machine)?;
        let parts = self.app.parts(&machine, false, self.runtime).await?;
        Ok((machine, parts))
    }

    /// Tells once why machines boot.
    fn note(&self, why: &HostError) {
        if self.told.set(()).is_ok() {
            complain(format_args!("note: booting each machine, because {why}"));
        }
    }
}

/// A template that was not set up here has no machines that could be broken out of.
fn is_missing(error: &HostError) -> bool {
    matches!(
        error.code,
        ErrorCode::SetupRefused | ErrorCode::TemplateMissing | ErrorCode::LanguageMissing
    )
}

impl Score {
    fn of(checks: Vec<Row>) -> Self {
        let count = |verdict| checks.iter().filter(|row| row.verdict == verdict).count();
        let layers = checks
            .iter()
            .filter(|row| row.termination.is_some())
            .map(|row| row.layers.clone())
            .reduce(|all, these| &all & &these);
        Self {
            passed: count(Verdict::Pass),
            failed: count(Verdict::Fail),
            not_applicable: count(Verdict::NotApplicable),
            layers: layers.unwrap_or_default(),
            checks,
        }
    }
}

fn summary(score: &Score) -> String {
    let layers: Vec<&str> = score.layers.iter().map(String::as_str).collect();
    format!(
        "\nlayers in force in every check: {}\n{} passed, {} failed, {} not applicable",
        layers.join(", "),
        score.passed,
        score.failed,
        score.not_applicable
    )
}

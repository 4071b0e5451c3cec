//! `bench parked`: the first output of an interpreter that waits, against that of one that is started.
//!
//! ```text
//! round, per language:  clone A: parked, then fresh     clone B: fresh, then parked
//! ratio:                √( fresh first ÷ parked first × fresh second ÷ parked second )
//! ```
//!
//! The second job in an emulated machine finds code translated that the first had to wait for, so each is first once.

use std::time::Instant;

use anyhow::{Context, bail, ensure};
use engine::Sandbox;
use protocol::job::Interpreter;
use protocol::{Event, JobRequest, Language};

use super::clones::Clones;
use super::samples::{Samples, Unit};
use super::split::milliseconds;
use super::{Common, interrupt};

/// Seconds; an emulated Node.js takes its time.
const TIMEOUT: f64 = 120.0;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this language; may be repeated [default: all that have an interpreter waiting]
    #[arg(long = "lang", value_name = "LANGUAGE")]
    languages: Vec<Language>,
    #[command(flatten)]
    common: Common,
}

/// When the first output came, and what came after it, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct First {
    since_request: f64,
    since_started: f64,
    /// To the response: the interpreter's end, and what is collected.
    to_response: f64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let clones = Clones::prepare()?;
    let parked: Vec<Language> = clones.frozen.template.parked.keys().copied().collect();
    let languages = match arguments.languages.as_slice() {
        [] => &parked,
        some => some,
    };
    let mut samples = Samples::new(
        "parked",
        "First output in a restored machine: parked interpreter, fresh interpreter",
    );
    for language in languages {
        ensure!(parked.contains(language), "no {language} waits in the snapshot");
        for round in 1..=arguments.common.pairs {
            pair(&clones, *language, round, &mut samples)
                .with_context(|| format!("{language}, round {round}"))?;
            let ratio = samples.last(&ratio_name(*language)).unwrap_or(f64::NAN);
            eprintln!(
                "{language} {round:>3}/{}  fresh ÷ parked {ratio:.2}",
                arguments.common.pairs
            );
        }
    }
    samples.publish(&arguments.common.out())
}

fn ratio_name(language: Language) -> String {
    format!("{language}: fresh ÷ parked")
}

fn pair(clones: &Clones, language: Language, round: u32, samples: &mut Samples) -> anyhow::Result<()> {
    let in_order = |fresh_first| both(clones, language, fresh_first);
    // Which clone comes first matters little; it changes all the same.
    let (a, b) = if round.is_multiple_of(2) {
        let b = in_order(true)?;
        (in_order(false)?, b)
    } else {
        (in_order(false)?, in_order(true)?)
    };
    let ([parked_first, fresh_second], [fresh_first, parked_second]) = (a, b);
    for (name, first) in [
        ("parked, first job", parked_first),
        ("fresh, first job", fresh_first),
        ("parked, second job", parked_second),
        ("fresh, second job", fresh_second),
    ] {
        let name = format!("{language}: {name}");
        samples.milliseconds(&name, first.since_request);
        samples.milliseconds(&format!("{name}, since started"), first.since_started);
        samples.milliseconds(&format!("{name}, output to response"), first.to_response);
    }
    let ratio = |of: fn(&First) -> f64| {
        let first = of(&fresh_first) / of(&parked_first);
        let second = of(&fresh_second) / of(&parked_second);
        (first * second).sqrt()
    };
    samples.add(
        &ratio_name(language),
        Unit::Ratio,
        ratio(|first| first.since_request),
    );
    samples.add(
        &format!("{language}: fresh ÷ parked, since started"),
        Unit::Ratio,
        ratio(|first| first.since_started),
    );
    Ok(())
}

/// Both jobs in one clone, in the order in which they ran.
fn both(clones: &Clones, language: Language, fresh_first: bool) -> anyhow::Result<[First; 2]> {
    interrupt::check()?;
    clones.runtime.block_on(async {
        let mut sandbox = clones.one().await?;
        let one = first_output(&mut sandbox, language, fresh_first).await?;
        let other = first_output(&mut sandbox, language, !fresh_first).await?;
        sandbox.destroy().await;
        Ok([one, other])
    })
}

async fn first_output(sandbox: &mut Sandbox, language: Language, fresh: bool) -> anyhow::Result<First> {
    let job = JobRequest {
        timeout: TIMEOUT,
        stream: true,
        fresh,
        ..JobRequest::new("bench", language, code(language)?)
    };
    let (mut started, mut output) = (None, None);
    let asked = Instant::now();
    let response = sandbox
        .exec(&job, |event| match event {
            Event::Started => started = Some(Instant::now()),
            Event::Stdout(_) => output = output.or_else(|| Some(Instant::now())),
            Event::Stderr(_) => {}
        })
        .await?;
    let answered = Instant::now();
    let wanted = if fresh {
        Interpreter::Fresh
    } else {
        Interpreter::Parked
    };
    let interpreter = response.timings.as_ref().and_then(|timings| timings.interpreter);
    ensure!(
        response.stdout == "1\n" && interpreter == Some(wanted),
        "the job went wrong, or not in a {wanted:?} interpreter: {response:?}"
    );
    let output = output.context("no output event came")?;
    Ok(First {
        since_request: milliseconds(output - asked),
        since_started: milliseconds(output - started.context("the job did not say that it started")?),
        to_response: milliseconds(answered - output),
    })
}

fn code(language: Language) -> anyhow::Result<&'static str> {
    Ok(match language {
        Language::Python => "print(1)",
        Language::Bash => "echo 1",
        Language::Node => "console.log(1)",
        Language::Ruby => "puts 1",
        Language::Rust => bail!("rust has no interpreter"),
    })
}

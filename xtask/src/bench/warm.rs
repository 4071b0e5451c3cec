//! `bench warm`: the same job against running services, by every path there is.
//!
//! ```text
//! round:  run --cold │ serve with nothing ready │ serve with a VMM waiting │ serve with a machine ready
//!                    └──── each once by `host-agent run`, once by HTTP ────┴─── once its pool is full and warm
//! ```

use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::installed::{Installed, RUNTIME_DIR};
use super::samples::Samples;
use super::service::{Ready, Service};
use super::split::milliseconds;
use super::{Common, interrupt};

const CODE: &str = "print(1)";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Machines that the service with a pool keeps ready.
    #[arg(long, default_value_t = 2, value_name = "NUMBER")]
    pool: u64,
}

/// A service, and how its jobs are to go.
struct Path {
    name: &'static str,
    service: Service,
    /// What `/v1/pool` counts such a job as.
    counted: &'static str,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let installed = Installed::find()?;
    installed.build_template()?;
    let start = |name, pool, prespawned, counted| -> anyhow::Result<Path> {
        eprintln!("Starting a service: {name}");
        Ok(Path {
            name,
            service: Service::start(&installed, counted, Ready { pool, prespawned })?,
            counted,
        })
    };
    let mut paths = [
        start("on demand", 0, 0, "on_demand")?,
        start("pre-spawned", 0, 1, "prespawned")?,
        start("pool", arguments.pool, 0, "ready")?,
    ];
    let mut samples = Samples::new("warm", "Request → result of print(1)");
    // The first round fills caches.
    round(&installed, &mut paths, false, &mut Samples::new("warm-up", ""))?;
    for number in 1..=arguments.common.pairs {
        let backwards = number.is_multiple_of(2);
        round(&installed, &mut paths, backwards, &mut samples).with_context(|| format!("round {number}"))?;
        let last = |name| samples.last(name).unwrap_or(f64::NAN);
        eprintln!(
            "{number:>3}/{}  cold {:>6.0} ms  on demand {:>6.1} ms  pre-spawned {:>6.1} ms  pool {:>6.1} ms ({:.1} ms by HTTP)",
            arguments.common.pairs,
            last("cold, run"),
            last("on demand, run"),
            last("pre-spawned, run"),
            last("pool, run"),
            last("pool, HTTP"),
        );
    }
    for path in ["on demand", "pre-spawned", "pool"] {
        for by in ["run", "HTTP"] {
            let name = format!("{path}, {by}");
            samples.ratio(&format!("cold ÷ {name}"), "cold, run", &name);
        }
    }
    samples.publish(&arguments.common.out())
}

fn round(
    installed: &Installed,
    paths: &mut [Path],
    backwards: bool,
    samples: &mut Samples,
) -> anyhow::Result<()> {
    if !backwards {
        cold(installed, samples)?;
    }
    let mut order: Vec<&mut Path> = paths.iter_mut().collect();
    if backwards {
        order.reverse();
    }
    for path in order {
        path.by_run(installed, samples)?;
        path.by_http(samples)?;
    }
    if backwards {
        cold(installed, samples)?;
    }
    Ok(())
}

fn cold(installed: &Installed, samples: &mut Samples) -> anyhow::Result<()> {
    interrupt::check()?;
    let began = Instant::now();
    let answer = installed.json(&["run", "--cold", "--lang", "python", "--code", CODE, "--json"])?;
    samples.milliseconds("cold, run", milliseconds(began.elapsed()));
    expect(&answer, "cold")
}

fn expect(answer: &Value, path: &str) -> anyhow::Result<()> {
    ensure!(
        answer["stdout"] == "1\n" && answer["timings"]["path"] == path,
        "the job went wrong, or another way than {path}: {answer}"
    );
    Ok(())
}

impl Path {
    /// What `timings.path` says.
    fn said(&self) -> &'static str {
        if self.counted == "ready" {
            "pool"
        } else {
            "restore"
        }
    }

    fn by_run(&mut self, installed: &Installed, samples: &mut Samples) -> anyhow::Result<()> {
        let before = self.settled()?;
        let mut command = installed.command(&["run", "--lang", "python", "--code", CODE, "--json"]);
        command.env(RUNTIME_DIR, &self.service.dir);
        let began = Instant::now();
        let output = command.output().context("cannot start host-agent")?;
        let wall = milliseconds(began.elapsed());
        let answer = serde_json::from_slice(&output.stdout).context("host-agent printed no JSON")?;
        self.check(&answer, before)?;
        samples.milliseconds(&format!("{}, run", self.name), wall);
        Ok(())
    }

    fn by_http(&mut self, samples: &mut Samples) -> anyhow::Result<()> {
        let before = self.settled()?;
        let answer = self.service.execute(CODE)?;
        self.check(&answer.body, before)?;
        let name = format!("{}, HTTP", self.name);
        samples.milliseconds(&name, answer.wall);
        for (what, timing) in [
            ("in the guest", "execute"),
            ("confine", "confine"),
            ("run and exit", "exec"),
        ] {
            samples.milliseconds(&format!("{name}: {what}"), answer.timing(timing)?);
        }
        if self.counted == "ready" {
            samples.milliseconds(&format!("{name}: host-agent"), answer.timing("host")?);
            let outside = answer.wall - answer.timing("execute")?;
            samples.milliseconds(&format!("{name}: all but the guest"), outside);
        }
        Ok(())
    }

    /// Waits until all is ready, and gives how many jobs went this way so far.
    fn settled(&mut self) -> anyhow::Result<u64> {
        self.service.settled()?;
        self.count()
    }

    fn count(&self) -> anyhow::Result<u64> {
        let pool = self.service.pool().context("the service has no pool")?;
        pool["counts"][self.counted]
            .as_u64()
            .with_context(|| format!("the pool does not count {}: {pool}", self.counted))
    }

    fn check(&self, answer: &Value, before: u64) -> anyhow::Result<()> {
        expect(answer, self.said())?;
        let now = self.count()?;
        ensure!(
            now == before + 1,
            "the job did not go by {}: {before}, {now}",
            self.counted
        );
        Ok(())
    }
}

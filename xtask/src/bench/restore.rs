//! `bench restore`: a job in a clone that is made for it, against the raw VMM doing the same.
//!
//! ```text
//! round:  floor  |  engine (clone_now, exec)  |  host-agent run  |  floor with a fresh interpreter
//!         └────────────── the same snapshot, the same job ─────────────────┘     each round in the other order
//! ```

use std::time::Instant;

use anyhow::{Context, ensure};
use protocol::{JobRequest, Language};
use serde_json::Value;

use super::clones::Clones;
use super::samples::{Samples, Unit};
use super::split::{Split, milliseconds};
use super::{Common, floor, interrupt};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Begin with a VMM that has been started already, on both sides.
    #[arg(long)]
    prespawned: bool,
    /// Leave out `host-agent run` and the fresh interpreter.
    #[arg(long)]
    brief: bool,
}

/// One way to the result.
#[derive(Debug, Clone, Copy)]
enum Way {
    Floor,
    Engine,
    Command,
    FreshFloor,
}

struct Bench {
    clones: Clones,
    job: JobRequest,
    prespawned: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let bench = Bench {
        clones: Clones::prepare()?,
        job: JobRequest::new("bench", Language::Python, "print(1)"),
        prespawned: arguments.prespawned,
    };
    bench.measure(arguments)?.publish(&arguments.common.out())
}

impl Bench {
    fn measure(&self, arguments: &Arguments) -> anyhow::Result<Samples> {
        let (name, title) = if self.prespawned {
            (
                "restore-prespawned",
                "VMM waiting → result of print(1), python parked",
            )
        } else {
            ("restore", "Nothing → result of print(1), python parked")
        };
        let ways: &[Way] = match (arguments.brief, self.prespawned) {
            (true, _) | (false, true) => &[Way::Floor, Way::Engine],
            (false, false) => &[Way::Floor, Way::Engine, Way::Command, Way::FreshFloor],
        };
        let mut samples = Samples::new(name, title);
        // The first of each fills caches.
        for way in ways {
            self.go(*way, &mut Samples::new("warm-up", ""))?;
        }
        for round in 1..=arguments.common.pairs {
            let mut order = ways.to_vec();
            if round.is_multiple_of(2) {
                order.reverse();
            }
            for way in order {
                interrupt::check()?;
                self.go(way, &mut samples)
                    .with_context(|| format!("round {round}, {way:?}"))?;
            }
            progress(round, arguments.common.pairs, &samples);
        }
        samples.ratio("engine ÷ floor", "engine", "floor");
        samples.ratio("run ÷ floor", "run", "floor");
        samples.ratio("floor, fresh ÷ engine", "floor, fresh", "engine");
        samples.ratio("floor, fresh ÷ run", "floor, fresh", "run");
        Ok(samples)
    }

    fn go(&self, way: Way, samples: &mut Samples) -> anyhow::Result<()> {
        match way {
            Way::Floor => {
                let split = self.floor(&self.job)?;
                split.add_to(samples, "floor");
                if let Some(identities) = split.identities {
                    samples.add("floor: identities", Unit::Count, identities.into());
                }
            }
            Way::Engine => self.engine()?.add_to(samples, "engine"),
            Way::Command => {
                let (wall, own) = self.command()?;
                samples.milliseconds("run", wall);
                samples.milliseconds("run: by its own account", own);
            }
            Way::FreshFloor => {
                let job = JobRequest {
                    fresh: true,
                    ..self.job.clone()
                };
                self.floor(&job)?.add_to(samples, "floor, fresh");
            }
        }
        Ok(())
    }

    fn floor(&self, job: &JobRequest) -> anyhow::Result<Split> {
        let Clones {
            frozen, installed, ..
        } = &self.clones;
        floor::restore(frozen, installed.work(), job, self.prespawned)
    }

    fn engine(&self) -> anyhow::Result<Split> {
        let Clones {
            frozen,
            runtime_dir,
            runtime,
            ..
        } = &self.clones;
        runtime.block_on(async {
            let template = &frozen.template;
            let spawned = if self.prespawned {
                Some(template.spawn(runtime_dir).await?)
            } else {
                None
            };
            let began = Instant::now();
            let mut sandbox = match spawned {
                Some(spawned) => template.restore(spawned, Clones::deadline()).await?,
                None => self.clones.one().await?,
            };
            let response = sandbox.exec(&self.job, |_| {}).await?;
            let total = began.elapsed();
            sandbox.destroy().await;
            let timings = response.timings.clone().context("the answer has no timings")?;
            Split::of_engine(&timings, total, self.prespawned).with_job(&self.job, &response)
        })
    }

    /// The whole command: by the clock, and by its own account, which ends with the response.
    fn command(&self) -> anyhow::Result<(f64, f64)> {
        let began = Instant::now();
        let answer: Value =
            self.clones
                .installed
                .json(&["run", "--lang", "python", "--code", &self.job.code, "--json"])?;
        let wall = milliseconds(began.elapsed());
        let path = &answer["timings"]["path"];
        ensure!(path == "restore", "host-agent run went another way: {path}");
        let own = answer["timings"]["total"].as_f64().context("no timings.total")?;
        Ok((wall, own))
    }
}

fn progress(round: u32, rounds: u32, samples: &Samples) {
    let last = |name| samples.last(name).unwrap_or(f64::NAN);
    eprintln!(
        "{round:>3}/{rounds}  floor {:>6.1} ms  engine {:>6.1} ms  run {:>6.1} ms  floor, fresh {:>6.1} ms",
        last("floor"),
        last("engine"),
        last("run"),
        last("floor, fresh")
    );
}

//! `bench sequential`, `burst` and `soak`: many jobs against one running service.
//!
//! ```text
//! sequential, burst: create → first result, in the way of ComputeSDK's time-to-interactive: one after the other, all at once
//! soak:              one after the other, each with a machine that is ready; what the service holds after 100 and at the end
//! ```

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::installed::Installed;
use super::samples::{Samples, Unit};
use super::service::{Holdings, Ready, Service};
use super::split::milliseconds;
use super::{Common, interrupt};

const CODE: &str = "print(1)";
/// Jobs before the first look at what a service that is soaked holds.
const FIRST_LOOK: u32 = 100;
/// What the last look may be over the first.
const GROWTH: f64 = 1.05;

/// One after the other, or all at once.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many jobs.
    #[arg(default_value_t = 100, value_name = "JOBS")]
    jobs: u32,
    /// Machines that the service keeps ready.
    #[arg(long, default_value_t = 8, value_name = "NUMBER")]
    pool: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(crate) struct SoakArguments {
    /// How many jobs.
    #[arg(default_value_t = 1000, value_name = "JOBS")]
    jobs: u32,
    /// Machines that the service keeps ready.
    #[arg(long, default_value_t = 2, value_name = "NUMBER")]
    pool: u64,
    #[command(flatten)]
    common: Common,
}

/// From the request to the first result, in milliseconds; `None` for a job that failed.
type Outcome = Option<f64>;

pub(crate) fn sequential(arguments: &Arguments) -> anyhow::Result<()> {
    let installed = Installed::find()?;
    let service = service(&installed, arguments.pool)?;
    let mut outcomes = Vec::new();
    let began = Instant::now();
    for number in 1..=arguments.jobs {
        interrupt::check()?;
        outcomes.push(one(&service));
        if number.is_multiple_of(10) {
            eprintln!("{number:>4}/{}", arguments.jobs);
        }
    }
    publish("sequential", &outcomes, began, arguments)
}

pub(crate) fn burst(arguments: &Arguments) -> anyhow::Result<()> {
    let installed = Installed::find()?;
    let service = service(&installed, arguments.pool)?;
    let gate = Barrier::new(arguments.jobs as usize);
    let began = Instant::now();
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let client = || {
            gate.wait();
            one(&service)
        };
        let clients: Vec<_> = (0..arguments.jobs).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .map(|client| client.join().ok().flatten())
            .collect()
    });
    publish("burst", &outcomes, began, arguments)
}

fn service(installed: &Installed, pool: u64) -> anyhow::Result<Service> {
    installed.build_template()?;
    eprintln!("Starting a service with a pool of {pool}");
    Service::start(installed, "serve", Ready { pool, prespawned: 0 })
}

fn one(service: &Service) -> Outcome {
    let answer = service.execute(CODE);
    match answer {
        Ok(answer) if answer.body["stdout"] == "1\n" => Some(answer.wall),
        Ok(answer) => {
            eprintln!("the job went wrong: {}", answer.body);
            None
        }
        Err(error) => {
            eprintln!("{error:#}");
            None
        }
    }
}

fn publish(
    name: &'static str,
    outcomes: &[Outcome],
    began: Instant,
    arguments: &Arguments,
) -> anyhow::Result<()> {
    let took = milliseconds(began.elapsed());
    let title = format!(
        "{name} {}, pool of {}: create → first result",
        arguments.jobs, arguments.pool
    );
    let mut samples = Samples::new(name, title);
    for outcome in outcomes.iter().flatten() {
        samples.milliseconds("time to interactive", *outcome);
    }
    samples.publish(&arguments.common.out())?;
    let (good, all) = (outcomes.iter().flatten().count(), outcomes.len());
    println!(
        "succeeded: {good} of {all} ({:.1} %), all done after {:.1} s",
        100.0 * good as f64 / all as f64,
        took / 1e3
    );
    ensure!(good == all, "{} jobs failed", all - good);
    Ok(())
}

pub(crate) fn soak(arguments: &SoakArguments) -> anyhow::Result<()> {
    ensure!(
        arguments.jobs > FIRST_LOOK,
        "a soak has more than {FIRST_LOOK} jobs"
    );
    let installed = Installed::find()?;
    let mut service = service(&installed, arguments.pool)?;
    let mut samples = Samples::new("soak", format!("{} warm runs, one by one", arguments.jobs));
    let mut first = None;
    for number in 1..=arguments.jobs {
        service.settled()?;
        let answer = service.execute(CODE).with_context(|| format!("job {number}"))?;
        ensure!(
            answer.body["timings"]["path"] == "pool",
            "job {number} found no machine: {}",
            answer.body
        );
        samples.milliseconds("HTTP", answer.wall);
        samples.milliseconds("host-agent's part", answer.timing("host")?);
        let resident = service.holdings()?.resident_kib as f64 / 1024.0;
        samples.add("resident", Unit::Mebibytes, resident);
        if number == FIRST_LOOK {
            first = Some(look(&mut service, number)?);
        } else if number.is_multiple_of(50) {
            eprintln!("{number:>5}/{}  resident {resident:.1} MiB", arguments.jobs);
        }
    }
    let last = look(&mut service, arguments.jobs)?;
    samples.publish(&arguments.common.out())?;
    compare(first.context("there was no first look")?, last)
}

/// With a full pool, so that what belongs to machines is the same each time.
fn look(service: &mut Service, number: u32) -> anyhow::Result<Holdings> {
    service.settled()?;
    let mut holdings = service.holdings()?;
    // The connection that asked whether it has settled may not be closed yet.
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(50));
        let now = service.holdings()?;
        if now.descriptors <= holdings.descriptors {
            holdings = now;
        }
    }
    println!("after {number:>5} jobs: {holdings:?}");
    Ok(holdings)
}

fn compare(first: Holdings, last: Holdings) -> anyhow::Result<()> {
    let growth = last.resident_kib as f64 / first.resident_kib as f64;
    println!("resident at the end ÷ after {FIRST_LOOK}: {growth:.3} (at most {GROWTH})");
    ensure!(growth <= GROWTH, "the service grew by {growth:.3}");
    ensure!(
        (first.descriptors, first.children) == (last.descriptors, last.children),
        "descriptors or processes were left: {first:?}, {last:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_and_leaks_are_told() {
        let first = Holdings {
            resident_kib: 1000,
            descriptors: 20,
            children: 2,
        };
        let grown = |resident_kib, descriptors| Holdings {
            resident_kib,
            descriptors,
            ..first
        };
        compare(first, grown(1050, 20)).unwrap();
        compare(first, grown(900, 20)).unwrap();
        assert!(compare(first, grown(1051, 20)).is_err());
        assert!(compare(first, grown(1000, 21)).is_err());
    }
}

//! `bench memory`: what one more idle clone takes of the host's memory and shares with no other.
//!
//! ```text
//! clone, identity … (so many) ─► settle ─► private dirty of each ─► warm each ─► settle ─► again
//! ```

use std::time::Duration;

use anyhow::Context;
use engine::Sandbox;

use super::clones::Clones;
use super::samples::{Samples, Unit};
use super::{Common, interrupt};

/// After which a clone does nothing of its own any more.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Clones that are up besides the one that is added.
    #[arg(long, default_value_t = 8, value_name = "NUMBER")]
    clones: u32,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let clones = Clones::prepare()?;
    let title = format!(
        "Private dirty memory of each of {} idle clones",
        arguments.clones + 1
    );
    let mut samples = Samples::new("memory", title);
    clones.runtime.block_on(async {
        let mut up = Vec::new();
        for number in 0..=arguments.clones {
            interrupt::check()?;
            up.push(clones.one().await?);
            eprintln!("{}/{} clones are up", number + 1, arguments.clones + 1);
        }
        weigh(&up, "after identity", &mut samples).await?;
        let added = up.last().and_then(Sandbox::private_memory);
        for sandbox in &mut up {
            interrupt::check()?;
            clones.frozen.template.warm(sandbox).await?;
        }
        weigh(&up, "warmed", &mut samples).await?;
        println!(
            "the one that was added, after identity: {:.1} MiB",
            added.context("its memory cannot be read")? as f64 / f64::from(1 << 20)
        );
        anyhow::Ok(())
    })?;
    samples.publish(&arguments.common.out())
}

async fn weigh(up: &[Sandbox], when: &str, samples: &mut Samples) -> anyhow::Result<()> {
    tokio::time::sleep(SETTLE).await;
    for sandbox in up {
        let bytes = sandbox
            .private_memory()
            .context("a clone's memory cannot be read")?;
        samples.add(when, Unit::Mebibytes, bytes as f64 / f64::from(1 << 20));
    }
    Ok(())
}

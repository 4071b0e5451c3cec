//! `bench kernels`: the kernel of our own configuration against Debian's, bare and under a whole run.
//!
//! ```text
//! round:  Debian: bare boot, run --cold  |  tuned: bare boot, run --cold
//! ```

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Common;
use super::cold::Cold;
use super::installed::Installed;
use super::samples::Samples;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let installed = Installed::find()?;
    if !has_tuned(&installed)? {
        println!("SKIP: kernels: there is no tuned kernel; `host-agent setup --kernel tuned` builds it");
        return Ok(());
    }
    let debian = Cold::prepare(&installed, &["--kernel", "debian"])?;
    let tuned = Cold::prepare(&installed, &["--kernel", "tuned"])?;
    let mut samples = Samples::new("kernels", "Debian's kernel and the tuned one, cold");
    let pairs = arguments.common.pairs;
    for number in 1..=pairs {
        let mut order = [("Debian: ", &debian), ("tuned: ", &tuned)];
        if number.is_multiple_of(2) {
            order.reverse();
        }
        for (prefix, cold) in order {
            cold.pair(prefix, false, &mut samples)
                .with_context(|| format!("pair {number}, {prefix}"))?;
        }
        let last = |name| samples.last(name).unwrap_or(f64::NAN);
        eprintln!(
            "{number:>3}/{pairs}  bare boot {:>5.0} and {:>5.0} ms  run {:>5.0} and {:>5.0} ms",
            last("Debian: bare boot"),
            last("tuned: bare boot"),
            last("Debian: run"),
            last("tuned: run")
        );
    }
    for what in ["bare boot", "run"] {
        let name = format!("{what}: Debian ÷ tuned");
        samples.ratio(&name, &format!("Debian: {what}"), &format!("tuned: {what}"));
    }
    samples.publish(&arguments.common.out())
}

/// Whether it has been built. Nothing is built here: it takes minutes.
fn has_tuned(installed: &Installed) -> anyhow::Result<bool> {
    let try_it = [
        "run",
        "--cold",
        "--no-setup",
        "--kernel",
        "tuned",
        "--lang",
        "bash",
        "--code",
        "true",
        "--json",
    ];
    let output = installed
        .command(&try_it)
        .output()
        .context("cannot start host-agent")?;
    if output.status.success() {
        return Ok(true);
    }
    let error: Value = serde_json::from_slice(&output.stdout).context("host-agent printed no JSON")?;
    ensure!(
        error["code"] == "setup_refused",
        "a run with the tuned kernel: {error}"
    );
    Ok(false)
}

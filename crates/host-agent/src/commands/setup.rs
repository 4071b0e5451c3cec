//! `host-agent setup`

use std::process::ExitCode;

use image::{FIRECRACKER_RELEASES, FirecrackerRelease, Want};
use protocol::HostError;

use super::fail;
use crate::app::{App, kernel_choice};
use crate::cli::{GlobalArgs, SetupArgs};
use crate::progress::Shown;

/// Makes what is missing and says what that was.
pub(crate) fn setup(global: &GlobalArgs, args: &SetupArgs) -> ExitCode {
    match make(global, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, false),
    }
}

fn make(global: &GlobalArgs, args: &SetupArgs) -> Result<(), HostError> {
    let app = App::new(global)?;
    let shown = Shown::default();
    let templates: Vec<&str> = if args.templates.is_empty() {
        vec!["base"]
    } else {
        args.templates.iter().map(String::as_str).collect()
    };
    let want = Want {
        kernel: kernel_choice(args.kernel.as_deref())?,
        templates: &templates,
        mirror: &args.mirrors,
        force: args.force,
    };
    let prepared = app
        .store
        .prepare(&want, &app.runner, &|progress| shown.report(progress))?;
    for made in &prepared.made {
        println!("Made {made}");
    }
    println!(
        "Ready in {}: kernel {}, templates {}",
        app.store.root().display(),
        want.kernel,
        templates.join(", ")
    );
    if let Some(version) = &args.firecracker {
        let base_url = args
            .firecracker_releases
            .as_deref()
            .unwrap_or(FIRECRACKER_RELEASES);
        let release = FirecrackerRelease { version, base_url };
        let installed = app
            .store
            .install_firecracker(&release, &|progress| shown.report(progress))?;
        println!("Installed {} and its jailer", installed.firecracker.display());
    }
    Ok(())
}

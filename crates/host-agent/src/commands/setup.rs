//! `host-agent setup`

use std::path::PathBuf;
use std::process::ExitCode;

use image::{FIRECRACKER_RELEASES, FirecrackerRelease, Progress, Want};
use protocol::HostError;
use serde::Serialize;

use super::fail;
use crate::app::App;
use crate::cli::{GlobalArgs, SetupArgs};
use crate::machine;
use crate::output::print;
use crate::progress::Shown;

/// What set-up did.
#[derive(Debug, Serialize)]
struct Done {
    state_dir: PathBuf,
    kernel: String,
    templates: Vec<&'static str>,
    /// What was not there before.
    made: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    firecracker: Option<PathBuf>,
}

/// Makes what is missing and says what that was.
pub(crate) fn setup(global: &GlobalArgs, args: &SetupArgs) -> ExitCode {
    match make(global, args) {
        Ok(done) if global.json => print(serde_json::json!(done)),
        Ok(done) => tell(&done),
        Err(error) => return fail(&error, global.json),
    }
    ExitCode::SUCCESS
}

fn make(global: &GlobalArgs, args: &SetupArgs) -> Result<Done, HostError> {
    let templates = match args.templates.as_slice() {
        [] => vec![image::BUILT_IN[0].name],
        names => names
            .iter()
            .map(|name| machine::template(name))
            .collect::<Result<_, _>>()?,
    };
    let want = Want {
        kernel: machine::kernel(args.kernel.as_deref())?,
        templates: &templates,
        mirror: &args.mirrors,
        force: args.force,
    };
    let app = App::new(global)?;
    let shown = Shown::default();
    let report = |progress: Progress<'_>| shown.report(progress);
    let prepared = app.store.prepare(&want, &app.runner, &report)?;
    let firecracker = match &args.firecracker {
        Some(version) => {
            let base_url = args.firecracker_releases.as_deref();
            let release = FirecrackerRelease {
                version,
                base_url: base_url.unwrap_or(FIRECRACKER_RELEASES),
            };
            Some(app.store.install_firecracker(&release, &report)?.firecracker)
        }
        None => None,
    };
    Ok(Done {
        state_dir: app.store.root().to_owned(),
        kernel: want.kernel.to_string(),
        templates,
        made: prepared.made,
        firecracker,
    })
}

fn tell(done: &Done) {
    for made in &done.made {
        print(format_args!("Made {made}"));
    }
    let (directory, templates) = (done.state_dir.display(), done.templates.join(", "));
    print(format_args!(
        "Ready in {directory}: kernel {}, templates {templates}",
        done.kernel
    ));
    if let Some(path) = &done.firecracker {
        print(format_args!("Installed {} and its jailer", path.display()));
    }
}

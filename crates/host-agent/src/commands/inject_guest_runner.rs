//! `host-agent inject-guest-runner`

use std::process::ExitCode;

use image::{GuestService, Injected};
use protocol::HostError;

use super::fail;
use crate::app::App;
use crate::cli::{GlobalArgs, InjectArgs};
use crate::output::print;

/// How systemd starts the guest-runner in an image that is not ours.
const UNIT: &str = include_str!("../../../guest-runner/guest-runner.service");

/// Installs the guest-runner and its service into an image.
pub(crate) fn inject_guest_runner(global: &GlobalArgs, args: &InjectArgs) -> ExitCode {
    let image = args.image.display();
    match inject(global, args) {
        Err(error) => return fail(&error, global.json),
        Ok(injected) if global.json => print(serde_json::json!({
            "image": args.image, "installed": injected == Injected::Installed,
        })),
        Ok(Injected::Installed) => print(format_args!("Installed the guest-runner into {image}")),
        Ok(Injected::AlreadyThere) => print(format_args!("The guest-runner is in {image} already")),
    }
    ExitCode::SUCCESS
}

fn inject(global: &GlobalArgs, args: &InjectArgs) -> Result<Injected, HostError> {
    let app = App::new(global)?;
    let service = GuestService {
        runner: &app.runner,
        unit: UNIT,
    };
    Ok(image::inject_guest_runner(&args.image, &service)?)
}

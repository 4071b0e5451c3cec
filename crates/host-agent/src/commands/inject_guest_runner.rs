//! `host-agent inject-guest-runner`

use std::process::ExitCode;

use image::{GuestService, Injected};
use protocol::HostError;

use super::fail;
use crate::app::App;
use crate::cli::{GlobalArgs, InjectArgs};

/// How systemd starts the guest-runner in an image that is not ours.
const UNIT: &str = include_str!("../../../guest-runner/guest-runner.service");

/// Installs the guest-runner and its service into an image.
pub(crate) fn inject_guest_runner(global: &GlobalArgs, args: &InjectArgs) -> ExitCode {
    match inject(global, args) {
        Ok(Injected::Installed) => println!("Installed the guest-runner into {}", args.image.display()),
        Ok(Injected::AlreadyThere) => println!("The guest-runner is in {} already", args.image.display()),
        Err(error) => return fail(&error, args.json),
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

//! `host-agent signing-key`

use std::process::ExitCode;

use image::signing::SigningKeys;
use protocol::{ErrorCode, HostError};
use serde_json::json;

use super::fail;
use crate::app::App;
use crate::cli::{GlobalArgs, SigningKeyCommand};
use crate::output::print;

/// The most bytes that a public key's file may have.
const MAX_KEY: u64 = 4096;

/// Does it.
pub(crate) fn signing_key(global: &GlobalArgs, command: &SigningKeyCommand) -> ExitCode {
    match run(global, command) {
        Ok((id, text)) if global.json => print(json!({ "id": id, "key": text })),
        Ok((_, text)) => print(text),
        Err(error) => return fail(&error, global.json),
    }
    ExitCode::SUCCESS
}

/// The id of the key in question, and what to say.
fn run(global: &GlobalArgs, command: &SigningKeyCommand) -> Result<(String, String), HostError> {
    let keys: SigningKeys = App::new(global)?.signing_keys();
    Ok(match command {
        SigningKeyCommand::Create => {
            let public = keys.create()?;
            (public.id().to_string(), public.to_string())
        }
        SigningKeyCommand::Show => {
            let public = keys.public()?;
            (public.id().to_string(), public.to_string())
        }
        SigningKeyCommand::Rotate { drop_old } => {
            let rotated = keys.rotate(*drop_old)?;
            (rotated.new.id().to_string(), rotated.new.to_string())
        }
        SigningKeyCommand::Trust { file } => {
            let id = keys.trust(&read(file)?)?;
            (id.to_string(), format!("Trusted: {id}"))
        }
    })
}

fn read(path: &std::path::Path) -> Result<String, HostError> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_KEY).read_to_string(&mut text))
        .map_err(|error| {
            let cause = format!("cannot read {}: {error}", path.display());
            HostError::new(ErrorCode::UnreadableInput, cause)
        })?;
    Ok(text)
}

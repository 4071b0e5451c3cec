//! `host-agent api-key`

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use engine::admission::{Allowance, ApiKey, KEY_BYTES, Keys, Scope, Tenant};
use protocol::limits::MAX_TIMEOUT;
use protocol::{ErrorCode, HostError};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::{Value, json};

use super::fail;
use crate::app::App;
use crate::cli::{ApiKeyCommand, CreateKeyArgs, GlobalArgs};
use crate::keys::{Keyring, since_epoch};
use crate::machine;
use crate::output::{complain, print};

/// Does it.
pub(crate) fn api_key(global: &GlobalArgs, command: &ApiKeyCommand) -> ExitCode {
    match run(global, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, global.json),
    }
}

fn run(global: &GlobalArgs, command: &ApiKeyCommand) -> Result<(), HostError> {
    let keyring = App::new(global)?.keyring();
    let now = since_epoch();
    match command {
        ApiKeyCommand::Create(args) => {
            if args.tenant == Tenant::local() {
                let cause = "the tenant local is who needs no key";
                return Err(HostError::new(ErrorCode::InvalidRequest, cause).remedy("give another name"));
            }
            let scopes: BTreeSet<_> = if args.scopes.is_empty() {
                Scope::ALL.into()
            } else {
                args.scopes.iter().copied().collect()
            };
            let expires = args.expires_in.map(|time| now.saturating_add(time));
            let random = random()?;
            let (key, shown) = ApiKey::new(
                &random,
                args.tenant.clone(),
                scopes,
                allowance(args)?,
                now,
                expires,
            );
            keyring.put(&key)?;
            show(&key, &shown, global.json);
        }
        ApiKeyCommand::List => list(&keyring, global.json)?,
        ApiKeyCommand::Revoke { id } => {
            let _lock = keyring.lock()?;
            let keys = loaded(&keyring)?;
            let mut key = find(&keys, id)?.clone();
            // Taken back a second time, it stays taken back since the first.
            key.revoked.get_or_insert(now.as_secs());
            keyring.put(&key)?;
            if global.json {
                print(json!({ "id": key.id, "state": state(&key, now) }));
            } else {
                print(format_args!("Revoked: {id}"));
            }
        }
        ApiKeyCommand::Rotate { id, grace } => {
            let _lock = keyring.lock()?;
            let keys = loaded(&keyring)?;
            let mut old = find(&keys, id)?.clone();
            if state(&old, now) != "good" {
                let cause = format!("the key {id} is {}", state(&old, now));
                return Err(HostError::new(ErrorCode::InvalidRequest, cause)
                    .remedy("make a new one with `host-agent api-key create`"));
            }
            let expires = old.expires.map(Duration::from_secs);
            let (tenant, scopes) = (old.tenant.clone(), old.scopes.clone());
            let (new, shown) = ApiKey::new(&random()?, tenant, scopes, old.allowance, now, expires);
            keyring.put(&new)?;
            let end = now.saturating_add(*grace).as_secs();
            old.expires = Some(old.expires.map_or(end, |before| before.min(end)));
            keyring.put(&old)?;
            show(&new, &shown, global.json);
        }
    }
    Ok(())
}

fn allowance(args: &CreateKeyArgs) -> Result<Allowance, HostError> {
    if let Some(seconds) = args.max_timeout
        && !(seconds > 0.0 && seconds <= MAX_TIMEOUT)
    {
        let cause = format!("--max-timeout is {seconds}, not above 0 and at most {MAX_TIMEOUT}");
        return Err(HostError::new(ErrorCode::InvalidTimeout, cause));
    }
    let memory = args.max_memory.as_deref();
    Ok(Allowance {
        weight: args.weight,
        rate: args.rate,
        jobs: args.jobs,
        queue: args.queue,
        max_timeout: args.max_timeout,
        max_memory_mib: memory
            .map(|size| machine::size_mib("--max-memory", size))
            .transpose()?,
        max_vcpus: args.max_vcpus,
    })
}

fn random() -> Result<[u8; KEY_BYTES], HostError> {
    let mut random = [0; KEY_BYTES];
    match getrandom(&mut random, GetRandomFlags::empty()) {
        Ok(KEY_BYTES) => Ok(random),
        Ok(_) | Err(_) => Err(HostError::new(
            ErrorCode::Internal,
            "the kernel gave no random numbers",
        )),
    }
}

fn loaded(keyring: &Keyring) -> Result<Keys, HostError> {
    let (keys, problems) = keyring.load()?;
    for problem in problems {
        complain(format_args!("Not used: {problem}"));
    }
    Ok(keys)
}

fn find<'a>(keys: &'a Keys, id: &str) -> Result<&'a ApiKey, HostError> {
    keys.get(id).ok_or_else(|| {
        HostError::new(ErrorCode::InvalidRequest, format!("there is no key {id}"))
            .remedy("see `host-agent api-key list`")
    })
}

fn show(key: &ApiKey, shown: &str, as_json: bool) {
    if as_json {
        print(json!({ "id": key.id, "tenant": key.tenant, "key": shown }));
    } else {
        print(shown);
        complain(format_args!(
            "This is the key {} of {}, for the only time: keep it.",
            key.id, key.tenant
        ));
    }
}

fn list(keyring: &Keyring, as_json: bool) -> Result<(), HostError> {
    let (keys, now) = (loaded(keyring)?, since_epoch());
    if as_json {
        let keys: Vec<Value> = keys
            .iter()
            .map(|key| {
                json!({
                    "id": key.id, "tenant": key.tenant, "scopes": key.scopes, "state": state(key, now),
                    "created": key.created, "expires": key.expires, "allowance": key.allowance,
                })
            })
            .collect();
        print(json!({ "keys": keys }));
        return Ok(());
    }
    for key in keys.iter() {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
        let scopes = scopes.join(",");
        let expires = key.expires.map_or_else(|| "never".to_owned(), date);
        let rate = key
            .allowance
            .rate
            .map_or_else(|| "-".to_owned(), |rate| format!("{rate}/min"));
        let id = &key.id;
        print(format_args!(
            "{id}  {:<16} {scopes:<16} {:<8} expires {expires}, weight {}, rate {rate}",
            key.tenant.to_string(),
            state(key, now),
            key.allowance.weight,
        ));
    }
    Ok(())
}

fn state(key: &ApiKey, now: Duration) -> &'static str {
    if key.revoked.is_some() {
        "revoked"
    } else if key.expires.is_some_and(|at| at <= now.as_secs()) {
        "expired"
    } else {
        "good"
    }
}

fn date(seconds: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    // It cannot write years of five digits.
    let far = Duration::from_secs(253_402_300_799);
    at.filter(|at| at.duration_since(UNIX_EPOCH).is_ok_and(|time| time <= far))
        .map_or_else(
            || "never".to_owned(),
            |at| humantime::format_rfc3339_seconds(at).to_string(),
        )
}

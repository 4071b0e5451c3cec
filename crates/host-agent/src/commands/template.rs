//! `host-agent template`

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use image::snapshot::{GcPolicy, GcReason, SnapshotInfo, SnapshotManifest};
use image::{Artefacts, KernelChoice, Progress};
use protocol::{ErrorCode, HostError};
use serde_json::{Value, json};
use vmm::RuntimeDir;

use super::fail;
use crate::app::App;
use crate::cli::{GlobalArgs, TemplateBuildArgs, TemplateCommand};
use crate::commands::run::cannot;
use crate::interrupts::Interrupts;
use crate::machine::{self, Machine, Root};
use crate::output::{complain, print};
use crate::progress::Shown;

/// Does it.
pub(crate) fn template(global: &GlobalArgs, command: &TemplateCommand) -> ExitCode {
    let done = match command {
        TemplateCommand::Build(args) => build(global, args),
        TemplateCommand::List => list(global),
        TemplateCommand::Inspect { name } => inspect(global, name),
        TemplateCommand::Verify { name } => verify(global, name.as_deref()),
        TemplateCommand::Rm { name } => remove(global, name),
        TemplateCommand::Gc => gc(global),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, global.json),
    }
}

fn build(global: &GlobalArgs, args: &TemplateBuildArgs) -> Result<(), HostError> {
    let machine = Machine::of(Root::Template(machine::template(&args.name)?), &args.machine)?;
    let app = App::new(global)?;
    let runtime = app.runtime()?;
    // One thread: a VMM is killed by the kernel when the thread that started it ends.
    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot("start the event loop"))?;
    waiting.block_on(async {
        app.parts(&machine, true, &runtime).await?;
        let mut interrupts = Interrupts::new().map_err(cannot("watch for signals"))?;
        tokio::select! {
            biased;
            signal = interrupts.next() => {
                let cause = format!("signal {} interrupted the build", signal.as_raw());
                Err(HostError::new(ErrorCode::Cancelled, cause))
            }
            built = build_now(&app, &machine, args.force, &runtime, global.json) => built,
        }
    })
}

async fn build_now(
    app: &App,
    machine: &Machine,
    force: bool,
    runtime: &RuntimeDir,
    as_json: bool,
) -> Result<(), HostError> {
    let candidate = app.candidate(machine, runtime).await?;
    let replacing = match (force, app.open(&candidate)) {
        (false, Ok(_)) => None,
        // What cannot be used is no reason not to build.
        _ => app
            .snapshots()
            .find(&candidate.key)?
            .map(|snapshot| snapshot.serial()),
    };
    let shown = Shown::default();
    let name = &candidate.key.template;
    let report = |progress: Progress<'_>| shown.report(progress);
    let built = app.build(machine, &candidate, replacing, runtime, report).await?;
    drop(shown);
    for (language, why) in &built.refused {
        complain(format_args!(
            "note: {language} will start anew for each job: {why}"
        ));
    }
    let path = built.snapshot.path();
    if as_json {
        print(json!({ "path": path, "serial": built.snapshot.serial(), "existed": built.existed }));
    } else if built.existed {
        print(format_args!(
            "There is a snapshot of {name} already (--force replaces it): {}",
            path.display()
        ));
    } else {
        print(format_args!("Built the snapshot of {name}: {}", path.display()));
    }
    Ok(())
}

fn snapshots(app: &App, name: Option<&str>) -> Result<Vec<SnapshotInfo>, HostError> {
    let mut list = app.snapshots().list(&app.signing_keys())?;
    list.retain(|info| name.is_none_or(|name| template_of(info) == Some(name)));
    Ok(list)
}

fn template_of(info: &SnapshotInfo) -> Option<&str> {
    info.manifest
        .as_ref()
        .map(|manifest| manifest.key.template.as_str())
}

fn list(global: &GlobalArgs) -> Result<(), HostError> {
    let app = App::new(global)?;
    let list = snapshots(&app, None)?;
    if global.json {
        print(json!(list.iter().map(describe).collect::<Vec<_>>()));
        return Ok(());
    }
    if list.is_empty() {
        print("There are no snapshots; `host-agent template build` makes one");
    }
    for info in &list {
        let state = match (&info.problem, info.superseded) {
            (Some(problem), _) => format!("unusable: {problem}"),
            (None, true) => "superseded".to_owned(),
            (None, false) => "ready".to_owned(),
        };
        let (name, id, serial) = (
            template_of(info).unwrap_or("?"),
            info.snapshot.id(),
            info.snapshot.serial(),
        );
        let (size, age) = (
            info.disk_bytes >> 20,
            age(info).map_or_else(String::new, |age| format!("{} h old, ", age.as_secs() / 3600)),
        );
        print(format_args!("{name:<8} {id}/{serial}  {size} MiB, {age}{state}"));
    }
    Ok(())
}

fn age(info: &SnapshotInfo) -> Option<Duration> {
    SystemTime::now()
        .duration_since(info.manifest.as_ref()?.created())
        .ok()
}

fn describe(info: &SnapshotInfo) -> Value {
    json!({
        "id": info.snapshot.id().to_string(),
        "serial": info.snapshot.serial(),
        "path": info.snapshot.path(),
        "disk_bytes": info.disk_bytes,
        "superseded": info.superseded,
        "problem": info.problem.as_ref().map(ToString::to_string),
        "manifest": info.manifest,
    })
}

fn inspect(global: &GlobalArgs, name: &str) -> Result<(), HostError> {
    let app = App::new(global)?;
    let found = snapshots(&app, Some(machine::template(name)?))?;
    let newest = found
        .iter()
        .max_by_key(|info| info.manifest.as_ref().map(|manifest| manifest.created_unix));
    let newest = newest.ok_or_else(|| missing(name))?;
    let text = serde_json::to_string_pretty(&describe(newest))
        .map_err(|error| cannot("write JSON")(error.into()))?;
    print(text);
    Ok(())
}

fn missing(name: &str) -> HostError {
    HostError::new(
        ErrorCode::SnapshotMissing,
        format!("there is no snapshot of {name}"),
    )
    .remedy(format!("run `host-agent template build {name}`"))
}

/// Reads everything. The first that is not as signed is the error, after all have been looked at.
fn verify(global: &GlobalArgs, name: Option<&str>) -> Result<(), HostError> {
    let app = App::new(global)?;
    let name = name.map(machine::template).transpose()?;
    let found = snapshots(&app, None)?;
    let mut failed = None;
    let mut verified = Vec::new();
    let wanted =
        |info: &&SnapshotInfo| name.is_none() || template_of(info).is_none_or(|found| Some(found) == name);
    for info in found.iter().filter(wanted).filter(|info| !info.superseded) {
        let path = info.snapshot.path();
        match verify_one(&app, info) {
            Err(error) => {
                complain(format_args!("{}: {error}", path.display()));
                failed.get_or_insert(error);
            }
            Ok(()) => verified.push(path),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if verified.is_empty() {
        return Err(missing(name.unwrap_or("any template")));
    }
    if global.json {
        print(json!({ "verified": verified }));
    } else {
        verified
            .iter()
            .for_each(|path| print(format_args!("As signed: {}", path.display())));
    }
    Ok(())
}

fn verify_one(app: &App, info: &SnapshotInfo) -> Result<(), HostError> {
    let keys = app.signing_keys();
    let Some(manifest) = &info.manifest else {
        let problem = info
            .problem
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        return Err(HostError::new(ErrorCode::SnapshotInvalid, problem));
    };
    let artefacts = artefacts(app, manifest)?;
    info.snapshot.verify_all(&keys, &manifest.key, &artefacts)?;
    Ok(())
}

/// What a snapshot's machine boots from: its template, with whichever kernel it was built with.
fn artefacts(app: &App, manifest: &SnapshotManifest) -> Result<Artefacts, HostError> {
    let key = &manifest.key;
    for kernel in [KernelChoice::default(), KernelChoice::Tuned] {
        let Ok(artefacts) = app.store.lookup(&key.template, &kernel, &app.runner) else {
            continue;
        };
        if app.snapshots().sums(&artefacts)?.kernel == key.kernel {
            return Ok(artefacts);
        }
    }
    let cause = format!("the kernel of a snapshot of {} is no longer there", key.template);
    Err(HostError::new(ErrorCode::SnapshotInvalid, cause))
}

fn remove(global: &GlobalArgs, name: &str) -> Result<(), HostError> {
    let app = App::new(global)?;
    let found = snapshots(&app, Some(machine::template(name)?))?;
    let mut ids: Vec<_> = found.iter().map(|info| info.snapshot.id()).collect();
    ids.dedup();
    let mut removed = 0;
    for id in ids {
        removed += app.snapshots().remove(id)?;
    }
    print_count(global, removed);
    Ok(())
}

fn print_count(global: &GlobalArgs, removed: usize) {
    if global.json {
        print(json!({ "removed": removed }));
    } else {
        print(format_args!("Removed {removed} snapshots"));
    }
}

fn gc(global: &GlobalArgs) -> Result<(), HostError> {
    let app = App::new(global)?;
    let collected = app
        .snapshots()
        .gc(&app.signing_keys(), &GcPolicy::default(), SystemTime::now())?;
    if global.json {
        let removed: Vec<_> = collected.removed.iter().map(|removed| &removed.path).collect();
        print(json!({ "removed": removed, "in_use": collected.in_use }));
        return Ok(());
    }
    for removed in &collected.removed {
        let why = match removed.reason {
            GcReason::Superseded => "there is a newer one",
            GcReason::TooOld => "too old",
            _ => "its kernel, initramfs or root filesystem is gone",
        };
        print(format_args!("Removed {} ({why})", removed.path.display()));
    }
    for path in &collected.in_use {
        print(format_args!("In use: {}", path.display()));
    }
    let freed: u64 = collected.removed.iter().map(|removed| removed.bytes).sum();
    print(format_args!("Freed {} MiB", freed >> 20));
    Ok(())
}

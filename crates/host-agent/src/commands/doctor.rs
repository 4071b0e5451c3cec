//! `host-agent doctor`

use std::path::Path;
use std::process::ExitCode;

use image::{KernelChoice, Purpose, install_command};
use protocol::HostError;
use serde::Serialize;
use vmm::BackendKind;
use vmm::probe::{self, Choice, Kvm, Lack};
use vmm::{Layer, VmmError};

use super::fail;
use crate::advisories::{self, Component, Version};
use crate::app::App;
use crate::cli::GlobalArgs;
use crate::machine;
use crate::output::print;

/// What was found, line by line.
#[derive(Debug, Default, Serialize)]
struct Findings {
    /// A job can run.
    ready: bool,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    name: String,
    state: State,
    detail: String,
    /// The command that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Missing, and jobs run without it.
    Optional,
    /// Jobs run, and something about that should be mended.
    Warning,
    Missing,
}

impl Findings {
    fn ok(&mut self, name: impl Into<String>, detail: impl Into<String>) {
        self.checks.push(Check {
            name: name.into(),
            state: State::Ok,
            detail: detail.into(),
            remedy: None,
        });
    }

    fn lacks(
        &mut self,
        name: impl Into<String>,
        state: State,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (name, detail, remedy) = (name.into(), detail.into(), Some(remedy.into()));
        self.checks.push(Check {
            name,
            state,
            detail,
            remedy,
        });
    }
}

/// Prints what was found; the exit status says whether a job can run.
pub(crate) fn doctor(global: &GlobalArgs, kernel: Option<&str>) -> ExitCode {
    let findings = match examine(global, kernel) {
        Ok(findings) => findings,
        Err(error) => return fail(&error, global.json),
    };
    if global.json {
        print(serde_json::json!(findings));
    } else {
        print(table(&findings));
    }
    if findings.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn examine(global: &GlobalArgs, kernel: Option<&str>) -> Result<Findings, HostError> {
    let app = App::new(global)?;
    let choice = machine::kernel(kernel)?;
    let mut findings = Findings::default();
    let kernel = images(&app, &choice, &mut findings);
    tools(&mut findings);
    let runtime = app.runtime()?;
    findings.ok("runtime directory", runtime.path().display().to_string());
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let waiting = waiting.map_err(|error| {
        HostError::new(
            protocol::ErrorCode::Internal,
            format!("cannot start the event loop: {error}"),
        )
    })?;
    let report = waiting.block_on(probe::report(&app.search(), kernel.as_deref(), &runtime));
    backends(&report, &mut findings);
    holes(&report, kernel.as_deref(), &mut findings);
    if let Ok(binary) = report.select(Choice::Auto) {
        layers(waiting.block_on(vmm::layers(&binary, &runtime)), &mut findings);
    }
    findings.ready = findings.checks.iter().all(|check| check.state != State::Missing);
    Ok(findings)
}

/// Checks what set-up makes; gives the kernel if there is one.
fn images(app: &App, choice: &KernelChoice, findings: &mut Findings) -> Option<std::path::PathBuf> {
    findings.ok("state directory", app.store.root().display().to_string());
    let kernel = app.store.boot_files(choice, &app.runner);
    match &kernel {
        Ok(found) => {
            findings.ok("kernel", found.kernel.display().to_string());
            findings.ok("initramfs", found.initramfs.display().to_string());
        }
        Err(error) => {
            let remedy = match choice {
                KernelChoice::File(_) => "name another file with --kernel".to_owned(),
                choice => format!("host-agent setup --kernel {choice}"),
            };
            findings.lacks("kernel", State::Missing, error.to_string(), remedy);
        }
    }
    for template in image::BUILT_IN {
        let name = format!("template {}", template.name);
        // `run` makes the others when a language needs them.
        let state = if template.name == image::BUILT_IN[0].name {
            State::Missing
        } else {
            State::Optional
        };
        match app.store.lookup(template.name, choice, &app.runner) {
            Ok(found) => findings.ok(
                name,
                format!(
                    "{} ({} MiB)",
                    found.template.languages.join(", "),
                    found.template.rootfs_bytes >> 20
                ),
            ),
            Err(error) => {
                findings.lacks(
                    name,
                    state,
                    error.to_string(),
                    format!("host-agent setup --template {}", template.name),
                );
            }
        }
    }
    kernel.ok().map(|found| found.kernel)
}

fn tools(findings: &mut Findings) {
    let mut purposes = vec![
        (Purpose::Images, "tools for images"),
        (Purpose::TunedKernel, "tools for --kernel tuned"),
        (Purpose::Inject, "tools for injecting"),
    ];
    if !rustix::process::geteuid().is_root() {
        purposes.push((Purpose::Rootless, "tools for images without root"));
    }
    for (purpose, name) in purposes {
        let missing = image::missing(purpose);
        if missing.is_empty() {
            findings.ok(name, "all installed");
            continue;
        }
        let programs: Vec<_> = missing.iter().map(|tool| tool.program).collect();
        let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
        let detail = format!("missing: {}", programs.join(", "));
        findings.lacks(name, State::Optional, detail, install_command(&packages));
    }
}

fn backends(report: &probe::Report, findings: &mut Findings) {
    for (kind, path, (major, minor, patch)) in report.installed() {
        findings.ok(
            kind.name(),
            format!("{major}.{minor}.{patch} at {}", path.display()),
        );
    }
    if report.kvm == Kvm::Works {
        findings.ok("KVM", "a guest kernel ran on it");
    }
    for Lack {
        what,
        remedy,
        optional,
    } in report.lacks()
    {
        let state = if optional { State::Optional } else { State::Missing };
        findings.lacks(
            if what.starts_with("KVM") { "KVM" } else { "VMM" },
            state,
            what,
            remedy,
        );
    }
    match report.select(Choice::Auto) {
        Ok(vmm) => findings.ok(
            "backend",
            format!("{} ({}): {}", vmm.kind, vmm.accel, report.why()),
        ),
        Err(error) => {
            let error = HostError::from(error);
            findings.lacks("backend", State::Missing, error.cause, error.remedy);
        }
    }
}

/// Looks for versions with known holes.
fn holes(report: &probe::Report, kernel: Option<&Path>, findings: &mut Findings) {
    for (kind, _, (major, minor, patch)) in report.installed() {
        if kind == BackendKind::Firecracker {
            compare(
                Component::Firecracker,
                "Firecracker",
                Version(major, minor, patch),
                findings,
            );
        }
    }
    let image = kernel.and_then(|kernel| std::fs::read(kernel).ok());
    if let Some(image) = image {
        let banner = advisories::banner(&image);
        compare_kernel(Component::GuestKernel, "guest kernel", banner, findings);
    }
    let host = rustix::system::uname();
    let text = |field: &std::ffi::CStr| field.to_string_lossy().into_owned();
    let banner = Some((text(host.release()), text(host.version())));
    // Only a guest that runs on this kernel's KVM can do anything to it by the processor.
    if report.kvm == Kvm::Works {
        compare_kernel(Component::HostKernel, "host kernel", banner, findings);
    }
}

fn compare_kernel(
    component: Component,
    name: &str,
    banner: Option<(String, String)>,
    findings: &mut Findings,
) {
    let known = banner
        .as_ref()
        .and_then(|(release, build)| advisories::kernel_version(release, build));
    match (known, banner) {
        (Some(version), _) => compare(component, name, version, findings),
        (None, Some((release, _))) => findings.ok(
            format!("{name}'s holes"),
            format!("not known: {release} is numbered by its distribution, whose advisories apply"),
        ),
        (None, None) => findings.ok(
            format!("{name}'s holes"),
            "not known: it does not say its version",
        ),
    }
}

fn compare(component: Component, name: &str, version: Version, findings: &mut Findings) {
    let title = format!("{name}'s holes");
    match advisories::of(component, version) {
        Ok(found) if found.iter().all(|advisory| !advisory.matters) => {
            let harmless: Vec<_> = found.iter().map(|advisory| advisory.id.as_str()).collect();
            let besides = if harmless.is_empty() {
                String::new()
            } else {
                format!(
                    " but {}, which needs what is never used here",
                    harmless.join(", ")
                )
            };
            findings.ok(title, format!("none known of {version}{besides}"));
        }
        Ok(found) => {
            for advisory in found.into_iter().filter(|advisory| advisory.matters) {
                let fixed = advisory.fixed();
                let detail = format!(
                    "{version} has {}: {} (fixed in {fixed}; {})",
                    advisory.id, advisory.what, advisory.source
                );
                findings.lacks(title.clone(), State::Warning, detail, advisory.remedy);
            }
        }
        Err(why) => findings.lacks(title, State::Warning, why, "please report it"),
    }
}

/// What machines are isolated by, as starting a VMM showed.
fn layers(found: Result<Vec<Layer>, VmmError>, findings: &mut Findings) {
    match found {
        Ok(layers) => {
            let names = layers.into_iter().map(Layer::name);
            findings.ok("isolation", names.collect::<Vec<_>>().join(", "));
        }
        Err(error) => {
            let error = HostError::from(error);
            findings.lacks("isolation", State::Missing, error.cause, error.remedy);
        }
    }
}

fn table(findings: &Findings) -> String {
    let width = findings
        .checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for check in &findings.checks {
        let mark = match check.state {
            State::Ok => "ok     ",
            State::Optional => "-      ",
            State::Warning => "WARNING",
            State::Missing => "MISSING",
        };
        text += &format!("{mark}  {:<width$}  {}\n", check.name, check.detail);
        if let Some(remedy) = &check.remedy {
            text += &format!("{:>9}{:width$}  → {remedy}\n", "", "");
        }
    }
    text + if findings.ready {
        "\nJobs can run."
    } else {
        "\nJobs cannot run yet: mend what is MISSING."
    }
}

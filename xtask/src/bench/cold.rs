//! `bench cold`: pairs of a bare boot and a whole run.
//!
//! ```text
//! one run ──► QEMU's own command line, read from /proc ──► the bare machine: same kernel, CPU, memory, kernel arguments;
//!                                                          no disk, no port; PID 1 powers off at once
//! pair:  bare machine  |  host-agent run --lang bash --code 'echo hi' --json
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use image::Cpio;
use serde_json::Value;

use super::installed::{Installed, children};
use super::samples::Samples;
use super::split::milliseconds;
use super::{Common, interrupt};
use crate::build::{run as run_command, workspace};

/// How often a running host-agent is looked at, for its VMM and its memory.
const LOOK: Duration = Duration::from_millis(10);
/// The whole command; a kernel may be named after it.
const RUN: [&str; 7] = ["run", "--cold", "--lang", "bash", "--code", "echo hi", "--json"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let installed = Installed::find()?;
    let cold = Cold::prepare(&installed, &[])?;
    println!("bare machine: {}", shown(&cold.bare));
    println!("against:      host-agent {}", RUN.join(" "));

    let mut samples = Samples::new("cold", "Bare boot of the kernel; a whole run from nothing");
    let pairs = arguments.common.pairs;
    for number in 1..=pairs {
        cold.pair("", number.is_multiple_of(2), &mut samples)
            .with_context(|| format!("pair {number}"))?;
        let last = |name| samples.last(name).unwrap_or(f64::NAN);
        eprintln!(
            "{number:>3}/{pairs}  bare {:>5.0} ms  run {:>5.0} ms  ratio {:.2}",
            last("bare boot"),
            last("run"),
            last("run") / last("bare boot")
        );
    }
    samples.ratio("run ÷ bare boot", "run", "bare boot");
    samples.ratio(
        "init to listening ÷ bare boot",
        "run: init to listening",
        "bare boot",
    );
    samples.publish(&arguments.common.out())?;
    println!(
        "host-agent's own memory at its peak: {:.1} MiB",
        cold.peak_kib as f64 / 1024.0
    );
    let runner = guest_runner(installed.host_agent())?;
    println!("guest-runner: {:.2} MiB", runner as f64 / f64::from(1 << 20));
    Ok(())
}

/// A whole run, and the bare machine beside it.
pub(super) struct Cold<'a> {
    installed: &'a Installed,
    arguments: Vec<&'a str>,
    pub(super) bare: Vec<String>,
    peak_kib: u64,
}

impl<'a> Cold<'a> {
    /// Runs once, to see what its machine is.
    pub(super) fn prepare(installed: &'a Installed, more: &[&'a str]) -> anyhow::Result<Self> {
        let arguments = [RUN.as_slice(), more].concat();
        let seen = watch(&mut installed.command(&arguments))?;
        Ok(Self {
            installed,
            arguments,
            bare: bare_machine(&seen.vmm, &initramfs(installed.work())?)?,
            peak_kib: seen.peak_kib,
        })
    }

    /// Measures both once, into columns whose names begin with `prefix`.
    pub(super) fn pair(&self, prefix: &str, backwards: bool, samples: &mut Samples) -> anyhow::Result<()> {
        if backwards {
            self.run(prefix, samples)?;
            return self.boot(prefix, samples);
        }
        self.boot(prefix, samples)?;
        self.run(prefix, samples)
    }

    fn boot(&self, prefix: &str, samples: &mut Samples) -> anyhow::Result<()> {
        interrupt::check()?;
        let started = Instant::now();
        let boot = Command::new(&self.bare[0])
            .args(&self.bare[1..])
            .stdin(Stdio::null())
            .output()
            .context("cannot start the bare machine")?;
        samples.milliseconds(&format!("{prefix}bare boot"), milliseconds(started.elapsed()));
        ensure!(
            boot.status.success(),
            "the bare machine ended with {}: {}",
            boot.status,
            String::from_utf8_lossy(&boot.stderr)
        );
        Ok(())
    }

    fn run(&self, prefix: &str, samples: &mut Samples) -> anyhow::Result<()> {
        interrupt::check()?;
        let started = Instant::now();
        let answer: Value = self.installed.json(&self.arguments)?;
        samples.milliseconds(&format!("{prefix}run"), milliseconds(started.elapsed()));
        ensure!(answer["stdout"] == "hi\n", "the job went wrong: {answer}");
        let init = answer["timings"]["init"].as_f64();
        // PID 1's first instruction to listening, by the guest's clock.
        samples.milliseconds(
            &format!("{prefix}run: init to listening"),
            init.context("the answer has no timings.init")?,
        );
        Ok(())
    }
}

/// What showed while host-agent ran one job.
struct Seen {
    /// The VMM's command line.
    vmm: Vec<String>,
    /// The most memory that host-agent itself had resident.
    peak_kib: u64,
}

fn watch(run: &mut Command) -> anyhow::Result<Seen> {
    let mut job = run
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start host-agent")?;
    let proc = PathBuf::from(format!("/proc/{}", job.id()));
    let (mut vmm, mut peak_kib) = (None, 0);
    while job.try_wait()?.is_none() {
        peak_kib = peak_memory(&proc).unwrap_or(peak_kib);
        vmm = child_command_line(job.id()).or(vmm);
        thread::sleep(LOOK);
    }
    let status = job.wait()?;
    ensure!(status.success(), "host-agent ended with {status}");
    Ok(Seen {
        vmm: vmm.context("no VMM was seen")?,
        peak_kib,
    })
}

fn peak_memory(proc: &Path) -> Option<u64> {
    let status = fs::read_to_string(proc.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The command line of the process's QEMU child, once it has one.
fn child_command_line(pid: u32) -> Option<Vec<String>> {
    children(pid).into_iter().find_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line: Vec<_> = line
            .split(|byte| *byte == 0)
            .map(|part| String::from_utf8_lossy(part).into_owned())
            .collect();
        // Before exec it still has our own.
        line.iter().any(|part| part == "-append").then_some(line)
    })
}

/// The same machine without what the job needs: disks, ports, monitor; and with our initramfs.
fn bare_machine(vmm: &[String], initramfs: &Path) -> anyhow::Result<Vec<String>> {
    const DROPPED: [&str; 5] = ["-blockdev", "-device", "-chardev", "-mon", "-object"];
    let mut bare = Vec::new();
    let mut parts = vmm.iter().filter(|part| !part.is_empty());
    while let Some(part) = parts.next() {
        if DROPPED.contains(&part.as_str()) {
            parts.next();
        } else if part == "-initrd" {
            parts.next();
            bare.extend([part.clone(), initramfs.display().to_string()]);
        } else {
            bare.push(part.clone());
        }
    }
    if !bare.iter().any(|part| part == "-initrd") {
        bail!("this is no QEMU command line: {}", shown(vmm));
    }
    Ok(bare)
}

fn shown(command: &[String]) -> String {
    let quoted = command.iter().map(|part| {
        if part.contains([' ', '"']) {
            format!("'{part}'")
        } else {
            part.clone()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// An initramfs whose PID 1 does nothing but end the machine.
fn initramfs(directory: &Path) -> anyhow::Result<PathBuf> {
    let program = directory.join("poweroff");
    run_command(
        Command::new("rustc")
            .args([
                "--edition=2024",
                "-O",
                "-Cpanic=abort",
                "-Crelocation-model=static",
            ])
            .arg("-Clink-args=-nostartfiles -nostdlib -static")
            .arg("-o")
            .arg(&program)
            .arg(workspace().join("xtask/bench/poweroff.rs")),
    )?;
    let archive = directory.join("poweroff.cpio");
    let mut contents = Cpio::default();
    contents.executable("init", &fs::read(&program)?);
    fs::write(&archive, contents.finish()).with_context(|| format!("cannot write {}", archive.display()))?;
    Ok(archive)
}

/// The size of the guest-runner that was built into host-agent, in bytes.
fn guest_runner(host_agent: &Path) -> anyhow::Result<u64> {
    let build = host_agent.with_file_name("build");
    let mut newest: Option<fs::Metadata> = None;
    let crates = fs::read_dir(&build).with_context(|| format!("cannot read {}", build.display()))?;
    for crate_dir in crates.flatten() {
        if !crate_dir.file_name().to_string_lossy().starts_with("host-agent-") {
            continue;
        }
        let Ok(found) = fs::metadata(
            crate_dir
                .path()
                .join("out/guest/x86_64-unknown-linux-gnu/guest/guest-runner"),
        ) else {
            continue;
        };
        if newest
            .as_ref()
            .is_none_or(|newest| found.modified().ok() > newest.modified().ok())
        {
            newest = Some(found);
        }
    }
    Ok(newest
        .context("there is no guest-runner beside host-agent")?
        .len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_machine_has_no_devices_and_another_initramfs() {
        let vmm: Vec<String> = "qemu -M microvm -device x -initrd real -chardev c -append quiet"
            .split(' ')
            .map(str::to_owned)
            .collect();
        let bare = bare_machine(&vmm, Path::new("/tiny")).unwrap();
        assert_eq!(shown(&bare), "qemu -M microvm -initrd /tiny -append quiet");
    }
}

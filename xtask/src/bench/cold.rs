//! `bench cold`: pairs of a bare boot and a whole run.
//!
//! ```text
//! one run ──► QEMU's own command line, read from /proc ──► the bare machine: same kernel, CPU, memory, kernel arguments;
//!                                                          no disk, no port; PID 1 powers off at once
//! pair:  bare machine  |  host-agent run --lang bash --code 'echo hi' --json
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use image::Cpio;
use serde_json::Value;

use super::statistics::Summary;
use crate::build::{Profile, prepare, run as run_command, target_dir, workspace};

/// How often a running host-agent is looked at, for its VMM and its memory.
const LOOK: Duration = Duration::from_millis(10);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many pairs.
    #[arg(long, default_value_t = 20)]
    pairs: u32,
}

/// One pair. Milliseconds.
struct Pair {
    bare: f64,
    run: f64,
    /// PID 1's first instruction to listening, by the guest's clock.
    init: f64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let host_agent = prepare(Profile::Release, &["base"])?;
    let directory = target_dir().join("bench");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;

    let seen = watch(&host_agent)?;
    let bare = bare_machine(&seen.vmm, &initramfs(&directory)?)?;
    println!("bare machine: {}", shown(&bare));
    println!("against:      host-agent {}", RUN.join(" "));

    let csv = directory.join("cold.csv");
    let pairs = measure(arguments.pairs, &bare, &host_agent, &csv)?;
    report(&pairs)?;
    println!(
        "host-agent's own memory at its peak: {:.1} MiB",
        seen.peak_kib as f64 / 1024.0
    );
    let runner = guest_runner(&host_agent)?;
    println!("guest-runner: {:.2} MiB", runner as f64 / f64::from(1 << 20));
    println!("Every pair: {}", csv.display());
    Ok(())
}

const RUN: [&str; 6] = ["run", "--lang", "bash", "--code", "echo hi", "--json"];

fn measure(pairs: u32, bare: &[String], host_agent: &Path, csv: &Path) -> anyhow::Result<Vec<Pair>> {
    let mut file = File::create(csv).with_context(|| format!("cannot write {}", csv.display()))?;
    writeln!(file, "pair,bare_ms,run_ms,init_ms")?;
    let mut measured = Vec::new();
    for number in 1..=pairs {
        let pair = pair(bare, host_agent).with_context(|| format!("pair {number}"))?;
        writeln!(file, "{number},{:.1},{:.1},{:.1}", pair.bare, pair.run, pair.init)?;
        eprintln!(
            "{number:>3}/{pairs}  bare {:>5.0} ms  run {:>5.0} ms  ratio {:.2}",
            pair.bare,
            pair.run,
            pair.run / pair.bare
        );
        measured.push(pair);
    }
    Ok(measured)
}

fn pair(bare: &[String], host_agent: &Path) -> anyhow::Result<Pair> {
    let started = Instant::now();
    let boot = Command::new(&bare[0])
        .args(&bare[1..])
        .stdin(Stdio::null())
        .output()
        .context("cannot start the bare machine")?;
    let bare = milliseconds(started);
    ensure!(
        boot.status.success(),
        "the bare machine ended with {}: {}",
        boot.status,
        String::from_utf8_lossy(&boot.stderr)
    );

    let started = Instant::now();
    let job = Command::new(host_agent)
        .args(RUN)
        .output()
        .context("cannot start host-agent")?;
    let run = milliseconds(started);
    let answer: Value = serde_json::from_slice(&job.stdout).context("host-agent printed no JSON")?;
    ensure!(answer["stdout"] == "hi\n", "the job went wrong: {answer}");
    let init = answer["timings"]["init"]
        .as_f64()
        .context("the answer has no timings.init")?;
    Ok(Pair { bare, run, init })
}

fn report(pairs: &[Pair]) -> anyhow::Result<()> {
    let quartiles = |of: fn(&Pair) -> f64| Summary::of(pairs.iter().map(of)).context("nothing was measured");
    println!(
        "{} pairs; medians, and medians of the pairs' ratios:",
        pairs.len()
    );
    println!(
        "  bare boot, ms                {:.0}",
        quartiles(|pair| pair.bare)?
    );
    println!(
        "  run, ms                      {:.0}",
        quartiles(|pair| pair.run)?
    );
    println!(
        "  init to listening, ms        {:.0}",
        quartiles(|pair| pair.init)?
    );
    println!(
        "  run / bare boot              {:.2}",
        quartiles(|pair| pair.run / pair.bare)?
    );
    println!(
        "  init to listening / bare     {:.2}",
        quartiles(|pair| pair.init / pair.bare)?
    );
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// What showed while host-agent ran one job.
struct Seen {
    /// The VMM's command line.
    vmm: Vec<String>,
    /// The most memory that host-agent itself had resident.
    peak_kib: u64,
}

fn watch(host_agent: &Path) -> anyhow::Result<Seen> {
    let mut job = Command::new(host_agent)
        .args(RUN)
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start host-agent")?;
    let proc = PathBuf::from(format!("/proc/{}", job.id()));
    let (mut vmm, mut peak_kib) = (None, 0);
    while job.try_wait()?.is_none() {
        peak_kib = peak_memory(&proc).unwrap_or(peak_kib);
        vmm = child_command_line(&proc).or(vmm);
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
fn child_command_line(proc: &Path) -> Option<Vec<String>> {
    let tasks = fs::read_dir(proc.join("task")).ok()?;
    let children = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<_> = children
        .flat_map(|pids| pids.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    pids.iter().find_map(|pid| {
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

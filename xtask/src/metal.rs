//! `metal`: an emulated bare-metal host. QEMU translates a processor that has AMD's virtualization, so the host in it has a
//! KVM that runs stock guests, and Firecracker runs there for real on a machine that has no KVM at all.
//!
//! ```text
//! this machine ── QEMU, fully emulated ── Debian, KVM ── COMMAND, as root ── Firecracker ── guest
//!   host::Host (kernel, root filesystem) ──►│               ▲
//!   payload (programs, images, commands) ───┴── /metal ─────┘ output, exit status: two virtio ports
//! ```

mod host;
mod suite;

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

use self::host::Host;
use crate::bench::HOST_AGENT;
use crate::build::{self, Profile, run as run_command};

/// The emulated host's memory, in MiB: several guests, and all that is written outside the payload. QEMU takes what is used.
const MEMORY_MIB: u64 = 8192;
/// A processor with AMD's virtualization, and with nothing that QEMU's `max` adds. QEMU lacks parts of the model and would say
/// so each time. QEMU 7.2 loses such a host to a wild fault of its kernel once in some hundred guests, with either.
const CPU: &str = "EPYC,+svm,check=off";
/// The size of the payload's disk, in bytes; what is not written takes no room.
const PAYLOAD: u64 = 8 << 30;
/// How many times longer the tests wait there.
const PATIENCE: u32 = 8;
/// The first version that finds its devices with Debian's kernel, through ACPI.
const FIRST_WITH_ACPI: (u32, u32) = (1, 8);
const INIT: &str = include_str!("metal/init.sh");
/// What is of no use there in the state directory.
const NOT_COPIED: [&str; 3] = ["snapshots", "verified", "tmp"];
/// The word of its kernel command line that its init has in its environment, and takes the command's number from.
const COMMAND: &str = "metal_command";
/// What the functional suite is called there.
const SUITE: &str = "functional";
/// And this program, which brings its benchmarks.
const XTASK: &str = "xtask";
/// Where it takes cargo's target directory to be there, and puts what it measured.
const TARGET_THERE: &str = "/metal/target";

/// What runs on the emulated host.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// End an emulated host after so many minutes.
    #[arg(long, default_value_t = 60, value_name = "MINUTES")]
    deadline: u64,
    /// The command and its arguments; `functional`, the functional suite, when there is none. The whole suite is spread over
    /// several emulated hosts, one after the other.
    #[arg(last = true)]
    command: Vec<String>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            deadline: 60,
            command: Vec::new(),
        }
    }
}

/// The Firecracker binary to run there: `FIRECRACKER_BIN`, else the one in `PATH`.
pub(crate) fn firecracker() -> Option<PathBuf> {
    if let Some(path) = env::var_os("FIRECRACKER_BIN") {
        return Some(path.into());
    }
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join("firecracker"))
        .find(|path| path.exists())
}

/// Boots the emulated host, runs the command in it, and returns its exit status.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let Some(firecracker) = firecracker() else {
        println!("SKIP: metal: there is no Firecracker in FIRECRACKER_BIN or PATH");
        return Ok(0);
    };
    let kernel = kernel_for(version(&firecracker)?);
    let suite = [SUITE.to_owned()];
    let command = match arguments.command.as_slice() {
        [] => &suite,
        command => command,
    };
    // What is measured is what users run.
    let benchmark = runs(command, XTASK);
    let profile = if benchmark { Profile::Release } else { Profile::Dev };
    let host_agent = build::prepare(profile, &["base", "rust"])?;
    run_command(Command::new(&host_agent).args(["setup", "--kernel", kernel]))?;
    let tests = runs(command, SUITE).then(Tests::build).transpose()?;
    let commands = match &tests {
        Some(tests) if command.len() == 1 => suite::commands(&tests.functional)?,
        _ => vec![command.to_vec()],
    };

    let dir = build::target_dir().join("metal");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let _lock = lock(&dir.join("lock"))?;
    let host = Host::prepare(&dir)?;
    let work = Work::new(dir.join("run"))?;
    let payload = Payload {
        firecracker,
        host_agent,
        kernel,
        tests,
    };
    let image = payload.pack(&work, &commands)?;
    let emulator = Emulator {
        host,
        image,
        // Each of the suite's hosts finds the payload as it was packed; what others write there is brought back.
        discard: payload.tests.is_some(),
        work,
        deadline: Duration::from_secs(arguments.deadline.saturating_mul(60)),
    };
    if payload.tests.is_some() {
        return suite::run(&emulator, &commands);
    }
    let status = emulator.run(0)?.end.exit_status(emulator.deadline)?;
    if benchmark {
        bring_back(&emulator.image)?;
    }
    Ok(status)
}

fn runs(command: &[String], program: &str) -> bool {
    command.first().is_some_and(|first| first == program)
}

/// Copies what benchmarks wrote there to `metal-bench` in the target directory.
fn bring_back(image: &Path) -> anyhow::Result<()> {
    let to = build::target_dir().join("metal-bench");
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    let there = TARGET_THERE.trim_start_matches("/metal");
    let request = format!("rdump {there}/bench \"{}\"", to.display());
    run_command(
        Command::new("debugfs")
            .args(["-R", &request])
            .arg(image)
            .stderr(Stdio::null()),
    )?;
    println!("What it wrote is in {}", to.join("bench").display());
    Ok(())
}

/// Runs the functional suite there; a failure of it is an error.
pub(crate) fn suite() -> anyhow::Result<()> {
    match run(&Arguments::default())? {
        0 => Ok(()),
        status => bail!("the functional suite on the emulated host: exit status {status}"),
    }
}

/// What `firecracker --version` says: major and minor.
fn version(firecracker: &Path) -> anyhow::Result<(u32, u32)> {
    let output = Command::new(firecracker)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot start {}", firecracker.display()))?;
    let output = String::from_utf8_lossy(&output.stdout);
    parse_version(&output).with_context(|| {
        format!(
            "{} --version is no Firecracker's: {output}",
            firecracker.display()
        )
    })
}

fn parse_version(output: &str) -> Option<(u32, u32)> {
    let mut numbers = output.strip_prefix("Firecracker v")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The kernel, as `--kernel` takes it, that guests of this version find their devices with.
fn kernel_for(version: (u32, u32)) -> &'static str {
    if version < FIRST_WITH_ACPI {
        "tuned"
    } else {
        "debian"
    }
}

/// Held while an emulated host runs; released also by the death of this process.
fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("cannot open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        eprintln!("Waiting for another emulated host to end");
        flock(&file, FlockOperation::LockExclusive).context("cannot lock")?;
    }
    Ok(file)
}

/// What exists only while the host runs. Removed on drop, or by the next run.
struct Work(PathBuf);

impl Work {
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// The second disk: what is tried, what it needs, and the commands.
struct Payload {
    firecracker: PathBuf,
    host_agent: PathBuf,
    kernel: &'static str,
    tests: Option<Tests>,
}

impl Payload {
    /// Packs all of it into an image and returns that. An emulated host runs one of the commands.
    fn pack(&self, work: &Work, commands: &[Vec<String>]) -> anyhow::Result<PathBuf> {
        let tree = work.path("payload");
        let bin = tree.join("bin");
        fs::create_dir_all(&bin)?;
        install(&self.host_agent, &bin.join("host-agent"))?;
        install(&self.firecracker, &bin.join("firecracker"))?;
        let jailer = self.firecracker.with_file_name("jailer");
        if jailer.exists() {
            install(&jailer, &bin.join("jailer"))?;
        }
        if commands.iter().any(|command| runs(command, XTASK)) {
            install(&build::release(XTASK)?, &bin.join(XTASK))?;
        }
        if let Some(tests) = &self.tests {
            install(&tests.functional, &bin.join(SUITE))?;
            install(&tests.hostile_guest, &bin.join("hostile-guest"))?;
        }
        copy_state(&state_dir(), &tree.join("state"))?;
        let python2 = build::target_dir().join("system-tests/python2-injected.ext4");
        if python2.exists() {
            copy_tree(&python2, &tree.join("python2.ext4"))?;
        }
        for (index, command) in commands.iter().enumerate() {
            let script = self.script(command, python2.exists());
            fs::write(tree.join(format!("command-{index}")), script)?;
        }
        fs::write(tree.join("init"), INIT)?;
        fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;

        let image = work.path("payload.ext4");
        File::create_new(&image)?.set_len(PAYLOAD)?;
        run_command(
            Command::new("mkfs.ext4")
                .args(["-q", "-O", "^has_journal", "-E", "root_owner=0:0", "-d"])
                .arg(&tree)
                .arg(&image),
        )?;
        fs::remove_dir_all(&tree)?;
        Ok(image)
    }

    /// A shell script that runs the command in the environment of the tests.
    fn script(&self, command: &[String], python2: bool) -> String {
        let patience = PATIENCE.to_string();
        let mut environment = vec![
            ("RUNNER_CODES_BACKEND", "firecracker"),
            ("RUNNER_CODES_KERNEL", self.kernel),
            ("RUNNER_CODES_STATE_DIR", "/metal/state"),
            (HOST_AGENT, "/metal/bin/host-agent"),
            ("CARGO_TARGET_DIR", TARGET_THERE),
            ("RUNNER_CODES_TEST_HOSTILE_GUEST", "/metal/bin/hostile-guest"),
            ("RUNNER_CODES_TEST_CACHE", "/metal/cache"),
            ("RUNNER_CODES_TEST_SKIPS", "/metal/skips"),
            ("RUNNER_CODES_TEST_PATIENCE", &patience),
            // As on the two processors that the tests were written on. With one, libtest also divides its lines.
            ("RUST_TEST_THREADS", "2"),
        ];
        if python2 {
            environment.push(("RUNNER_CODES_TEST_PYTHON2_IMAGE", "/metal/python2.ext4"));
        }
        let exports = environment
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quote(value)));
        let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
        format!("{}exec {}\n", exports.collect::<String>(), words.join(" "))
    }
}

/// A word for the shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The programs of the functional suite.
struct Tests {
    functional: PathBuf,
    hostile_guest: PathBuf,
}

impl Tests {
    fn build() -> anyhow::Result<Self> {
        let mut command = build::cargo();
        command
            .args([
                "test",
                "--no-run",
                "--package",
                "system-tests",
                "--test",
                "functional",
            ])
            .arg("--message-format=json-render-diagnostics")
            .stdout(Stdio::piped());
        let output = command
            .spawn()
            .context("cannot start cargo")?
            .wait_with_output()?;
        if !output.status.success() {
            bail!("the functional suite does not build: {}", output.status);
        }
        let mut build = build::cargo();
        run_command(build.args(["build", "--package", "system-tests", "--bin", "hostile-guest"]))?;
        Ok(Self {
            functional: test_executable(&String::from_utf8_lossy(&output.stdout), "functional")
                .context("cargo names no functional suite")?,
            hostile_guest: build::target_dir().join("debug/hostile-guest"),
        })
    }
}

/// The executable of an integration test in cargo's messages.
fn test_executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut tests = messages.filter(|message| {
        message["target"]["name"] == name && message["target"]["kind"] == serde_json::json!(["test"])
    });
    Some(
        tests
            .find_map(|test| test["executable"].as_str().map(str::to_owned))?
            .into(),
    )
}

/// Where host-agent has put its images.
fn state_dir() -> PathBuf {
    env::var_os("RUNNER_CODES_STATE_DIR").map_or_else(image::Store::default_path, PathBuf::from)
}

fn install(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Without the snapshots, which fit this machine's processor and VMM.
fn copy_state(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if !NOT_COPIED.iter().any(|other| name == *other) {
            copy_tree(&entry.path(), &to.join(name))?;
        }
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    run_command(
        Command::new("cp")
            .args(["--recursive", "--sparse=always", "--reflink=auto"])
            .args([from, to]),
    )
}

/// What emulates the host, any number of times.
struct Emulator {
    host: Host,
    image: PathBuf,
    /// Nothing of what is written to the image is kept.
    discard: bool,
    work: Work,
    deadline: Duration,
}

/// What came of an emulated host.
struct Run {
    end: End,
    /// What its command wrote, standard error included.
    output: String,
}

/// How an emulated host ended.
enum End {
    /// With its command's exit status.
    Exit(u8),
    /// Without, and QEMU with this one.
    Died(ExitStatus),
    /// At the deadline.
    Late,
}

impl End {
    fn exit_status(&self, deadline: Duration) -> anyhow::Result<u8> {
        match self {
            Self::Exit(status) => Ok(*status),
            Self::Died(how) => bail!("the emulated host ended ({how}) without the command's exit status"),
            Self::Late => bail!(
                "the emulated host did not end within {} minutes",
                deadline.as_secs() / 60
            ),
        }
    }
}

impl Emulator {
    /// Runs the host with that command to its end, its output on ours.
    fn run(&self, command: usize) -> anyhow::Result<Run> {
        let (console, status) = (self.work.path("console"), self.work.path("status"));
        let _ = fs::remove_file(&status);
        let mut qemu = self.qemu(command, &console, &status);
        let mut child = Emulation(qemu.spawn().context("cannot start QEMU")?);
        let output = child.0.stdout.take().context("QEMU has no output")?;
        let output = thread::spawn(move || pass_on(output));
        let ended = child.wait(self.deadline)?;
        // It holds the output open where it has not ended.
        drop(child);
        let output = output.join().expect("it does not panic")?;
        let written = fs::read_to_string(&status).unwrap_or_default();
        let end = match (ended, written.trim().parse()) {
            (Some(_), Ok(status)) => End::Exit(status),
            (Some(how), Err(_)) => End::Died(how),
            (None, _) => End::Late,
        };
        if !matches!(end, End::Exit(_)) {
            let console = fs::read(&console).unwrap_or_default();
            eprintln!("{}", String::from_utf8_lossy(&console).trim_end());
        }
        Ok(Run { end, output })
    }

    fn qemu(&self, command: usize, console: &Path, status: &Path) -> Command {
        let mut kernel_args = vec![
            format!("{COMMAND}={command}"),
            "console=ttyS0 8250.nr_uarts=1 reboot=t quiet loglevel=4 cryptomgr.notests".to_owned(),
            // A kernel that went astray does not go on, for as long as the deadline lets it.
            "oops=panic panic=-1".to_owned(),
            "i8042.noaux i8042.nokbd i8042.nopnp i8042.nomux no_timer_check tsc=reliable".to_owned(),
        ];
        kernel_args.extend(vmm::arch::tsc_khz().map(|khz| format!("tsc_early_khz={khz}")));
        let drive = |id: &str, path: &Path, options: &str| {
            let path = path.display().to_string().replace(',', ",,");
            [
                "-drive".to_owned(),
                format!("if=none,id={id},file={path},format=raw,{options}"),
                "-device".to_owned(),
                format!("virtio-blk-device,drive={id}"),
            ]
        };
        let file = |path: &Path| path.display().to_string().replace(',', ",,");
        let memory = memory_mib(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
        let payload = if self.discard {
            "cache=unsafe,snapshot=on"
        } else {
            "cache=unsafe"
        };
        // Not even a kill of this process leaves QEMU behind.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args([
                "-M",
                "microvm",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                CPU,
                // One processor: with two, QEMU 7.2 delivers an interrupt from the other one right after VMRUN, while GS is
                // still the guest's, and the host's kernel faults until its stack is used up.
                "-smp",
                "1",
            ])
            .args([
                "-m",
                &memory.to_string(),
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .arg("-kernel")
            .arg(&self.host.kernel)
            .arg("-initrd")
            .arg(&self.host.initramfs)
            .args(["-append", &kernel_args.join(" ")])
            .args(["-serial", &format!("file:{}", file(console))])
            .args(drive("root", &self.host.root, "readonly=on"))
            .args(drive("payload", &self.image, payload))
            .args(["-device", "virtio-serial-device"])
            .args([
                "-chardev",
                "stdio,id=output,signal=off",
                "-device",
                "virtserialport,chardev=output,nr=1",
            ])
            .args(["-chardev", &format!("file,id=status,path={}", file(status))])
            .args(["-device", "virtserialport,chardev=status,nr=2"])
            // Open and silent: QEMU takes the end of its input for nobody listening to its output.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Where it puts what is not kept of the payload.
            .env("TMPDIR", &self.work.0);
        command
    }
}

/// Copies all that comes to standard output, at once, and returns it.
fn pass_on(mut from: ChildStdout) -> anyhow::Result<String> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = from.read(&mut buffer).context("cannot read QEMU's output")?;
        if read == 0 {
            return Ok(String::from_utf8_lossy(&all).into_owned());
        }
        all.extend_from_slice(&buffer[..read]);
        let mut terminal = std::io::stdout().lock();
        terminal.write_all(&buffer[..read])?;
        terminal.flush()?;
    }
}

/// Memory for the emulated host, in MiB, where `meminfo` is the proc_meminfo(5) of this one: half of what is available may be
/// less than it is meant to have.
fn memory_mib(meminfo: &str) -> u64 {
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.strip_suffix("kB"));
    let kibibytes = available.and_then(|text| text.trim().parse::<u64>().ok());
    kibibytes.map_or(MEMORY_MIB, |kibibytes| MEMORY_MIB.min(kibibytes / 1024 / 2))
}

/// QEMU; killed when dropped.
struct Emulation(Child);

impl Emulation {
    /// `None` at the deadline.
    fn wait(&mut self, deadline: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let end = Instant::now() + deadline;
        loop {
            // Unlike `wait`, this leaves the child's standard input open.
            if let Some(status) = self.0.try_wait().context("cannot wait for QEMU")? {
                return Ok(Some(status));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_picks_its_kernel() {
        assert_eq!(parse_version("Firecracker v1.16.1\n\nmore"), Some((1, 16)));
        assert_eq!(parse_version("Firecracker v1.7.0-dev"), Some((1, 7)));
        assert_eq!(parse_version("QEMU emulator version 7.2"), None);
        assert_eq!(
            (kernel_for((1, 7)), kernel_for((1, 8)), kernel_for((1, 16))),
            ("tuned", "debian", "debian")
        );
    }

    #[test]
    fn half_of_what_is_available_is_the_most() {
        let meminfo = |kibibytes| format!("MemTotal:       25165824 kB\nMemAvailable:   {kibibytes} kB\n");
        assert_eq!(memory_mib(&meminfo(8 << 20)), 4096);
        assert_eq!(memory_mib(&meminfo(22 << 20)), MEMORY_MIB);
        assert_eq!(memory_mib(""), MEMORY_MIB);
    }

    #[test]
    fn the_command_keeps_its_words() {
        let payload = Payload {
            firecracker: PathBuf::new(),
            host_agent: PathBuf::new(),
            kernel: "debian",
            tests: None,
        };
        let script = payload.script(&["echo".to_owned(), "it's $HOME".to_owned()], false);
        assert!(script.ends_with("exec 'echo' 'it'\\''s $HOME'\n"), "{script}");
        assert!(script.contains("export RUNNER_CODES_BACKEND='firecracker'\n"));
    }

    #[test]
    fn the_suite_is_found_in_cargo_s_messages() {
        let messages = "{\"target\":{\"name\":\"functional\",\"kind\":[\"lib\"]},\"executable\":null}\n\
                        noise\n\
                        {\"target\":{\"name\":\"functional\",\"kind\":[\"test\"]},\"executable\":\"/t/functional-1\"}\n";
        assert_eq!(
            test_executable(messages, "functional"),
            Some("/t/functional-1".into())
        );
        assert_eq!(test_executable(messages, "setup"), None);
    }
}

//! PID 1, from the first instruction to a guest that listens, or to the root filesystem's own init.
//!
//! ```text
//! initramfs: /proc /sys /dev ─► modules ─► root drive at /lower
//!     mode=job     ─► a root in memory, away from the initramfs ─► cgroups ─► listen
//!     mode=system  ─► overlay at /newroot ─► becomes the root ─► exec /sbin/init
//! ```
//!
//! Only what a listening runner needs is done here; the rest waits for the first job (see [`crate::root`]).

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use protocol::control::Boot;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};

use crate::cmdline::{self, Mode, Parameters, RootFilesystem, TransportKind};
use crate::confine::cgroup::{self, Hierarchy};
use crate::failure::{Doing as _, Failure, Result};
use crate::guest::{Extent, Guest};
use crate::modules::Modules;
use crate::reap::Reaper;
use crate::root::{self, LOWER, Root, Source};
use crate::serve::Server;
use crate::transport::Transport;
use crate::{clock, power, sys};

/// How long a device may take to appear once its driver is loaded.
const DEVICE: Duration = Duration::from_secs(10);
const NEW_ROOT: &str = "/newroot";
const HOSTNAME: &[u8] = b"runner";
/// What every mode mounts first.
const KERNEL_FILE_SYSTEMS: [(&str, &str); 3] = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")];
const INITS: [&str; 4] = ["/sbin/init", "/lib/systemd/systemd", "/etc/init", "/bin/init"];

/// Brings the guest up. A guest that cannot come up says why on its console and ends the machine, so that the host need
/// not wait for it.
pub(crate) fn main(init: f64) -> ! {
    crate::raise_limits();
    if let Err(failure) = start(init) {
        eprintln!("guest-runner: {failure}");
    }
    loop {
        power::end();
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn start(init: f64) -> Result<()> {
    for (kind, target) in KERNEL_FILE_SYSTEMS {
        make_directory(target)?;
        attach(kind, target, MountFlags::empty())?;
    }
    let command_line =
        fs::read_to_string("/proc/cmdline").doing(|| "read the kernel's command line".to_owned())?;
    let parameters = cmdline::parse(&command_line);
    let modules = Modules::open()?;
    modules.load(&needed(&parameters))?;
    let loaded = clock::since_boot();
    mount_root(&parameters)?;
    match parameters.mode {
        Mode::System => become_system(&parameters),
        Mode::Job => {
            let boot = Boot {
                init,
                modules: loaded,
                root: clock::since_boot(),
                ..Boot::default()
            };
            run_jobs(parameters, modules, boot)
        }
    }
}

/// The module sets without which nothing works. In system mode nothing is loaded later.
fn needed(parameters: &Parameters) -> Vec<&'static str> {
    let mut sets = vec!["core"];
    sets.push(parameters.filesystem.name());
    match parameters.transport {
        Some(TransportKind::Serial) => sets.push("serial"),
        Some(TransportKind::Vsock) => sets.push("vsock"),
        None => sets.extend(["serial", "vsock"]),
    }
    if parameters.mode == Mode::System {
        sets.extend(["ext4", "overlay"]);
    }
    sets
}

fn mount_root(parameters: &Parameters) -> Result<()> {
    let device = parameters
        .root
        .as_deref()
        .ok_or_else(|| Failure::new("mount the root drive", "runner.root is not given"))?;
    await_device(device)?;
    make_directory(LOWER)?;
    // A drive that is read-only must not have its journal replayed.
    let options = match parameters.filesystem {
        RootFilesystem::Squashfs => None,
        RootFilesystem::Ext4 => Some(c"noload"),
    };
    mount(
        device,
        LOWER,
        parameters.filesystem.name(),
        MountFlags::RDONLY | MountFlags::NODEV,
        options,
    )
    .doing(|| format!("mount {} as {}", device.display(), parameters.filesystem.name()))
}

fn await_device(device: &Path) -> Result<()> {
    let deadline = clock::now() + DEVICE;
    while !device.exists() {
        if clock::now() > deadline {
            return Err(io::Error::from(io::ErrorKind::NotFound))
                .doing(|| format!("find {}", device.display()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn run_jobs(parameters: Parameters, modules: Modules, mut boot: Boot) -> Result<()> {
    power::obey_ctrl_alt_del().doing(|| "take over Ctrl-Alt-Del".to_owned())?;
    // The initramfs can be no job's old root, because it cannot be left by pivot_root.
    make_directory(NEW_ROOT)?;
    attach("tmpfs", NEW_ROOT, MountFlags::NOSUID | MountFlags::NODEV)?;
    for directory in ["lower", "scratch"] {
        make_directory(&format!("{NEW_ROOT}/{directory}"))?;
    }
    move_mount(LOWER)?;
    change_root()?;
    rustix::system::sethostname(HOSTNAME).doing(|| "set the host name".to_owned())?;
    // Code that talks to itself over the network is all that would miss it.
    if let Err(error) = sys::raise_loopback() {
        eprintln!("guest-runner: no loopback interface: {error}");
    }
    set_kernel_parameters()?;
    let cgroups = match attach("cgroup2", cgroup::MOUNT_POINT, MountFlags::empty()) {
        Ok(()) => Hierarchy::own(),
        Err(failure) => Err(failure.to_string()),
    };
    let transport = open_transport(parameters.transport)?;
    boot.listening = clock::since_boot();
    let root = Root::new(Source::Drives {
        scratch: parameters.scratch,
        modules,
    });
    let reaper = Reaper::start().doing(|| "start the reaper".to_owned())?;
    let server = Server::new(Guest::new(root, cgroups, reaper, Extent::Machine, boot));
    transport.serve(&server).doing(|| "serve the host".to_owned())
}

/// Kernel parameters, and why. One that the kernel does not have needs no setting.
const KERNEL_PARAMETERS: [(&str, &str); 9] = [
    // Memory is bounded by cgroups, when it is used; not by refusing what may never be.
    ("vm/overcommit_memory", "1"),
    // In a user namespace of its own the code would have all capabilities, and more of the kernel to attack with them.
    ("user/max_user_namespaces", "0"),
    // Sessions of the code would otherwise share the processor with the runner as equals.
    ("kernel/sched_autogroup_enabled", "0"),
    // Only the runner itself may have been started without.
    (sys::RANDOM_ADDRESSES, "2"),
    // No other kernel until the machine ends; modules go when the runner has its own, see `root`.
    ("kernel/kexec_load_disabled", "1"),
    // What would help an attack on the kernel to find its way.
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    // What the filters of system calls keep code from already, also where there are none.
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/yama/ptrace_scope", "2"),
];

fn set_kernel_parameters() -> Result<()> {
    for (name, value) in KERNEL_PARAMETERS {
        match fs::write(Path::new("/proc/sys").join(name), value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).doing(|| format!("set the kernel parameter {name}"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn open_transport(kind: Option<TransportKind>) -> Result<Transport> {
    match kind {
        Some(kind) => Transport::open(kind, DEVICE),
        None => Transport::find(DEVICE),
    }
    .doing(|| "open the way to the host".to_owned())
}

fn become_system(parameters: &Parameters) -> Result<()> {
    for directory in ["/scratch", NEW_ROOT] {
        make_directory(directory)?;
    }
    if let Some(device) = &parameters.scratch {
        await_device(device)?;
    }
    root::mount_scratch(parameters.scratch.as_deref(), Path::new("/scratch"))?;
    root::mount_overlay(LOWER, Path::new("/scratch"), Path::new(NEW_ROOT))?;
    change_root()?;
    for init in INITS {
        let error = Command::new(init).exec();
        if error.kind() != io::ErrorKind::NotFound {
            return Err(error).doing(|| format!("become {init}"));
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound)).doing(|| format!("find an init ({})", INITS.join(", ")))
}

/// Makes what is mounted at [`NEW_ROOT`] the root of everything, and takes the kernel's file systems along.
fn change_root() -> Result<()> {
    for (_, target) in KERNEL_FILE_SYSTEMS {
        move_mount(target)?;
    }
    chdir(NEW_ROOT)
        .and_then(|()| mount_move(".", "/"))
        .and_then(|()| chroot("."))
        .and_then(|()| chdir("/"))
        .doing(|| format!("make {NEW_ROOT} the root"))
}

fn move_mount(target: &str) -> Result<()> {
    let new = format!("{NEW_ROOT}{target}");
    make_directory(&new)?;
    mount_move(target, &new).doing(|| format!("move {target} to {new}"))
}

fn attach(kind: &str, target: &str, flags: MountFlags) -> Result<()> {
    mount(kind, target, kind, flags, None).doing(|| format!("mount {kind} on {target}"))
}

fn make_directory(path: &str) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).doing(|| format!("make {path}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_needed_modules_are_loaded() {
        let job = cmdline::parse("runner.transport=serial runner.root=/dev/vda");
        assert_eq!(needed(&job), ["core", "squashfs", "serial"]);
        let system = cmdline::parse("runner.transport=vsock runner.rootfs=ext4 runner.mode=system");
        assert_eq!(needed(&system), ["core", "ext4", "vsock", "ext4", "overlay"]);
    }
}

//! What is specific to x86-64: the kernel's command line on each backend, and the model of CPU that is emulated.
//!
//! The parameters that guest-runner reads (`runner.…`) go after the platform's, the caller's own last.

use std::fs;

use sha2::{Digest, Sha256};

use crate::machine::{Accel, BackendKind, Init, MachineConfig};

/// The CPU that QEMU emulates where there is no KVM.
pub const EMULATED_CPU: &str = "max";

/// What the ELF header of a kernel for this processor says.
pub(crate) const ELF_MACHINE: object::elf::Machine = object::elf::EM_X86_64;

/// `AUDIT_ARCH_X86_64` (linux/audit.h): what seccomp calls this processor.
pub(crate) const AUDIT: u32 = 0xc000_003e;
/// System calls from this number on are those of another ABI (`__X32_SYSCALL_BIT`).
pub(crate) const FIRST_FOREIGN_CALL: Option<u32> = Some(0x4000_0000);
/// QEMU's module that translates for this processor, where it is not in the program.
pub(crate) const TCG_MODULE: &str = "accel-tcg-x86_64.so";
/// Where Debian has QEMU's modules, below `/usr`.
pub(crate) const QEMU_MODULES: &str = "lib/x86_64-linux-gnu/qemu";

/// The guest's devices for the two disks, in the order in which they are attached.
pub const ROOT_DEVICE: &str = "/dev/vda";
/// See [`ROOT_DEVICE`].
pub const SCRATCH_DEVICE: &str = "/dev/vdb";

/// On every machine: the console is the first serial port, a panic ends the VM, and nothing is probed for that is not there.
const COMMON: &[&str] = &[
    "console=ttyS0",
    "panic=-1",
    "8250.nr_uarts=1",
    "cryptomgr.notests",
    "i8042.noaux",
    // Nobody asks for pressure figures, which every switch of processes would pay for.
    "psi=0",
    // Of the security modules only those that need no policy: the guest has none, and each costs every open and exec.
    "lsm=landlock,yama",
];

/// The whole kernel command line of a machine. `tsc_khz` is the host's, see [`tsc_khz`].
#[must_use]
pub fn kernel_command_line(
    kind: BackendKind,
    accel: Accel,
    tsc_khz: Option<u32>,
    config: &MachineConfig,
) -> String {
    let mut args: Vec<String> = COMMON.iter().map(|&arg| arg.to_owned()).collect();
    match kind {
        // Ctrl-Alt-Del reaches the guest through the i8042, and so does the reset that ends the VMM. Asking the keyboard what it
        // is takes half a second, in which the keys would be lost.
        BackendKind::Firecracker => args.extend(["reboot=k", "pci=off", "i8042.dumbkbd"].map(str::to_owned)),
        BackendKind::Qemu => {
            args.extend(["reboot=t", "i8042.nokbd", "i8042.nopnp", "i8042.nomux"].map(str::to_owned))
        }
    }
    if accel == Accel::Tcg {
        // Emulated timers are too unsteady to calibrate against: some boots hang without these.
        args.extend(["no_timer_check", "tsc=reliable"].map(str::to_owned));
        args.extend(tsc_khz.map(|khz| format!("tsc_early_khz={khz}")));
        // Every patched instruction throws away a translated page: a tenth of a second in all.
        args.push("noreplace-smp".to_owned());
        // Translated code is kept by its address. The runner restores randomness for what it starts.
        args.push("norandmaps".to_owned());
    }
    if config.keep_console.is_none() {
        args.extend(["quiet", "loglevel=3"].map(str::to_owned));
    }
    args.extend(runner_args(kind, config));
    args.extend(config.extra_kernel_args.iter().cloned());
    args.join(" ")
}

/// What guest-runner is told.
fn runner_args(kind: BackendKind, config: &MachineConfig) -> Vec<String> {
    let transport = match kind {
        BackendKind::Firecracker => "vsock",
        BackendKind::Qemu => "serial",
    };
    let mut args = vec![format!("runner.transport={transport}")];
    if let Some(root) = &config.root {
        args.push(format!("runner.root={ROOT_DEVICE}"));
        args.push(format!("runner.rootfs={}", root.filesystem.name()));
        if root.init == Init::System {
            args.push("runner.mode=system".to_owned());
            // Older systemds mount cgroup v1 unless told; jobs need v2 for their limits.
            args.push("systemd.unified_cgroup_hierarchy=1".to_owned());
        }
    }
    if config.scratch.is_some() {
        args.push(format!("runner.scratch={SCRATCH_DEVICE}"));
    }
    args
}

/// The frequency of the host's time-stamp counter, in kHz; an emulated guest reads the same counter.
///
/// Linux computes BogoMIPS from that very frequency (twice it, in MHz) wherever it knows it, whereas `cpu MHz` is what the
/// core happens to run at.
#[must_use]
pub fn tsc_khz() -> Option<u32> {
    parse_tsc_khz(&fs::read_to_string("/proc/cpuinfo").ok()?)
}

/// What a snapshot needs of the processor that restores it, as one line: they fit if the lines are equal.
///
/// On KVM the guest sees the host's processor, so that is its vendor, family, model and stepping, and a digest of its flags. An
/// emulated processor is the same everywhere (with one version of QEMU, see [`crate::VmmBinary::identity`]), except that its
/// time-stamp counter is the host's, whose frequency the guest knows from its boot; to the MHz, because hosts measure their
/// own a little differently at each boot.
#[must_use]
pub fn cpu_identity(accel: Accel) -> String {
    identify(accel, &fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn identify(accel: Accel, cpuinfo: &str) -> String {
    if accel == Accel::Tcg {
        let mhz = parse_tsc_khz(cpuinfo).map(|khz| (f64::from(khz) / 1e3).round());
        let mhz = mhz.map_or_else(|| "unknown".to_owned(), |mhz| mhz.to_string());
        return format!("{EMULATED_CPU} tsc {mhz} MHz");
    }
    let field = |name| {
        let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(key, _)| key.trim() == name);
        found.map_or("unknown", |(_, value)| value.trim())
    };
    let mut flags: Vec<&str> = field("flags").split_whitespace().collect();
    flags.sort_unstable();
    let digest = Sha256::digest(flags.join(" "));
    let digest: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let [vendor, family, model, stepping] = ["vendor_id", "cpu family", "model", "stepping"].map(field);
    format!("{vendor} family {family} model {model} stepping {stepping} flags {digest}")
}

fn parse_tsc_khz(cpuinfo: &str) -> Option<u32> {
    let line = cpuinfo.lines().find(|line| line.starts_with("bogomips"))?;
    let bogomips: f64 = line.split_once(':')?.1.trim().parse().ok()?;
    let khz = (bogomips * 500.0).round();
    (100_000.0..20_000_000.0).contains(&khz).then_some(khz as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Filesystem, RootDrive};
    use crate::state::{RuntimeDir, VmId};

    fn config(runtime: &RuntimeDir) -> MachineConfig {
        MachineConfig {
            dir: runtime.create(VmId::random().unwrap()).unwrap(),
            kernel: "/k/vmlinux".into(),
            initramfs: None,
            root: Some(RootDrive {
                path: "/t/root".into(),
                filesystem: Filesystem::Ext4,
                init: Init::System,
            }),
            scratch: Some("/t/scratch".into()),
            vcpus: 1,
            memory_mib: 512,
            cid: 3,
            extra_kernel_args: vec!["panic=5".to_owned()],
            keep_console: None,
            snapshot_dir: None,
        }
    }

    #[test]
    fn emulation_calibrates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&RuntimeDir::open(dir.path()).unwrap());
        let line = kernel_command_line(BackendKind::Qemu, Accel::Tcg, Some(2_596_120), &config);
        assert_eq!(
            line,
            "console=ttyS0 panic=-1 8250.nr_uarts=1 cryptomgr.notests i8042.noaux psi=0 lsm=landlock,yama \
             reboot=t i8042.nokbd i8042.nopnp i8042.nomux no_timer_check tsc=reliable tsc_early_khz=2596120 noreplace-smp norandmaps quiet loglevel=3 \
             runner.transport=serial runner.root=/dev/vda runner.rootfs=ext4 runner.mode=system systemd.unified_cgroup_hierarchy=1 \
             runner.scratch=/dev/vdb panic=5"
        );
    }

    #[test]
    fn on_kvm_the_processor_tells_its_frequency() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&RuntimeDir::open(dir.path()).unwrap());
        for kind in [BackendKind::Qemu, BackendKind::Firecracker] {
            assert!(!kernel_command_line(kind, Accel::Kvm, Some(1), &config).contains("tsc"));
        }
    }

    #[test]
    fn firecracker_can_press_ctrl_alt_del() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&RuntimeDir::open(dir.path()).unwrap());
        let line = kernel_command_line(BackendKind::Firecracker, Accel::Kvm, None, &config);
        assert!(line.contains("runner.transport=vsock") && line.contains("reboot=k"));
        assert!(
            !line.contains("i8042.nokbd") && !line.contains("i8042.nopnp"),
            "{line}"
        );
    }

    #[test]
    fn a_kept_console_is_a_talkative_one() {
        let dir = tempfile::tempdir().unwrap();
        let config = MachineConfig {
            keep_console: Some("/tmp/console".into()),
            ..config(&RuntimeDir::open(dir.path()).unwrap())
        };
        assert!(!kernel_command_line(BackendKind::Qemu, Accel::Tcg, None, &config).contains("quiet"));
    }

    #[test]
    fn tsc_frequency_is_half_of_bogomips() {
        let cpuinfo = "processor\t: 0\ncpu MHz\t\t: 3199.9\nbogomips\t: 5192.24\n";
        assert_eq!(parse_tsc_khz(cpuinfo), Some(2_596_120));
        assert_eq!(parse_tsc_khz("bogomips\t: 0.00\n"), None);
        assert_eq!(parse_tsc_khz(""), None);
    }

    #[test]
    fn processors_are_told_apart_by_what_a_guest_sees() {
        let cpuinfo = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Xeon\n\
                       stepping\t: 7\ncpu MHz\t\t: 3199.9\nflags\t\t: fpu vme avx\nbogomips\t: 5192.24\n";
        let kvm = identify(Accel::Kvm, cpuinfo);
        assert_eq!(
            kvm,
            "GenuineIntel family 6 model 85 stepping 7 flags 5b38492d3b3ab5ed"
        );
        let reordered = cpuinfo
            .replace("fpu vme avx", "avx fpu vme")
            .replace("3199.9", "800.0");
        assert_eq!(identify(Accel::Kvm, &reordered), kvm);
        assert_ne!(identify(Accel::Kvm, &cpuinfo.replace(" avx", "")), kvm);
        assert_eq!(identify(Accel::Tcg, cpuinfo), "max tsc 2596 MHz");
        assert_eq!(
            identify(Accel::Tcg, &cpuinfo.replace("5192.24", "5192.10")),
            "max tsc 2596 MHz"
        );
        assert_eq!(identify(Accel::Tcg, ""), "max tsc unknown MHz");
    }
}

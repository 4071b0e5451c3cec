//! A machine as QEMU's command line. Pure: what goes in decides what comes out.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

use serde_json::json;

use crate::arch;
use crate::error::VmmError;
use crate::machine::{Accel, MachineConfig};

/// The name of the serial port that the guest-runner looks for.
const PORT: &str = "runner";
/// Emulated code is kept up to so many MiB; QEMU's own default would be as much as a quarter of the host's memory.
const TRANSLATION_CACHE_MIB: u32 = 128;

/// The descriptors that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wiring {
    /// Socket behind the virtio-serial port.
    pub(super) port: RawFd,
    /// Socket for QMP.
    pub(super) qmp: RawFd,
}

/// The arguments after the program's name.
///
/// # Errors
/// [`VmmError::Config`] for a disk whose path is not UTF-8: QEMU takes it as JSON.
pub(super) fn arguments(
    accel: Accel,
    kernel_args: &str,
    config: &MachineConfig,
    scratch: Option<&Path>,
    wiring: Wiring,
) -> Result<Vec<OsString>, VmmError> {
    let mut args = Arguments::default();
    args.flags(&["-nodefaults", "-no-user-config", "-no-reboot"]);
    args.option("-display", "none");
    args.option(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    machine(&mut args, accel, config);
    args.option("-kernel", &config.kernel);
    if let Some(initramfs) = &config.initramfs {
        args.option("-initrd", initramfs);
    }
    args.option("-append", kernel_args);
    args.option("-serial", "stdio");
    args.option("-chardev", format!("socket,id=qmp,fd={}", wiring.qmp));
    args.option("-mon", "chardev=qmp,mode=control");
    // The guest names disks in the order in which they come here.
    if let Some(root) = &config.root {
        disk(&mut args, "root", &root.path, true)?;
    }
    if let Some(scratch) = scratch {
        disk(&mut args, "scratch", scratch, false)?;
    }
    args.option("-chardev", format!("socket,id=port,fd={}", wiring.port));
    args.option("-device", "virtio-serial-device,max_ports=2");
    args.option("-device", format!("virtserialport,chardev=port,name={PORT}"));
    args.option("-device", "virtio-rng-device");
    Ok(args.0)
}

fn machine(args: &mut Arguments, accel: Accel, config: &MachineConfig) {
    match accel {
        Accel::Kvm => {
            args.option("-accel", "kvm");
            args.option("-cpu", "host");
        }
        Accel::Tcg => {
            args.option("-accel", format!("tcg,tb-size={TRANSLATION_CACHE_MIB}"));
            args.option("-cpu", arch::EMULATED_CPU);
        }
    }
    args.option("-M", "microvm");
    args.option("-smp", config.vcpus.to_string());
    args.option("-m", format!("{}M", config.memory_mib));
}

fn disk(args: &mut Arguments, name: &str, path: &Path, read_only: bool) -> Result<(), VmmError> {
    let Some(filename) = path.to_str() else {
        return Err(VmmError::Config(format!(
            "the path {} is not UTF-8",
            path.display()
        )));
    };
    let node = json!({
        "driver": "raw", "node-name": name, "read-only": read_only,
        "file": { "driver": "file", "filename": filename },
    });
    args.option("-blockdev", node.to_string());
    // A write that the host has no room for stops the machine and is reported, see `qmp`.
    let on_error = if read_only { "" } else { ",werror=enospc" };
    args.option("-device", format!("virtio-blk-device,drive={name}{on_error}"));
    Ok(())
}

#[derive(Debug, Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.extend([name.into(), value.into()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Filesystem, Init, RootDrive};
    use crate::state::{RuntimeDir, VmId};

    fn config(runtime: &RuntimeDir) -> MachineConfig {
        MachineConfig {
            dir: runtime.create(VmId::random().unwrap()).unwrap(),
            kernel: "/k/vmlinux".into(),
            initramfs: Some("/k/initramfs".into()),
            root: Some(RootDrive {
                path: "/t/a,b.squashfs".into(),
                filesystem: Filesystem::Squashfs,
                init: Init::Runner,
            }),
            scratch: Some("/t/scratch.ext4".into()),
            vcpus: 2,
            memory_mib: 512,
            cid: 3,
            extra_kernel_args: Vec::new(),
            keep_console: None,
        }
    }

    fn lines(accel: Accel, config: &MachineConfig) -> String {
        let wiring = Wiring { port: 7, qmp: 8 };
        let args = arguments(
            accel,
            "console=ttyS0",
            config,
            Some(Path::new("/run/vm/scratch.ext4")),
            wiring,
        )
        .unwrap();
        let args: Vec<_> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        args.join("\n")
            .replace("\n-", "\n\n-")
            .replace("\n\n", "\0")
            .replace('\n', " ")
            .replace('\0', "\n")
    }

    #[test]
    fn an_emulated_machine() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&RuntimeDir::open(dir.path()).unwrap());
        assert_eq!(
            lines(Accel::Tcg, &config),
            r#"-nodefaults
-no-user-config
-no-reboot
-display none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-accel tcg,tb-size=128
-cpu max
-M microvm
-smp 2
-m 512M
-kernel /k/vmlinux
-initrd /k/initramfs
-append console=ttyS0
-serial stdio
-chardev socket,id=qmp,fd=8
-mon chardev=qmp,mode=control
-blockdev {"driver":"raw","node-name":"root","read-only":true,"file":{"driver":"file","filename":"/t/a,b.squashfs"}}
-device virtio-blk-device,drive=root
-blockdev {"driver":"raw","node-name":"scratch","read-only":false,"file":{"driver":"file","filename":"/run/vm/scratch.ext4"}}
-device virtio-blk-device,drive=scratch,werror=enospc
-chardev socket,id=port,fd=7
-device virtio-serial-device,max_ports=2
-device virtserialport,chardev=port,name=runner
-device virtio-rng-device"#
        );
    }

    #[test]
    fn a_machine_on_kvm_has_the_host_s_processor() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&RuntimeDir::open(dir.path()).unwrap());
        let lines = lines(Accel::Kvm, &config);
        assert!(lines.contains("-accel kvm\n-cpu host\n"), "{lines}");
    }

    #[test]
    fn a_machine_without_disks() {
        let dir = tempfile::tempdir().unwrap();
        let config = MachineConfig {
            root: None,
            initramfs: None,
            ..config(&RuntimeDir::open(dir.path()).unwrap())
        };
        let args = arguments(Accel::Tcg, "", &config, None, Wiring { port: 7, qmp: 8 }).unwrap();
        assert!(!args.iter().any(|arg| arg == "-blockdev" || arg == "-initrd"));
    }
}

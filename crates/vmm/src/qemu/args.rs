//! A machine as QEMU's command line. Pure: what goes in decides what comes out.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

use serde_json::json;

use crate::arch;
use crate::error::VmmError;
use crate::machine::{Accel, VmmBinary};

/// The name of the serial port that the guest-runner looks for.
const PORT: &str = "runner";
/// Translated code is kept up to so many MiB; QEMU's own default would be as much as a quarter of the host's memory. A clone that is warmed
/// in four languages needs more than 32: with those it throws all of it away, and begins anew.
const TRANSLATION_CACHE_MIB: u32 = 128;

/// The descriptors that every QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wiring {
    /// Socket behind the virtio-serial port.
    pub(super) port: RawFd,
    /// Socket for QMP.
    pub(super) qmp: RawFd,
}

/// What has to be the same when a snapshot is taken and when it is restored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hardware {
    pub(super) vcpus: u8,
    pub(super) memory_mib: u32,
    pub(super) disks: Disks,
}

/// The descriptors of the disks' images, which QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disks {
    pub(super) root: Option<RawFd>,
    pub(super) scratch: Option<RawFd>,
}

/// Where the guest begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start<'a> {
    /// At its kernel.
    Kernel {
        kernel: &'a Path,
        initramfs: Option<&'a Path>,
        command_line: &'a str,
        /// The file that is the guest's memory, for a guest that is to be snapshotted.
        memory: Option<&'a Path>,
    },
    /// Where a snapshot was taken. QEMU waits to be told where its state is.
    Snapshot {
        /// The guest's memory.
        memory: &'a Path,
    },
}

/// The arguments after the program's name.
///
/// # Errors
/// [`VmmError::Config`] for a path of the memory that is not UTF-8.
pub(super) fn arguments(
    vmm: &VmmBinary,
    start: Start<'_>,
    hardware: Hardware,
    wiring: Wiring,
    firmware: Option<&Path>,
) -> Result<Vec<OsString>, VmmError> {
    let mut args = Arguments::default();
    args.flags(&["-nodefaults", "-no-user-config", "-no-reboot"]);
    args.option("-display", "none");
    args.option(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    if let Some(firmware) = firmware {
        args.option("-L", firmware);
    }
    machine(&mut args, vmm, start, hardware)?;
    match start {
        Start::Kernel {
            kernel,
            initramfs,
            command_line,
            ..
        } => {
            args.option("-kernel", kernel);
            if let Some(initramfs) = initramfs {
                args.option("-initrd", initramfs);
            }
            args.option("-append", command_line);
        }
        Start::Snapshot { .. } => args.option("-incoming", "defer"),
    }
    args.option("-serial", "stdio");
    args.option("-chardev", format!("socket,id=qmp,fd={}", wiring.qmp));
    args.option("-mon", "chardev=qmp,mode=control");
    // The guest names disks in the order in which they come here.
    if let Some(root) = hardware.disks.root {
        disk(&mut args, "root", root, true);
    }
    if let Some(scratch) = hardware.disks.scratch {
        disk(&mut args, "scratch", scratch, false);
    }
    args.option("-chardev", format!("socket,id=port,fd={}", wiring.port));
    args.option("-device", "virtio-serial-device,max_ports=2");
    args.option("-device", format!("virtserialport,chardev=port,name={PORT}"));
    args.option("-device", "virtio-rng-device");
    Ok(args.0)
}

fn machine(
    args: &mut Arguments,
    vmm: &VmmBinary,
    start: Start<'_>,
    hardware: Hardware,
) -> Result<(), VmmError> {
    match vmm.accel {
        Accel::Kvm => {
            args.option("-accel", "kvm");
            args.option("-cpu", "host");
        }
        Accel::Tcg => {
            args.option("-accel", format!("tcg,tb-size={TRANSLATION_CACHE_MIB}"));
            args.option("-cpu", arch::EMULATED_CPU);
        }
    }
    let memory = memory(start, hardware.memory_mib)?;
    args.option(
        "-M",
        if memory.is_some() {
            "microvm,memory-backend=ram"
        } else {
            "microvm"
        },
    );
    args.option("-smp", hardware.vcpus.to_string());
    args.option("-m", format!("{}M", hardware.memory_mib));
    if let Some(memory) = memory {
        args.option("-object", memory);
    }
    Ok(())
}

/// The guest's memory as a file: shared, so that the file is the memory; private, so that it stays what it is. In the latter case QEMU
/// still opens it for writing, or from 8.2 on could: what it then gets is for the jail to say.
fn memory(start: Start<'_>, mib: u32) -> Result<Option<String>, VmmError> {
    let (path, access) = match start {
        Start::Kernel { memory: None, .. } => return Ok(None),
        Start::Kernel {
            memory: Some(path), ..
        } => (path, "share=on"),
        Start::Snapshot { memory } => (memory, "share=off"),
    };
    // In an option's value a comma is written twice.
    let path = utf8(path)?.replace(',', ",,");
    Ok(Some(format!(
        "memory-backend-file,id=ram,size={mib}M,mem-path={path},{access}"
    )))
}

fn disk(args: &mut Arguments, name: &str, image: RawFd, read_only: bool) {
    // A set of descriptors, here of one, has a path for QEMU.
    args.option("-add-fd", format!("fd={image},set={image}"));
    let node = json!({
        "driver": "raw", "node-name": name, "read-only": read_only,
        "file": { "driver": "file", "filename": format!("/dev/fdset/{image}") },
    });
    args.option("-blockdev", node.to_string());
    // A write that the host has no room for stops the machine and is reported, see `qmp`.
    let on_error = if read_only { "" } else { ",werror=enospc" };
    args.option("-device", format!("virtio-blk-device,drive={name}{on_error}"));
}

fn utf8(path: &Path) -> Result<&str, VmmError> {
    path.to_str()
        .ok_or_else(|| VmmError::Config(format!("the path {} is not UTF-8", path.display())))
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
    use crate::machine::BackendKind;

    const WIRING: Wiring = Wiring { port: 7, qmp: 8 };

    fn clone() -> Start<'static> {
        Start::Snapshot {
            memory: Path::new("/machine/memory"),
        }
    }

    fn kernel(memory: Option<&Path>) -> Start<'_> {
        Start::Kernel {
            kernel: Path::new("/k/vmlinux"),
            initramfs: Some(Path::new("/k/initramfs")),
            command_line: "console=ttyS0",
            memory,
        }
    }

    fn lines(accel: Accel, version: (u32, u32, u32), start: Start<'_>) -> String {
        let vmm = VmmBinary {
            kind: BackendKind::Qemu,
            path: "/usr/bin/qemu".into(),
            version,
            accel,
        };
        let hardware = Hardware {
            vcpus: 2,
            memory_mib: 512,
            disks: Disks {
                root: Some(10),
                scratch: Some(11),
            },
        };
        let args = arguments(&vmm, start, hardware, WIRING, None).unwrap();
        let args: Vec<_> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        args.join("\n")
            .replace("\n-", "\n\n-")
            .replace("\n\n", "\0")
            .replace('\n', " ")
            .replace('\0', "\n")
    }

    #[test]
    fn an_emulated_machine() {
        assert_eq!(
            lines(Accel::Tcg, (7, 2, 22), kernel(None)),
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
-add-fd fd=10,set=10
-blockdev {"driver":"raw","node-name":"root","read-only":true,"file":{"driver":"file","filename":"/dev/fdset/10"}}
-device virtio-blk-device,drive=root
-add-fd fd=11,set=11
-blockdev {"driver":"raw","node-name":"scratch","read-only":false,"file":{"driver":"file","filename":"/dev/fdset/11"}}
-device virtio-blk-device,drive=scratch,werror=enospc
-chardev socket,id=port,fd=7
-device virtio-serial-device,max_ports=2
-device virtserialport,chardev=port,name=runner
-device virtio-rng-device"#
        );
    }

    /// The lines of the second that the first has not, after `+`; the other way round after `-`.
    fn difference(first: &str, second: &str) -> Vec<String> {
        let lacks = |text: &str, line: &str| !text.lines().any(|other| other == line);
        let gone = first.lines().filter(|line| lacks(second, line));
        let new = second.lines().filter(|line| lacks(first, line));
        gone.map(|line| format!("- {line}"))
            .chain(new.map(|line| format!("+ {line}")))
            .collect()
    }

    #[test]
    fn a_machine_to_be_snapshotted_has_its_memory_in_a_file() {
        let plain = lines(Accel::Tcg, (7, 2, 22), kernel(None));
        let source = lines(Accel::Tcg, (7, 2, 22), kernel(Some(Path::new("/s/a,b/memory"))));
        assert_eq!(
            difference(&plain, &source),
            [
                "- -M microvm",
                "+ -M microvm,memory-backend=ram",
                "+ -object memory-backend-file,id=ram,size=512M,mem-path=/s/a,,b/memory,share=on",
            ]
        );
    }

    #[test]
    fn a_clone_has_the_same_devices_and_boots_nothing() {
        let source = lines(Accel::Tcg, (7, 2, 22), kernel(Some(Path::new("/s/memory"))));
        let clone = lines(Accel::Tcg, (7, 2, 22), clone());
        assert_eq!(
            difference(&source, &clone),
            [
                "- -object memory-backend-file,id=ram,size=512M,mem-path=/s/memory,share=on",
                "- -kernel /k/vmlinux",
                "- -initrd /k/initramfs",
                "- -append console=ttyS0",
                "+ -object memory-backend-file,id=ram,size=512M,mem-path=/machine/memory,share=off",
                "+ -incoming defer",
            ]
        );
    }

    #[test]
    fn firmware_is_looked_for_where_it_is() {
        let vmm = VmmBinary {
            kind: BackendKind::Qemu,
            path: "/usr/bin/qemu".into(),
            version: (7, 2, 22),
            accel: Accel::Tcg,
        };
        let hardware = Hardware {
            vcpus: 1,
            memory_mib: 128,
            disks: Disks {
                root: None,
                scratch: None,
            },
        };
        let args = arguments(&vmm, clone(), hardware, WIRING, Some(Path::new("/firmware"))).unwrap();
        assert!(
            args.windows(2).any(|pair| pair == ["-L", "/firmware"]),
            "{args:?}"
        );
    }

    #[test]
    fn a_machine_on_kvm_has_the_host_s_processor() {
        let lines = lines(Accel::Kvm, (7, 2, 22), kernel(None));
        assert!(lines.contains("-accel kvm\n-cpu host\n"), "{lines}");
    }

    #[test]
    fn a_machine_without_disks() {
        let vmm = VmmBinary {
            kind: BackendKind::Qemu,
            path: "/usr/bin/qemu".into(),
            version: (7, 2, 22),
            accel: Accel::Tcg,
        };
        let start = Start::Kernel {
            kernel: Path::new("/k/vmlinux"),
            initramfs: None,
            command_line: "",
            memory: None,
        };
        let hardware = Hardware {
            vcpus: 1,
            memory_mib: 128,
            disks: Disks {
                root: None,
                scratch: None,
            },
        };
        let args = arguments(&vmm, start, hardware, WIRING, None).unwrap();
        assert!(!args.iter().any(|arg| arg == "-blockdev" || arg == "-initrd"));
    }
}

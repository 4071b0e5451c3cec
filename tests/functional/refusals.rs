//! Bad input: one clear error each, with its own code, cause, remedy and exit status, and nothing started.

use std::fs;

use harness::{Host, Refusal, Run};

const MIB: usize = 1 << 20;

fn refused(run: impl FnOnce(&Host) -> Run) -> Refusal {
    let host = Host::new();
    run(&host).refusal()
}

#[test]
fn unknown_language() {
    let refusal = refused(|host| host.run("cobol", "DISPLAY 'x'."));
    refusal.is("unknown_language", "cobol");
    assert!(refusal.remedy.contains("python"), "{refusal:?}");
}

#[test]
fn empty_code() {
    refused(|host| host.run("bash", "")).is("empty_code", "empty");
    refused(|host| host.run("bash", " \n")).is("empty_code", "empty");
    refused(|host| host.verb("run").args(["--lang", "bash"])).is("empty_code", "empty");
}

#[test]
fn code_over_the_limit() {
    refused(|host| {
        let file = host.file("big.sh", "#".repeat(MIB + 1));
        host.verb("run").args(["--lang", "bash"]).arg(file)
    })
    .is("code_too_large", "1048576");
    let stdin = "#".repeat(3 * MIB);
    refused(|host| host.verb("run").args(["--lang", "bash"]).stdin(stdin)).is("code_too_large", "1048576");
}

#[test]
fn code_at_the_limit_runs() {
    let host = Host::new();
    let code = format!("echo fits\n{}", "#".repeat(MIB - "echo fits\n".len()));
    let run = host.verb("run").args(["--lang", "bash"]).stdin(code);
    run.answer().printed("fits\n").exited(0);
}

#[test]
fn timeouts_out_of_range() {
    for timeout in ["0", "-1", "3600.5", "nan", "inf"] {
        let refusal = refused(|host| host.run("bash", "true").arg(format!("--timeout={timeout}")));
        assert_eq!(refusal.code, "invalid_timeout", "{timeout}: {refusal:?}");
    }
}

#[test]
fn a_nul_byte() {
    let run = |host: &Host| host.verb("run").args(["--lang", "bash"]).stdin(*b"echo a\0b");
    refused(run).is("code_not_text", "offset 6");
}

#[test]
fn bytes_that_are_not_utf_8() {
    let run = |host: &Host| host.verb("run").args(["--lang", "bash"]).stdin(*b"echo \xff");
    refused(run).is("code_not_text", "UTF-8");
}

#[test]
fn a_code_file_that_is_not_there() {
    let run = |host: &Host| host.verb("run").args(["--lang", "bash", "/nonexistent/job.sh"]);
    refused(run).is("unreadable_input", "/nonexistent/job.sh");
}

#[test]
fn a_path_that_climbs() {
    let run = |host: &Host| host.run("bash", "true").args(["--collect", "../../etc/passwd"]);
    refused(run).is("invalid_request", "files");
}

#[test]
fn no_kernel() {
    let run = |host: &Host| {
        host.run("bash", "true")
            .args(["--kernel", "/nonexistent/vmlinux"])
    };
    refused(run).is("kernel_missing", "/nonexistent/vmlinux");
}

#[test]
fn a_kernel_that_is_none() {
    let refusal = refused(|host| {
        let file = host.file("vmlinux", "this is no kernel");
        host.run("bash", "true").arg("--kernel").arg(file)
    });
    refusal.is("image_invalid", "vmlinux");
}

#[test]
fn nothing_prepared_and_no_leave_to_prepare_it() {
    let refusal = refused(|host| {
        let run = host.run("bash", "true").arg("--no-setup");
        run.env("RUNNER_CODES_STATE_DIR", host.path("state"))
    });
    assert_eq!(refusal.code, "setup_refused", "{refusal:?}");
    assert!(refusal.remedy.contains("host-agent setup"), "{refusal:?}");
}

#[test]
fn a_root_filesystem_that_is_not_there() {
    let run = |host: &Host| {
        host.run("bash", "true")
            .args(["--rootfs", "/nonexistent/root.ext4"])
    };
    refused(run).is("template_missing", "/nonexistent/root.ext4");
}

#[test]
fn a_truncated_root_filesystem() {
    let refusal = refused(|host| {
        // A squashfs says in its superblock how long it is.
        let whole = superblock_of_a_mebibyte();
        let file = host.file("root.squashfs", &whole[..MIB / 2]);
        host.run("bash", "true").arg("--rootfs").arg(file)
    });
    refusal.is("image_invalid", "root.squashfs");
}

/// The superblock of a squashfs (version 4.0) of 1 MiB, and zeros.
fn superblock_of_a_mebibyte() -> Vec<u8> {
    let mut image = vec![0; MIB];
    image[0..4].copy_from_slice(b"hsqs");
    image[12..16].copy_from_slice(&131_072_u32.to_le_bytes()); // block size
    image[20..22].copy_from_slice(&1_u16.to_le_bytes()); // gzip
    image[22..24].copy_from_slice(&17_u16.to_le_bytes()); // log2 of the block size
    image[28..30].copy_from_slice(&4_u16.to_le_bytes()); // version
    image[40..48].copy_from_slice(&(MIB as u64).to_le_bytes()); // bytes used
    image
}

#[test]
fn no_vmm() {
    let host = Host::new();
    let empty = host.path("empty");
    fs::create_dir(&empty).unwrap();
    let run = host.verb("run").args(["--lang", "bash", "--code", "true"]);
    for (backend, variable) in [("qemu", "QEMU_BIN"), ("firecracker", "FIRECRACKER_BIN")] {
        let refusal = run
            .clone()
            .args(["--backend", backend])
            .env("PATH", &empty)
            .refusal();
        assert_eq!(refusal.code, "vmm_missing", "{refusal:?}");
        let bogus = run
            .clone()
            .args(["--backend", backend])
            .env(variable, "/nonexistent/vmm");
        bogus.refusal().is("vmm_missing", "/nonexistent/vmm");
    }
}

#[test]
fn an_error_is_one_line_and_status_125() {
    let host = Host::new();
    let finished = host.run("cobol", "x").finish();
    assert_eq!(finished.code(), 125);
    assert!(finished.stdout.is_empty());
    let line = finished.stderr_text();
    assert!(line.starts_with("error[unknown_language]: "), "{line}");
    assert!(line.contains("; use one of "), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
}

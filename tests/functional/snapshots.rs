//! Snapshots: only what was signed here for this machine is restored, and a build makes one whole or nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use harness::{Host, Refusal, Run, Snapshots, copy, skip};
use rustix::process::{Signal, geteuid};

fn template(host: &Host, arguments: &[&str]) -> Run {
    host.verb("template").args(arguments)
}

fn verify(host: &Host) -> Refusal {
    template(host, &["verify", "base"]).refusal()
}

fn is_restored(host: &Host) {
    host.run("bash", "echo hi")
        .answer()
        .took("restore", "parked")
        .printed("hi\n")
        .exited(0);
}

/// A job boots, and is told why on standard error.
#[track_caller]
fn boots_because(run: Run, reason: &str) {
    let finished = run.arg("--json").finish();
    let said = finished.stderr_text();
    assert!(
        said.contains("note: booting, because") && said.contains(reason),
        "no {reason:?} in {said}"
    );
    finished.answer().took("cold", "fresh").printed("hi\n").exited(0);
}

/// Changes a file that nobody may write to.
fn change(path: &Path, how: impl FnOnce(&fs::File)) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    how(&fs::OpenOptions::new().read(true).write(true).open(path).unwrap());
    fs::set_permissions(path, Permissions::from_mode(0o400)).unwrap();
}

/// The lowest bit of the byte in the middle.
fn flip_a_bit(path: &Path) {
    change(path, |file| {
        let middle = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    });
}

#[test]
fn one_wrong_bit_is_found_in_every_part() {
    let host = Host::with_own_state(Snapshots::Copied);
    let snapshot = host.snapshot("base");
    is_restored(&host);
    for (file, reason) in [
        ("memory", "memory has the SHA-256"),
        ("state", "state has the SHA-256"),
        ("manifest.json", "its manifest is not what the key"),
        ("manifest.sig", "sign"),
    ] {
        let part = snapshot.join(file);
        flip_a_bit(&part);
        verify(&host).is("snapshot_invalid", reason);
        boots_because(host.run("bash", "echo hi"), reason);
        flip_a_bit(&part);
        is_restored(&host);
    }
}

#[test]
fn what_is_too_short_or_missing_is_refused() {
    let host = Host::with_own_state(Snapshots::Copied);
    let snapshot = host.snapshot("base");
    let aside = host.path("aside");
    for file in ["memory", "state"] {
        let part = snapshot.join(file);
        copy(&part, &aside);
        change(&part, |file| {
            file.set_len(file.metadata().unwrap().len() - 1).unwrap()
        });
        verify(&host).is("snapshot_invalid", &format!("its {file} is "));
        boots_because(host.run("bash", "echo hi"), " bytes, not ");
        fs::rename(&aside, &part).unwrap();
    }
    for (file, part) in [
        ("memory", "memory"),
        ("state", "state"),
        ("manifest.json", "manifest"),
        ("manifest.sig", "signature"),
    ] {
        fs::rename(snapshot.join(file), &aside).unwrap();
        verify(&host).is("snapshot_invalid", &format!("its {part} cannot be used"));
        fs::rename(&aside, snapshot.join(file)).unwrap();
    }
    is_restored(&host);
}

#[test]
fn parts_of_another_template_are_refused() {
    let host = Host::with_own_state(Snapshots::Copied);
    let (base, rust) = (host.snapshot("base"), host.snapshot("rust"));
    let aside = host.path("aside");
    fs::create_dir(&aside).unwrap();
    for (files, reason) in [
        (&["memory"][..], "memory has the SHA-256"),
        (&["state"], "its state "),
        (&["manifest.json"], "its manifest is not what the key"),
        (
            &["manifest.json", "manifest.sig", "memory", "state"],
            "is that of another snapshot",
        ),
    ] {
        for file in files {
            fs::rename(base.join(file), aside.join(file)).unwrap();
            copy(&rust.join(file), &base.join(file));
        }
        verify(&host).is("snapshot_invalid", reason);
        boots_because(host.run("bash", "echo hi"), reason);
        for file in files {
            fs::rename(aside.join(file), base.join(file)).unwrap();
        }
    }
    is_restored(&host);
}

#[test]
fn only_trusted_keys_count() {
    let host = Host::with_own_state(Snapshots::Copied);
    let key = |arguments: &[&str]| {
        host.verb("signing-key")
            .args(arguments)
            .finish()
            .succeeded()
            .stdout_text()
    };
    let old = key(&["show"]);
    assert_eq!(key(&["show"]), old);
    let created = host.verb("signing-key").arg("create").refusal();
    assert_eq!(created.code, "signing_key_unusable", "{created:?}");

    let new = key(&["rotate", "--drop-old"]);
    assert_ne!(new, old);
    assert_eq!(key(&["show"]), new);
    verify(&host).is("snapshot_invalid", "not trusted here");
    boots_because(host.run("bash", "echo hi"), "not trusted here");
    let file = host.file("old.pub", &old);
    key(&["trust", file.to_str().unwrap()]);
    is_restored(&host);
    // Without --drop-old what was trusted stays so.
    assert_ne!(key(&["rotate"]), new);
    is_restored(&host);
    let nonsense = host.file("nonsense", "not a key\n");
    let refused = host.verb("signing-key").arg("trust").arg(nonsense).refusal();
    refused.is("invalid_request", "no public Ed25519 key");
}

#[test]
fn an_older_one_is_no_substitute_for_a_newer_one() {
    let host = Host::with_own_state(Snapshots::Copied);
    let old = host.snapshot("base");
    let again = template(&host, &["build", "base", "--json"])
        .finish()
        .succeeded()
        .json();
    assert_eq!(again["existed"], true);
    let superseded = || {
        let list = template(&host, &["list", "--json"]).finish().succeeded().json();
        let states = list
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["superseded"] == true);
        states.collect::<Vec<_>>()
    };
    // What was copied may be of more than one build.
    let before = superseded().iter().filter(|is| **is).count();
    template(&host, &["build", "base", "--force"])
        .finish()
        .succeeded();
    let new = host.snapshot("base");
    assert_ne!(new, old);
    is_restored(&host);
    assert_eq!(superseded().iter().filter(|is| **is).count(), before + 1);

    // The older one by itself, then in the newer one's place.
    let aside = host.path("aside");
    fs::rename(&new, &aside).unwrap();
    verify(&host).is("snapshot_invalid", "it is a replay");
    boots_because(host.run("bash", "echo hi"), "it is a replay");
    copy(&old, &new);
    verify(&host).is("snapshot_invalid", "is that of another snapshot");
    fs::remove_dir_all(&new).unwrap();
    fs::rename(&aside, &new).unwrap();
    is_restored(&host);

    let removed = template(&host, &["gc", "--json"]).finish().succeeded().json();
    let removed: Vec<_> = removed["removed"].as_array().unwrap().clone();
    assert!(removed.contains(&old.to_str().unwrap().into()), "{removed:?}");
    assert!(!old.exists() && new.exists());
    is_restored(&host);
    template(&host, &["rm", "base"]).finish().succeeded();
    assert!(!new.exists());
    template(&host, &["inspect", "base"])
        .refusal()
        .is("snapshot_missing", "base");
    verify(&host).is("snapshot_missing", "base");
    host.run("bash", "echo hi")
        .answer()
        .took("cold", "fresh")
        .exited(0);
}

#[test]
fn one_of_another_vmm_version_is_not_used() {
    if harness::backend_is("firecracker") {
        return skip("the VMM that pretends is a QEMU");
    }
    let host = Host::new();
    let pretends = host.file(
        "qemu-system-x86_64",
        "#!/bin/sh\ncase \" $* \" in\n*\" --version \"*) echo 'QEMU emulator version 7.2.99' ;;\n*) exec /usr/bin/qemu-system-x86_64 \"$@\" ;;\nesac\n",
    );
    fs::set_permissions(&pretends, Permissions::from_mode(0o755)).unwrap();
    let run = host.run("bash", "echo hi").env("QEMU_BIN", pretends);
    // A script needs more of the host than a VMM does.
    let run = run.args(["--no-namespaces", "--no-vmm-uid"]);
    boots_because(run, "it was made for the VMM version");
}

#[test]
fn one_of_another_processor_is_not_used() {
    if !geteuid().is_root() {
        return skip("only root can give a process another /proc/cpuinfo");
    }
    let host = Host::new();
    let told = fs::read_to_string("/proc/cpuinfo").unwrap();
    let faster = |line: &str| match line.split_once(':') {
        Some((name, value)) if name.trim() == "bogomips" => {
            let value: f64 = value.trim().parse().unwrap();
            format!("{name}: {:.2}\n", value + 20.0)
        }
        Some((name, value)) if name.trim() == "flags" => format!("{name}:{value} another\n"),
        _ => format!("{line}\n"),
    };
    let another = host.file("cpuinfo", told.lines().map(faster).collect::<String>());
    let script = format!("mount --bind {} /proc/cpuinfo && exec \"$@\"", another.display());
    let run = host.run("bash", "echo hi");
    let run = run.through(&[
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        &script,
        "sh",
    ]);
    boots_because(run, "it was made for the CPU");
}

/// What there is under `snapshots/`, apart from the directories of machines.
fn built(state: &Path) -> Vec<PathBuf> {
    let entries = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let machines = entries(&state.join("snapshots"));
    machines.iter().flat_map(|machine| entries(machine)).collect()
}

/// Whether a snapshot is being made, by a VMM that starts with its memory's file being there.
fn has_draft(state: &Path) -> bool {
    built(state)
        .iter()
        .any(|snapshot| snapshot.join("memory").exists())
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let host = Host::with_own_state(Snapshots::Absent);
    for signal in [Signal::INT, Signal::TERM] {
        let build = template(&host, &["build", "base"]).start();
        build.wait_for("its machine boots", || has_draft(&host.state()).then_some(()));
        // Earlier this could have been a VMM that was only asked for its version.
        let _ = build.vmm();
        build.signal(signal);
        let refusal = build.finish().refusal_line();
        assert_eq!(refusal.code, "cancelled");
        assert!(built(&host.state()).is_empty(), "{:?}", built(&host.state()));
        assert_eq!(host.left_behind(), [""; 0]);
    }
}

#[test]
fn two_builders_at_once_build_one() {
    let host = Host::with_own_state(Snapshots::Absent);
    let existed: Vec<bool> = thread::scope(|scope| {
        let build = || {
            template(&host, &["build", "base", "--json"])
                .finish()
                .succeeded()
                .json()
        };
        let builders = [scope.spawn(build), scope.spawn(build)];
        builders
            .map(|builder| builder.join().unwrap()["existed"] == true)
            .to_vec()
    });
    assert_eq!(
        existed.iter().filter(|existed| **existed).count(),
        1,
        "{existed:?}"
    );
    assert_eq!(built(&host.state()).len(), 1);
    is_restored(&host);
}

#[test]
fn a_full_disk_ends_a_build_and_leaves_nothing() {
    if !geteuid().is_root() {
        return skip("a small filesystem can be mounted by root only");
    }
    let host = Host::with_own_state(Snapshots::Absent);
    let snapshots = host.state().join("snapshots");
    fs::create_dir(&snapshots).unwrap();
    fs::set_permissions(&snapshots, Permissions::from_mode(0o700)).unwrap();
    let left = host.path("left");
    // The mount is in a namespace of its own and goes with it.
    let script = format!(
        "cd {0} && mount -t tmpfs -o size=64m,mode=700 tmpfs . && cd . && \"$@\"; code=$?; find {0} -mindepth 2 >{1}; exit $code",
        snapshots.display(),
        left.display()
    );
    let build = template(&host, &["build", "base"]);
    let build = build.through(&[
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        &script,
        "sh",
    ]);
    let refusal = build.refusal();
    assert_eq!(refusal.code, "disk_full", "{refusal:?}");
    assert_eq!(fs::read_to_string(left).unwrap(), "");
}

//! What stands between a VMM and the host, as the kernel tells it of VMMs that run jobs.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Answer, Host, Running, backend_is, process, skip};
use rustix::process::Signal;

const LONG: &str = "echo running; sleep 60";
/// The first of the ids that VMMs get by default.
const FIRST_UID: u32 = 0x7000_0000;

/// Whether VMMs can have what only root can give them; skips the calling test otherwise.
fn as_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip("only root can give a VMM a user id and a cgroup of its own");
    }
    is_root
}

fn running(host: &Host) -> (Running, u32) {
    let run = host.run("bash", LONG).start();
    run.wait_for_stdout("running\n");
    let vmm = run.vmm();
    (run, vmm)
}

fn interrupt(run: Running) {
    run.signal(Signal::INT);
    run.finish();
}

/// The line of `/proc/PID/status` that begins with that.
fn status(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}"))
        .trim()
        .to_owned()
}

/// The cgroups that a process is in, as directories, by hierarchy: those that a machine has.
fn cgroups(host: &Host, pid: u32) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").expect("it is there");
    let members = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let parent = format!("/{}/", host.cgroup());
    let own = members.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.starts_with(&parent).then_some(path)?;
        let point = mounts.lines().find_map(|mount| {
            let mut fields = mount.split(' ').skip(1);
            let (point, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let has = |controller| options.split(',').any(|option| option == controller);
            let found = match controllers {
                "" => kind == "cgroup2",
                controllers => kind == "cgroup" && controllers.split(',').all(has),
            };
            found.then_some(point)
        });
        Some(Path::new(point?).join(path.trim_start_matches('/')))
    });
    own.collect()
}

fn host_layers(answer: &Answer) -> BTreeSet<String> {
    let layers = answer.json["layers"].as_array().expect("an answer lists layers");
    let names = layers.iter().filter_map(|layer| layer.as_str());
    let host = names.filter(|name| name.starts_with("host:"));
    host.map(str::to_owned).collect()
}

fn lacks(answer: &Answer, layers: &[&str]) {
    let found = host_layers(answer);
    assert!(layers.iter().all(|layer| !found.contains(*layer)), "{found:?}");
    assert!(found.contains("host:no_new_privs"), "{found:?}");
}

#[test]
fn a_vmm_is_nobody() {
    let host = Host::new();
    let (run, vmm) = running(&host);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(vmm, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(vmm, "NoNewPrivs"), "1");
    assert_eq!(status(vmm, "Seccomp"), "2");
    if rustix::process::geteuid().is_root() {
        for ids in ["Uid", "Gid"] {
            let ids = status(vmm, ids);
            let all_high = ids
                .split_whitespace()
                .all(|id| id.parse::<u32>().unwrap() >= FIRST_UID);
            assert!(all_high, "{ids}");
        }
        assert_eq!(
            status(vmm, "Groups"),
            "",
            "a host without KVM has no group for it"
        );
    }
    interrupt(run);
}

#[test]
fn each_vmm_is_somebody_else() {
    if !as_root() {
        return;
    }
    let host = Host::new();
    let (first, second) = (running(&host), running(&host));
    assert_ne!(status(first.1, "Uid"), status(second.1, "Uid"));
    interrupt(first.0);
    interrupt(second.0);
}

#[test]
fn a_vmm_sees_nothing_of_the_host() {
    let host = Host::new();
    let (run, vmm) = running(&host);
    for namespace in ["mnt", "pid", "net", "ipc", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("it lives");
        assert_ne!(of(&vmm.to_string()), of("self"), "{namespace}");
    }
    let root = PathBuf::from(format!("/proc/{vmm}/root"));
    for path in [
        "etc",
        "home",
        "proc",
        "sys",
        "tmp",
        "root",
        "bin/sh",
        "usr/bin/env",
        "var",
    ] {
        assert!(
            fs::symlink_metadata(root.join(path)).is_err(),
            "{path} is in sight"
        );
    }
    let state = host.state();
    assert!(fs::symlink_metadata(root.join(state.strip_prefix("/").unwrap())).is_err());
    if !backend_is("firecracker") {
        let mounts = fs::read_to_string(format!("/proc/{vmm}/mountinfo")).expect("it lives");
        let mut options = mounts
            .lines()
            .map(|line| line.split(' ').nth(5).expect("its sixth field"));
        let all_fixed = options.all(|options| {
            let has = |option| options.split(',').any(|other| other == option);
            has("ro") && has("nosuid")
        });
        assert!(all_fixed, "{mounts}");
    }
    interrupt(run);
}

#[test]
fn nothing_is_up_in_a_vmm_s_network() {
    let host = Host::new();
    let (run, vmm) = running(&host);
    let devices = fs::read_to_string(format!("/proc/{vmm}/net/dev")).expect("it lives");
    let names: Vec<_> = devices.lines().filter_map(|line| line.split_once(':')).collect();
    assert!(names.iter().all(|(name, _)| name.trim() == "lo"), "{devices}");
    let read = |file: &str| fs::read_to_string(format!("/proc/{vmm}/net/{file}")).expect("it lives");
    assert_eq!(read("if_inet6"), "", "an address");
    assert!(read("route").lines().count() <= 1, "a route");
    interrupt(run);
}

/// A QEMU that its guest has broken out of could otherwise change all later clones.
#[test]
fn a_vmm_cannot_write_to_a_snapshot() {
    if backend_is("firecracker") {
        return skip("Firecracker closes the memory's file once it is mapped");
    }
    let host = Host::new();
    let (run, vmm) = running(&host);
    let directory = PathBuf::from(format!("/proc/{vmm}/fd"));
    let writable: BTreeSet<PathBuf> = fs::read_dir(directory)
        .expect("it lives")
        .flatten()
        .filter(|entry| {
            let number = entry.file_name().into_string().unwrap();
            let info = fs::read_to_string(format!("/proc/{vmm}/fdinfo/{number}")).unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
            flags.is_some_and(|flags| flags & 3 != 0)
        })
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|path| path.starts_with("/") && path.is_file())
        .collect();
    let names: Vec<_> = writable.iter().filter_map(|path| path.file_name()).collect();
    assert_eq!(names, ["scratch.ext4"]);
    let maps = fs::read_to_string(format!("/proc/{vmm}/maps")).expect("it lives");
    let shared = maps
        .lines()
        .find(|line| line.contains("rw-s") && line.contains('/'));
    assert_eq!(shared, None);
    interrupt(run);
}

#[test]
fn a_machine_s_cgroup_has_limits() {
    if !as_root() {
        return;
    }
    let host = Host::new();
    let (run, vmm) = running(&host);
    let cgroups = cgroups(&host, vmm);
    let limit = |files: [&str; 2]| {
        let mut all = cgroups
            .iter()
            .flat_map(|cgroup| files.map(|file| cgroup.join(file)));
        let found = all.find_map(|file| fs::read_to_string(file).ok());
        let text = found.unwrap_or_else(|| panic!("none of {files:?} in {cgroups:?}"));
        let first = text.split_whitespace().next().unwrap_or_default();
        first
            .parse::<u64>()
            .unwrap_or_else(|_| panic!("{files:?}: no limit but {text}"))
    };
    // The machine's own 512 MiB, and what a VMM takes besides.
    let memory = limit(["memory.max", "memory.limit_in_bytes"]) >> 20;
    assert!((513..=2048).contains(&memory), "{memory} MiB");
    let threads = limit(["pids.max", "pids.max"]);
    assert!((8..=1024).contains(&threads), "{threads}");
    let time = limit(["cpu.max", "cpu.cfs_quota_us"]);
    assert!((100_000..=400_000).contains(&time), "{time} µs in 100 ms");
    for cgroup in &cgroups {
        let members = fs::read_to_string(cgroup.join("cgroup.procs")).expect("it is there");
        assert_eq!(members, format!("{vmm}\n"), "{}", cgroup.display());
    }
    interrupt(run);
    assert!(cgroups.iter().all(|cgroup| !cgroup.exists()));
}

/// What is in a machine's cgroup has no network, also outside of all namespaces.
#[test]
fn a_machine_s_cgroup_has_no_network() {
    if !as_root() {
        return;
    }
    let host = Host::new();
    let (run, vmm) = running(&host);
    let cgroups = cgroups(&host, vmm);
    let unified = cgroups
        .iter()
        .find(|cgroup| cgroup.join("cgroup.controllers").exists());
    let Some(unified) = unified else {
        interrupt(run);
        return skip("no cgroup hierarchy of version 2 is mounted here");
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it has one").port();
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected");
    let connects = |before: &str| {
        let output = Command::new("bash")
            .args(["-c", &format!("{before}{connect}")])
            .output();
        let output = output.expect("bash starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(connects("").0, "connected\n");
    let (stdout, stderr) = connects(&format!("echo $$ >{}/cgroup.procs && ", unified.display()));
    assert_eq!(stdout, "", "{stderr}");
    assert!(stderr.contains("Operation not permitted"), "{stderr}");
    interrupt(run);
}

#[test]
fn a_killed_owner_s_cgroups_are_swept() {
    if !as_root() {
        return;
    }
    let host = Host::new();
    let (run, vmm) = running(&host);
    let cgroups = cgroups(&host, vmm);
    assert!(!cgroups.is_empty());
    run.signal(Signal::KILL);
    run.finish();
    assert!(
        cgroups.iter().all(|cgroup| cgroup.exists()),
        "a killed process cleans nothing"
    );
    host.run("bash", "echo next").answer().printed("next\n").exited(0);
    assert!(cgroups.iter().all(|cgroup| !cgroup.exists()), "{cgroups:?}");
    assert!(!process::lives(vmm));
}

#[test]
fn a_layer_that_cannot_be_had_fails_the_job_and_names_its_option() {
    if !as_root() {
        return;
    }
    let host = Host::new();
    let nowhere = ["--cgroup", "no/such/place"];
    let refusal = host.run("bash", "echo hi").args(nowhere).refusal();
    refusal.is("isolation_failed", "host:cgroup");
    assert!(refusal.cause.contains("no/such/place"), "{refusal:?}");
    assert!(refusal.remedy.contains("--no-cgroup"), "{refusal:?}");
    assert_eq!(host.left_behind(), Vec::<String>::new());
    let doctor = host.verb("doctor").args(nowhere).finish();
    assert_eq!(doctor.code(), 1);
    assert!(
        doctor.stdout_text().contains("--no-cgroup"),
        "{}",
        doctor.stdout_text()
    );

    let without = host.run("bash", "echo hi").args(nowhere);
    let without = without.args(["--no-cgroup", "--no-network-filter"]).answer();
    lacks(&without, &["host:cgroup", "host:network_filter"]);
    without.printed("hi\n").exited(0);
}

#[test]
fn machines_go_without_what_they_are_allowed_to() {
    if !as_root() {
        return;
    }
    let host = Host::new();
    for (option, variable, layers) in [
        ("--no-vmm-uid", "RUNNER_CODES_NO_VMM_UID", &["host:uid"][..]),
        (
            "--no-namespaces",
            "RUNNER_CODES_NO_NAMESPACES",
            &["host:namespaces", "host:root"],
        ),
        (
            "--no-network-filter",
            "RUNNER_CODES_NO_NETWORK_FILTER",
            &["host:network_filter"],
        ),
    ] {
        let answer = host.run("bash", "echo hi").arg(option).answer();
        lacks(&answer, layers);
        answer.printed("hi\n").exited(0);
        let answer = host.run("bash", "echo hi").env(variable, "true").answer();
        lacks(&answer, layers);
        answer.printed("hi\n").exited(0);
    }
}

#[test]
fn other_user_ids_can_be_set_aside() {
    if !as_root() {
        return;
    }
    let host = Host::new();
    let run = host
        .run("bash", LONG)
        .args(["--vmm-uids", "1999000000-1999000009"])
        .start();
    run.wait_for_stdout("running\n");
    let uid = status(run.vmm(), "Uid");
    assert!(uid.starts_with("199900000"), "{uid}");
    interrupt(run);
    let refused = host.run("bash", "true").args(["--vmm-uids", "0-5"]).finish();
    assert_eq!(refused.code(), 2);
    assert!(
        refused.stderr_text().contains("no range of user ids"),
        "{}",
        refused.stderr_text()
    );
}

#[test]
fn answers_and_doctor_list_the_layers() {
    let host = Host::new();
    let doctor = host.verb("doctor").arg("--json").finish().succeeded();
    let doctor: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("doctor prints JSON");
    let checks = doctor["checks"].as_array().expect("doctor lists checks");
    let isolation = checks
        .iter()
        .find(|check| check["name"] == "isolation")
        .expect("it is checked");
    let listed = isolation["detail"].as_str().expect("text");
    let listed: BTreeSet<String> = listed.split(", ").map(str::to_owned).collect();
    let answer = host.run("bash", "true").answer();
    assert_eq!(host_layers(&answer), listed);
}

#[test]
fn machines_that_wait_are_isolated_too() {
    let host = Host::new();
    let service = host.serve(&["--pool", "1", "--prespawned", "1"]);
    service.wait_until_ready();
    let vmms = service.process().wait_for("both are there", || {
        let vmms = service.process().vmms();
        (vmms.len() >= 2).then_some(vmms)
    });
    for vmm in vmms {
        assert_eq!(status(vmm, "CapEff"), "0000000000000000");
        assert_eq!(status(vmm, "NoNewPrivs"), "1");
        if rustix::process::geteuid().is_root() {
            assert_ne!(status(vmm, "Uid").split_whitespace().next(), Some("0"));
            assert!(!cgroups(&host, vmm).is_empty());
        }
    }
    let job = serde_json::json!({ "lang": "bash", "code": "echo hi" });
    let answer = service.execute(&job);
    assert!(
        host_layers(&answer).contains("host:namespaces"),
        "{:?}",
        answer.json
    );
    service.stop();
}

//! Somebody else's image: Debian bullseye with systemd and no other language than Python 2, into which the guest-runner is
//! injected.

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use harness::{Host, env_vars, host_agent, skip};

const UNPRIVILEGED: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// The image before injection, or why it cannot be made.
fn image() -> Result<&'static Path, String> {
    static IMAGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    IMAGE.get_or_init(make_image).as_deref().map_err(Clone::clone)
}

fn make_image() -> Result<PathBuf, String> {
    let cache = harness::cache();
    let image = cache.join("python2.ext4");
    if image.exists() {
        return Ok(image);
    }
    if !rustix::process::geteuid().is_root() {
        return Err("the image is made as root only".to_owned());
    }
    fs::create_dir_all(&cache).map_err(|error| format!("cannot make {}: {error}", cache.display()))?;
    let work = tempfile::tempdir_in(&cache).map_err(|error| error.to_string())?;
    let (root, new) = (work.path().join("root"), work.path().join("python2.ext4"));
    tool(
        Command::new("mmdebstrap")
            .args([
                "--quiet",
                "--variant=minbase",
                "--include=systemd-sysv,python2-minimal",
            ])
            .args(["--aptopt=Acquire::Check-Valid-Until \"false\"", "bullseye"])
            .arg(&root),
    )?;
    tool(
        Command::new("mkfs.ext4")
            .args(["-q", "-d"])
            .arg(&root)
            .arg(&new)
            .arg("400M"),
    )?;
    fs::rename(new, &image).map_err(|error| error.to_string())?;
    Ok(image)
}

fn tool(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{:?} failed: {}", command.get_program(), stderr.trim()))
}

/// A copy of the image for this test.
fn copy(host: &Host) -> Result<PathBuf, String> {
    let image = image()?;
    let directory = host.path("images");
    fs::create_dir(&directory).map_err(|error| error.to_string())?;
    let copy = directory.join("root.ext4");
    tool(Command::new("cp").arg("--sparse=always").args([image, &copy]))?;
    Ok(copy)
}

fn runs_python_2(host: &Host, image: &Path) {
    let run = host.run("python", "print 'Hello from Python in Firecracker!'");
    let run = run.arg("--rootfs").arg(image).within(Duration::from_secs(240));
    let answer = run
        .answer()
        .printed("Hello from Python in Firecracker!\n")
        .exited(0);
    assert_eq!(answer.json["termination"]["kind"], "exit");
}

#[test]
fn injected_without_root_it_runs_python_2() {
    if let Some(image) = env::var_os(env_vars::PYTHON2_IMAGE) {
        return runs_python_2(&Host::new(), Path::new(&image));
    }
    let host = Host::new();
    let image = match copy(&host) {
        Ok(image) => image,
        Err(reason) => return skip(&reason),
    };
    // Nobody may enter this test's directory, or perhaps the one that host-agent was built in.
    fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(host.path("tmp"), PermissionsExt::from_mode(0o777)).unwrap();
    let program = host.path("host-agent");
    fs::copy(host_agent(), &program).unwrap();
    for path in [image.parent().unwrap(), &image] {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
    let inject = host.verb("inject-guest-runner").arg(&image);
    let inject = inject.program(&program).through(&UNPRIVILEGED);
    inject.within(Duration::from_secs(120)).finish().succeeded();

    runs_python_2(&host, &image);
    // The emulated bare-metal host has no tools to make its own.
    fs::rename(&image, harness::cache().join("python2-injected.ext4"))
        .or_else(|_| {
            tool(
                Command::new("cp")
                    .arg("--sparse=always")
                    .arg(&image)
                    .arg(harness::cache().join("python2-injected.ext4")),
            )
            .map_err(std::io::Error::other)
        })
        .unwrap();
}

#[test]
fn injected_as_root_the_service_is_enabled_and_a_second_time_changes_nothing() {
    let host = Host::bare();
    let image = match copy(&host) {
        Ok(image) => image,
        Err(reason) => return skip(&reason),
    };
    for _ in 0..2 {
        let inject = host.verb("inject-guest-runner").arg(&image);
        inject.within(Duration::from_secs(120)).finish().succeeded();
    }
    let listed = Command::new("debugfs")
        .args(["-R", "ls -l /etc/systemd/system/multi-user.target.wants"])
        .arg(&image)
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.matches("guest-runner.service").count(), 1, "{listed}");
    let checked = Command::new("e2fsck")
        .args(["-f", "-n"])
        .arg(&image)
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
}

#[test]
fn what_is_no_ext4_image_is_refused() {
    let host = Host::bare();
    let file = host.file("root.ext4", vec![0; 1 << 20]);
    let refusal = host.verb("inject-guest-runner").arg(file).refusal();
    refusal.is("image_invalid", "root.ext4");
}

//! A cargo inside of a build script: builds one package of the workspace for what embeds it. Both build scripts that do
//! so include this file.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the outer cargo sets for its build script alone, and what would wrap or redirect the inner one.
const NOT_INHERITED: &[&str] = &[
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
];

/// Builds `package` with the profile `guest`, the compiler's flags `flags` and a target directory of its own; returns
/// where the results are. The build script runs again when one of `sources`, relative to the workspace, changes.
///
/// # Panics
/// When it does not build.
pub(crate) fn build(package: &str, flags: &str, sources: &[&str]) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for path in ["Cargo.lock", "Cargo.toml", "build"].iter().chain(sources) {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    let directory = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("guest");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    cargo
        .current_dir(&workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .args([
            "build",
            "--locked",
            "--quiet",
            "--package",
            package,
            "--profile",
            "guest",
        ])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&directory);
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "{package} does not build: {status}");
    directory.join(TARGET).join("guest")
}

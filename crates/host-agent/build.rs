//! Builds the static guest-runner that goes into every guest, so that a plain `cargo build` makes a whole host-agent.
//!
//! A nested cargo with its own target directory compiles it; `RUNNER_CODES_BUILD_GUEST_RUNNER` names a binary to embed
//! instead.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const OVERRIDE: &str = "RUNNER_CODES_BUILD_GUEST_RUNNER";

/// What the outer cargo sets for this script alone, and what would wrap or redirect the inner one.
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

fn main() {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let runner = env::var_os(OVERRIDE).map_or_else(build, PathBuf::from);
    println!("cargo::rerun-if-changed={}", runner.display());
    println!("cargo::rustc-env=GUEST_RUNNER={}", runner.display());
}

fn build() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for path in [
        "Cargo.lock",
        "Cargo.toml",
        "crates/guest-runner",
        "crates/protocol",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    let directory = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("guest");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    cargo
        .current_dir(&workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .args([
            "build",
            "--locked",
            "--quiet",
            "--package",
            "guest-runner",
            "--profile",
            "guest",
        ])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&directory);
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "guest-runner does not build: {status}");
    directory.join(TARGET).join("guest/guest-runner")
}

//! Builds the static guest-runner that goes into every guest, so that a plain `cargo build` makes a whole host-agent, and puts the
//! exploit corpus into it.
//!
//! A nested cargo with its own target directory compiles it; `RUNNER_CODES_BUILD_GUEST_RUNNER` names a binary to embed
//! instead.

#[path = "../../build/embed.rs"]
mod embed;
#[path = "../../build/nested.rs"]
mod nested;

use std::env;
use std::path::PathBuf;

const OVERRIDE: &str = "RUNNER_CODES_BUILD_GUEST_RUNNER";

fn main() {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let runner = env::var_os(OVERRIDE).map_or_else(build, PathBuf::from);
    println!("cargo::rerun-if-changed={}", runner.display());
    println!("cargo::rustc-env=GUEST_RUNNER={}", runner.display());
    let variable = |name| PathBuf::from(env::var_os(name).expect("cargo sets it"));
    let corpus = variable("CARGO_MANIFEST_DIR").join("../../tests/security/corpus");
    embed::directory(&corpus, &variable("OUT_DIR").join("isolation.rs")).expect("the corpus is there");
}

fn build() -> PathBuf {
    let sources = [
        "crates/guest-runner",
        "crates/node-reseed",
        "crates/protocol",
        "crates/seccomp",
        "profiles",
    ];
    nested::build("guest-runner", "-Ctarget-feature=+crt-static", &sources).join("guest-runner")
}

//! Builds what the runner carries: the Node.js addon (see `crates/node-reseed`), and the seccomp profiles as programs for
//! the kernel.
//!
//! A nested cargo with its own target directory compiles the addon, so that it is a shared object without the standard
//! library whatever the runner itself is built as.

#[path = "../../build/nested.rs"]
mod nested;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use seccomp::{Profile, Program};

/// The profile that the others extend.
const BASE: &str = "base";

fn main() {
    let addon = nested::build("node-reseed", "", &["crates/node-reseed"]).join("libnode_reseed.so");
    println!("cargo::rustc-env=NODE_RESEED={}", addon.display());
    let code = filters(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../profiles/seccomp"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("filters.rs"), code).expect("OUT_DIR can be written");
}

/// A constant for each profile in `directory`: what `confine/seccomp.rs` includes.
fn filters(directory: &Path) -> String {
    println!("cargo::rerun-if-changed={}", directory.display());
    let entries = fs::read_dir(directory).expect("the profiles are there");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("they can be listed").path())
        .collect();
    paths.sort();
    let mut code = String::new();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if name != BASE {
            let compiled = Profile::read(&path).and_then(|(profile, _)| seccomp::compile(&profile));
            let program = compiled.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
            constant(&mut code, &name.to_uppercase(), &program);
        }
    }
    let (kill, exit) = (seccomp::KILL, seccomp::EXIT);
    let _ = writeln!(code, "const KILL: u32 = {kill};\nconst EXIT: u32 = {exit};");
    code
}

fn constant(code: &mut String, name: &str, program: &Program) {
    let _ = writeln!(code, "const {name}: &[sock_filter] = &[");
    for seccomp::Step {
        code: operation,
        jt,
        jf,
        k,
    } in program
    {
        let fields = format!("code: {operation}, jt: {jt}, jf: {jf}, k: {k}");
        let _ = writeln!(code, "    sock_filter {{ {fields} }},");
    }
    code.push_str("];\n");
}

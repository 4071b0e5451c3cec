//! Builds the Node.js addon that the runner carries: see `crates/node-reseed`.
//!
//! A nested cargo with its own target directory compiles it, so that it is a shared object without the standard library
//! whatever the runner itself is built as.

#[path = "../../build/nested.rs"]
mod nested;

fn main() {
    let addon = nested::build("node-reseed", "", &["crates/node-reseed"]).join("libnode_reseed.so");
    println!("cargo::rustc-env=NODE_RESEED={}", addon.display());
}

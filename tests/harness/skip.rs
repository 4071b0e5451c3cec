//! A test that cannot run here says why, and is counted as skipped rather than passed.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

use crate::env_vars;

/// Says why the calling test is skipped; the test should return right after.
///
/// # Panics
/// The file that counts skips cannot be written.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    println!("SKIP: {name}: {reason}");
    if let Some(path) = env::var_os(env_vars::SKIPS) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .expect("the file of skips opens");
        writeln!(file, "{name}: {reason}").expect("the file of skips can be written");
    }
}

/// Whether slow tests were asked for; skips the calling test otherwise.
pub fn only_with_all(reason: &str) -> bool {
    let all = env::var_os(env_vars::ALL).is_some();
    if !all {
        skip(&format!("{reason}; runs with `cargo xtask test --all`"));
    }
    all
}

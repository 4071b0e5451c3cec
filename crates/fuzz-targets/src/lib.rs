//! What is fuzzed. A target takes any bytes, gives them to code that reads what cannot be trusted, and panics when something does not
//! hold that must: bounds, round trips, how much memory is taken.
//!
//! ```text
//! cargo fuzz (nightly) ──┐
//!                        ├─► TARGETS[name](bytes) ─► protocol, engine, vmm, image, guest-runner (their `fuzzing` modules)
//! tests/replay (stable) ─┘      ▲
//!                               └─ fuzz/corpus-seeds/<name>/…
//! ```

mod answers;
mod archives;
mod configuration;
mod files;
mod frames;
mod images;
mod keys;
mod memory;
mod messages;
mod monitors;
mod mux;
mod snapshots;

use std::cell::LazyCell;
use std::future::Future;

use tokio::runtime::{Builder, Runtime};

/// Something that is fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As `cargo fuzz` and the directory of seeds call it.
    pub name: &'static str,
    /// Panics when a property does not hold.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident = $run:path,)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $run },)*];
    };
}

targets! {
    answers = answers::job,
    bzimage = images::bzimage,
    configuration = configuration::texts,
    console = monitors::console,
    control = answers::control,
    disks = images::disks,
    files = files::both_ways,
    frames = frames::all_readers_agree,
    handshake = monitors::handshake,
    http_answer = monitors::http_answer,
    kernel_package = archives::kernel_package,
    keys = keys::check,
    manifest = snapshots::manifest,
    messages = messages::all,
    metrics = monitors::metrics,
    module = images::module,
    mux_bytes = mux::any_bytes,
    mux_dialogue = mux::dialogue,
    output = files::output,
    qmp = monitors::qmp,
    release = archives::release,
    snapshot = snapshots::opening,
}

/// Gives the target of that name these bytes.
///
/// # Panics
/// There is no such target, or a property does not hold.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("the targets and fuzz/Cargo.toml agree").run)(data);
}

/// Does what waits for nothing outside of it.
fn wait<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: LazyCell<Runtime> =
            LazyCell::new(|| Builder::new_current_thread().build().expect("it needs nothing of the system"));
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

//! Looks at other processes through `/proc`.

use std::fs;
use std::path::PathBuf;

/// The ids of all processes.
pub fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The processes that `pid` started and that live.
pub fn children(pid: u32) -> Vec<u32> {
    all().filter(|child| parent(*child) == Some(pid)).collect()
}

/// Who started `pid`, if it lives (a zombie does not).
pub fn parent(pid: u32) -> Option<u32> {
    let (state, parent) = state_and_parent(pid)?;
    (state != 'Z').then_some(parent)
}

/// Whether the process lives (a zombie does not, but one whose other threads still end does).
pub fn lives(pid: u32) -> bool {
    let threads = || fs::read_dir(proc(pid).join("task")).map_or(0, Iterator::count);
    parent(pid).is_some() || threads() > 1
}

/// Its command line, with spaces between the arguments; empty when it is gone.
pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(proc(pid).join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Whether the bytes are in its environment or command line.
pub(crate) fn mentions(pid: u32, text: &str) -> bool {
    ["environ", "cmdline"].iter().any(|file| {
        let bytes = fs::read(proc(pid).join(file)).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

/// The most memory that it has had so far, in bytes; 0 when it is gone (`VmHWM`, proc_pid_status(5)).
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(proc(pid).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

fn proc(pid: u32) -> PathBuf {
    format!("/proc/{pid}").into()
}

/// Fields 3 and 4 of `/proc/<pid>/stat`.
fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(proc(pid).join("stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

//! The functional suite: every test runs code in a real microVM, or shows that host-agent refuses to.

mod clones;
mod command_line;
mod conformance;
mod faults;
mod firecracker;
mod foreign;
mod guest;
mod hostile;
mod http;
mod input;
mod isolation;
mod jail;
mod keys;
mod languages;
mod limits;
mod many;
mod parking;
mod refusals;
mod scripts;
mod seccomp;
mod service;
mod snapshots;
mod streaming;
mod tours;

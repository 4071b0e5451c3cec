//! `host-agent run`, as typed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::env_vars;

const EXAMPLES: &str = "\
Examples:
  host-agent run --lang python --code 'print(42)'
  host-agent run job.py -- first-argument
  echo 'puts 6 * 7' | host-agent run --lang ruby
  host-agent run --lang bash --code 'sort <names >out' --file names.txt:names --collect out --json
  host-agent run --lang rust main.rs --timeout 60 --timeline
  host-agent run --lang python --code 'while True: pass' --timeout 2 --limit cpu_ms=1500
  host-agent run --lang bash --code 'id' --server http://127.0.0.1:8700          with $RUNNER_CODES_API_KEY set

The exit status is the code's own: 128+n when signal n ended it, 124 at a timeout, 137 when a limit killed it.
It is 125 when host-agent could not run the code; one line then says why, and what to do.";

/// `host-agent run`
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// What the code is written in: python, bash, node, rust or ruby [default: as the file's name or the code's `#!` line says]
    #[arg(short, long, value_name = "LANGUAGE")]
    pub(crate) lang: Option<String>,
    /// The code itself
    #[arg(
        short,
        long,
        value_name = "CODE",
        conflicts_with = "file_argument",
        allow_hyphen_values = true
    )]
    pub(crate) code: Option<String>,
    /// A file with the code; `-`, or nothing at all, means standard input
    #[arg(value_name = "FILE", id = "file_argument")]
    pub(crate) source: Option<PathBuf>,
    /// Arguments for the code
    #[arg(last = true, value_name = "ARGUMENT")]
    pub(crate) trailing: Vec<String>,

    /// Seconds of wall time, fractions allowed, up to 3600
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value_t = 30.0,
        allow_negative_numbers = true
    )]
    pub(crate) timeout: f64,
    /// Text that the code reads on standard input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stdin: Option<String>,
    /// A file that the code reads as standard input
    #[arg(long, value_name = "FILE", conflicts_with = "stdin")]
    pub(crate) stdin_file: Option<PathBuf>,
    /// An argument for the code; may be repeated
    #[arg(long = "arg", value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
    /// An environment variable for the code; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// A file to put into the guest, by default under its own name in the code's directory; may be repeated
    #[arg(short, long = "file", value_name = "HOST[:GUEST]")]
    pub(crate) files: Vec<String>,
    /// A file to bring back, written to HOST. Without that it is written under its own name into the current directory,
    /// or with --json only returned there. May be repeated
    #[arg(long, value_name = "GUEST[:HOST]")]
    pub(crate) collect: Vec<String>,
    /// The code's working directory in the guest; made when missing
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// A limit for the code: memory_bytes, pids, output_bytes, file_bytes, open_files or cpu_ms; may be repeated
    #[arg(long = "limit", value_name = "NAME=NUMBER")]
    pub(crate) limits: Vec<String>,
    /// Names the job in logs and answers [default: random]
    #[arg(long, value_name = "ID")]
    pub(crate) trace_id: Option<String>,

    /// Have a service elsewhere run it, as in http://127.0.0.1:8700
    #[arg(
        long,
        value_name = "URL",
        help_heading = "Service",
        conflicts_with_all = ["cold", "rootfs", "initramfs", "kernel_args", "no_setup", "hello", "keep_console"]
    )]
    pub(crate) server: Option<String>,
    /// The API key for it. On the command line other users of this machine can see it
    #[arg(
        long,
        value_name = "KEY",
        help_heading = "Service",
        env = env_vars::API_KEY,
        hide_env_values = true
    )]
    pub(crate) key: Option<String>,

    /// The template whose root filesystem the code sees [default: the one that has the language]
    #[arg(long, value_name = "NAME", help_heading = "Machine")]
    pub(crate) template: Option<String>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Boot a machine, even where a snapshot or a service would be faster
    #[arg(long, help_heading = "Machine")]
    pub(crate) cold: bool,
    /// Start a new interpreter, even where one waits
    #[arg(long, help_heading = "Machine")]
    pub(crate) fresh: bool,
    /// A root filesystem of your own: squashfs, or ext4 with the guest-runner injected, which is booted with its own init
    #[arg(
        long,
        value_name = "IMAGE",
        conflicts_with = "template",
        help_heading = "Machine"
    )]
    pub(crate) rootfs: Option<PathBuf>,
    /// An initramfs of your own
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "Machine")]
    pub(crate) initramfs: Option<PathBuf>,
    /// Appended to the kernel's command line; may be repeated
    #[arg(
        long = "kernel-arg",
        value_name = "ARGUMENT",
        allow_hyphen_values = true,
        hide_short_help = true,
        help_heading = "Machine"
    )]
    pub(crate) kernel_args: Vec<String>,
    /// Refuse when something has to be made first, instead of making it
    #[arg(long, help_heading = "Machine")]
    pub(crate) no_setup: bool,

    /// Print where the time went, on standard error
    #[arg(long, help_heading = "Output")]
    pub(crate) timeline: bool,
    /// Print what the guest is and what confinement it can do, as JSON on standard error
    #[arg(long, hide_short_help = true, help_heading = "Output")]
    pub(crate) hello: bool,
    /// Keep the guest's console in this file, and let its kernel say more there
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) keep_console: Option<PathBuf>,
}

/// What a machine is, apart from its root filesystem.
#[derive(Debug, Clone, Args)]
pub(crate) struct MachineArgs {
    /// Memory of the machine: MiB, or with a suffix as in 512M or 2G
    #[arg(
        short,
        long,
        value_name = "SIZE",
        default_value = "512",
        help_heading = "Machine"
    )]
    pub(crate) memory: String,
    /// Virtual processors of the machine, 1 to 32
    #[arg(long, value_name = "NUMBER", default_value_t = 1, help_heading = "Machine")]
    pub(crate) vcpus: u8,
    /// The VMM
    #[arg(long, value_enum, default_value_t, help_heading = "Machine", env = env_vars::BACKEND, hide_env = true)]
    pub(crate) backend: Backend,
    /// The kernel: `debian`, `debian-SUITE`, `tuned`, or the path of a file [default: debian]
    #[arg(long, value_name = "KERNEL", help_heading = "Machine", env = env_vars::KERNEL, hide_env = true)]
    pub(crate) kernel: Option<String>,
}

/// The VMM to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// Firecracker where KVM works, else QEMU
    #[default]
    Auto,
    /// Firecracker; needs KVM
    Firecracker,
    /// QEMU, with KVM where that works, else fully emulated
    Qemu,
}

//! What a user may type: clap's types, and nothing that they do.

mod api_key;
mod isolation;
mod run;
mod template;
mod verify_isolation;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use api_key::{ApiKeyCommand, CreateKeyArgs};
pub(crate) use isolation::IsolationArgs;
pub(crate) use run::{Backend, MachineArgs, RunArgs};
pub(crate) use template::{ServeArgs, SigningKeyCommand, TemplateBuildArgs, TemplateCommand};
pub(crate) use verify_isolation::VerifyIsolationArgs;

use crate::env_vars;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  host-agent run --lang python --code 'print(42)'
  host-agent doctor
  host-agent setup --template base --template rust
  host-agent template build base && host-agent serve

`host-agent help run` says more about jobs.";

/// Runs untrusted code in microVMs on this machine.
#[derive(Debug, Parser)]
#[command(name = "host-agent", version, styles = STYLES, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Where kernels and images are kept [default: /var/lib/runner-codes for root, else in the user's data directory]
    #[arg(long, global = true, value_name = "DIR", env = env_vars::STATE_DIR, hide_env = true)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where each machine's directory is while it runs [default: /run/runner-codes for root, else the user's]
    #[arg(long, global = true, value_name = "DIR", env = env_vars::RUNTIME_DIR, hide_env = true)]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// A static guest-runner to use instead of the embedded one
    #[arg(long, global = true, value_name = "FILE", env = env_vars::GUEST_RUNNER, hide_env = true)]
    pub(crate) guest_runner: Option<PathBuf>,
    /// Print one JSON object on standard output and nothing else there: the answer, the report, or the error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log to standard error; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(flatten)]
    pub(crate) isolation: IsolationArgs,
}

/// One per file in `commands/`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run code in a microVM of its own and print what it printed
    Run(Box<RunArgs>),
    /// Make what is missing: kernel, root filesystems, and if asked for, fetch Firecracker
    Setup(SetupArgs),
    /// Keep machines ready and run jobs that come over HTTP, on a Unix socket that `run` finds by itself
    #[command(after_help = template::SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Freeze machines with interpreters that wait, so that jobs start in a fraction of a boot
    #[command(subcommand, after_help = template::TEMPLATE_EXAMPLES)]
    Template(TemplateCommand),
    /// The keys that clients of `serve --listen` need
    #[command(subcommand, after_help = api_key::API_KEY_EXAMPLES)]
    ApiKey(ApiKeyCommand),
    /// The keys that snapshots are signed with
    #[command(subcommand, after_help = template::SIGNING_KEY_EXAMPLES)]
    SigningKey(SigningKeyCommand),
    /// Try to break out, in real machines of this host, and say what held
    VerifyIsolation(VerifyIsolationArgs),
    /// Say what works on this machine, what is missing, and the command that mends it
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor {
        /// The kernel to look at: `debian`, `debian-SUITE`, `tuned`, or the path of a file [default: debian]
        #[arg(long, value_name = "KERNEL", env = env_vars::KERNEL, hide_env = true)]
        kernel: Option<String>,
    },
    /// Install the guest-runner as a service into an existing ext4 image
    InjectGuestRunner(InjectArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  host-agent doctor
  host-agent doctor --json | jq '.checks[] | select(.state == \"missing\") | .remedy'

The exit status is 0 when a job can run, else 1.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  host-agent completions bash >/etc/bash_completion.d/host-agent
  host-agent completions zsh >\"${fpath[1]}/_host-agent\"";

const SETUP_EXAMPLES: &str = "\
Examples:
  host-agent setup                          the kernel and the template `base`
  host-agent setup --template rust          also a template with rustc
  host-agent setup --kernel tuned           compile a kernel that boots faster
  host-agent setup --firecracker 1.16.1     fetch and check Firecracker's release";

/// `host-agent setup`
#[derive(Debug, Args)]
#[command(after_help = SETUP_EXAMPLES)]
pub(crate) struct SetupArgs {
    /// A template to make; may be repeated [default: base]
    #[arg(long = "template", value_name = "NAME")]
    pub(crate) templates: Vec<String>,
    /// The kernel to make: `debian`, `debian-SUITE`, or `tuned`, which is compiled here [default: debian]
    #[arg(long, value_name = "KERNEL", env = env_vars::KERNEL, hide_env = true)]
    pub(crate) kernel: Option<String>,
    /// Fetch this version of Firecracker and its jailer, and check their published SHA-256
    #[arg(long, value_name = "VERSION")]
    pub(crate) firecracker: Option<String>,
    /// Where Firecracker's releases are fetched from, instead of its own project
    #[arg(long, value_name = "URL", requires = "firecracker", hide_short_help = true)]
    pub(crate) firecracker_releases: Option<String>,
    /// A Debian mirror to use instead of the one that this host uses; may be repeated for a security archive
    #[arg(long = "mirror", value_name = "URL")]
    pub(crate) mirrors: Vec<String>,
    /// Make anew what is there already
    #[arg(long)]
    pub(crate) force: bool,
}

const INJECT_EXAMPLES: &str = "\
Examples:
  host-agent inject-guest-runner ubuntu.ext4
  host-agent run --rootfs ubuntu.ext4 --lang python --code 'print(42)'

Needs no root: only the image must be writable.";

/// `host-agent inject-guest-runner`
#[derive(Debug, Args)]
#[command(after_help = INJECT_EXAMPLES)]
pub(crate) struct InjectArgs {
    /// The image; untouched unless all goes well
    #[arg(value_name = "ROOTFS.ext4")]
    pub(crate) image: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

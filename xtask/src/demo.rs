//! `demo`: the two jobs that the project began with.

use std::process::Command;

use crate::build::{Profile, prepare, run};

const JOBS: [(&str, &str); 2] = [
    (
        "bash",
        "echo 'Hello from Firecracker microVM!' && hostname && uname -a",
    ),
    (
        "python",
        "import platform, sys\nprint(f'Python {platform.python_version()} says hello from {platform.node()}')\nprint(sum(n * n for n in range(1000)))",
    ),
];

/// Runs both and lets their JSON and timeline through.
pub(crate) fn run_jobs() -> anyhow::Result<()> {
    let host_agent = prepare(Profile::Dev, &["base"])?;
    for (language, code) in JOBS {
        eprintln!("\n$ host-agent run --lang {language} --json --timeline --code {code:?}");
        run(Command::new(&host_agent).args([
            "run",
            "--lang",
            language,
            "--json",
            "--timeline",
            "--code",
            code,
        ]))?;
    }
    Ok(())
}

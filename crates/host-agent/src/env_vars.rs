//! Every environment variable that host-agent reads, declared once. `docs/environment.md` is generated from here.

/// A variable and what it is for.
#[cfg(test)]
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: &'static str,
    /// One or two sentences for the documentation.
    pub(crate) doc: &'static str,
}

macro_rules! variables {
    ($($constant:ident = $name:literal, $doc:literal;)*) => {
        $(#[doc = $doc] pub(crate) const $constant: &str = $name;)*

        /// All of them, in the order of the documentation.
        #[cfg(test)]
        pub(crate) const ALL: &[Variable] = &[$(Variable { name: $name, doc: $doc },)*];
    };
}

variables! {
    STATE_DIR = "RUNNER_CODES_STATE_DIR", "Where kernels and images are kept. The default is `/var/lib/runner-codes` for root, else `runner-codes` in `$XDG_DATA_HOME` or `~/.local/share`.";
    RUNTIME_DIR = "RUNNER_CODES_RUNTIME_DIR", "Where each machine's directory is while it runs. The default is `/run/runner-codes` for root, else `runner-codes` in `$XDG_RUNTIME_DIR`, else `/tmp/runner-codes-UID`.";
    BACKEND = "RUNNER_CODES_BACKEND", "The VMM that `run` uses: `auto`, `firecracker` or `qemu`.";
    KERNEL = "RUNNER_CODES_KERNEL", "The kernel that guests boot: `debian`, `debian-SUITE`, `tuned`, or the path of a file.";
    GUEST_RUNNER = "RUNNER_CODES_GUEST_RUNNER", "A static guest-runner to use instead of the embedded one.";
    NO_JAILER = "RUNNER_CODES_NO_JAILER", "`true` lets Firecracker start without its jailer.";
    NO_VMM_UID = "RUNNER_CODES_NO_VMM_UID", "`true` runs VMMs as root, where host-agent is.";
    NO_NAMESPACES = "RUNNER_CODES_NO_NAMESPACES", "`true` leaves VMMs in the host's namespaces.";
    NO_CGROUP = "RUNNER_CODES_NO_CGROUP", "`true` leaves machines without the host's limits.";
    NO_NETWORK_FILTER = "RUNNER_CODES_NO_NETWORK_FILTER", "`true` leaves machines' cgroups without BPF programs.";
    VMM_UIDS = "RUNNER_CODES_VMM_UIDS", "The user and group ids that VMMs get, as `FIRST-LAST`. The default is `1879048192-1879113727`.";
    CGROUP = "RUNNER_CODES_CGROUP", "The cgroup that machines' cgroups are in, below the root of each hierarchy. The default is `runner-codes`.";
    API_KEY = "RUNNER_CODES_API_KEY", "The key that `run --server` shows.";
    LOG = "RUNNER_CODES_LOG", "What is logged to standard error, as a filter such as `debug` or `vmm=trace`. Nothing by default.";
    FIRECRACKER_BIN = "FIRECRACKER_BIN", "The Firecracker executable; else the one that `setup --firecracker` fetched, else `PATH` is searched.";
    JAILER_BIN = "RUNNER_CODES_JAILER_BIN", "Firecracker's jailer; else the one beside Firecracker.";
    QEMU_BIN = "QEMU_BIN", "The QEMU executable; else `PATH` is searched.";
}

#[cfg(test)]
mod tests {
    use super::{ALL, Variable};

    /// What `build.rs` reads.
    const BUILD: &[Variable] = &[Variable {
        name: "RUNNER_CODES_BUILD_GUEST_RUNNER",
        doc: "A static guest-runner to embed instead of building one.",
    }];

    /// What the operating system's conventions name.
    const CONVENTIONAL: &[Variable] = &[
        Variable {
            name: "PATH",
            doc: "Where programs are looked for; the directories of system programs are added.",
        },
        Variable {
            name: "XDG_DATA_HOME, HOME",
            doc: "Where the state directory of a user other than root is.",
        },
        Variable {
            name: "XDG_RUNTIME_DIR",
            doc: "Where the runtime directory of a user other than root is.",
        },
    ];

    fn table(variables: &[Variable]) -> String {
        let row = |variable: &Variable| format!("| `{}` | {} |\n", variable.name, variable.doc);
        let rows: String = variables.iter().map(row).collect();
        format!("| variable | what it is for |\n|---|---|\n{rows}")
    }

    #[test]
    fn the_documentation_is_generated_from_here() {
        let text = format!(
            "# Environment variables\n\nGenerated from `crates/host-agent/src/env_vars.rs`; a flag on the command line wins \
             over its variable.\n\n{}\nWith their usual meaning:\n\n{}\nWhen host-agent is built:\n\n{}",
            table(ALL),
            table(CONVENTIONAL),
            table(BUILD)
        );
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/environment.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == text,
            "{path} is out of date: UPDATE_DOCS=1 cargo test --package host-agent"
        );
    }

    #[test]
    fn the_build_reads_what_is_documented() {
        let script = include_str!("../build.rs");
        for variable in BUILD {
            assert!(script.contains(variable.name), "{}", variable.name);
        }
    }
}

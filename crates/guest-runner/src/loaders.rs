//! Loaders: what makes an interpreter wait inside its own start-up, before the main script, until there is a job.
//!
//! ```text
//! interpreter starts ─► loader: imports what is common ─► `P` ─► (snapshot, clone) ─► the job's message
//!                       `N`: this one cannot be parked                                     │
//!      main script ◄─ the interpreter's own doing ◄─ `R` ◄─ reseeds, directory, variables, arguments
//! ```
//!
//! The message is strings that end with NUL: a seed of 64 hexadecimal digits, the host name, the working directory unless
//! the interpreter is there already, then three lists, each after its length: arguments, variables to unset, variables to
//! set; at last a full stop, and the end of the stream. A loader that fails ends its process with 70, and no code has run.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use protocol::Language;
use serde::{Deserialize, Serialize};

use crate::confine::namespaces::JOB_DIRECTORY;
use crate::failure::{Doing as _, Result};
use crate::files;

/// Where the guest has the loaders.
pub(crate) const DIRECTORY: &str = "/usr/local/lib/guest-runner";

/// The environment variable that makes a loader park its interpreter; its value is the descriptor that they talk over.
pub(crate) const PARK: &str = "GUEST_RUNNER_PARK";

/// That descriptor's number: far above what code would notice.
pub(crate) const SOCKET: RawFd = 900;

/// What a loader says when its interpreter waits.
pub(crate) const PARKED: u8 = b'P';

/// What a loader says when its interpreter has been made different from any clone's, and the code is next.
pub(crate) const READY: u8 = b'R';

/// The exit code of an interpreter that was not released.
#[cfg(test)]
const FAILED: i32 = 70;

/// A file that the guest needs below [`DIRECTORY`].
#[derive(Debug)]
pub(crate) struct Loader {
    pub(crate) path: &'static str,
    pub(crate) content: &'static [u8],
    pub(crate) mode: u32,
}

/// Every loader, and what they load themselves.
pub(crate) const ALL: &[Loader] = &[
    Loader {
        path: "python/sitecustomize.py",
        content: include_bytes!("../loaders/python/sitecustomize.py"),
        mode: 0o644,
    },
    Loader {
        path: "node.cjs",
        content: include_bytes!("../loaders/node.cjs"),
        mode: 0o644,
    },
    Loader {
        path: "node-reseed.node",
        content: include_bytes!(env!("NODE_RESEED")),
        mode: 0o755,
    },
    Loader {
        path: "bash.sh",
        content: include_bytes!("../loaders/bash.sh"),
        mode: 0o644,
    },
    Loader {
        path: "ruby.rb",
        content: include_bytes!("../loaders/ruby.rb"),
        mode: 0o644,
    },
];

/// How a language's interpreter comes to its loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Injection {
    /// By this environment variable and value, in a parked process only.
    Variable(&'static str, &'static str),
    /// By this argument before the main script, in every process. The main script must exist then, with an empty line: it
    /// is opened first, and again when the process is released.
    Argument(&'static str),
}

/// How the interpreter of `language` comes to its loader, where there is one.
pub(crate) const fn injection(language: Language) -> Option<Injection> {
    match language {
        Language::Python => Some(Injection::Variable(
            "PYTHONPATH",
            "/usr/local/lib/guest-runner/python",
        )),
        Language::Node => Some(Injection::Variable(
            "NODE_OPTIONS",
            "--require=/usr/local/lib/guest-runner/node.cjs",
        )),
        Language::Bash => Some(Injection::Variable(
            "BASH_ENV",
            "/usr/local/lib/guest-runner/bash.sh",
        )),
        Language::Ruby => Some(Injection::Argument("-r/usr/local/lib/guest-runner/ruby.rb")),
        Language::Rust => None,
    }
}

/// Whether the interpreter of `language` reads the variable `name` only while it starts, so that a job that sets it to
/// anything but what the parked process has needs a fresh one.
pub(crate) fn is_read_at_start(language: Language, name: &str) -> bool {
    // The dynamic linker, the C library, the locale, OpenSSL.
    const EVERY: &[&str] = &[
        "GLIBC_TUNABLES",
        "LANG",
        "LANGUAGE",
        "LD_*",
        "LC_*",
        "MALLOC_*",
        "OPENSSL_*",
    ];
    let own: &[&str] = match language {
        // Also what numpy and its libraries read. Below HOME may be packages.
        Language::Python => &[
            "BLIS_*",
            "GOTO_*",
            "HOME",
            "MKL_*",
            "NPY_*",
            "NUMPY_*",
            "OMP_*",
            "OPENBLAS_*",
            "PYTHON*",
        ],
        Language::Node => &["ICU_*", "NODE_*", "NO_COLOR", "FORCE_COLOR", "SSL_CERT_*", "UV_*"],
        Language::Ruby => &["GEM_*", "HOME", "RUBY*", "BUNDLE*", "XDG_*"],
        // Variables that Bash makes itself, or that have a meaning for it when they are inherited.
        Language::Bash => &[
            "BASH*",
            "CDPATH",
            "COLUMNS",
            "COMP_*",
            "DIRSTACK",
            "EPOCH*",
            "EUID",
            "FUNCNAME",
            "GLOBIGNORE",
            "GROUPS",
            "HIST*",
            "IFS",
            "LINENO",
            "LINES",
            "MAPFILE",
            "OLDPWD",
            "OPTARG",
            "OPTERR",
            "OPTIND",
            "PIPESTATUS",
            "POSIXLY_CORRECT",
            "PPID",
            "PS0",
            "PS1",
            "PS2",
            "PS3",
            "PS4",
            "RANDOM",
            "READLINE_*",
            "REPLY",
            "SECONDS",
            "SHELLOPTS",
            "SHLVL",
            "SRANDOM",
            "TERM",
            "TMOUT",
            "UID",
            "_",
        ],
        Language::Rust => &[],
    };
    let is = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *pattern,
    };
    EVERY.iter().chain(own).any(is) || language == Language::Bash && !is_shell_name(name)
}

/// Whether a Bash can have a variable of this name; others it only passes on from its own environment.
fn is_shell_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Puts the loaders where they belong in a root.
pub(crate) fn install(root: &Path) -> Result<()> {
    let directory = root.join(DIRECTORY.trim_start_matches('/'));
    for loader in ALL {
        let path = directory.join(loader.path);
        files::write(&path, loader.content, loader.mode).doing(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// How an interpreter that is to wait is started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// Besides the default environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Where it is started; by the time that it waits it is in the job's directory.
    pub(crate) directory: PathBuf,
}

/// How an interpreter of `language` that is to wait is started; `None` where there is no loader.
pub(crate) fn waiting(language: Language) -> Option<Waiting> {
    let variable = match injection(language)? {
        Injection::Variable(name, value) => Some((name.to_owned(), value.to_owned())),
        Injection::Argument(_) => None,
    };
    let park = (PARK.to_owned(), SOCKET.to_string());
    let directory = match language {
        Language::Node => "/",
        _ => JOB_DIRECTORY,
    };
    Some(Waiting {
        environment: variable.into_iter().chain([park]).collect(),
        directory: directory.into(),
    })
}

/// What a job brings to an interpreter that waits.
#[derive(Debug, Default)]
pub(crate) struct Release<'a> {
    pub(crate) seed: [u8; 32],
    pub(crate) hostname: &'a str,
    /// Empty for the one that the interpreter is in.
    pub(crate) directory: &'a str,
    pub(crate) arguments: &'a [String],
    pub(crate) unset: &'a [String],
    pub(crate) set: &'a [String],
}

impl Release<'_> {
    /// The message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut message: Vec<u8> = self
            .seed
            .iter()
            .flat_map(|byte| format!("{byte:02x}").into_bytes())
            .collect();
        message.push(0);
        let mut add = |field: &str| {
            message.extend_from_slice(field.as_bytes());
            message.push(0);
        };
        add(self.hostname);
        add(self.directory);
        for list in [self.arguments, self.unset, self.set] {
            add(&list.len().to_string());
            list.iter().for_each(|field| add(field));
        }
        add(".");
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injections_name_loaders() {
        for language in Language::ALL {
            let Some(injection) = injection(language) else {
                assert_eq!(language, Language::Rust);
                continue;
            };
            let (Injection::Variable(_, text) | Injection::Argument(text)) = injection;
            let path = &text[text.find(DIRECTORY).unwrap() + DIRECTORY.len() + 1..];
            let named =
                |loader: &&Loader| loader.path == path || loader.path == format!("{path}/sitecustomize.py");
            assert_eq!(ALL.iter().filter(named).count(), 1, "{text}");
        }
    }

    #[test]
    fn scripts_agree_with_the_constants() {
        for loader in ALL.iter().filter(|loader| !loader.path.ends_with(".node")) {
            let text = str::from_utf8(loader.content).unwrap();
            assert!(text.contains(PARK), "{}", loader.path);
            assert!(text.contains(&FAILED.to_string()), "{}", loader.path);
        }
        let node = ALL.iter().find(|loader| loader.path == "node.cjs").unwrap();
        let addon = "${__dirname}/node-reseed.node";
        assert!(str::from_utf8(node.content).unwrap().contains(addon));
    }

    #[test]
    fn the_addon_needs_neither_the_c_library_nor_much_room() {
        let addon = ALL
            .iter()
            .find(|loader| loader.path.ends_with(".node"))
            .unwrap()
            .content;
        let has = |text: &[u8]| addon.windows(text.len()).any(|window| window == text);
        assert!(addon.starts_with(b"\x7fELF"));
        assert!(has(b"napi_register_module_v1\0") && has(b"RAND_add\0"));
        assert!(!has(b"libc.so") && !has(b"GLIBC_"));
        assert!(addon.len() < 32 << 10, "{} bytes", addon.len());
    }

    #[test]
    fn a_message_says_where_it_ends() {
        let plain = Release {
            seed: [0xab; 32],
            hostname: "h",
            ..Release::default()
        };
        let seed = "ab".repeat(32);
        assert_eq!(plain.message(), format!("{seed}\0h\0\00\00\00\0.\0").into_bytes());
        let other = Release {
            directory: "/job/d",
            arguments: &["é".to_owned(), String::new()],
            unset: &["LANG".to_owned()],
            set: &["LANG=C".to_owned()],
            ..plain
        };
        assert_eq!(
            other.message(),
            format!("{seed}\0h\0/job/d\02\0é\0\01\0LANG\01\0LANG=C\0.\0").into_bytes()
        );
    }

    #[test]
    fn variables_that_are_read_at_start() {
        for (language, name) in [
            (Language::Python, "PYTHONHASHSEED"),
            (Language::Python, "LC_ALL"),
            (Language::Node, "NODE_OPTIONS"),
            (Language::Ruby, "RUBYOPT"),
            (Language::Bash, "BASH_FUNC_f%%"),
            (Language::Bash, "a.b"),
            (Language::Bash, "1"),
        ] {
            assert!(is_read_at_start(language, name), "{language} {name}");
        }
        for (language, name) in [
            (Language::Python, "NODE_OPTIONS"),
            (Language::Python, "PATH"),
            (Language::Node, "a.b"),
            (Language::Node, "HOME"),
            (Language::Bash, "HOME"),
            (Language::Bash, "TZ"),
            (Language::Ruby, "RAILS_ENV"),
        ] {
            assert!(!is_read_at_start(language, name), "{language} {name}");
        }
    }
}

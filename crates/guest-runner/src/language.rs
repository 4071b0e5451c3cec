//! Languages: which programs of a root filesystem run them, and how.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::{ErrorCode, HostError, Language};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use serde::{Deserialize, Serialize};

use crate::confine::namespaces::JOB_DIRECTORY;
use crate::loaders::{self, Injection};

/// Where programs are looked for, in this order; also the `PATH` of a job.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How to run one job's code: all paths are the job's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// The file that the code is written to.
    pub(crate) source: String,
    /// Run first; when it fails, its end is the job's.
    pub(crate) compile: Option<Vec<String>>,
    /// The program and its first arguments; the job's own follow.
    pub(crate) run: Vec<String>,
}

/// The programs that can run `language`, best first.
const fn candidates(language: Language) -> &'static [&'static str] {
    match language {
        Language::Python => &["python3", "python", "python2"],
        Language::Bash => &["bash"],
        Language::Node => &["node", "nodejs"],
        Language::Ruby => &["ruby"],
        Language::Rust => &["rustc"],
    }
}

const fn source(language: Language) -> &'static str {
    match language {
        Language::Python => "main.py",
        Language::Bash => "main.sh",
        Language::Node => "main.js",
        Language::Ruby => "main.rb",
        Language::Rust => "main.rs",
    }
}

/// The program that runs `language` in the root filesystem at `root`, as a path inside it.
pub(crate) fn find(root: &Path, language: Language) -> Option<String> {
    candidates(language).iter().find_map(|name| {
        let mut paths = PATH.split(':').map(|directory| format!("{directory}/{name}"));
        paths.find(|path| is_program(root, path))
    })
}

/// Every language that the root filesystem at `root` can run, with its program.
pub(crate) fn find_all(root: &Path) -> BTreeMap<Language, String> {
    Language::ALL
        .into_iter()
        .filter_map(|language| Some((language, find(root, language)?)))
        .collect()
}

/// How to run `language` in the root filesystem at `root`.
///
/// # Errors
/// `language_missing`.
pub(crate) fn program(root: &Path, language: Language) -> Result<Program, HostError> {
    let interpreter = find(root, language).ok_or_else(|| {
        HostError::new(
            ErrorCode::LanguageMissing,
            format!(
                "there is no {} in this guest, so it cannot run {language}",
                candidates(language).join(" or ")
            ),
        )
    })?;
    Ok(how(language, interpreter))
}

fn how(language: Language, interpreter: String) -> Program {
    let source = format!("{JOB_DIRECTORY}/{}", source(language));
    let (compile, run) = match language {
        Language::Rust => {
            let binary = format!("{JOB_DIRECTORY}/main");
            let compile = [&interpreter, "--edition=2021", "-o", &binary, "main.rs"];
            (Some(compile.map(str::to_owned).to_vec()), vec![binary])
        }
        Language::Python | Language::Bash | Language::Node | Language::Ruby => {
            let loader = match loaders::injection(language) {
                Some(Injection::Argument(argument)) => Some(argument.to_owned()),
                _ => None,
            };
            let run = [interpreter].into_iter().chain(loader).chain([source.clone()]);
            (None, run.collect())
        }
    };
    Program { source, compile, run }
}

/// Whether `path`, with its links followed inside `root`, is a file that can be executed.
fn is_program(root: &Path, path: &str) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let relative = path.trim_start_matches('/');
    let opened = openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty())
        .and_then(|root| openat2(root, relative, flags, Mode::empty(), ResolveFlags::IN_ROOT))
        .or_else(|error| match error {
            // Before Linux 5.6: links are then followed from the real root.
            rustix::io::Errno::NOSYS => openat(CWD, root.join(relative), flags, Mode::empty()),
            error => Err(error),
        });
    opened.and_then(fstat).is_ok_and(|status| {
        FileType::from_raw_mode(status.st_mode) == FileType::RegularFile && status.st_mode & 0o111 != 0
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn install(root: &Path, path: &str, mode: u32) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn python_falls_back() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find(root.path(), Language::Python), None);
        install(root.path(), "usr/bin/python2", 0o755);
        assert_eq!(find(root.path(), Language::Python).unwrap(), "/usr/bin/python2");
        install(root.path(), "usr/bin/python", 0o755);
        assert_eq!(find(root.path(), Language::Python).unwrap(), "/usr/bin/python");
        install(root.path(), "usr/bin/python3", 0o644);
        assert_eq!(find(root.path(), Language::Python).unwrap(), "/usr/bin/python");
        install(root.path(), "usr/local/bin/python3", 0o755);
        assert_eq!(
            find(root.path(), Language::Python).unwrap(),
            "/usr/local/bin/python3"
        );
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "opt/ruby", 0o755);
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        symlink("/opt/ruby", root.path().join("usr/bin/ruby")).unwrap();
        symlink("/bin/sh", root.path().join("usr/bin/bash")).unwrap();
        assert_eq!(
            find_all(root.path()).into_iter().collect::<Vec<_>>(),
            [(Language::Ruby, "/usr/bin/ruby".to_owned())]
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        let root = tempfile::tempdir().unwrap();
        let error = program(root.path(), Language::Node).unwrap_err();
        assert_eq!(error.code, ErrorCode::LanguageMissing);
        assert!(error.cause.contains("node or nodejs"), "{}", error.cause);
    }

    #[test]
    fn rust_is_compiled_first() {
        let program = how(Language::Rust, "/usr/bin/rustc".to_owned());
        assert_eq!(program.compile.unwrap().last().unwrap(), "main.rs");
        assert_eq!(program.run, ["/job/main"]);
        assert_eq!(
            how(Language::Bash, "/bin/bash".to_owned()).run,
            ["/bin/bash", "/job/main.sh"]
        );
    }
}

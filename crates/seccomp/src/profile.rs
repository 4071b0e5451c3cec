//! Profiles as they are written down, and what they say of each system call.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use serde::Deserialize;
use syscalls::x86_64::Sysno;

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("Cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no JSON of a profile.
    #[error("Cannot understand {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Its base extends another.
    #[error("{0} extends a profile that extends another; there can be one base only")]
    Depth(PathBuf),
    /// It says nothing of what it does not list.
    #[error("{0} has no default action, and neither has what it extends")]
    NoDefault(PathBuf),
    /// It names what Linux has not.
    #[error("{path} lists {name}, which is no system call of x86-64")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// It says two things of one call.
    #[error("{path} lists {name}, which is listed already, there or in what it extends")]
    Twice {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A rule has arguments without another action, or the other way round, or the same action twice.
    #[error("{path}: {name} needs both `args` and `otherwise`, with another action, or neither")]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// The first call that the rule lists.
        name: String,
    },
    /// It cannot be compiled.
    #[error("Cannot compile what is said of {name}: {source}")]
    Compile {
        /// The call.
        name: String,
        /// Why.
        source: seccompiler::BackendError,
    },
}

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Action {
    /// It is made.
    #[serde(rename = "allow")]
    Allow,
    /// It fails with EPERM.
    #[serde(rename = "EPERM")]
    NotPermitted,
    /// It fails with ENOSYS, as in a kernel that does not have it.
    #[serde(rename = "ENOSYS")]
    NotImplemented,
    /// It fails with EAFNOSUPPORT.
    #[serde(rename = "EAFNOSUPPORT")]
    NoAddressFamily,
    /// It ends the job.
    #[serde(rename = "kill")]
    Kill,
}

/// What a profile says of one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What happens to it.
    pub action: Action,
    /// Unless it depends on its arguments.
    pub arguments: Option<Arguments>,
}

/// How an action depends on arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// The action is taken if one of these matches.
    pub any: Vec<SeccompRule>,
    /// What happens otherwise.
    pub otherwise: Action,
}

/// One language's profile.
#[derive(Debug, Clone)]
pub struct Profile {
    decisions: BTreeMap<Sysno, Decision>,
    default: Action,
}

impl Profile {
    /// Reads the profile at `path`, with what it extends, which is next to it. The files that were read come with it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<(Self, Vec<PathBuf>), Error> {
        let own = File::read(path)?;
        let mut files = vec![path.to_owned()];
        let mut parts = Vec::new();
        if let Some(name) = &own.extends {
            let base = path.with_file_name(name);
            let read = File::read(&base)?;
            if read.extends.is_some() {
                return Err(Error::Depth(path.to_owned()));
            }
            parts.push((base.clone(), read));
            files.push(base);
        }
        parts.push((path.to_owned(), own));
        let default = parts.iter().rev().find_map(|(_, file)| file.default);
        let default = default.ok_or_else(|| Error::NoDefault(path.to_owned()))?;
        let mut decisions = BTreeMap::new();
        for (path, file) in parts {
            for rule in file.rules {
                rule.add_to(&mut decisions, &path)?;
            }
        }
        Ok((Self { decisions, default }, files))
    }

    /// What it says of that call.
    pub fn decision(&self, call: Sysno) -> Decision {
        self.decisions.get(&call).cloned().unwrap_or(Decision {
            action: self.default,
            arguments: None,
        })
    }

    /// What happens to what it does not list.
    pub const fn default_action(&self) -> Action {
        self.default
    }
}

/// A profile's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "comment")]
    _comment: String,
    extends: Option<String>,
    default: Option<Action>,
    rules: Vec<Rule>,
}

impl File {
    fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| Error::Parse {
            path: path.to_owned(),
            source,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(rename = "comment")]
    _comment: String,
    syscalls: Vec<String>,
    action: Action,
    /// The action is taken when all of one of these hold.
    #[serde(default)]
    args: Vec<Vec<Condition>>,
    otherwise: Option<Action>,
}

/// As seccompiler writes conditions in JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    index: u8,
    #[serde(rename = "type")]
    length: SeccompCmpArgLen,
    op: SeccompCmpOp,
    val: u64,
    #[serde(rename = "comment")]
    _comment: String,
}

impl Rule {
    fn add_to(self, decisions: &mut BTreeMap<Sysno, Decision>, path: &Path) -> Result<(), Error> {
        let first = self.syscalls.first().cloned().unwrap_or_default();
        let arguments = match (self.args.is_empty(), self.otherwise) {
            (true, None) => None,
            (false, Some(otherwise)) if otherwise != self.action => Some(Arguments {
                any: rules(self.args, &first)?,
                otherwise,
            }),
            _ => {
                return Err(Error::Incomplete {
                    path: path.to_owned(),
                    name: first,
                });
            }
        };
        for name in self.syscalls {
            let Ok(call) = name.parse::<Sysno>() else {
                return Err(Error::Unknown {
                    path: path.to_owned(),
                    name,
                });
            };
            let decision = Decision {
                action: self.action,
                arguments: arguments.clone(),
            };
            if decisions.insert(call, decision).is_some() {
                return Err(Error::Twice {
                    path: path.to_owned(),
                    name,
                });
            }
        }
        Ok(())
    }
}

fn rules(args: Vec<Vec<Condition>>, name: &str) -> Result<Vec<SeccompRule>, Error> {
    let condition = |one: Condition| SeccompCondition::new(one.index, one.length, one.op, one.val);
    let rule = |all: Vec<Condition>| {
        let all = all.into_iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        SeccompRule::new(all)
    };
    let rules = args.into_iter().map(rule).collect::<Result<Vec<_>, _>>();
    rules.map_err(|source| Error::Compile {
        name: name.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str, text: &str) -> Result<Profile, Error> {
        let directory = tempfile::tempdir().unwrap();
        let base = r#"{ "comment": "", "default": "ENOSYS", "rules": [
            { "comment": "", "action": "allow", "syscalls": ["read", "write"] } ] }"#;
        fs::write(directory.path().join("base.json"), base).unwrap();
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        Profile::read(&path).map(|(profile, _)| profile)
    }

    fn own(rules: &str) -> Result<Profile, Error> {
        profile(
            "own.json",
            &format!(r#"{{ "comment": "", "extends": "base.json", "rules": [{rules}] }}"#),
        )
    }

    #[test]
    fn a_profile_adds_to_its_base() {
        let profile = own(r#"{ "comment": "", "action": "kill", "syscalls": ["mount"] }"#).unwrap();
        let action = |call| profile.decision(call).action;
        assert_eq!(action(Sysno::read), Action::Allow);
        assert_eq!(action(Sysno::mount), Action::Kill);
        assert_eq!(action(Sysno::bpf), Action::NotImplemented);
        assert_eq!(profile.default_action(), Action::NotImplemented);
    }

    #[test]
    fn mistakes_are_found() {
        let rule = |rest: &str| own(&format!(r#"{{ "comment": "", {rest} }}"#)).unwrap_err();
        assert!(matches!(
            rule(r#""action": "allow", "syscalls": ["read"]"#),
            Error::Twice { name, .. } if name == "read"
        ));
        assert!(matches!(
            rule(r#""action": "kill", "syscalls": ["mount", "mount"]"#),
            Error::Twice { name, .. } if name == "mount"
        ));
        assert!(matches!(
            rule(r#""action": "kill", "syscalls": ["mont"]"#),
            Error::Unknown { name, .. } if name == "mont"
        ));
        let args = r#""args": [[{ "index": 0, "type": "dword", "op": "eq", "val": 1, "comment": "" }]]"#;
        for rest in [
            args.to_owned(),
            r#""otherwise": "allow""#.to_owned(),
            format!(r#"{args}, "otherwise": "kill""#),
        ] {
            let error = rule(&format!(r#""action": "kill", "syscalls": ["socket"], {rest}"#));
            assert!(matches!(error, Error::Incomplete { .. }), "{error}");
        }
        assert!(matches!(
            rule(r#""action": "maim", "syscalls": ["mount"]"#),
            Error::Parse { .. }
        ));
        assert!(matches!(
            rule(r#""action": "kill", "syscalls": ["mount"], "comments": "x""#),
            Error::Parse { .. }
        ));
        let empty = r#""action": "allow", "syscalls": ["socket"], "args": [[]], "otherwise": "kill""#;
        assert!(matches!(rule(empty), Error::Compile { .. }));
        let alone = profile("alone.json", r#"{ "comment": "", "rules": [] }"#);
        assert!(matches!(alone.unwrap_err(), Error::NoDefault(_)));
        let itself = r#"{ "comment": "", "extends": "own.json", "rules": [] }"#;
        assert!(matches!(
            profile("own.json", itself).unwrap_err(),
            Error::Depth(_)
        ));
    }
}

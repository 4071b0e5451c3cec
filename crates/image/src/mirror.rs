//! Where Debian's packages come from: `--mirror`, else, on a Debian host, the mirror that its apt configuration names, else nothing,
//! which leaves it to mmdebstrap's own default.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{ImageError, fresh};

const KEYRINGS: &str = "/usr/share/keyrings";

/// A Debian archive and, where known, its security updates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    archive: String,
    security: Option<String>,
}

impl Mirror {
    /// From `--mirror`: one address, and perhaps a second one, of the security updates.
    pub(crate) fn parse(addresses: &[String]) -> Result<Option<Self>, ImageError> {
        let mut archive = None;
        let mut security = None;
        for address in addresses {
            if !is_address(address) {
                return Err(ImageError::InvalidMirror {
                    mirror: address.clone(),
                });
            }
            let kind = if is_security(address) {
                &mut security
            } else {
                &mut archive
            };
            *kind = Some(address.clone());
        }
        match (archive, security) {
            (Some(archive), security) => Ok(Some(Self { archive, security })),
            (None, None) => Ok(None),
            (None, Some(mirror)) => Err(ImageError::InvalidMirror { mirror }),
        }
    }

    /// The mirror of the host's apt configuration, when the host is Debian and uses one that mmdebstrap can.
    pub(crate) fn of_host() -> Option<Self> {
        Self::of_system(Path::new("/"))
    }

    fn of_system(root: &Path) -> Option<Self> {
        let codename = debian_codename(&fs::read_to_string(root.join("etc/os-release")).ok()?)?;
        let mut sources = Vec::new();
        if let Ok(list) = fs::read_to_string(root.join("etc/apt/sources.list")) {
            sources.extend(parse_one_line(&list));
        }
        for path in fresh::entries(&root.join("etc/apt/sources.list.d")).unwrap_or_default() {
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("list") => sources.extend(parse_one_line(&text)),
                Some("sources") => sources.extend(parse_deb822(&text)),
                _ => {}
            }
        }
        for source in &mut sources {
            source.address = resolve_mirror_list(root, &source.address);
        }
        choose(&sources, &codename)
    }

    /// The lines of a sources.list for `suite`.
    pub(crate) fn sources(&self, suite: &str) -> Vec<String> {
        let archive = &self.archive;
        let mut lines = vec![format!("deb {archive} {suite} main")];
        if matches!(suite, "sid" | "unstable" | "testing" | "experimental") {
            return lines;
        }
        lines.push(format!("deb {archive} {suite}-updates main"));
        lines.extend(
            self.security
                .iter()
                .map(|security| format!("deb {security} {suite}-security main")),
        );
        lines
    }
}

/// That the keys that Debian's packages are signed with are there: without them nothing can be checked.
pub(crate) fn check_keyring() -> Result<(), ImageError> {
    let directory = PathBuf::from(KEYRINGS);
    let names = ["debian-archive-keyring.gpg", "debian-archive-keyring.pgp"];
    if names.iter().any(|name| directory.join(name).exists()) {
        return Ok(());
    }
    Err(ImageError::KeyringMissing { directory })
}

/// One suite of one archive in apt's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    address: String,
    suite: String,
    has_main: bool,
}

/// The mirror that a list of either form names.
#[cfg(feature = "fuzzing")]
pub(crate) fn of_list(list: &str, codename: &str) -> Option<Mirror> {
    choose(&[parse_one_line(list), parse_deb822(list)].concat(), codename)
}

/// Other archives may use Debian's suite names too; Debian's own has updates or is called `debian`.
fn choose(sources: &[Source], codename: &str) -> Option<Mirror> {
    let usable = |source: &&Source| source.has_main && is_address(&source.address);
    let updates = format!("{codename}-updates");
    let has_updates = |address: &str| {
        sources
            .iter()
            .any(|source| source.suite == updates && source.address == address)
    };
    let archive = sources
        .iter()
        .filter(usable)
        .filter(|source| source.suite == codename || source.suite == "stable")
        .find(|source| last_segment(&source.address) == "debian" || has_updates(&source.address))?;
    let security = sources
        .iter()
        .filter(usable)
        .filter(|source| source.suite == format!("{codename}-security") || source.suite == "stable-security")
        .find(|source| is_security(&source.address) || source.address == archive.address);
    Some(Mirror {
        archive: archive.address.clone(),
        security: security.map(|source| source.address.clone()),
    })
}

fn is_address(address: &str) -> bool {
    let schemes = ["http://", "https://"];
    schemes
        .iter()
        .any(|scheme| address.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
        && !address.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn is_security(address: &str) -> bool {
    last_segment(address).contains("security") || address.contains("//security.")
}

fn last_segment(address: &str) -> &str {
    address
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default()
}

fn debian_codename(os_release: &str) -> Option<String> {
    let value = |key: &str| {
        let line = os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME"))?
}

/// `deb [options] ADDRESS SUITE COMPONENT…` (sources.list(5)).
fn parse_one_line(list: &str) -> Vec<Source> {
    list.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    if let Some(options) = rest.strip_prefix('[') {
        rest = options.split_once(']')?.1;
    }
    let mut words = rest.split_whitespace();
    Some(Source {
        address: words.next()?.to_owned(),
        suite: words.next()?.to_owned(),
        has_main: words.any(|component| component == "main"),
    })
}

/// Stanzas of `Field: values`, continued by lines that begin with a space (sources.list(5), "deb822-style format").
fn parse_deb822(text: &str) -> Vec<Source> {
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    text.split("\n\n").flat_map(parse_stanza).collect()
}

fn parse_stanza(stanza: &str) -> Vec<Source> {
    let field = |name: &str| -> Vec<&str> {
        let mut values = Vec::new();
        let mut inside = false;
        for line in stanza.lines() {
            if line.starts_with([' ', '\t']) {
                if inside {
                    values.extend(line.split_whitespace());
                }
            } else if let Some((key, value)) = line.split_once(':') {
                inside = key.eq_ignore_ascii_case(name);
                if inside {
                    values.extend(value.split_whitespace());
                }
            }
        }
        values
    };
    if field("Enabled").first() == Some(&"no") || !field("Types").contains(&"deb") {
        return Vec::new();
    }
    let has_main = field("Components").contains(&"main");
    let suites = field("Suites");
    let of_address = |address: &str| -> Vec<Source> {
        let source = |suite: &&str| Source {
            address: address.to_owned(),
            suite: (*suite).to_owned(),
            has_main,
        };
        suites.iter().map(source).collect()
    };
    field("URIs").into_iter().flat_map(of_address).collect()
}

/// Debian's cloud images name a file of mirrors (apt-transport-mirror(1)): the first one in it.
fn resolve_mirror_list(root: &Path, address: &str) -> String {
    let Some(path) = address.strip_prefix("mirror+file:") else {
        return address.to_owned();
    };
    let list = fs::read_to_string(root.join(path.trim_start_matches('/'))).unwrap_or_default();
    let first = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .find(|word| is_address(word));
    first.unwrap_or(address).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCHIVE: &str = "http://mirror.example/debian";
    const SECURITY: &str = "http://mirror.example/debian-security";

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        let os_release = ("etc/os-release", "ID=debian\nVERSION_CODENAME=bookworm\n");
        for (path, text) in [os_release].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        root
    }

    fn both() -> Option<Mirror> {
        Some(Mirror {
            archive: ARCHIVE.to_owned(),
            security: Some(SECURITY.to_owned()),
        })
    }

    #[test]
    fn reads_the_one_line_format() {
        let list = "# deb http://no.example/debian bookworm main\n\
            deb https://packages.example/other bookworm main\n\
            deb [arch=amd64 signed-by=/x.gpg] http://mirror.example/debian bookworm main contrib # first\n\
            deb-src http://no.example/debian bookworm main\n\
            deb http://mirror.example/debian bookworm-updates main\n\
            deb http://mirror.example/debian-security bookworm-security main\n";
        let root = system(&[("etc/apt/sources.list", list)]);
        assert_eq!(Mirror::of_system(root.path()), both());
    }

    #[test]
    fn reads_the_deb822_format() {
        let debian = "Types: deb deb-src\n# why not\nURIs: http://mirror.example/debian\nSuites: bookworm\n bookworm-updates\n\
            Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n\n\
            Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n";
        let other =
            "Types: deb\nURIs: https://packages.example/debian\nSuites: bookworm\nComponents: stable\n";
        let disabled =
            "Enabled: no\nTypes: deb\nURIs: http://no.example/debian\nSuites: bookworm\nComponents: main\n";
        let root = system(&[
            ("etc/apt/sources.list.d/a.sources", other),
            ("etc/apt/sources.list.d/b.sources", disabled),
            ("etc/apt/sources.list.d/debian.sources", debian),
            (
                "etc/apt/sources.list.d/ignored.save",
                "deb http://no.example/debian bookworm main",
            ),
        ]);
        assert_eq!(Mirror::of_system(root.path()), both());
    }

    #[test]
    fn reads_the_mirror_lists_of_cloud_images() {
        let sources = "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: bookworm bookworm-updates\n\
            Components: main\n\nTypes: deb\nURIs: mirror+file:///etc/apt/mirrors/debian-security.list\n\
            Suites: bookworm-security\nComponents: main\n";
        let root = system(&[
            ("etc/apt/sources.list.d/debian.sources", sources),
            (
                "etc/apt/mirrors/debian.list",
                "http://mirror.example/debian priority:1\n",
            ),
            (
                "etc/apt/mirrors/debian-security.list",
                "http://mirror.example/debian-security\n",
            ),
        ]);
        assert_eq!(Mirror::of_system(root.path()), both());
    }

    #[test]
    fn elsewhere_there_is_none() {
        let list = "deb http://mirror.example/debian bookworm main\n";
        let root = system(&[
            ("etc/apt/sources.list", list),
            ("etc/os-release", "ID=ubuntu\nVERSION_CODENAME=jammy\n"),
        ]);
        assert_eq!(Mirror::of_system(root.path()), None);
        assert_eq!(Mirror::of_system(&root.path().join("none")), None);
        let root = system(&[("etc/apt/sources.list", "deb cdrom:[Debian]/ bookworm main\n")]);
        assert_eq!(Mirror::of_system(root.path()), None);
    }

    #[test]
    fn names_the_suites_of_another_release() {
        let sources = both().expect("both").sources("trixie");
        let expected = [
            "deb http://mirror.example/debian trixie main",
            "deb http://mirror.example/debian trixie-updates main",
            "deb http://mirror.example/debian-security trixie-security main",
        ];
        assert_eq!(sources, expected);
        assert_eq!(both().expect("both").sources("sid").len(), 1);
    }

    #[test]
    fn the_command_line_gives_an_archive_and_perhaps_security() {
        let parse = |addresses: &[&str]| {
            Mirror::parse(
                &addresses
                    .iter()
                    .map(|text| (*text).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(parse(&[SECURITY, ARCHIVE]).expect("good"), both());
        assert_eq!(parse(&[]).expect("none"), None);
        for bad in ["", "ftp", "http://", "http://a b/debian", "--help", SECURITY] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}

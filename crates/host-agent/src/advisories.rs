//! Whether a version is one with a known hole. Pure: data and versions in, advisories out.
//!
//! ```text
//! advisories.toml ─► Advisory ─┐
//! `1.16.0`, a kernel's banner ─► Version ─┴─► affected?
//! ```

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

const DATA: &str = include_str!("advisories.toml");
/// What a kernel's banner begins with, in its image.
pub(crate) const BANNER: &[u8] = b"Linux version ";

/// Three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    fn series(self) -> (u32, u32) {
        (self.0, self.1)
    }
}

impl FromStr for Version {
    type Err = String;

    /// `6.1.131`, or `6.14` for the first of a series. Nothing else: what is not understood is not compared.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            let digits = (1..=5).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
        match parts.as_deref() {
            Some(&[major, minor]) => Ok(Self(major, minor, 0)),
            Some(&[major, minor, patch]) => Ok(Self(major, minor, patch)),
            _ => Err(format!("{text:?} is no version")),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What has the hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Component {
    Firecracker,
    GuestKernel,
    HostKernel,
}

/// A known hole. The file says what the fields mean.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Advisory {
    pub(crate) id: String,
    component: Component,
    since: Option<Version>,
    fixed: Vec<Version>,
    #[serde(default = "yes")]
    pub(crate) matters: bool,
    pub(crate) what: String,
    pub(crate) remedy: String,
    pub(crate) source: String,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    advisory: Vec<Advisory>,
}

impl Advisory {
    fn affects(&self, version: Version) -> bool {
        let old_enough = self.fixed.last().is_some_and(|newest| version < *newest);
        let mended = |fix: &Version| fix.series() == version.series() && version >= *fix;
        old_enough && self.since.is_none_or(|since| version >= since) && !self.fixed.iter().any(mended)
    }

    /// The first versions without it, as a text.
    pub(crate) fn fixed(&self) -> String {
        let fixed: Vec<_> = self.fixed.iter().map(Version::to_string).collect();
        fixed.join(", ")
    }
}

/// The holes that this version of it has.
///
/// # Errors
/// The data is damaged. The tests see to it that this does not happen.
pub(crate) fn of(component: Component, version: Version) -> Result<Vec<Advisory>, String> {
    let File { advisory } = toml::from_str(DATA).map_err(|error| error.to_string())?;
    let affects = |advisory: &Advisory| advisory.component == component && advisory.affects(version);
    Ok(advisory.into_iter().filter(affects).collect())
}

/// The version of the kernel's own project that a kernel is made of, by its release (`uname -r`) and what its build says
/// (`uname -v`). `None` where a distribution numbers its kernels by itself and does not say: such a kernel cannot be compared.
pub(crate) fn kernel_version(release: &str, build: &str) -> Option<Version> {
    // Debian: `#1 SMP PREEMPT_DYNAMIC Debian 6.1.153-1 (2025-09-20)`.
    if let Some((_, rest)) = build.split_once(" Debian ") {
        let (upstream, _revision) = rest.split(' ').next()?.split_once(['-', '~', '+'])?;
        return upstream.parse().ok();
    }
    let numbers = release.split(['-', '+', '_']).next()?;
    let version: Version = numbers.parse().ok()?;
    // Distributions stay at the first version of a series in the name, and count behind it.
    let own =
        numbers == release || (numbers.split('.').count() == 3 && version.2 > 0 && !is_distribution(release));
    own.then_some(version)
}

/// Red Hat and its like: the patches are theirs, whatever the number.
fn is_distribution(release: &str) -> bool {
    [
        ".el", ".fc", ".amzn", "-generic", "-azure", "-aws", "-gcp", "-default",
    ]
    .iter()
    .any(|mark| release.contains(mark))
}

/// The release and the build in a kernel's image.
pub(crate) fn banner(image: &[u8]) -> Option<(String, String)> {
    let at = memchr::memmem::find(image, BANNER)? + BANNER.len();
    let line = image[at..].split(|byte| matches!(byte, b'\n' | 0)).next()?;
    let text = str::from_utf8(&line[..line.len().min(512)]).ok()?;
    let (release, _) = text.split_once(' ')?;
    let build = text.find(" #").map_or("", |at| &text[at + 1..]);
    Some((release.to_owned(), build.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(component: Component, version: &str) -> Vec<String> {
        let found = of(component, version.parse().unwrap()).unwrap();
        found.into_iter().map(|advisory| advisory.id).collect()
    }

    #[test]
    fn every_advisory_is_whole() {
        let File { advisory } = toml::from_str(DATA).unwrap();
        assert!(advisory.len() >= 8);
        for entry in advisory {
            assert!(!entry.fixed.is_empty() && entry.fixed.is_sorted(), "{}", entry.id);
            assert!(!entry.what.is_empty() && !entry.remedy.is_empty(), "{}", entry.id);
            assert!(entry.source.starts_with("https://"), "{}", entry.id);
            assert!(
                entry.since.is_none_or(|since| since < entry.fixed[0]),
                "{}",
                entry.id
            );
        }
    }

    #[test]
    fn firecrackers_are_compared_series_by_series() {
        assert_eq!(ids(Component::Firecracker, "1.7.0"), ["CVE-2026-1386"]);
        assert_eq!(
            ids(Component::Firecracker, "1.13.1"),
            ["CVE-2026-1386", "CVE-2026-5747"]
        );
        assert_eq!(ids(Component::Firecracker, "1.13.2"), ["CVE-2026-5747"]);
        assert_eq!(
            ids(Component::Firecracker, "1.14.0"),
            ["CVE-2026-1386", "CVE-2026-5747"]
        );
        assert_eq!(ids(Component::Firecracker, "1.14.4"), [""; 0]);
        assert_eq!(ids(Component::Firecracker, "1.15.0"), ["CVE-2026-5747"]);
        assert_eq!(ids(Component::Firecracker, "1.16.0"), ["firecracker-5958"]);
        assert_eq!(ids(Component::Firecracker, "1.16.1"), [""; 0]);
    }

    #[test]
    fn kernels_are_compared_series_by_series() {
        let guest = |version| ids(Component::GuestKernel, version);
        assert!(guest("6.1.116").contains(&"CVE-2024-50264".to_owned()));
        assert!(!guest("6.1.117").contains(&"CVE-2024-50264".to_owned()));
        assert!(
            guest("6.2.16").contains(&"CVE-2024-50264".to_owned()),
            "a series that ended before"
        );
        assert!(
            !guest("4.4.0").contains(&"CVE-2025-21756".to_owned()),
            "it came later"
        );
        assert_eq!(guest("6.19.0"), [""; 0]);
        assert_eq!(ids(Component::HostKernel, "6.18.5"), [""; 0]);
        assert_eq!(ids(Component::HostKernel, "6.12.46"), ["CVE-2025-40300"]);
    }

    #[test]
    fn versions_are_read_strictly() {
        assert_eq!("6.14".parse(), Ok(Version(6, 14, 0)));
        for wrong in [
            "",
            "6",
            "6.1.2.3",
            "6.1.x",
            "6.1.-1",
            "6.1.2-rc1",
            " 6.1.2",
            "6..1",
            "+6.1.1",
            "6.1.999999",
        ] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn kernels_tell_what_they_are_made_of() {
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.153-1 (2025-09-20)";
        assert_eq!(
            kernel_version("6.1.0-40-cloud-amd64", debian),
            Some(Version(6, 1, 153))
        );
        let backport = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.43-1~bpo12+1 (2025-09-06)";
        assert_eq!(
            kernel_version("6.12.43+deb12-amd64", backport),
            Some(Version(6, 12, 43))
        );
        assert_eq!(kernel_version("6.18.5", "#1 SMP x"), Some(Version(6, 18, 5)));
        assert_eq!(kernel_version("6.1.155+", "#1 SMP x"), Some(Version(6, 1, 155)));
        assert_eq!(
            kernel_version("6.1.155-tuned", "#1 SMP x"),
            Some(Version(6, 1, 155))
        );
        for (release, build) in [
            ("6.8.0-45-generic", "#45-Ubuntu SMP"),
            ("5.14.0-427.13.1.el9_4.x86_64", "#1 SMP"),
            ("6.1.112-122.189.amzn2023.x86_64", "#1 SMP"),
            ("6.1.0-40-cloud-amd64", "#1 SMP Debian nonsense"),
            ("", ""),
        ] {
            assert_eq!(kernel_version(release, build), None, "{release}");
        }
    }

    #[test]
    fn the_banner_is_found_in_an_image() {
        let image = b"\x7fELF\0\0Linux version 6.1.0-40-cloud-amd64 (d@d) (gcc-12) #1 SMP Debian 6.1.153-1 (2025)\n\0rest";
        let expected = (
            "6.1.0-40-cloud-amd64".to_owned(),
            "#1 SMP Debian 6.1.153-1 (2025)".to_owned(),
        );
        assert_eq!(banner(image), Some(expected));
        assert_eq!(banner(b"\x7fELF"), None);
        assert_eq!(banner(b"Linux version \xff\n"), None);
    }
}

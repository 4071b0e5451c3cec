//! Firecracker's official release, where the network allows: the tarball is checked against the SHA-256 published beside it, then
//! `firecracker` and `jailer` go into the store.

use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Agent;

use crate::fresh::publish_file;
use crate::initramfs::hex;
use crate::progress::{Progress, Report, Unit};
use crate::{ImageError, Store};

/// Where the project publishes its releases.
pub const FIRECRACKER_RELEASES: &str = "https://github.com/firecracker-microvm/firecracker/releases/download";

const MAX_TARBALL: u64 = 256 * 1024 * 1024;
const MAX_PROGRAM: u64 = 128 * 1024 * 1024;
const MAX_CHECKSUM: u64 = 4096;
/// For one address to answer, and for a whole download.
const CONNECT: Duration = Duration::from_secs(15);
const DOWNLOAD: Duration = Duration::from_secs(600);

/// A release to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirecrackerRelease<'a> {
    /// `1.16.1`, with or without a `v`.
    pub version: &'a str,
    /// Usually [`FIRECRACKER_RELEASES`].
    pub base_url: &'a str,
}

/// What was installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledFirecracker {
    /// The VMM.
    pub firecracker: PathBuf,
    /// Its jailer.
    pub jailer: PathBuf,
}

impl Store {
    /// Downloads, checks and installs a release below [`Store::programs`].
    ///
    /// # Errors
    /// When the version is no version, there is no network or no such release, or the tarball is not the published one.
    pub fn install_firecracker(
        &self,
        release: &FirecrackerRelease<'_>,
        report: &dyn Fn(Progress<'_>),
    ) -> Result<InstalledFirecracker, ImageError> {
        let version = checked_version(release.version)?;
        let _lock = self.lock(report)?;
        let url = format!(
            "{}/v{version}/firecracker-v{version}-x86_64.tgz",
            release.base_url
        );
        let client = client(release.base_url);
        let published = published_digest(&client, &format!("{url}.sha256.txt"))?;
        let tarball = download(
            &client,
            &url,
            MAX_TARBALL,
            &format!("Firecracker {version}"),
            report,
        )?;
        let actual = hex(&Sha256::digest(&tarball));
        if actual != published {
            return Err(ImageError::Checksum {
                url,
                expected: published,
                actual,
            });
        }
        let install = |program: &str| {
            let contents = unpack(&tarball, &format!("{program}-v{version}-x86_64")).map_err(|reason| {
                ImageError::Download {
                    url: url.clone(),
                    reason,
                }
            })?;
            let path = self.programs().join(program);
            publish_file(&path, &contents, 0o755)?;
            Ok(path)
        };
        Ok(InstalledFirecracker {
            jailer: install("jailer")?,
            firecracker: install("firecracker")?,
        })
    }
}

/// Three numbers: nothing else may become part of an address or a path.
pub(crate) fn checked_version(version: &str) -> Result<&str, ImageError> {
    let bare = version.strip_prefix('v').unwrap_or(version);
    let is_number =
        |part: &str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
    if bare.split('.').count() == 3 && bare.split('.').all(is_number) {
        Ok(bare)
    } else {
        Err(ImageError::InvalidVersion {
            version: version.to_owned(),
        })
    }
}

fn client(base_url: &str) -> Agent {
    Agent::config_builder()
        .https_only(base_url.starts_with("https:"))
        .timeout_connect(Some(CONNECT))
        .timeout_resolve(Some(CONNECT))
        .timeout_global(Some(DOWNLOAD))
        .user_agent(concat!("runner-codes/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

fn published_digest(client: &Agent, url: &str) -> Result<String, ImageError> {
    let text = download(client, url, MAX_CHECKSUM, "", &|_| {})?;
    parse_digest(&text).ok_or_else(|| ImageError::Download {
        url: url.to_owned(),
        reason: "it has no SHA-256 in it".to_owned(),
    })
}

/// The first word of what `sha256sum` writes.
pub(crate) fn parse_digest(text: &[u8]) -> Option<String> {
    let word = str::from_utf8(text).ok()?.split_whitespace().next()?;
    let is_digest = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| word.to_ascii_lowercase())
}

fn download(
    client: &Agent,
    url: &str,
    limit: u64,
    step: &str,
    report: Report<'_>,
) -> Result<Vec<u8>, ImageError> {
    let failed = |reason: String| ImageError::Download {
        url: url.to_owned(),
        reason,
    };
    let response = client
        .get(url)
        .call()
        .map_err(|error| failed(error.to_string()))?;
    let total = response.body().content_length();
    if total.is_some_and(|total| total > limit) {
        return Err(failed(format!("it is larger than {limit} bytes")));
    }
    report(Progress::Started {
        step,
        unit: Unit::Bytes,
        total,
    });
    let mut body = response.into_body().into_reader().take(limit + 1);
    let mut bytes = Vec::new();
    let mut block = vec![0; 64 * 1024];
    loop {
        let length = body.read(&mut block).map_err(|error| failed(error.to_string()))?;
        if length == 0 {
            break;
        }
        bytes.extend_from_slice(&block[..length]);
        report(Progress::Advanced(bytes.len() as u64));
    }
    if bytes.len() as u64 > limit {
        return Err(failed(format!("it is larger than {limit} bytes")));
    }
    report(Progress::Finished);
    Ok(bytes)
}

/// The file of that name in a gzipped tar, in whatever directory.
pub(crate) fn unpack(tarball: &[u8], name: &str) -> Result<Vec<u8>, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(tarball));
    let damaged = |error: std::io::Error| format!("it is damaged: {error}");
    for entry in archive.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let is_it = {
            let path = entry.path().map_err(damaged)?;
            last_component(&path).is_some_and(|last| last == name)
        };
        if is_it && entry.header().entry_type().is_file() {
            let mut contents = Vec::new();
            entry
                .take(MAX_PROGRAM)
                .read_to_end(&mut contents)
                .map_err(damaged)?;
            return Ok(contents);
        }
    }
    Err(format!("it has no {name} in it"))
}

fn last_component(path: &Path) -> Option<&str> {
    match path.components().next_back()? {
        Component::Normal(name) => name.to_str(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;
    use std::thread::{self, JoinHandle};

    use super::*;

    /// Answers exactly `requests` requests, then ends.
    fn serve(files: HashMap<String, Vec<u8>>, requests: usize) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let server = thread::spawn(move || {
            for _ in 0..requests {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
                let request = lines.next().expect("a line").expect("text");
                let path = request.split(' ').nth(1).expect("a path").to_owned();
                while lines
                    .next()
                    .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                {}
                let (status, body) = match files.get(&path) {
                    Some(body) => ("200 OK", body.as_slice()),
                    None => ("404 Not Found", &b""[..]),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).expect("sent");
                // A client that has read enough may be gone.
                let _ = stream.write_all(body);
            }
        });
        (address, server)
    }

    fn tarball() -> Vec<u8> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        for (name, contents) in [
            ("firecracker", "vmm"),
            ("firecracker.debug", "no"),
            ("jailer", "jail"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(contents.len() as u64);
            let (stem, suffix) = name.split_once('.').unwrap_or((name, ""));
            let dot = if suffix.is_empty() { "" } else { "." };
            let path = format!("release-v1.16.1-x86_64/{stem}-v1.16.1-x86_64{dot}{suffix}");
            tar.append_data(&mut header, path, contents.as_bytes())
                .expect("to memory");
        }
        tar.into_inner().expect("to memory").finish().expect("to memory")
    }

    fn install(
        published: &str,
        tarball: Vec<u8>,
        requests: usize,
    ) -> (tempfile::TempDir, Result<InstalledFirecracker, ImageError>) {
        let path = "/v1.16.1/firecracker-v1.16.1-x86_64.tgz";
        let files = HashMap::from([
            (path.to_owned(), tarball),
            (format!("{path}.sha256.txt"), published.as_bytes().to_vec()),
        ]);
        let (base_url, server) = serve(files, requests);
        let root = tempfile::tempdir().expect("a directory");
        let release = FirecrackerRelease {
            version: "v1.16.1",
            base_url: &base_url,
        };
        let installed = Store::open(root.path()).install_firecracker(&release, &|_| {});
        server.join().expect("the server ends");
        (root, installed)
    }

    fn published(tarball: &[u8]) -> String {
        format!(
            "{}  firecracker-v1.16.1-x86_64.tgz\n",
            hex(&Sha256::digest(tarball))
        )
    }

    #[test]
    fn a_release_that_matches_its_checksum_is_installed() {
        let (_root, installed) = install(&published(&tarball()), tarball(), 2);
        let installed = installed.expect("installed");
        assert_eq!(fs::read(&installed.firecracker).expect("there"), b"vmm");
        assert_eq!(fs::read(&installed.jailer).expect("there"), b"jail");
        let mode = fs::metadata(&installed.firecracker)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn a_tarball_that_is_not_the_published_one_is_refused() {
        let (root, installed) = install(&published(b"another"), tarball(), 2);
        assert!(
            matches!(installed, Err(ImageError::Checksum { .. })),
            "{installed:?}"
        );
        assert!(!root.path().join("bin").exists());
    }

    #[test]
    fn a_checksum_that_is_none_is_refused() {
        let (_root, installed) = install("<html>", tarball(), 1);
        assert!(
            matches!(installed, Err(ImageError::Download { .. })),
            "{installed:?}"
        );
    }

    #[test]
    fn a_tarball_without_the_programs_is_refused() {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let empty = tar::Builder::new(gzip)
            .into_inner()
            .expect("to memory")
            .finish()
            .expect("to memory");
        let (_root, installed) = install(&published(&empty), empty, 2);
        assert!(
            matches!(installed, Err(ImageError::Download { .. })),
            "{installed:?}"
        );
    }

    #[test]
    fn no_such_release_and_no_server_are_download_failures() {
        let (base_url, server) = serve(HashMap::new(), 1);
        let root = tempfile::tempdir().expect("a directory");
        let store = Store::open(root.path());
        let release = FirecrackerRelease {
            version: "1.16.1",
            base_url: &base_url,
        };
        let missing = store.install_firecracker(&release, &|_| {}).expect_err("404");
        assert!(missing.to_string().contains("404"), "{missing}");
        server.join().expect("the server ends");
        let refused = store
            .install_firecracker(&release, &|_| {})
            .expect_err("nobody listens");
        let host: protocol::HostError = refused.into();
        assert_eq!(host.code, protocol::ErrorCode::DownloadFailed);
    }

    #[test]
    fn only_versions_become_part_of_an_address() {
        assert_eq!(checked_version("v1.16.1").expect("good"), "1.16.1");
        for bad in [
            "", "1.16", "1.16.1.2", "1.16.x", "../1.2.3", "1.2.3/..", "1.2.", "1.2.3-rc",
        ] {
            assert!(checked_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_download_over_its_limit_is_refused() {
        let (base_url, server) = serve(HashMap::from([("/x".to_owned(), vec![0; 100])]), 1);
        let error =
            download(&client(&base_url), &format!("{base_url}/x"), 99, "x", &|_| {}).expect_err("too large");
        assert!(error.to_string().contains("larger than 99"), "{error}");
        server.join().expect("the server ends");
    }
}

//! The files of a job. Both ways they are handled by a process that is already the job's user in the job's root, so a
//! link or a strange file gets at nothing that the code itself could not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::limits::MAX_FILE_BYTES;
use protocol::{ErrorCode, FileSpec, HostError};

use crate::output::text;

const DEFAULT_MODE: u32 = 0o644;

/// Writes the files that have content, below `directory` where their paths are relative.
///
/// # Errors
/// `invalid_request`, with the file that could not be written.
pub(crate) fn write_all(files: &[FileSpec], directory: &Path) -> Result<(), HostError> {
    for file in files {
        if let Some(content) = content(file) {
            let path = directory.join(&file.path);
            write(&path, &content, file.mode.unwrap_or(DEFAULT_MODE))
                .map_err(|error| refused(&path, &error))?;
        }
    }
    Ok(())
}

/// Writes one file and the directories above it. A link at `path` itself is not followed.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)
}

/// Reads back the files that are to be collected, at most [`MAX_FILE_BYTES`] together. One that is missing, no regular
/// file, or beyond that comes back without content.
pub(crate) fn collect(files: &[FileSpec], directory: &Path) -> Vec<FileSpec> {
    let mut room = MAX_FILE_BYTES;
    files
        .iter()
        .filter(|file| file.collect)
        .map(|file| {
            let read = read(&directory.join(&file.path), room).ok();
            room -= read.as_ref().map_or(0, |(bytes, _)| bytes.len());
            collected(file.path.clone(), read)
        })
        .collect()
}

fn collected(path: String, read: Option<(Vec<u8>, u32)>) -> FileSpec {
    let mut file = FileSpec {
        path,
        collect: true,
        ..FileSpec::default()
    };
    if let Some((bytes, mode)) = read {
        file.mode = Some(mode);
        match text(bytes) {
            (_, Some(encoded)) => file.content_base64 = Some(encoded),
            (text, None) => file.content = Some(text),
        }
    }
    file
}

fn read(path: &Path, most: usize) -> io::Result<(Vec<u8>, u32)> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let status = file.metadata()?;
    if !status.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let bytes = read_at_most(file, most)?;
    Ok((bytes, status.permissions().mode() & 0o777))
}

/// The file's own size is not believed.
fn read_at_most(file: File, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        Err(io::ErrorKind::FileTooLarge.into())
    } else {
        Ok(bytes)
    }
}

fn content(file: &FileSpec) -> Option<Vec<u8>> {
    let encoded = || {
        file.content_base64
            .as_ref()
            .and_then(|encoded| STANDARD.decode(encoded).ok())
    };
    file.content
        .as_ref()
        .map(|text| text.clone().into_bytes())
        .or_else(encoded)
}

fn refused(path: &Path, error: &io::Error) -> HostError {
    HostError::new(
        ErrorCode::InvalidRequest,
        format!("cannot write the file {}: {error}", path.display()),
    )
    .remedy("name a place where the guest's user `runner` may write, such as a relative path")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(path: &str, content: Option<&str>) -> FileSpec {
        FileSpec {
            path: path.to_owned(),
            content: content.map(str::to_owned),
            collect: true,
            ..FileSpec::default()
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let directory = tempfile::tempdir().unwrap();
        let binary = FileSpec {
            path: "deep/er/b".to_owned(),
            content_base64: Some("/wA=".to_owned()),
            mode: Some(0o755),
            collect: true,
            ..FileSpec::default()
        };
        let files = [file("a.txt", Some("hé")), binary.clone()];
        write_all(&files, directory.path()).unwrap();
        let back = collect(&files, directory.path());
        assert_eq!(back[0].content.as_deref(), Some("hé"));
        assert_eq!(back[1], binary);
    }

    #[test]
    fn only_regular_files_come_back() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("secret"), "x").unwrap();
        symlink("secret", directory.path().join("link")).unwrap();
        fs::create_dir(directory.path().join("directory")).unwrap();
        let asked = ["link", "directory", "missing", "/dev/zero"].map(|path| file(path, None));
        let back = collect(&asked, directory.path());
        assert_eq!(back.len(), 4);
        assert!(
            back.iter()
                .all(|file| file.content.is_none() && file.content_base64.is_none())
        );
    }

    #[test]
    fn a_link_is_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        symlink("/tmp/elsewhere", directory.path().join("link")).unwrap();
        let error = write_all(&[file("link", Some("x"))], directory.path()).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest);
    }

    #[test]
    fn the_sum_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a"), vec![b'a'; MAX_FILE_BYTES - 1]).unwrap();
        fs::write(directory.path().join("b"), "bb").unwrap();
        fs::write(directory.path().join("c"), "c").unwrap();
        let back = collect(&["a", "b", "c"].map(|path| file(path, None)), directory.path());
        assert_eq!(
            back.iter().map(|file| file.content.is_some()).collect::<Vec<_>>(),
            [true, false, true]
        );
    }
}

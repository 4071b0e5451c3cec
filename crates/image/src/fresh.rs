//! New files and directories that appear whole or not at all: made under a temporary name, synced, then renamed.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::ImageError;

/// Temporary files that are made without the store's lock begin with this.
pub(crate) const TEMPORARY: &str = ".new-";

/// A small temporary file that has been there for so long is nobody's.
const ABANDONED: Duration = Duration::from_secs(600);

/// A directory under way, removed when dropped unpublished.
#[derive(Debug)]
pub(crate) struct FreshDirectory {
    directory: TempDir,
}

impl FreshDirectory {
    /// An empty one in `parent`, which must be on the same filesystem as where it is to be published.
    pub(crate) fn new(parent: &Path) -> Result<Self, ImageError> {
        Self::with_mode(parent, 0o755)
    }

    /// As [`FreshDirectory::new`], for this user only.
    pub(crate) fn private(parent: &Path) -> Result<Self, ImageError> {
        Self::with_mode(parent, 0o700)
    }

    fn with_mode(parent: &Path, mode: u32) -> Result<Self, ImageError> {
        let directory = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(fs::Permissions::from_mode(mode))
            .tempdir_in(parent)
            .map_err(ImageError::io("create a directory in", parent))?;
        Ok(Self { directory })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes it `target`. What was there before is replaced at once and then removed; who has its files open keeps them.
    pub(crate) fn publish(self, target: &Path) -> Result<(), ImageError> {
        sync_files(self.path())?;
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(ImageError::io("create", parent))?;
        }
        match renameat_with(CWD, self.path(), CWD, target, RenameFlags::NOREPLACE) {
            Ok(()) => {
                // It has moved: nothing is left to remove.
                let _ = self.directory.keep();
                Ok(())
            }
            Err(Errno::EXIST) => renameat_with(CWD, self.path(), CWD, target, RenameFlags::EXCHANGE)
                .map_err(|error| ImageError::from_io("replace", target, error.into())),
            Err(error) => Err(ImageError::from_io("create", target, error.into())),
        }
    }
}

fn sync_files(directory: &Path) -> Result<(), ImageError> {
    for entry in fs::read_dir(directory).map_err(ImageError::io("read", directory))? {
        let path = entry.map_err(ImageError::io("read", directory))?.path();
        if path.is_dir() {
            sync_files(&path)?;
        }
        let file = File::open(&path).map_err(ImageError::io("open", &path))?;
        file.sync_all().map_err(ImageError::io("write", &path))?;
    }
    Ok(())
}

/// Writes `contents` to `target`, which then has `mode`, in one step.
///
/// # Errors
/// It cannot be written.
pub fn publish_file(target: &Path, contents: &[u8], mode: u32) -> Result<(), ImageError> {
    let parent = parent_of(target);
    fs::create_dir_all(parent).map_err(ImageError::io("create", parent))?;
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(parent)
        .map_err(ImageError::io("create a file in", parent))?;
    file.write_all(contents)
        .map_err(ImageError::io("write", target))?;
    file.as_file()
        .sync_all()
        .map_err(ImageError::io("write", target))?;
    file.persist(target)
        .map_err(|error| ImageError::from_io("create", target, error.error))?;
    Ok(())
}

/// The directory that a file is in.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Removes a file or a whole directory; that it is gone already is no error.
pub(crate) fn remove(path: &Path) -> Result<(), ImageError> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ImageError::from_io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Whether it is a temporary file that somebody may still be writing.
pub(crate) fn is_being_written(path: &Path) -> bool {
    let is_temporary = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()));
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    is_temporary
        && modified.is_ok_and(|time| {
            SystemTime::now()
                .duration_since(time)
                .is_ok_and(|elapsed| elapsed < ABANDONED)
        })
}

/// What is in a directory, sorted; nothing when it does not exist.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ImageError::from_io("read", directory, error)),
    };
    let mut paths = Vec::new();
    for entry in listing {
        paths.push(entry.map_err(ImageError::io("read", directory))?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let paths = entries(directory).expect("readable");
        paths
            .iter()
            .map(|path| path.file_name().expect("named").to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_directory_appears_whole_and_replaces_the_last() {
        let parent = TempDir::new().expect("a directory");
        let target = parent.path().join("made/it");
        for contents in ["one", "two"] {
            let fresh = FreshDirectory::new(parent.path()).expect("made");
            fs::write(fresh.path().join("file"), contents).expect("written");
            fresh.publish(&target).expect("published");
            assert_eq!(
                fs::read_to_string(target.join("file")).expect("readable"),
                contents
            );
        }
        assert_eq!(names(parent.path()), ["made"]);
    }

    #[test]
    fn an_unpublished_directory_is_gone() {
        let parent = TempDir::new().expect("a directory");
        drop(FreshDirectory::new(parent.path()).expect("made"));
        assert!(names(parent.path()).is_empty());
    }

    #[test]
    fn a_file_has_its_mode_and_leaves_nothing_beside_it() {
        let parent = TempDir::new().expect("a directory");
        let target = parent.path().join("bin/tool");
        for contents in ["one", "two"] {
            publish_file(&target, contents.as_bytes(), 0o755).expect("published");
            assert_eq!(fs::read_to_string(&target).expect("readable"), contents);
        }
        let mode = fs::metadata(&target).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(names(&parent.path().join("bin")), ["tool"]);
    }
}

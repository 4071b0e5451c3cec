//! Puts the guest-runner, as a systemd service, into an existing ext4 image. debugfs writes into the filesystem without mounting it,
//! so this needs no root; it also exits with success when it failed, so everything is read back. All happens on a copy that replaces
//! the image at the end: on any failure the image is what it was.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, fchown};
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempDir};

use crate::filesystem::{self, Ext4Space};
use crate::fresh::{TEMPORARY, parent_of};
use crate::tools::{self, Purpose};
use crate::{ImageError, RootFilesystem, command, identify};

const PROGRAM_DIRECTORY: &str = "/usr/local/bin";
const PROGRAM: &str = "guest-runner";
const UNIT_DIRECTORY: &str = "/etc/systemd/system";
const WANTS_DIRECTORY: &str = "/etc/systemd/system/multi-user.target.wants";
const UNIT: &str = "guest-runner.service";
/// Where systemd itself is, before and since /usr was merged.
const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];

const FILE_MODE: u32 = 0o644;
const PROGRAM_MODE: u32 = 0o755;
/// For the unit, directories and metadata.
const SLACK: u64 = 128 * 1024;

/// What is put into an image.
#[derive(Debug, Clone, Copy)]
pub struct GuestService<'a> {
    /// The static executable.
    pub runner: &'a [u8],
    /// The text of its systemd unit.
    pub unit: &'a str,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// The image has been changed.
    Installed,
    /// The image had exactly this service.
    AlreadyThere,
}

/// Installs and enables the service in the ext4 image at `path`.
///
/// # Errors
/// When the image is not a whole ext4 filesystem with systemd in it, is damaged beyond what `e2fsck -p` mends, or has too little space;
/// when the disk is full. The image is then unchanged.
pub fn inject_guest_runner(path: &Path, service: &GuestService<'_>) -> Result<Injected, ImageError> {
    tools::check(&[Purpose::Inject])?;
    let path = &fs::canonicalize(path).map_err(ImageError::io("open", path))?;
    if identify(path)? != RootFilesystem::Ext4 {
        return Err(ImageError::invalid(path, "it is not ext4"));
    }
    let original = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(ImageError::io("write to", path))?;
    let copy = copy_beside(&original, path)?;
    let image = Image::open(path, copy.path())?;
    image.check("it is damaged beyond what e2fsck mends by itself")?;
    if !image.has_systemd()? {
        return Err(ImageError::invalid(path, "there is no systemd in it"));
    }
    if image.holds(service)? {
        return Ok(Injected::AlreadyThere);
    }
    image.check_space(service)?;
    image.write(service)?;
    image.check("writing into it damaged it")?;
    if !image.holds(service)? {
        return Err(ImageError::invalid(
            path,
            "debugfs could not write the service into it",
        ));
    }
    replace(copy, &original, path)?;
    Ok(Injected::Installed)
}

/// A copy with the same holes, in the same directory.
fn copy_beside(original: &File, path: &Path) -> Result<NamedTempFile, ImageError> {
    let parent = parent_of(path);
    let copy = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(parent)
        .map_err(ImageError::io("create a file in", parent))?;
    copy_sparsely(original, copy.as_file()).map_err(ImageError::io("copy", path))?;
    Ok(copy)
}

fn copy_sparsely(from: &File, to: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut block = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(data))?.min(length);
        at = data;
        while at < end {
            let wanted = usize::try_from(end - at).map_or(block.len(), |left| left.min(block.len()));
            from.read_exact_at(&mut block[..wanted], at)?;
            to.write_all_at(&block[..wanted], at)?;
            at += wanted as u64;
        }
    }
}

fn replace(copy: NamedTempFile, original: &File, path: &Path) -> Result<(), ImageError> {
    let metadata = original.metadata().map_err(ImageError::io("read", path))?;
    let file = copy.as_file();
    file.set_permissions(metadata.permissions())
        .map_err(ImageError::io("write", path))?;
    let own = file.metadata().map_err(ImageError::io("read", path))?;
    if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
        fchown(file, Some(metadata.uid()), Some(metadata.gid()))
            .map_err(ImageError::io("give back the owner of", path))?;
    }
    file.sync_all().map_err(ImageError::io("write", path))?;
    copy.persist(path)
        .map_err(|error| ImageError::from_io("replace", path, error.error))?;
    Ok(())
}

/// The copy under work, and a directory for what goes in and comes out.
struct Image<'a> {
    /// What errors name.
    path: &'a Path,
    copy: &'a Path,
    exchange: TempDir,
}

impl<'a> Image<'a> {
    fn open(path: &'a Path, copy: &'a Path) -> Result<Self, ImageError> {
        let exchange =
            tempfile::tempdir().map_err(ImageError::io("create a directory in", std::env::temp_dir()))?;
        Ok(Self { path, copy, exchange })
    }

    /// Replays the journal and mends what is safe to mend.
    fn check(&self, or: &str) -> Result<(), ImageError> {
        const CLEAN: i32 = 0;
        const MENDED: i32 = 1;
        let mut e2fsck = command::command("e2fsck")?;
        e2fsck.args(["-f", "-p"]).arg(self.copy);
        let (status, output) = command::ended(&mut e2fsck)?;
        match status.code() {
            Some(CLEAN | MENDED) => Ok(()),
            _ => {
                let complaint = output
                    .replace(&*self.copy.to_string_lossy(), "")
                    .replace('\n', " ");
                Err(ImageError::invalid(
                    self.path,
                    format!("{or} ({})", complaint.trim()),
                ))
            }
        }
    }

    fn check_space(&self, service: &GuestService<'_>) -> Result<(), ImageError> {
        const INODES: u64 = 16;
        let Ext4Space { bytes, inodes } = filesystem::ext4_free(self.copy)?;
        let needed = service.runner.len() as u64 + SLACK;
        if bytes < needed || inodes < INODES {
            let reason = format!(
                "it has {bytes} bytes and {inodes} inodes free; the service needs {needed} bytes and {INODES} inodes"
            );
            return Err(ImageError::invalid(self.path, reason));
        }
        Ok(())
    }

    /// Runs commands of debugfs and returns what it prints; its success says nothing.
    fn debugfs(&self, write: bool, commands: &str) -> Result<String, ImageError> {
        let script = self.exchange.path().join("commands");
        fs::write(&script, commands).map_err(ImageError::io("write", &script))?;
        let mut debugfs = command::command("debugfs")?;
        if write {
            debugfs.arg("-w");
        }
        debugfs
            .arg("-f")
            .arg(&script)
            .arg(self.copy)
            .current_dir(self.exchange.path());
        let (_, output) = command::ended(&mut debugfs)?;
        Ok(output)
    }

    fn exists(&self, file: &str) -> Result<bool, ImageError> {
        Ok(self
            .debugfs(false, &format!("stat {file}\n"))?
            .contains("Inode: "))
    }

    fn has_systemd(&self) -> Result<bool, ImageError> {
        Ok(self.exists(SYSTEMD[0])? || self.exists(SYSTEMD[1])?)
    }

    fn write(&self, service: &GuestService<'_>) -> Result<(), ImageError> {
        for (name, contents) in [("runner", service.runner), ("unit", service.unit.as_bytes())] {
            let path = self.exchange.path().join(name);
            fs::write(&path, contents).map_err(ImageError::io("write", &path))?;
        }
        let mut commands = String::new();
        for directory in parents(PROGRAM_DIRECTORY).chain(parents(WANTS_DIRECTORY)) {
            if !self.exists(directory)? {
                commands += &format!("mkdir {directory}\n");
            }
        }
        commands += &put("runner", PROGRAM_DIRECTORY, PROGRAM, PROGRAM_MODE);
        commands += &put("unit", UNIT_DIRECTORY, UNIT, FILE_MODE);
        commands += &format!("cd {WANTS_DIRECTORY}\nrm {UNIT}\nsymlink {UNIT} {UNIT_DIRECTORY}/{UNIT}\n");
        self.debugfs(true, &commands)?;
        Ok(())
    }

    /// Whether the image has exactly this service, enabled.
    fn holds(&self, service: &GuestService<'_>) -> Result<bool, ImageError> {
        let programs = format!("{PROGRAM_DIRECTORY}/{PROGRAM}");
        let unit = format!("{UNIT_DIRECTORY}/{UNIT}");
        let commands = format!("dump {programs} runner-read\ndump {unit} unit-read\n");
        self.debugfs(false, &commands)?;
        let is = |name: &str, contents: &[u8]| {
            let read = fs::read(self.exchange.path().join(name)).unwrap_or_default();
            read == contents
        };
        let program = self.debugfs(false, &format!("stat {programs}\n"))?;
        let unit_file = self.debugfs(false, &format!("stat {unit}\n"))?;
        let link = self.debugfs(false, &format!("stat {WANTS_DIRECTORY}/{UNIT}\n"))?;
        Ok(is("runner-read", service.runner)
            && is("unit-read", service.unit.as_bytes())
            && is_root_file(&program, PROGRAM_MODE)
            && is_root_file(&unit_file, FILE_MODE)
            && link.contains(&format!("link dest: \"{unit}\"")))
    }
}

/// `/a/b` → `/a`, `/a/b`.
fn parents(directory: &str) -> impl Iterator<Item = &str> {
    directory
        .match_indices('/')
        .skip(1)
        .map(|(at, _)| &directory[..at])
        .chain([directory])
}

/// debugfs writes into the current directory only, and takes mode and owner from the source.
fn put(source: &str, directory: &str, name: &str, mode: u32) -> String {
    format!(
        "cd {directory}\nrm {name}\nwrite {source} {name}\nset_inode_field {name} mode 0{:o}\n\
         set_inode_field {name} uid 0\nset_inode_field {name} gid 0\n",
        0o100_000 | mode
    )
}

/// Reads what debugfs's `stat` prints: `Type: regular    Mode:  0755`, `User:     0   Group:     0`.
fn is_root_file(stat: &str, mode: u32) -> bool {
    let field = |name: &str| stat.split_once(name)?.1.split_whitespace().next();
    field("Type:") == Some("regular")
        && field("Mode:") == Some(&format!("{mode:04o}"))
        && field("User:") == Some("0")
        && field("Group:") == Some("0")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use super::*;

    const SERVICE: GuestService<'_> = GuestService {
        runner: b"\x7fELF the runner",
        unit: "[Service]\nExecStart=/usr/local/bin/guest-runner --listen\n",
    };

    fn tools_are_there() -> bool {
        let there = ["debugfs", "e2fsck", "mkfs.ext4"]
            .iter()
            .all(|program| tools::find(program).is_some());
        if !there {
            eprintln!("skipped: e2fsprogs is not installed");
        }
        there
    }

    fn run(program: &'static str, arguments: &[&str]) {
        let mut command: Command = command::command(program).expect("installed");
        let status = command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("run");
        assert!(status.success(), "{program} {arguments:?}");
    }

    /// An ext4 image of `kibibytes` with a systemd that is none.
    fn image(directory: &Path, kibibytes: u32, with_systemd: bool) -> std::path::PathBuf {
        let tree = directory.join("tree");
        fs::create_dir_all(tree.join("etc/systemd")).expect("made");
        if with_systemd {
            fs::create_dir_all(tree.join("usr/lib/systemd")).expect("made");
            fs::write(tree.join("usr/lib/systemd/systemd"), "init").expect("written");
        }
        let path = directory.join("root.ext4");
        let (tree, target) = (tree.to_str().expect("text"), path.to_str().expect("text"));
        run(
            "mkfs.ext4",
            &["-q", "-F", "-d", tree, target, &format!("{kibibytes}k")],
        );
        path
    }

    fn listing(directory: &Path) -> usize {
        fs::read_dir(directory).expect("readable").count()
    }

    #[test]
    fn the_service_is_installed_once_and_renewed_when_it_changes() {
        if !tools_are_there() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = image(directory.path(), 8192, true);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        let files = listing(directory.path());

        assert_eq!(
            inject_guest_runner(&path, &SERVICE).expect("injected"),
            Injected::Installed
        );
        let first = fs::read(&path).expect("readable");
        assert_eq!(
            inject_guest_runner(&path, &SERVICE).expect("there"),
            Injected::AlreadyThere
        );
        assert!(fs::read(&path).expect("readable") == first);

        let renewed = GuestService {
            runner: b"another runner",
            ..SERVICE
        };
        assert_eq!(
            inject_guest_runner(&path, &renewed).expect("injected"),
            Injected::Installed
        );
        run("e2fsck", &["-f", "-n", path.to_str().expect("text")]);
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(listing(directory.path()), files, "nothing is left beside it");
    }

    #[test]
    fn what_is_no_image_for_it_is_refused_and_left_alone() {
        if !tools_are_there() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let refused = |path: &Path, service: &GuestService<'_>, reason: &str| {
            let before = fs::read(path).expect("readable");
            let error = inject_guest_runner(path, service).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
            assert!(fs::read(path).expect("readable") == before, "{reason}");
        };

        let text = directory.path().join("text");
        fs::write(&text, "text").expect("written");
        refused(&text, &SERVICE, "neither squashfs nor ext4");
        refused(&image(directory.path(), 8192, false), &SERVICE, "no systemd");

        let path = image(directory.path(), 8192, true);
        let large = GuestService {
            runner: &vec![1; 16 << 20],
            ..SERVICE
        };
        refused(&path, &large, "bytes and");

        let file = File::options().write(true).open(&path).expect("there");
        file.set_len(4 << 20).expect("cut");
        refused(&path, &SERVICE, "truncated");
    }

    #[test]
    fn a_damaged_filesystem_is_refused() {
        if !tools_are_there() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = image(directory.path(), 8192, true);
        let file = File::options().write(true).open(&path).expect("there");
        // The inode table of the first group.
        file.write_all_at(&[0xff; 64 * 1024], 64 * 1024).expect("written");
        let error = inject_guest_runner(&path, &SERVICE).expect_err("damaged");
        assert!(matches!(error, ImageError::Invalid { .. }), "{error}");
    }

    #[test]
    fn copies_keep_holes() {
        let (from, to) = (
            tempfile::tempfile().expect("a file"),
            tempfile::tempfile().expect("a file"),
        );
        from.set_len(64 << 20).expect("sized");
        from.write_all_at(b"data", 40 << 20).expect("written");
        copy_sparsely(&from, &to).expect("copied");
        let mut read = [0; 4];
        to.read_exact_at(&mut read, 40 << 20).expect("readable");
        assert_eq!(&read, b"data");
        let metadata = to.metadata().expect("there");
        assert_eq!(metadata.len(), 64 << 20);
        assert!(metadata.blocks() * 512 < 4 << 20);
    }

    #[test]
    fn stat_of_debugfs_is_read() {
        let stat = "Inode: 12   Type: regular    Mode:  0755   Flags: 0x80000\nUser:     0   Group:     0   Size: 5\n";
        assert!(is_root_file(stat, 0o755));
        assert!(!is_root_file(stat, 0o644));
        assert!(!is_root_file(&stat.replace("User:     0", "User:  1000"), 0o755));
        assert!(!is_root_file("/x: File not found by ext2_lookup", 0o755));
        assert_eq!(parents("/usr/local").collect::<Vec<_>>(), ["/usr", "/usr/local"]);
    }
}

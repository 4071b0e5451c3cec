//! The directory where all artefacts live, and the one way in: everything is made in a temporary directory under a lock and then
//! renamed into place, so a reader sees whole artefacts only, parallel set-ups wait for each other, and what an interrupted one left is
//! swept by the next.
//!
//! ```text
//! lock                      held while something is being made
//! tmp/                      what is being made
//! kernels/<name>/           vmlinux, modules/, kernel.json
//! initramfs/<digest>.cpio   one for each guest-runner and kernel
//! templates/<name>/         rootfs.squashfs, template.json
//! scratch.ext4
//! bin/                      firecracker, jailer
//! snapshots/, verified/     see the module `snapshot`
//! keys/                     see the module `signing`
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::fresh::{self, FreshDirectory, publish_file};
use crate::kernel::{self, KernelChoice, KernelManifest, MODULES, VMLINUX};
use crate::mirror::Mirror;
use crate::modules::ModuleSet;
use crate::progress::{Progress, Report, Unit};
use crate::template::{ROOTFS, Recipe, TemplateManifest};
use crate::{
    ImageError, RootFilesystem, extract, filesystem, identify, initramfs, mmdebstrap, rootfs, scratch, tuned,
};

/// Initramfs of older guest-runners, and temporary files that nobody can still be writing, go after this.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A store of artefacts. Opening one touches nothing.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What [`Store::prepare`] is to make.
#[derive(Debug, Clone)]
pub struct Want<'a> {
    /// The kernel.
    pub kernel: KernelChoice,
    /// Templates by name.
    pub templates: &'a [&'a str],
    /// Addresses that replace the host's own mirror: of the archive, and perhaps of its security updates.
    pub mirror: &'a [String],
    /// Make anew what is there already.
    pub force: bool,
}

/// What [`Store::prepare`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// What was made, in words: `kernel debian`, `template base`. Empty when all was there.
    pub made: Vec<String>,
}

/// What a machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// ELF.
    pub kernel: PathBuf,
    /// Guest-runner and modules.
    pub initramfs: PathBuf,
}

/// Everything that a machine is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefacts {
    /// Kernel and initramfs.
    pub boot: BootFiles,
    /// The root filesystem, squashfs.
    pub rootfs: PathBuf,
    /// A formatted scratch disk, to be copied.
    pub scratch: PathBuf,
    /// What is in the root filesystem.
    pub template: TemplateManifest,
}

impl Store {
    /// Where a store is when nobody says otherwise: `/var/lib/runner-codes` for root, else `runner-codes` in the user's data
    /// directory.
    #[must_use]
    pub fn default_path() -> PathBuf {
        if rustix::process::geteuid().is_root() {
            return "/var/lib/runner-codes".into();
        }
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .unwrap_or_else(|| "/var/tmp".into())
            .join("runner-codes")
    }

    /// The store in that directory, which need not exist yet.
    #[must_use]
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where downloaded programs are.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// Everything for a machine of that template. An initramfs around this `runner` (a static executable) is made when there is none
    /// yet; nothing else is.
    ///
    /// # Errors
    /// When a part has not been made or is damaged.
    pub fn lookup(
        &self,
        template: &str,
        kernel: &KernelChoice,
        runner: &[u8],
    ) -> Result<Artefacts, ImageError> {
        let boot = self.boot_files(kernel, runner)?;
        let directory = self.template(template);
        let manifest = TemplateManifest::read(template, &directory)?;
        Ok(Artefacts {
            boot,
            rootfs: directory.join(ROOTFS),
            scratch: self.scratch()?,
            template: manifest,
        })
    }

    /// Kernel and initramfs, as [`Store::lookup`].
    ///
    /// # Errors
    /// When the kernel has not been made or is damaged.
    pub fn boot_files(&self, choice: &KernelChoice, runner: &[u8]) -> Result<BootFiles, ImageError> {
        let (kernel, modules, modules_sha256) = match (choice, choice.store_name()) {
            (KernelChoice::File(path), _) => {
                let modules = ModuleSet::default().sha256();
                (self.own_kernel(path)?, None, modules)
            }
            (_, Some(name)) => {
                let directory = self.kernel(&name);
                let manifest = KernelManifest::read(&directory)?;
                (
                    directory.join(VMLINUX),
                    Some(directory.join(MODULES)),
                    manifest.modules_sha256,
                )
            }
            (_, None) => unreachable!("only a file has no place in the store"),
        };
        let name = initramfs::name(runner, &modules_sha256);
        let initramfs = self.root.join("initramfs").join(name + ".cpio");
        if !initramfs.exists() {
            let modules = modules.map_or_else(
                || Ok(ModuleSet::default()),
                |directory| ModuleSet::read(&directory),
            )?;
            publish_file(&initramfs, &initramfs::pack(runner, &modules), 0o644)?;
        }
        Ok(BootFiles { kernel, initramfs })
    }

    /// The formatted scratch disk.
    ///
    /// # Errors
    /// When it has not been made or is damaged.
    pub fn scratch(&self) -> Result<PathBuf, ImageError> {
        let path = self.root.join("scratch.ext4");
        match identify(&path)? {
            RootFilesystem::Ext4 => Ok(path),
            RootFilesystem::Squashfs => Err(ImageError::invalid(&path, "it is not ext4")),
        }
    }

    /// Makes what is wanted and not there (or not whole): kernel, templates, scratch disk, initramfs. Blocks for minutes.
    ///
    /// # Errors
    /// When something is not installed, cannot be fetched or cannot be written. What was finished before stays.
    pub fn prepare(
        &self,
        want: &Want<'_>,
        runner: &[u8],
        report: &dyn Fn(Progress<'_>),
    ) -> Result<Prepared, ImageError> {
        let recipes = want
            .templates
            .iter()
            .map(|name| Recipe::named(name))
            .collect::<Result<Vec<_>, _>>()?;
        let mirror = Mirror::parse(want.mirror)?.or_else(Mirror::of_host);
        let _lock = self.lock(report)?;
        let made = self.make(want, &recipes, mirror.as_ref(), runner, report);
        made.map_err(|error| match error {
            // The temporary directory that it names is gone by now.
            ImageError::DiskFull { .. } => ImageError::DiskFull {
                path: self.root.clone(),
            },
            error => error,
        })
    }

    fn make(
        &self,
        want: &Want<'_>,
        recipes: &[Recipe],
        mirror: Option<&Mirror>,
        runner: &[u8],
        report: Report<'_>,
    ) -> Result<Prepared, ImageError> {
        self.sweep()?;
        let mut prepared = Prepared::default();
        self.prepare_kernel(want, mirror, report, &mut prepared)?;
        if want.force || self.scratch().is_err() {
            self.make_scratch(report)?;
            prepared.made.push("scratch disk".to_owned());
        }
        for recipe in recipes {
            if want.force || !self.is_current(recipe) {
                let temporary = self.temporary();
                let (fresh, work) = (FreshDirectory::new(&temporary)?, FreshDirectory::new(&temporary)?);
                rootfs::make(recipe, mirror, fresh.path(), work.path(), report)?;
                fresh.publish(&self.template(&recipe.name))?;
                prepared.made.push(format!("template {}", recipe.name));
            }
        }
        self.boot_files(&want.kernel, runner)?;
        Ok(prepared)
    }

    fn prepare_kernel(
        &self,
        want: &Want<'_>,
        mirror: Option<&Mirror>,
        report: Report<'_>,
        prepared: &mut Prepared,
    ) -> Result<(), ImageError> {
        let Some(name) = want.kernel.store_name() else {
            return Ok(());
        };
        let target = self.kernel(&name);
        if !want.force && KernelManifest::read(&target).is_ok() {
            return Ok(());
        }
        let temporary = self.temporary();
        let (fresh, work) = (FreshDirectory::new(&temporary)?, FreshDirectory::new(&temporary)?);
        match &want.kernel {
            KernelChoice::Debian { suite } => {
                kernel::fetch_debian(suite, mirror, fresh.path(), work.path(), report)?
            }
            KernelChoice::Tuned => tuned::build(mirror, fresh.path(), work.path(), report)?,
            KernelChoice::File(_) => {}
        }
        fresh.publish(&target)?;
        prepared.made.push(format!("kernel {}", want.kernel));
        Ok(())
    }

    fn make_scratch(&self, report: Report<'_>) -> Result<(), ImageError> {
        report(Progress::Started {
            step: "scratch disk",
            unit: Unit::Nothing,
            total: None,
        });
        let fresh = FreshDirectory::new(&self.temporary())?;
        let path = fresh.path().join("scratch.ext4");
        scratch::make(&path)?;
        let target = self.root.join("scratch.ext4");
        fs::rename(&path, &target).map_err(ImageError::io("create", &target))?;
        report(Progress::Finished);
        Ok(())
    }

    fn is_current(&self, recipe: &Recipe) -> bool {
        TemplateManifest::read(&recipe.name, &self.template(&recipe.name))
            .is_ok_and(|manifest| manifest.recipe_sha256 == recipe.sha256)
    }

    /// A user's kernel: as it is when it is ELF, else unpacked into the store.
    fn own_kernel(&self, path: &Path) -> Result<PathBuf, ImageError> {
        let mut start = Vec::new();
        let mut file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ImageError::KernelMissing {
                    path: path.to_owned(),
                });
            }
            file => file.map_err(ImageError::io("open", path))?,
        };
        std::io::Read::read_to_end(&mut std::io::Read::take(&mut file, 4096), &mut start)
            .map_err(ImageError::io("read", path))?;
        if !extract::is_bzimage(&start) {
            filesystem::check_kernel(path)?;
            return Ok(path.to_owned());
        }
        let image = fs::read(path).map_err(ImageError::io("read", path))?;
        let name = format!("file-{}", initramfs::name(&image, ""));
        let unpacked = self.kernel(&name).join(VMLINUX);
        if !unpacked.exists() {
            let kernel = extract::vmlinux(&image).map_err(|reason| ImageError::invalid(path, reason))?;
            publish_file(&unpacked, &kernel, 0o644)?;
        }
        filesystem::check_kernel(&unpacked)?;
        Ok(unpacked)
    }

    fn kernel(&self, name: &str) -> PathBuf {
        self.root.join("kernels").join(name)
    }

    fn template(&self, name: &str) -> PathBuf {
        self.root.join("templates").join(name)
    }

    fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Waits until no other set-up is under way. Released when dropped, also by the death of the process.
    pub(crate) fn lock(&self, report: Report<'_>) -> Result<File, ImageError> {
        fs::create_dir_all(&self.root).map_err(ImageError::io("create", &self.root))?;
        let path = self.root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(ImageError::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) => report(Progress::Waiting { lock: &path }),
            Err(error) => return Err(ImageError::from_io("lock", &path, error.into())),
        }
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::INTR) => {}
                Err(error) => return Err(ImageError::from_io("lock", &path, error.into())),
            }
        }
    }

    /// Removes what interrupted set-ups left and what older versions needed. Only under the lock.
    pub(crate) fn sweep(&self) -> Result<(), ImageError> {
        let temporary = self.temporary();
        for path in fresh::entries(&temporary)? {
            tracing::info!(path = %path.display(), "removing what an interrupted set-up left");
            if fresh::remove(&path).is_err() {
                mmdebstrap::remove_leftovers(&path)?;
            }
        }
        fs::create_dir_all(&temporary).map_err(ImageError::io("create", &temporary))?;
        for path in fresh::entries(&self.root.join("initramfs"))? {
            if is_older_than(&path, STALE) {
                fresh::remove(&path)?;
            }
        }
        Ok(())
    }
}

fn is_older_than(path: &Path, age: Duration) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| {
        SystemTime::now()
            .duration_since(time)
            .is_ok_and(|elapsed| elapsed > age)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::template::Package;

    const RUNNER: &[u8] = b"runner";

    /// A store with a kernel and a template that pass for whole.
    fn filled() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().expect("a directory");
        let store = Store::open(root.path().join("store"));
        let kernel = store.kernel("debian-bookworm");
        fs::create_dir_all(&kernel).expect("made");
        let program = fs::read(std::env::current_exe().expect("this program")).expect("readable");
        let modules = ModuleSet::new(
            "core a.ko\n".to_owned(),
            vec![("a.ko".to_owned(), b"module".to_vec())],
        );
        KernelManifest::write(&kernel, "6.1".to_owned(), &program, &modules).expect("written");

        let template = store.template("base");
        fs::create_dir_all(&template).expect("made");
        let mut rootfs = vec![0; 4096];
        rootfs[..4].copy_from_slice(b"hsqs");
        rootfs[40..48].copy_from_slice(&4000_u64.to_le_bytes());
        fs::write(template.join(ROOTFS), &rootfs).expect("written");
        manifest(rootfs.len() as u64).write(&template).expect("written");

        let mut scratch = vec![0; 65536];
        scratch[1028] = 16;
        scratch[1024 + 0x18] = 2;
        scratch[1024 + 0x38..1024 + 0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
        fs::write(store.root.join("scratch.ext4"), scratch).expect("written");
        (root, store)
    }

    fn manifest(rootfs_bytes: u64) -> TemplateManifest {
        let recipe = Recipe::named("base").expect("it comes with the program");
        TemplateManifest {
            name: recipe.name,
            suite: recipe.suite,
            languages: recipe.languages,
            rootfs_sha256: String::new(),
            rootfs_bytes,
            recipe_sha256: recipe.sha256,
            packages: vec![Package {
                name: "bash".to_owned(),
                version: "5".to_owned(),
            }],
        }
    }

    fn want() -> Want<'static> {
        Want {
            kernel: KernelChoice::default(),
            templates: &["base"],
            mirror: &[],
            force: false,
        }
    }

    #[test]
    fn an_empty_store_says_what_is_missing_and_stays_empty() {
        let root = tempfile::tempdir().expect("a directory");
        let store = Store::open(root.path().join("store"));
        let error = store
            .lookup("base", &KernelChoice::default(), RUNNER)
            .expect_err("empty");
        assert!(matches!(error, ImageError::KernelMissing { .. }), "{error}");
        assert!(!store.root().exists());

        let (_root, store) = filled();
        let error = store
            .lookup("rust", &KernelChoice::default(), RUNNER)
            .expect_err("not made");
        assert!(matches!(error, ImageError::TemplateMissing { .. }), "{error}");
    }

    #[test]
    fn a_new_runner_gets_a_new_initramfs() {
        let (_root, store) = filled();
        let lookup = |runner| {
            store
                .lookup("base", &KernelChoice::default(), runner)
                .expect("whole")
                .boot
                .initramfs
        };
        let (first, again, other) = (lookup(RUNNER), lookup(RUNNER), lookup(b"other"));
        assert_eq!(first, again);
        assert_ne!(first, other);
        let archive = fs::read(first).expect("there");
        assert!(archive.windows(6).any(|bytes| bytes == b"module"));
    }

    #[test]
    fn truncated_artefacts_are_refused() {
        for path in [
            "kernels/debian-bookworm/vmlinux",
            "templates/base/rootfs.squashfs",
            "scratch.ext4",
        ] {
            let (_root, store) = filled();
            let file = File::options()
                .write(true)
                .open(store.root.join(path))
                .expect("there");
            file.set_len(2048).expect("cut");
            let error = store
                .lookup("base", &KernelChoice::default(), RUNNER)
                .expect_err(path);
            assert!(matches!(error, ImageError::Invalid { .. }), "{path}: {error}");
        }
    }

    #[test]
    fn preparing_what_is_there_makes_nothing_and_sweeps() {
        let (_root, store) = filled();
        fs::create_dir_all(store.temporary().join(".new-left")).expect("made");
        let prepared = store.prepare(&want(), RUNNER, &|_| {}).expect("all is there");
        assert!(prepared.made.is_empty(), "{prepared:?}");
        assert!(fresh::entries(&store.temporary()).expect("readable").is_empty());
    }

    #[test]
    fn a_template_of_another_recipe_is_not_current() {
        let (_root, store) = filled();
        let mut recipe = Recipe::named("base").expect("it comes with the program");
        assert!(store.is_current(&recipe));
        recipe.sha256 = "other".to_owned();
        assert!(!store.is_current(&recipe));
    }

    #[test]
    fn the_second_waits_for_the_first() {
        let (_root, store) = filled();
        let lock = store.lock(&|_| {}).expect("free");
        let (waits, waiting) = mpsc::channel();
        std::thread::scope(|scope| {
            let store = &store;
            let second = scope.spawn(move || {
                let report = |progress: Progress<'_>| {
                    if matches!(progress, Progress::Waiting { .. }) {
                        waits.send(()).expect("awaited");
                    }
                };
                store.prepare(&want(), RUNNER, &report).expect("all is there");
            });
            waiting.recv_timeout(Duration::from_secs(60)).expect("it waits");
            assert!(!second.is_finished());
            drop(lock);
        });
    }

    #[test]
    fn a_users_own_kernel_is_taken_as_it_is_or_unpacked() {
        let (root, store) = filled();
        let program = std::env::current_exe().expect("this program");
        let files = store
            .boot_files(&KernelChoice::File(program.clone()), RUNNER)
            .expect("ELF");
        assert_eq!(files.kernel, program);

        let missing = KernelChoice::File(root.path().join("none"));
        assert!(matches!(
            store.boot_files(&missing, RUNNER),
            Err(ImageError::KernelMissing { .. })
        ));
        let text = root.path().join("text");
        fs::write(&text, "text").expect("written");
        assert!(matches!(
            store.boot_files(&KernelChoice::File(text), RUNNER),
            Err(ImageError::Invalid { .. })
        ));
    }
}

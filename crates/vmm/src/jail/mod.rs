//! What stands between a VMM and the host: a guest that breaks out into its VMM finds itself here.
//!
//! ```text
//! Isolation (what the operator lets machines go without)
//!    │
//!    ▼                  ┌ uids: a user id of its own ─────┐
//! Jail ── prepared ─────┤ cgroup: limits, no packets (bpf) ├─► spawn: clone3 into new namespaces and the cgroup
//!  (a layer that cannot └ program: what it sees of the host┘      └─ stage: root ─ limits ─ identity ─ filter ─► exec
//!   be had is an error)                                               └─ what fails is told over a socket
//! ```
//!
//! All that needs root is in this module: plain data in, a process out. Whoever calls it knows the VMM, and this module knows
//! only programs, files and the kernel.

mod bpf;
mod cgroup;
mod chroot;
mod filter;
mod program;
mod spawn;
mod stage;
mod uids;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Resource, getegid, geteuid};

use self::cgroup::Cgroup;
use self::chroot::Chroot;
pub(crate) use self::spawn::{Child, Launch, spawn};
use self::stage::Root;
pub(crate) use self::uids::UidLease;
pub use self::uids::UidRange;
use crate::error::VmmError;
use crate::machine::{Accel, BackendKind, VmmBinary};
use crate::state::VmDir;

/// The directory of this machine's files, in a VMM's own root.
const MACHINE: &str = "machine";
/// And that of its firmware.
const FIRMWARE: &str = "firmware";
/// Where the jailer makes its directories, in the machine's.
const CHROOTS: &str = "jail";
/// Where a VMM's own root is mounted, in its machine's directory.
const MOUNT_POINT: &str = "root";
/// What a VMM may take beyond its guest's memory, in MiB: itself, and what it has translated.
const OWN_MEMORY_MIB: u64 = 512;
/// And as address space, most of which is never touched.
const OWN_ADDRESSES_MIB: u64 = 4096;
/// Threads beyond the processors': QEMU has up to 64 for its disks.
const THREADS: u64 = 128;
/// Files that a VMM may have open.
const OPEN_FILES: u64 = 256;

/// One layer of a VMM's isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Firecracker was started by its jailer.
    Jailer,
    /// A user and group id that no other machine and nothing else has. Needs root.
    Uid,
    /// Capabilities, as far as any are needed to set the rest up, are those of a user namespace. Without root.
    UserNamespace,
    /// Own mount, process, network (without any device that is up), IPC and UTS namespaces.
    Namespaces,
    /// A read-only root that has nothing but the VMM's own program, libraries and firmware, and this machine's files.
    Root,
    /// The machine's own cgroup, with limits on memory, processes and processor time. Needs root.
    Cgroup,
    /// BPF programs on that cgroup that drop every packet and refuse every Internet socket.
    NetworkFilter,
    /// Limits of the process itself: address space, threads, open files, no core dumps.
    Rlimits,
    /// No capability, and none to be had.
    Capabilities,
    /// No program gives it more privileges (`PR_SET_NO_NEW_PRIVS`).
    NoNewPrivs,
    /// System calls that it has no use for are refused, sockets among them; then comes the VMM's own filter.
    Seccomp,
}

impl Layer {
    /// The name in answers and reports. What is said of the guest's own layers has no colon in it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jailer => "host:jailer",
            Self::Uid => "host:uid",
            Self::UserNamespace => "host:user_namespace",
            Self::Namespaces => "host:namespaces",
            Self::Root => "host:root",
            Self::Cgroup => "host:cgroup",
            Self::NetworkFilter => "host:network_filter",
            Self::Rlimits => "host:rlimits",
            Self::Capabilities => "host:capabilities",
            Self::NoNewPrivs => "host:no_new_privs",
            Self::Seccomp => "host:seccomp",
        }
    }

    /// What [`Self::name`] begins with.
    pub const PREFIX: &str = "host:";

    /// The option that lets machines go without it; none where that cannot be had.
    #[must_use]
    pub const fn option(self) -> Option<&'static str> {
        match self {
            Self::Jailer => Some("--no-jailer"),
            Self::Uid => Some("--no-vmm-uid"),
            Self::UserNamespace | Self::Namespaces | Self::Root => Some("--no-namespaces"),
            Self::Cgroup => Some("--no-cgroup"),
            Self::NetworkFilter => Some("--no-network-filter"),
            Self::Rlimits | Self::Capabilities | Self::NoNewPrivs | Self::Seccomp => None,
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which layers machines have to have, and where they come from. By default all that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// Start Firecracker by its jailer.
    pub jailer: bool,
    /// That jailer; the one beside Firecracker where none is named.
    pub jailer_program: Option<PathBuf>,
    /// See [`Layer::Uid`].
    pub uid: bool,
    /// See [`Layer::Namespaces`] and [`Layer::Root`].
    pub namespaces: bool,
    /// See [`Layer::Cgroup`].
    pub cgroup: bool,
    /// See [`Layer::NetworkFilter`].
    pub network_filter: bool,
    /// Where user ids are taken from.
    pub uids: UidRange,
    /// The cgroup that machines' cgroups are in: a path below the root of every hierarchy. Made if only its last part is missing.
    pub cgroup_parent: PathBuf,
}

impl Isolation {
    /// The cgroup that machines' cgroups are in where nobody says otherwise.
    pub const CGROUP_PARENT: &str = "runner-codes";

    /// Without all that a machine can go without. For programs that only look like a VMM.
    #[must_use]
    pub fn least() -> Self {
        Self {
            jailer: false,
            uid: false,
            namespaces: false,
            cgroup: false,
            network_filter: false,
            ..Self::default()
        }
    }
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            jailer: true,
            jailer_program: None,
            uid: true,
            namespaces: true,
            cgroup: true,
            network_filter: true,
            uids: UidRange::default(),
            cgroup_parent: Self::CGROUP_PARENT.into(),
        }
    }
}

/// How large a machine is, for its VMM's limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) vcpus: u8,
    pub(crate) memory_mib: u32,
}

impl Size {
    /// Of a machine that is none.
    pub(crate) const LEAST: Self = Self {
        vcpus: 1,
        memory_mib: 128,
    };
}

/// What one VMM is started in. Nothing of it outlives the machine's directory.
#[derive(Debug, Default)]
pub(crate) struct Jail {
    layers: Vec<Layer>,
    /// Own namespaces (`CLONE_NEW…`).
    namespaces: u64,
    /// This user's ids, where they have to be mapped into a user namespace.
    mapped: Option<(u32, u32)>,
    cgroup: Option<Cgroup>,
    root: Option<Root>,
    /// The directory that the jailer makes the root.
    chroot: Option<Chroot>,
    /// User and group id.
    identity: Option<u32>,
    /// The group that may use `/dev/kvm`.
    group: Option<u32>,
    limits: Vec<(Resource, u64)>,
    environment: Vec<(&'static str, PathBuf)>,
    /// Refuse what a VMM has no use for.
    filtered: bool,
    /// The program that starts the VMM, with what its arguments begin with.
    jailer: Option<(PathBuf, Vec<OsString>)>,
    /// What the first file is that it opens to read and write, and not to be closed on exec.
    memory: Option<OwnedFd>,
    small_pages: bool,
}

impl Jail {
    /// Takes what the machine in `dir` needs of the host: that is recorded there first, and goes with it.
    ///
    /// # Errors
    /// [`VmmError::Isolation`] for a layer that cannot be had and may not be left out; [`VmmError::State`].
    pub(crate) fn prepare(vmm: &VmmBinary, size: Size, dir: &mut VmDir) -> Result<Self, VmmError> {
        let isolation = dir.isolation().clone();
        let is_root = geteuid().is_root();
        let mut jail = Self::default();
        match vmm.kind {
            BackendKind::Qemu => jail.confine_here(vmm, &isolation, is_root, dir)?,
            BackendKind::Firecracker if isolation.jailer => {
                jail.confine_by_jailer(vmm, &isolation, is_root, dir)?
            }
            BackendKind::Firecracker if isolation.namespaces => jail.enter_namespaces(is_root),
            BackendKind::Firecracker => {}
        }
        if is_root && (isolation.cgroup || isolation.network_filter) {
            jail.make_cgroup(&isolation, size, dir)?;
        }
        jail.limit(size, is_root);
        jail.layers.extend([Layer::Capabilities, Layer::NoNewPrivs]);
        if vmm.kind == BackendKind::Qemu {
            jail.filtered = true;
            jail.layers.push(Layer::Seccomp);
        }
        Ok(jail)
    }

    fn confine_here(
        &mut self,
        vmm: &VmmBinary,
        isolation: &Isolation,
        is_root: bool,
        dir: &mut VmDir,
    ) -> Result<(), VmmError> {
        if is_root && isolation.uid {
            self.take_uid(isolation.uids, dir)?;
        }
        if isolation.namespaces {
            self.enter_namespaces(is_root);
            self.make_root(vmm, dir)?;
        }
        if vmm.accel == Accel::Kvm {
            self.admit_to_kvm();
        }
        Ok(())
    }

    fn confine_by_jailer(
        &mut self,
        vmm: &VmmBinary,
        isolation: &Isolation,
        is_root: bool,
        dir: &mut VmDir,
    ) -> Result<(), VmmError> {
        let failed = |what: String, error| VmmError::isolation(Layer::Jailer, what, error);
        if !is_root {
            return Err(failed("Only root can use it".to_owned(), Errno::PERM.into()));
        }
        let absolute = |path: &Path| {
            let found = fs::canonicalize(path);
            found.map_err(|error| failed(format!("Cannot find {}", path.display()), error))
        };
        let program = absolute(&vmm.path)?;
        let beside = program.with_file_name("jailer");
        let jailer = absolute(isolation.jailer_program.as_deref().unwrap_or(&beside))?;
        self.layers.push(Layer::Jailer);
        if isolation.uid {
            self.take_uid(isolation.uids, dir)?;
        }
        if isolation.namespaces {
            self.enter_namespaces(true);
        } else {
            self.namespaces = stage::MOUNTS;
        }
        let base = dir.path().join(CHROOTS);
        let name = program.file_name().unwrap_or_default();
        let path = base.join(name).join(dir.id().as_str()).join("root");
        let chroot = Chroot::create(path.clone()).map_err(|error| VmmError::state("create", &path, error))?;
        self.chroot = Some(chroot);
        self.layers.push(Layer::Root);
        let id = self.identity.unwrap_or_default().to_string();
        let open_files = format!("no-file={OPEN_FILES}");
        let pairs: [(&str, &std::ffi::OsStr); 6] = [
            ("--id", dir.id().as_str().as_ref()),
            ("--exec-file", program.as_ref()),
            ("--uid", id.as_ref()),
            ("--gid", id.as_ref()),
            ("--chroot-base-dir", base.as_ref()),
            // Its own default is more than what was set before.
            ("--resource-limit", open_files.as_ref()),
        ];
        let mut arguments: Vec<OsString> = Vec::new();
        for (option, value) in pairs {
            arguments.extend([option.into(), value.to_owned()]);
        }
        arguments.push("--".into());
        self.jailer = Some((jailer, arguments));
        Ok(())
    }

    fn take_uid(&mut self, range: UidRange, dir: &mut VmDir) -> Result<(), VmmError> {
        let lease = uids::lease(range).map_err(|error| VmmError::isolation(Layer::Uid, error.0, error.1))?;
        self.identity = Some(lease.uid());
        self.layers.push(Layer::Uid);
        dir.hold(lease);
        Ok(())
    }

    fn enter_namespaces(&mut self, is_root: bool) {
        self.namespaces = stage::NAMESPACES;
        if !is_root {
            self.namespaces |= stage::USER_NAMESPACE;
            self.mapped = Some((geteuid().as_raw(), getegid().as_raw()));
            self.layers.push(Layer::UserNamespace);
        }
        self.layers.push(Layer::Namespaces);
    }

    fn make_root(&mut self, vmm: &VmmBinary, dir: &VmDir) -> Result<(), VmmError> {
        let failed = |what: &str, error| VmmError::isolation(Layer::Root, what, error);
        let mount_point = dir.path().join(MOUNT_POINT);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&mount_point)
            .map_err(|error| VmmError::state("create", &mount_point, error))?;
        let mut root = Root::at(&mount_point).map_err(|error| failed("Cannot mount it", error))?;
        let found = program::files(vmm, dir.runtime())
            .map_err(|error| failed("Cannot tell what the VMM needs", error))?;
        let mut show = || {
            for file in &found.files {
                root.show(file, file)?;
            }
            for file in &found.firmware {
                root.show(
                    file,
                    &Path::new("/")
                        .join(FIRMWARE)
                        .join(file.file_name().unwrap_or_default()),
                )?;
            }
            io::Result::Ok(())
        };
        show().map_err(|error| failed("Cannot name a file", error))?;
        self.environment = found.environment;
        self.root = Some(root);
        self.layers.push(Layer::Root);
        Ok(())
    }

    fn make_cgroup(&mut self, isolation: &Isolation, size: Size, dir: &mut VmDir) -> Result<(), VmmError> {
        let limits = isolation.cgroup.then_some(cgroup::Limits {
            memory: (u64::from(size.memory_mib) + OWN_MEMORY_MIB) << 20,
            pids: u64::from(size.vcpus) + THREADS,
            // One for what is not the guest's: disks, the console.
            processors: u32::from(size.vcpus) + 1,
        });
        let (cgroup, filters) =
            cgroup::create(&isolation.cgroup_parent, limits, isolation.network_filter, dir)?;
        if limits.is_some() {
            self.layers.push(Layer::Cgroup);
        }
        if filters {
            self.layers.push(Layer::NetworkFilter);
        }
        self.cgroup = Some(cgroup);
        Ok(())
    }

    fn limit(&mut self, size: Size, is_root: bool) {
        self.limits = vec![(Resource::Core, 0), (Resource::Nofile, OPEN_FILES)];
        // What counts is how many threads the user id has, in all of its user namespace.
        if self.identity.is_some() || self.mapped.is_some() {
            self.limits
                .push((Resource::Nproc, u64::from(size.vcpus) + THREADS));
        }
        if !is_root {
            let mib = u64::from(size.memory_mib) + OWN_ADDRESSES_MIB;
            self.limits.push((Resource::As, mib << 20));
        }
        self.layers.push(Layer::Rlimits);
    }

    fn admit_to_kvm(&mut self) {
        const KVM: &str = "/dev/kvm";
        if let Some(root) = &mut self.root {
            root.show_device(c"/dev/kvm", c"dev/kvm");
        }
        // One that is everybody's needs no group, and its group may mean much more.
        self.group = fs::metadata(KVM)
            .ok()
            .filter(|found| found.mode() & 0o006 != 0o006)
            .map(|found| found.gid());
    }

    /// The path by which the VMM finds a file that the host has at `path`, to read it.
    ///
    /// # Errors
    /// [`VmmError::State`], [`VmmError::DiskFull`] where it has to be copied, because the VMM's user could not read it.
    pub(crate) fn file(&mut self, name: &str, path: &Path, dir: &VmDir) -> Result<PathBuf, VmmError> {
        let mut path = std::path::absolute(path).map_err(|error| VmmError::state("find", path, error))?;
        if let Some(identity) = self.identity
            && !readable_by_all(&path, self.root.is_some())
        {
            path = copy_for(identity, &path, &dir.path().join(name))?;
        }
        let Some(root) = &mut self.root else {
            return Ok(path);
        };
        let inside = Path::new("/").join(MACHINE).join(name);
        root.show(&path, &inside)
            .map_err(|error| VmmError::state("name", &path, error))?;
        Ok(inside)
    }

    /// The directory of Firecracker's files, which is its working directory. Made here, so that it is found by that path also when
    /// it is the root of another namespace.
    pub(crate) fn home<'a>(&'a self, dir: &'a VmDir) -> &'a Path {
        self.chroot.as_ref().map_or(dir.path(), Chroot::path)
    }

    /// The name by which a jailed VMM finds an open file in its directory; none without a jailer, where it finds all that its user may.
    ///
    /// # Errors
    /// [`VmmError::Isolation`] for one that the VMM's user could not read, or that cannot be mounted.
    pub(crate) fn show(
        &mut self,
        file: &fs::File,
        path: &Path,
        name: &'static str,
        writable: bool,
    ) -> Result<Option<&'static str>, VmmError> {
        let Some(chroot) = &mut self.chroot else {
            return Ok(None);
        };
        if writable {
            own(self.identity, file).map_err(|error| VmmError::state("give away", path, error))?;
        } else if let Some(identity) = self.identity {
            let found = file
                .metadata()
                .map_err(|error| VmmError::state("read", path, error))?;
            if found.mode() & 0o004 == 0 && found.uid() != identity {
                let what = format!(
                    "User {identity} may not read {}, and `chmod o+r` would let it",
                    path.display()
                );
                return Err(VmmError::isolation(Layer::Uid, what, Errno::ACCESS.into()));
            }
        }
        let what = || format!("Cannot show {} in it", path.display());
        chroot
            .show(file, name, writable)
            .map_err(|error| VmmError::isolation(Layer::Root, what(), error))?;
        Ok(Some(name))
    }

    /// Makes a file in the VMM's directory its user's.
    pub(crate) fn give(&self, path: &Path) -> Result<(), VmmError> {
        std::os::unix::fs::lchown(path, self.identity, self.identity)
            .map_err(|error| VmmError::state("give away", path, error))
    }

    /// What starts the VMM: its program with those arguments, or the jailer that starts it.
    pub(crate) fn command(&mut self, program: &Path, arguments: Vec<OsString>) -> (PathBuf, Vec<OsString>) {
        match self.jailer.take() {
            Some((jailer, before)) => (jailer, before.into_iter().chain(arguments).collect()),
            None => (program.to_owned(), arguments),
        }
    }

    /// Whether a jailer starts the VMM, which keeps no descriptors.
    pub(crate) fn has_jailer(&self) -> bool {
        self.chroot.is_some()
    }

    /// Where the VMM's firmware is, if not where it was installed.
    pub(crate) fn firmware(&self) -> Option<PathBuf> {
        self.root.is_some().then(|| Path::new("/").join(FIRMWARE))
    }

    /// The path of the guest's memory. What the VMM opens there, or at any other path to read and write, is this open file, whatever
    /// that may be used for.
    pub(crate) fn memory(&mut self, file: OwnedFd) -> PathBuf {
        self.memory = Some(file);
        Path::new("/").join(MACHINE).join("memory")
    }

    /// Keeps transparent huge pages out of the process: of a page that a clone writes to, it should own no more than that.
    pub(crate) fn without_huge_pages(&mut self) {
        self.small_pages = true;
    }
}

fn own(identity: Option<u32>, file: &fs::File) -> io::Result<()> {
    std::os::unix::fs::fchown(file, identity, identity)
}

/// Whether any user can read the file by that path. In a root of its own a VMM finds it there whatever directory it was in.
fn readable_by_all(path: &Path, bound: bool) -> bool {
    let has = |path: &Path, bit| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & bit != 0);
    has(path, 0o004) && (bound || path.ancestors().skip(1).all(|directory| has(directory, 0o001)))
}

/// Copies a file for a user who could not read it.
fn copy_for(uid: u32, from: &Path, to: &Path) -> Result<PathBuf, VmmError> {
    let copy = || {
        let mut source = fs::File::open(from)?;
        let mut copy = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(to)?;
        std::os::unix::fs::fchown(&copy, Some(uid), Some(uid))?;
        io::copy(&mut source, &mut copy).map(drop)
    };
    copy().map_err(|error: io::Error| VmmError::state("copy a file to", to, error))?;
    Ok(to.to_owned())
}

//! Who the code runs as: a user of its own, without capabilities or a way to get any.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

use crate::failure::{Doing as _, Result};

const NAME: &str = "runner";
const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";
/// The id that jobs run under where it is free.
const FIRST_CHOICE: u32 = 1000;
/// Where to look for a free one where it is not: above what distributions give to people.
const OTHERS: std::ops::Range<u32> = 60_100..60_200;

/// The user that jobs run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
}

impl User {
    /// The user `runner` of the root filesystem at `lower`. Where there is none it is added to what lies over that at
    /// `upper`, which may be the same.
    pub(crate) fn ensure(lower: &Path, upper: &Path) -> Result<Self> {
        let passwd = fs::read_to_string(lower.join(PASSWD)).unwrap_or_default();
        let user = match find(&passwd) {
            Some(user) => user,
            None => {
                let user = invent(&passwd);
                let line = format!("{NAME}:x:{}:{}::{}:/bin/sh\n", user.uid, user.gid, user.home);
                append(lower, upper, PASSWD, &line)?;
                append(lower, upper, GROUP, &format!("{NAME}:x:{}:\n", user.gid))?;
                user
            }
        };
        user.make_home(lower, upper)?;
        Ok(user)
    }

    fn make_home(&self, lower: &Path, upper: &Path) -> Result<()> {
        let home = self.home.trim_start_matches('/');
        if lower.join(home).is_dir() {
            return Ok(());
        }
        let home = upper.join(home);
        fs::create_dir_all(&home).doing(|| format!("make {}", home.display()))?;
        std::os::unix::fs::chown(&home, Some(self.uid), Some(self.gid))
            .doing(|| format!("give away {}", home.display()))
    }

    /// Becomes this user, for good.
    ///
    /// # Errors
    /// When any part of it is refused; the process must not go on then.
    pub(crate) fn assume(&self) -> Result<()> {
        for capability in CapabilitySet::all().iter() {
            match remove_capability_from_bounding_set(capability) {
                // The kernel is older than the capability.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(error).doing(|| "drop the capability bounding set".to_owned()),
            }
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&[]).doing(|| "drop the supplementary groups".to_owned())?;
        set_thread_res_gid(gid, gid, gid).doing(|| format!("become group {}", self.gid))?;
        set_thread_res_uid(uid, uid, uid).doing(|| format!("become user {}", self.uid))?;
        set_no_new_privs(true).doing(|| "set no_new_privs".to_owned())
    }
}

fn append(lower: &Path, upper: &Path, name: &str, line: &str) -> Result<()> {
    let path = upper.join(name);
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        if upper != lower && lower.join(name).exists() {
            fs::copy(lower.join(name), &path)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
        file.write_all(line.as_bytes())
    };
    write().doing(|| format!("add a line to {}", path.display()))
}

fn find(passwd: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let &[NAME, _, uid, gid, _, home, ..] = fields.as_slice() else {
            return None;
        };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (uid != 0 && gid != 0).then(|| User {
            name: NAME.to_owned(),
            uid,
            gid,
            home: home.to_owned(),
        })
    })
}

fn invent(passwd: &str) -> User {
    let taken: Vec<u32> = passwd
        .lines()
        .filter_map(|line| line.split(':').nth(2))
        .filter_map(|uid| uid.parse().ok())
        .collect();
    let mut choices = std::iter::once(FIRST_CHOICE).chain(OTHERS);
    let uid = choices.find(|uid| !taken.contains(uid)).unwrap_or(OTHERS.end);
    User {
        name: NAME.to_owned(),
        uid,
        gid: uid,
        home: format!("/home/{NAME}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_may_bring_the_user() {
        let user =
            find("root:x:0:0:root:/root:/bin/bash\nrunner:x:1001:1002:,,,:/srv/r:/bin/bash\n").unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (1001, 1002, "/srv/r"));
        assert_eq!(find("runner:x:0:0::/root:/bin/sh\n"), None);
    }

    #[test]
    fn a_user_of_the_image_is_never_reused() {
        assert_eq!(invent("root:x:0:0::/root:/bin/sh\n").uid, 1000);
        assert_eq!(
            invent("ubuntu:x:1000:1000::/home/ubuntu:/bin/sh\nx:x:60100:1::/:\n").uid,
            60_101
        );
    }

    #[test]
    fn ensure_is_repeatable() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        if !rustix::process::geteuid().is_root() {
            println!("skipped: giving a home away needs root");
            return;
        }
        let first = User::ensure(root.path(), root.path()).unwrap();
        assert_eq!(User::ensure(root.path(), root.path()).unwrap(), first);
        let passwd = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
        assert_eq!(passwd.matches("runner:x:").count(), 1);
        assert!(root.path().join("home/runner").is_dir());
    }
    #[test]
    fn what_is_added_may_lie_over_the_root() {
        let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(lower.path().join("etc")).unwrap();
        fs::write(lower.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        if !rustix::process::geteuid().is_root() {
            println!("skipped: giving a home away needs root");
            return;
        }
        User::ensure(lower.path(), upper.path()).unwrap();
        let passwd = fs::read_to_string(upper.path().join("etc/passwd")).unwrap();
        assert!(
            passwd.starts_with("root:x:0:") && passwd.contains("\nrunner:x:1000:"),
            "{passwd}"
        );
        assert!(!lower.path().join("home").exists());
    }
}

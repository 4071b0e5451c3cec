//! `PUT /boot-source`: kernel, initramfs and command line. Legal before the guest is started; a second one replaces the
//! first.

use serde::Serialize;

use super::Request;

/// What the guest boots.
#[derive(Debug, Serialize)]
pub(crate) struct BootSource<'a> {
    /// ELF `vmlinux`.
    pub(crate) kernel_image_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) initrd_path: Option<&'a str>,
    pub(crate) boot_args: &'a str,
}

impl BootSource<'_> {
    pub(crate) fn request(&self) -> Request {
        Request::put("/boot-source", self)
    }
}

//! What the host tells the runner on the kernel's command line: words that start with `runner.`.

use std::path::PathBuf;

/// How the host reaches this guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransportKind {
    Serial,
    Vsock,
}

/// What PID 1 is to become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The runner stays PID 1 and runs jobs.
    #[default]
    Job,
    /// The root filesystem's own init takes over; it starts the runner as a service.
    System,
}

/// The file system of the root drive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum RootFilesystem {
    #[default]
    Squashfs,
    Ext4,
}

impl RootFilesystem {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Ext4 => "ext4",
        }
    }
}

/// The parameters, parsed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) transport: Option<TransportKind>,
    pub(crate) root: Option<PathBuf>,
    pub(crate) filesystem: RootFilesystem,
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) mode: Mode,
}

/// Reads the parameters out of a command line. Of a word that occurs twice the last counts; of a value that is not
/// known, the default.
pub(crate) fn parse(command_line: &str) -> Parameters {
    let mut parameters = Parameters::default();
    for word in command_line.split_ascii_whitespace() {
        match word.split_once('=') {
            Some(("runner.transport", "serial")) => parameters.transport = Some(TransportKind::Serial),
            Some(("runner.transport", "vsock")) => parameters.transport = Some(TransportKind::Vsock),
            Some(("runner.root", device)) => parameters.root = Some(PathBuf::from(device)),
            Some(("runner.rootfs", "ext4")) => parameters.filesystem = RootFilesystem::Ext4,
            Some(("runner.rootfs", "squashfs")) => parameters.filesystem = RootFilesystem::Squashfs,
            Some(("runner.scratch", device)) => parameters.scratch = Some(PathBuf::from(device)),
            Some(("runner.mode", "system")) => parameters.mode = Mode::System,
            Some(("runner.mode", "job")) => parameters.mode = Mode::Job,
            _ => {}
        }
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_host_writes() {
        let line = "console=ttyS0 runner.transport=serial runner.root=/dev/vda runner.rootfs=ext4 \
                    runner.scratch=/dev/vdb runner.mode=system\n";
        let expected = Parameters {
            transport: Some(TransportKind::Serial),
            root: Some("/dev/vda".into()),
            filesystem: RootFilesystem::Ext4,
            scratch: Some("/dev/vdb".into()),
            mode: Mode::System,
        };
        assert_eq!(parse(line), expected);
    }

    #[test]
    fn strange_words_change_nothing() {
        assert_eq!(
            parse("quiet runner.mode=dance runner.root runner= =x"),
            Parameters::default()
        );
    }
}

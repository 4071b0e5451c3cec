//! What an operator or the host's own configuration says: names, versions, mirrors, lists, the kernel's command line.

use image::{KernelChoice, NotHexadecimal, Sha256Sum};

use crate::memory::within;

/// All of it is every one of them.
pub(crate) fn texts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let most = 64 * data.len() + (64 << 10);
    within(most, || guest_runner_fuzzing::command_line(&text));
    for file in within(most, || guest_runner_fuzzing::modules(&text)) {
        assert!(!file.contains('/'), "a module outside of its directory: {file}");
    }
    if let Ok(version) = image::fuzzing::release_version(&text) {
        let plain = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        assert!(
            plain && version.len() <= 14,
            "{version} would be part of an address"
        );
    }
    if let Some(digest) = within(most, || image::fuzzing::digest(data)) {
        let parsed: Result<Sha256Sum, NotHexadecimal> = digest.parse();
        assert_eq!(parsed.expect("it has 64 digits").to_string(), digest);
    }
    if let Ok(choice) = text.parse::<KernelChoice>() {
        assert_eq!(
            choice.to_string().parse::<KernelChoice>().ok().as_ref(),
            Some(&choice)
        );
    }
    let words: Vec<String> = text.lines().map(str::to_owned).collect();
    let given = within(most, || image::fuzzing::mirrors(&words)).unwrap_or_default();
    let found = within(most, || image::fuzzing::sources(&text));
    for line in given.iter().chain(&found) {
        assert_eq!(line.split(' ').count(), 4, "not one line for apt: {line:?}");
        assert!(
            line.starts_with("deb http") && !line.contains(char::is_control),
            "{line:?}"
        );
    }
    if let Ok(packages) = within(most, || image::fuzzing::packages(&text)) {
        for name in packages {
            assert!(
                !name.starts_with('-') && !name.contains([' ', '/', ',']),
                "{name:?} is an option"
            );
        }
    }
}

//! Drives the real binaries as a user would.

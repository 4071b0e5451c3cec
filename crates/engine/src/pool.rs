//! Machines restored ahead of demand. [`policy`] decides how many, of what, and when; it never acts itself.

pub mod policy;

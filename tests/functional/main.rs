//! The functional suite: every test runs code in a real microVM.

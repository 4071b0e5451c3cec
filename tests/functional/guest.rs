//! What a guest says that it can do.

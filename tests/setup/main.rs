//! The set-up suite: images are made, whatever happens meanwhile.

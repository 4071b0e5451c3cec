//! The protocol from outside: properties of frames, messages, bounds and the multiplexer, and the files generated from
//! the types.

mod bounds;
mod frames;
mod generated;
mod messages;
mod multiplexer;

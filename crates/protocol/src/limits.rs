//! Every number that bounds what crosses the wire. Sizes are bytes, durations seconds, unless the name says otherwise.

/// The port that takes jobs (fixed by the first version of the protocol).
pub const JOB_PORT: u32 = 5000;
/// The port that takes control requests.
pub const CONTROL_PORT: u32 = 5001;
/// The longest payload of a frame; checked before anything is allocated for it.
pub const MAX_FRAME: usize = 32 << 20;
/// The most source code a job may carry.
pub const MAX_CODE: usize = 1 << 20;
/// The most bytes a job may be given on standard input.
pub const MAX_STDIN: usize = 4 << 20;
/// The most files a job may bring or ask back, each way.
pub const MAX_FILES: usize = 256;
/// The most bytes all files of a job may have together, each way.
pub const MAX_FILE_BYTES: usize = 8 << 20;
/// The most command-line arguments a job may have.
pub const MAX_ARGS: usize = 1024;
/// The most environment variables a job may set.
pub const MAX_ENV: usize = 1024;
/// The most bytes that arguments, and environment variables, may have together (each).
pub const MAX_ARG_BYTES: usize = 128 << 10;
/// The longest trace id.
pub const MAX_TRACE_ID: usize = 128;
/// The wall time a job gets when it does not say.
pub const DEFAULT_TIMEOUT: f64 = 30.0;
/// The longest wall time a job may ask for.
pub const MAX_TIMEOUT: f64 = 3600.0;
/// The output kept of each of stdout and stderr when a job does not say.
pub const DEFAULT_OUTPUT: u64 = 1 << 20;
/// The most output of each stream that a job may ask to be kept: both, however much JSON escapes them, fit a frame (six
/// times as text and once more in base64), though not with every file besides.
pub const MAX_OUTPUT: u64 = 2 << 20;
/// The processes and threads a job may have at a time when it does not say.
pub const DEFAULT_PIDS: u64 = 256;
/// The open files of each process of a job when it does not say.
pub const DEFAULT_OPEN_FILES: u64 = 1024;
/// The streams that a serial port carries at a time.
pub const MAX_STREAMS: u8 = 64;
/// The most data in one frame of a serial port: what one stream can hold up another by.
pub const MAX_STREAM_DATA: usize = 16 << 10;
/// What a stream of a serial port may have in flight or unread, each way.
pub const STREAM_WINDOW: usize = 64 << 10;
/// What a stream of a serial port keeps of what is to be sent.
pub const STREAM_BUFFER: usize = 64 << 10;
/// The interpreters of one language that a guest keeps parked.
pub const MAX_PARKED: u8 = 4;
/// The least random bytes that make a clone's kernel its own: a whole seed of its generator.
pub const MIN_ENTROPY: usize = 32;
/// The most random bytes that an identity carries.
pub const MAX_ENTROPY: usize = 512;

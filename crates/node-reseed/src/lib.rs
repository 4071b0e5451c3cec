//! A Node.js addon that reseeds the random number generators of its process when it is loaded, and again whenever it is
//! loaded again: clones of one snapshot would otherwise draw the same numbers, and JavaScript cannot reach either
//! generator.
//!
//! ```text
//! process.dlopen({ exports: <32 bytes> }, "node-reseed.node")
//!   kernel + 32 bytes ─► OpenSSL's primary generator ─► the public and private one of each thread
//!                                                   └─► V8's, which fills the cache of Math.random
//! ```
//!
//! OpenSSL's generators per thread notice that the primary one was reseeded and follow before they give another byte.
//! `Math.random` draws from V8's generator when its cache is empty, so the cache must not have been filled before.
//!
//! Whatever is undefined here is in the `node` process, or loading fails: the linker binds at once (`-z now`).

#![cfg_attr(panic = "abort", no_std)]

use core::ffi::{CStr, c_char, c_double, c_int, c_void};
use core::ptr;

/// `napi_status` of success.
const NAPI_OK: c_int = 0;

/// How many bytes the seed has.
const SEED: usize = 32;

#[expect(unsafe_code, reason = "these are functions of node, OpenSSL and V8")]
unsafe extern "C" {
    fn napi_get_buffer_info(
        env: *mut c_void,
        value: *mut c_void,
        data: *mut *mut c_void,
        length: *mut usize,
    ) -> c_int;
    fn napi_throw_error(env: *mut c_void, code: *const c_char, message: *const c_char) -> c_int;

    fn RAND_add(buffer: *const c_void, length: c_int, randomness: c_double);
    fn RAND_status() -> c_int;
    fn RAND_bytes(buffer: *mut u8, length: c_int) -> c_int;
    fn RAND_priv_bytes(buffer: *mut u8, length: c_int) -> c_int;

    /// `static v8::Isolate* v8::Isolate::GetCurrent()`: in V8 the same pointer is the internal isolate.
    #[link_name = "_ZN2v87Isolate10GetCurrentEv"]
    fn current_isolate() -> *mut c_void;
    /// `v8::base::RandomNumberGenerator* v8::internal::Isolate::random_number_generator()`
    #[link_name = "_ZN2v88internal7Isolate23random_number_generatorEv"]
    fn random_number_generator(isolate: *mut c_void) -> *mut c_void;
    /// `void v8::base::RandomNumberGenerator::SetSeed(int64_t)`
    #[link_name = "_ZN2v84base21RandomNumberGenerator7SetSeedEl"]
    fn set_seed(generator: *mut c_void, seed: i64);
}

/// What Node.js calls when it loads the addon; `exports` is the seed.
///
/// # Safety
/// Only Node.js calls it, on the thread of `env`.
#[expect(unsafe_code, reason = "node finds the function by its name")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn napi_register_module_v1(env: *mut c_void, exports: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's.
    if let Err(message) = unsafe { reseed(env, exports) } {
        // SAFETY: `env` is valid, and the strings end with NUL.
        unsafe { napi_throw_error(env, ptr::null(), message.as_ptr()) };
    }
    ptr::null_mut()
}

/// # Safety
/// `env` and `seed` are what Node.js gave, on its thread.
#[expect(unsafe_code, reason = "everything here is a call into C or C++")]
unsafe fn reseed(env: *mut c_void, seed: *mut c_void) -> Result<(), &'static CStr> {
    let mut data = ptr::null_mut();
    let mut length = 0;
    // SAFETY: `env` and `seed` are valid, and the others point to variables of the right types.
    if unsafe { napi_get_buffer_info(env, seed, &raw mut data, &raw mut length) } != NAPI_OK || length != SEED
    {
        return Err(c"The seed is not a buffer of 32 bytes");
    }
    let mut words = [0_u8; size_of::<i64>()];
    let pointer = words.as_mut_ptr();
    let count = size_of_val(&words) as c_int;
    // SAFETY: `data` is `SEED` bytes, and `pointer` is `count` bytes. `RAND_add` takes fresh entropy from the kernel too;
    // where it cannot, the primary generator is in an error state, which is what `RAND_status` tells.
    let seeded = unsafe {
        RAND_add(data, SEED as c_int, SEED as c_double);
        RAND_status() == 1 && RAND_priv_bytes(pointer, count) == 1 && RAND_bytes(pointer, count) == 1
    };
    if !seeded {
        return Err(c"OpenSSL could not be reseeded");
    }
    // SAFETY: this thread runs JavaScript, so it has an isolate, and nothing else uses that meanwhile.
    unsafe {
        set_seed(
            random_number_generator(current_isolate()),
            i64::from_ne_bytes(words),
        )
    };
    Ok(())
}

/// Nothing here panics, but `core` must have it.
#[cfg(panic = "abort")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

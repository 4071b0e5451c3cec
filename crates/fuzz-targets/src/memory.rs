//! How much memory a piece of work takes.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Does the work, which at no time may have more than `most` bytes more than there were before. All threads are counted, so only one
/// target may run at a time.
#[track_caller]
pub(crate) fn within<T>(most: usize, work: impl FnOnce() -> T) -> T {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = work();
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(peak <= most, "it took {peak} bytes of memory, more than {most}");
    result
}

//! Counts allocations, so that the memory of one part of a process can be separated from the rest: drop the
//! part, and see by how much the count falls. Resident memory cannot be split like that.
#![expect(
    unsafe_code,
    reason = "an allocator that counts is only possible behind this trait; every call goes to the service's own allocator unchanged"
)]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

use mimalloc::MiMalloc;

/// Threads that count without waiting for each other.
const COUNTS: usize = 16;

/// Alone in its cache lines: two threads that count in one wait for each other at each allocation, which the service that is measured
/// does not.
#[repr(align(128))]
struct Count(AtomicUsize);

/// Requested bytes, allocated and not freed: the sum. A single count has no meaning, as one thread frees
/// memory of another; it may be below zero, so all of them wrap.
static LIVE: [Count; COUNTS] = [const { Count(AtomicUsize::new(0)) }; COUNTS];
/// Threads that have counted.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Which count is this thread's. Neither made nor dropped by code, so that an allocator may use it at any time.
    static OWN: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The count of this thread.
fn live() -> &'static AtomicUsize {
    let own = OWN.get().unwrap_or_else(|| {
        let own = THREADS.fetch_add(1, Ordering::Relaxed) % COUNTS;
        OWN.set(Some(own));
        own
    });
    &LIVE[own].0
}

/// The allocator that `landfall` has.
static ALLOCATES: MiMalloc = MiMalloc;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: each method passes its arguments unchanged to the service's allocator and returns its result, so
// the contract of `GlobalAlloc` is kept by keeping it there; the count is separate and touches no memory of
// the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        live().fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised us.
        unsafe { ALLOCATES.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        live().fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised us.
        unsafe { ALLOCATES.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        live().fetch_add(size.wrapping_sub(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller promised us.
        unsafe { ALLOCATES.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        live().fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised us.
        unsafe { ALLOCATES.dealloc(pointer, layout) }
    }
}

/// KiB allocated and not freed.
pub(crate) fn live_kib() -> f64 {
    // While other threads count on, it may be off by their work, and so below zero for small sums.
    let sum = LIVE.iter().fold(0_usize, |sum, count| {
        sum.wrapping_add(count.0.load(Ordering::Relaxed))
    });
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count of bytes, shown with three digits"
    )]
    let bytes = sum.cast_signed() as f64;
    bytes / 1024.0
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_held_is_counted_and_what_is_let_go_is_not() {
        // Other tests allocate at the same time, but not as much.
        let before = super::live_kib();
        let held = vec![1_u8; 256 << 20];
        assert!(super::live_kib() - before > 200.0 * 1024.0);
        drop(held);
        assert!(super::live_kib() - before < 56.0 * 1024.0);
    }
}

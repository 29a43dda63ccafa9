//! Counts what is allocated, so that what one part of a process holds can be told from what the others hold: let the part
//! go, and see by how much the count falls. Resident memory cannot be split like that.
#![expect(
    unsafe_code,
    reason = "an allocator that counts is only possible behind this trait; every call goes to the service's own allocator unchanged"
)]

use std::{
    alloc::{GlobalAlloc, Layout},
    sync::atomic::{AtomicUsize, Ordering},
};

use mimalloc::MiMalloc;

/// Bytes allocated and not freed, as they were asked for.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The allocator that `landfall` has.
static ALLOCATES: MiMalloc = MiMalloc;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: each method hands its arguments to the service's allocator as they came and returns its answer, so the
// contract of `GlobalAlloc` is kept by keeping it there; the count is beside it and touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised us.
        unsafe { ALLOCATES.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised us.
        unsafe { ALLOCATES.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size, Ordering::Relaxed);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised us.
        unsafe { ALLOCATES.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised us.
        unsafe { ALLOCATES.dealloc(pointer, layout) }
    }
}

/// KiB allocated and not freed.
pub(crate) fn live_kib() -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count of bytes, shown with three digits"
    )]
    let bytes = LIVE.load(Ordering::Relaxed) as f64;
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

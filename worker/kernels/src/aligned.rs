//! Zeroed memory aligned for tiles and vectors. What lies in it is not known here.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

/// A cache line, and a row of a tile. Tiles that straddle lines load at a third of the speed.
const LINE_BYTES: usize = 64;
/// A huge page: weights of a whole network miss the TLB constantly without them.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A fixed number of bytes, zero at first.
#[derive(Debug)]
pub(crate) struct Aligned {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: it owns its memory and gives it out by the usual borrowing rules.
unsafe impl Send for Aligned {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for Aligned {}

impl Aligned {
    pub(crate) fn zeroed(bytes: usize) -> Self {
        let huge = bytes >= HUGE_PAGE_BYTES;
        let align = if huge { HUGE_PAGE_BYTES } else { LINE_BYTES };
        let layout =
            Layout::from_size_align(bytes.max(LINE_BYTES), align).expect("a size that fits memory");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        #[cfg(target_os = "linux")]
        if huge {
            // SAFETY: the range is ours and page aligned. The call is advice: it changes no
            // contents, and if it fails nothing but speed is lost.
            unsafe { libc::madvise(start.cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        Self { start, layout }
    }

    pub(crate) fn from_f32(values: &[f32]) -> Self {
        let mut memory = Self::zeroed(values.len() * 4);
        memory.as_f32_mut()[..values.len()].copy_from_slice(values);
        memory
    }

    pub(crate) fn from_u16(values: &[u16]) -> Self {
        let mut memory = Self::zeroed(values.len() * 2);
        memory.as_u16_mut()[..values.len()].copy_from_slice(values);
        memory
    }

    pub(crate) fn len(&self) -> usize {
        self.layout.size()
    }

    /// May be written through by whoever makes sure that nobody else reads or writes there.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.start
    }

    pub(crate) fn as_f32_mut(&mut self) -> &mut [f32] {
        // SAFETY: initialised, ours, aligned to 64 bytes; any bits are an f32.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.len() / 4) }
    }

    pub(crate) fn as_u16_mut(&mut self) -> &mut [u16] {
        // SAFETY: initialised, ours, aligned to 64 bytes; any bits are a u16.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.len() / 2) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout and not freed before.
        unsafe { dealloc(self.start, self.layout) };
    }
}

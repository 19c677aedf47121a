//! Zeroed memory that is aligned for tiles and vectors. Does not know what lies in it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

/// Bytes of a cache line and of a row of a tile. A tile whose rows straddle cache lines loads
/// at a third of the speed.
const LINE_BYTES: usize = 64;
/// Bytes of a huge page. Without huge pages, reading the weights of a whole network misses the
/// TLB constantly.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A fixed number of bytes, zero at first.
#[derive(Debug)]
pub(crate) struct AlignedMemory {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: it owns its memory and lends it by the usual borrowing rules.
unsafe impl Send for AlignedMemory {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for AlignedMemory {}

impl AlignedMemory {
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
            // contents, and if it fails the memory is only slower.
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

    /// The first byte. A caller that makes sure that nobody else reads or writes a byte may
    /// write it through this pointer.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.start
    }

    pub(crate) fn as_f32_mut(&mut self) -> &mut [f32] {
        // SAFETY: the bytes are initialised, ours, and aligned to 64; any bits are an f32.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.len() / 4) }
    }

    pub(crate) fn as_u8_mut(&mut self) -> &mut [u8] {
        // SAFETY: the bytes are initialised and ours.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len()) }
    }

    pub(crate) fn as_u16_mut(&mut self) -> &mut [u16] {
        // SAFETY: the bytes are initialised, ours, and aligned to 64; any bits are a u16.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.len() / 2) }
    }
}

impl Drop for AlignedMemory {
    fn drop(&mut self) {
        // SAFETY: `zeroed` allocated it with this layout, and nothing freed it before.
        unsafe { dealloc(self.start, self.layout) };
    }
}

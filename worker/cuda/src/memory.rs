//! Memory on the device, and pinned memory on the host, which the device copies to and from while
//! the host does something else.
//!
//! Owns allocations and copies, and that want of memory is told as such. What is kept where is not
//! known here. Upstream: [`device`](crate::device), which makes the streams. Downstream: weights,
//! activations and results.
//!
//! Allocations are ordered by the stream that they are made on: memory may be used on another
//! stream only after the first has been waited for.

use std::ptr::NonNull;
use std::sync::{Arc, LazyLock};
use std::thread;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, DevicePtr, DeviceRepr, DriverError, result,
};

use crate::error::CudaError;

/// An address in the device's memory: cudarc's `CUdeviceptr`.
pub(crate) type DevicePointer = u64;

/// Where a value may start that cuDNN and the kernels read: the driver's own granularity.
pub(crate) const ALIGNMENT: usize = 256;

/// Bytes that are worth a thread of their own in a copy on the host.
const BYTES_OF_A_THREAD: usize = 4 << 20;
/// Threads that copy at most: the host's memory is not faster with more. A quarter of the cores, so
/// that decoders have the others.
static MOST_THREADS: LazyLock<usize> = LazyLock::new(|| {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (cores / 4).clamp(1, 4)
});

/// Memory on the device. It is freed in the order of the stream that it was allocated on.
#[derive(Debug)]
pub(crate) struct DeviceMemory {
    slice: CudaSlice<u8>,
    pointer: DevicePointer,
}

impl DeviceMemory {
    /// Allocates memory with any content. `what` names its use, for the error.
    ///
    /// # Errors
    /// If there is not enough memory, or the device fails.
    pub(crate) fn new(
        stream: &Arc<CudaStream>,
        bytes: usize,
        what: &str,
    ) -> Result<Self, CudaError> {
        let allocate = || {
            // The driver refuses to allocate nothing.
            // SAFETY: any byte is a valid u8, and what reads the memory has written it before.
            unsafe { stream.alloc::<u8>(bytes.max(1)) }
        };
        let slice = match allocate() {
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                release_freed_memory(stream.context()).and_then(|()| allocate())
            }
            allocated => allocated,
        };
        let slice = slice.map_err(|error| CudaError::of_driver(error, what))?;
        let pointer = slice.device_ptr(stream).0;
        Ok(Self { slice, pointer })
    }

    /// Allocates memory that holds `values`, and waits until it does.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn holding<T: DeviceRepr>(
        stream: &Arc<CudaStream>,
        values: &[T],
        what: &str,
    ) -> Result<Self, CudaError> {
        let memory = Self::new(stream, size_of_val(values), what)?;
        memory.write(stream, values)?;
        Ok(memory)
    }

    /// Its address.
    pub(crate) fn pointer(&self) -> DevicePointer {
        self.pointer
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.slice.len()
    }

    /// Copies `values` to its start, after what `stream` has to do before, and waits until they
    /// are there.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the values need more memory.
    pub(crate) fn write<T: DeviceRepr>(
        &self,
        stream: &CudaStream,
        values: &[T],
    ) -> Result<(), CudaError> {
        assert!(size_of_val(values) <= self.bytes(), "values that fit their memory");
        let failed = |error| CudaError::of_driver(error, "an upload");
        stream.context().bind_to_thread().map_err(failed)?;
        // SAFETY: the target has room, and the source lives until the stream has been waited for.
        unsafe { result::memcpy_htod_async(self.pointer, values, stream.cu_stream()) }
            .map_err(failed)?;
        stream.synchronize().map_err(failed)
    }

    /// The first `count` values of f32, after what `stream` has to do before. Waits for them.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the memory has fewer values.
    pub(crate) fn read_f32(
        &self,
        stream: &CudaStream,
        count: usize,
    ) -> Result<Vec<f32>, CudaError> {
        assert!(count * size_of::<f32>() <= self.bytes(), "values that the memory has");
        let failed = |error| CudaError::of_driver(error, "a download");
        stream.context().bind_to_thread().map_err(failed)?;
        let mut values = vec![0f32; count];
        // SAFETY: the source has the values, any bits are an f32, and the target lives until the
        // stream has been waited for.
        unsafe { result::memcpy_dtoh_async(&mut values, self.pointer, stream.cu_stream()) }
            .map_err(failed)?;
        stream.synchronize().map_err(failed)?;
        Ok(values)
    }
}

/// Gives the system what the device's pool keeps of memory that was freed. It may be in pieces that
/// are too small, or wait for another stream.
fn release_freed_memory(context: &CudaContext) -> Result<(), DriverError> {
    context.synchronize()?;
    if !context.has_async_alloc() {
        return Ok(());
    }
    // SAFETY: the device is the context's, and so is its pool.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        result::mem_pool::trim_to(pool, 0)
    }
}

/// Sets `bytes` of the device's memory from `start` on to zero, in the order of `stream`.
///
/// # Errors
/// If the device fails.
///
/// # Safety
/// The memory is allocated.
pub(crate) unsafe fn set_to_zero(
    stream: &CudaStream,
    start: DevicePointer,
    bytes: usize,
) -> Result<(), CudaError> {
    if bytes == 0 {
        return Ok(());
    }
    let failed = |error| CudaError::of_driver(error, "clearing memory");
    stream.context().bind_to_thread().map_err(failed)?;
    // SAFETY: as this function's caller promises.
    unsafe { result::memset_d8_async(start, 0, bytes, stream.cu_stream()) }.map_err(failed)
}

/// The host's memory that the device copies to and from by itself. It is cached by the host's CPUs
/// (not write-combined), since the host reads results from it.
#[derive(Debug)]
pub(crate) struct PinnedMemory {
    start: NonNull<u8>,
    bytes: usize,
    context: Arc<CudaContext>,
}

// SAFETY: it owns its memory alone, and the driver frees it on any thread that has the context.
unsafe impl Send for PinnedMemory {}

impl PinnedMemory {
    /// Allocates memory that is zero. `what` names its use, for the error.
    ///
    /// # Errors
    /// If the host has not enough memory that can be pinned.
    pub(crate) fn new(
        context: &Arc<CudaContext>,
        bytes: usize,
        what: &str,
    ) -> Result<Self, CudaError> {
        let failed = |error| CudaError::of_driver(error, what);
        context.bind_to_thread().map_err(failed)?;
        let bytes = bytes.max(1);
        // SAFETY: the driver is initialised, since there is a context.
        let start = unsafe { result::malloc_host(bytes, 0) }.map_err(failed)?;
        let Some(start) = NonNull::new(start.cast::<u8>()) else {
            return Err(CudaError::OutOfMemory { what: what.to_owned() });
        };
        // SAFETY: the allocation has these bytes.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Self { start, bytes, context: Arc::clone(context) })
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its content.
    ///
    /// # Safety
    /// The device is not writing to it.
    pub(crate) unsafe fn content(&self) -> &[u8] {
        // SAFETY: all bytes were written when it was made, and by the promise nobody writes now.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// Its content, to change it.
    ///
    /// # Safety
    /// The device is neither reading nor writing it.
    pub(crate) unsafe fn content_mut(&mut self) -> &mut [u8] {
        // SAFETY: all bytes were written when it was made, and by the promise nobody else uses it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// Copies `bytes` to its start. A batch takes one thread more than half as long as it takes a
    /// fast GPU to compute it, so several threads share the work.
    ///
    /// # Safety
    /// The device is neither reading nor writing it.
    pub(crate) unsafe fn fill(&mut self, bytes: &[u8]) {
        // SAFETY: as the caller promises.
        let target = unsafe { &mut self.content_mut()[..bytes.len()] };
        let threads = (bytes.len() / BYTES_OF_A_THREAD).clamp(1, *MOST_THREADS);
        copy(bytes, target, threads);
    }

    /// Lets the device copy the first `bytes` to `to`, in the order of `stream`.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Safety
    /// `to` has room for them. This memory stays, unchanged, until the stream has done it.
    pub(crate) unsafe fn upload(
        &self,
        stream: &CudaStream,
        bytes: usize,
        to: DevicePointer,
    ) -> Result<(), CudaError> {
        let failed = |error| CudaError::of_driver(error, "an upload");
        stream.context().bind_to_thread().map_err(failed)?;
        // SAFETY: nobody writes the source, and the target has room, as the caller promises.
        unsafe {
            let source = &self.content()[..bytes];
            result::memcpy_htod_async(to, source, stream.cu_stream()).map_err(failed)
        }
    }

    /// Lets the device copy `bytes` from `from` to the start of this memory, in the order of
    /// `stream`.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Safety
    /// `from` has them. This memory stays, and is not read, until the stream has done it.
    pub(crate) unsafe fn download(
        &mut self,
        stream: &CudaStream,
        bytes: usize,
        from: DevicePointer,
    ) -> Result<(), CudaError> {
        let failed = |error| CudaError::of_driver(error, "a download");
        stream.context().bind_to_thread().map_err(failed)?;
        // SAFETY: nobody uses the target, and the source is there, as the caller promises.
        unsafe {
            let target = &mut self.content_mut()[..bytes];
            result::memcpy_dtoh_async(target, from, stream.cu_stream()).map_err(failed)
        }
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        self.context.record_err(self.context.bind_to_thread());
        // SAFETY: it was allocated so, once.
        let freed = unsafe { result::free_host(self.start.as_ptr().cast()) };
        self.context.record_err(freed);
    }
}

/// Copies bytes to a target of the same size with some threads, this one among them.
fn copy(bytes: &[u8], target: &mut [u8], threads: usize) {
    let part = bytes.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let mut parts = target.chunks_mut(part).zip(bytes.chunks(part));
        let own = parts.next();
        for (target, bytes) in parts {
            scope.spawn(move || target.copy_from_slice(bytes));
        }
        if let Some((target, bytes)) = own {
            target.copy_from_slice(bytes);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_threads_copy_all_bytes() {
        for length in [0, 1, 5, 1000] {
            let bytes: Vec<u8> = (0..length).map(|value| value as u8).collect();
            for threads in 1..5 {
                let mut target = vec![0xffu8; length];
                copy(&bytes, &mut target, threads);
                assert_eq!(target, bytes, "{length} bytes by {threads} threads");
            }
        }
    }
}

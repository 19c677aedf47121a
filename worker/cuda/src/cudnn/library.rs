//! cuDNN as a whole: whether the library is there and new enough, a handle to it, and what its
//! statuses mean.
//!
//! Owns the handle and the stream that it enqueues on. Knows no descriptors. Upstream: the
//! driver's streams. Downstream: [`descriptor`](super::descriptor) and all above it.

use std::cell::RefCell;
use std::ptr;
use std::sync::Arc;

use cudarc::cudnn::sys;
use cudarc::driver::{CudaContext, CudaStream};

use crate::error::CudaError;

/// The lowest version that will do, as [`Cudnn::version`] counts. The first of cuDNN 9, since
/// `cudnnGetLastErrorString` and the present numbers of statuses are new in it.
const OLDEST_VERSION: usize = 90_000;
/// Bytes of cuDNN's last message. Longer ones are cut.
const MESSAGE_BYTES: usize = 1024;

/// Turns a status of cuDNN into a result. `operation` is a noun: what was being done.
pub(super) fn check(status: sys::cudnnStatus_t, operation: &str) -> Result<(), CudaError> {
    match status {
        sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS => Ok(()),
        status => Err(CudaError::of_cudnn(status, operation, last_message())),
    }
}

/// What cuDNN says about this thread's last error. It may be empty.
fn last_message() -> String {
    let mut text = [0u8; MESSAGE_BYTES];
    // SAFETY: cuDNN writes at most as many bytes as it is told that there are.
    unsafe { sys::cudnnGetLastErrorString(text.as_mut_ptr().cast(), text.len()) };
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// The version of the library, if it is there and new enough. cudarc panics if a function is
/// called of a library that is not there, so this comes before any other call.
fn library_version() -> Result<usize, CudaError> {
    // SAFETY: loading cuDNN runs its initialisers, which have no conditions.
    let is_present = unsafe { sys::is_culib_present() };
    if !is_present {
        let reason = "the system's search for libraries finds no libcudnn.so.9".to_owned();
        return Err(CudaError::NoCudnn { reason });
    }
    // SAFETY: it has no conditions.
    let found = unsafe { sys::cudnnGetVersion() };
    if found < OLDEST_VERSION {
        return Err(CudaError::OldCudnn { found, needed: OLDEST_VERSION });
    }
    Ok(found)
}

/// What an error at cuDNN's start means: if not memory is short, the installation is broken.
fn not_started(error: CudaError) -> CudaError {
    match error {
        CudaError::Unsupported { what: reason } | CudaError::Failed { reason, .. } => {
            CudaError::NoCudnn { reason }
        }
        other => other,
    }
}

/// Owns cuDNN's handle. Whatever is made with a handle keeps it, so the handle is freed last.
#[derive(Debug)]
pub(super) struct Handle {
    raw: sys::cudnnHandle_t,
    context: Arc<CudaContext>,
}

// SAFETY: cuDNN allows a handle on any thread, but on one at a time. Only functions that borrow
// a `Cudnn`, which is not `Sync`, pass the handle to cuDNN. Others only keep it alive.
unsafe impl Send for Handle {}
// SAFETY: as for `Send`.
unsafe impl Sync for Handle {}

impl Handle {
    /// The handle itself. Only for calls that happen while a [`Cudnn`] is borrowed.
    pub(super) fn raw(&self) -> sys::cudnnHandle_t {
        self.raw
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.context.record_err(self.context.bind_to_thread());
        // SAFETY: it was created once, and everything that was made with it is freed.
        let status = unsafe { sys::cudnnDestroy(self.raw) };
        if let Err(error) = check(status, "the end of cuDNN") {
            tracing::debug!(%error, "cuDNN's handle is not freed");
        }
    }
}

/// cuDNN on one device, for one thread at a time: it may be moved to another, but not shared.
#[derive(Debug)]
pub(crate) struct Cudnn {
    handle: Arc<Handle>,
    /// What `handle` enqueues on. cuDNN only borrows the stream, so it is kept here.
    stream: RefCell<Arc<CudaStream>>,
    version: usize,
}

impl Cudnn {
    /// Loads cuDNN and lets it enqueue on `stream`.
    ///
    /// # Errors
    /// If the library is missing, too old, or does not start.
    pub(crate) fn open(stream: &Arc<CudaStream>) -> Result<Self, CudaError> {
        let version = library_version()?;
        let operation = "the start of cuDNN";
        let context = Arc::clone(stream.context());
        context.bind_to_thread().map_err(|error| CudaError::of_driver(error, operation))?;
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` has room for a handle, and the device's context is current.
        check(unsafe { sys::cudnnCreate(&raw mut raw) }, operation).map_err(not_started)?;
        let handle = Arc::new(Handle { raw, context });
        let cudnn = Self { handle, stream: RefCell::new(Arc::clone(stream)), version };
        cudnn.use_stream(stream)?;
        Ok(cudnn)
    }

    /// Enqueues on `stream` from now on.
    ///
    /// # Errors
    /// If the stream belongs to another device.
    pub(crate) fn use_stream(&self, stream: &Arc<CudaStream>) -> Result<(), CudaError> {
        // SAFETY: the handle and the stream are alive, and the stream is kept below.
        let status = unsafe { sys::cudnnSetStream(self.handle.raw, stream.cu_stream().cast()) };
        check(status, "cuDNN's change to another stream")?;
        *self.stream.borrow_mut() = Arc::clone(stream);
        Ok(())
    }

    /// What it enqueues on.
    pub(super) fn stream(&self) -> Arc<CudaStream> {
        Arc::clone(&self.stream.borrow())
    }

    /// cuDNN's number for its version: 91400 is 9.14.0.
    pub(crate) fn version(&self) -> usize {
        self.version
    }

    /// For whatever refers to it.
    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// The cause of an `error` in enqueueing. cuDNN reports a dead context like any other failure
    /// of a launch; the driver tells which it is.
    pub(super) fn cause_of(&self, error: CudaError) -> CudaError {
        match self.stream().synchronize() {
            Ok(()) => error,
            Err(cause) => match CudaError::of_driver(cause, "a convolution") {
                lost @ CudaError::Lost { .. } => lost,
                _ => error,
            },
        }
    }
}

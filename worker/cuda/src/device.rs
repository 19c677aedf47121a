//! A GPU: whether there is one, and its context.
//!
//! Owns every check that must come before the first call of the driver. cudarc loads the driver
//! when it first needs it, and panics if it is not there or lacks a function; so nothing else in
//! this crate calls the driver before a [`CudaDevice`] is open. Downstream: all of this crate.

use std::ffi::c_int;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use crate::error::CudaError;

/// The lowest version of CUDA whose drivers have all functions that are called: 12.8 brought
/// `cuEventElapsedTime_v2`.
const NEEDED_DRIVER: i32 = 12080;

/// A GPU whose context is open in this process.
#[derive(Clone, Debug)]
pub struct CudaDevice {
    context: Arc<CudaContext>,
    name: String,
    driver: i32,
}

impl CudaDevice {
    /// True if there is a driver that is new enough, and at least one GPU.
    pub fn is_present() -> bool {
        match start_driver() {
            Ok(Driver { devices, .. }) => devices > 0,
            Err(reason) => {
                tracing::debug!(%reason, "no GPU");
                false
            }
        }
    }

    /// Opens the GPU `ordinal`, counted from 0.
    ///
    /// # Errors
    /// If there is no driver, an old driver, no such GPU, or if it can't be opened.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        let Driver { version, devices } = start_driver()?;
        if ordinal >= devices {
            return Err(CudaError::NoDevice { ordinal, devices });
        }
        let operation = format!("opening GPU {ordinal}");
        let failed = |error: DriverError| match CudaError::of_driver(error, &operation) {
            // Nothing is lost yet: another process may have the device for itself.
            CudaError::Lost { operation, reason } => CudaError::Failed { operation, reason },
            other => other,
        };
        let context = CudaContext::new(ordinal).map_err(failed)?;
        // SAFETY: memory is used on another stream than its own only after one has waited for the
        // other, and is freed in the order of its own: see `memory`.
        unsafe { context.disable_event_tracking() };
        keep_freed_memory(&context).map_err(failed)?;
        let name = context.name().map_err(failed)?;
        Ok(Self { context, name, driver: version })
    }

    /// Its name, such as "NVIDIA H100 80GB HBM3".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number, from 0.
    pub fn ordinal(&self) -> usize {
        self.context.ordinal()
    }

    /// The version of CUDA that the driver supports, as the driver writes it: 12080 is 12.8.
    pub fn driver(&self) -> i32 {
        self.driver
    }

    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Makes a stream, whose work runs beside that of other streams.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn new_stream(&self) -> Result<Arc<CudaStream>, CudaError> {
        let stream = self.context.new_stream();
        stream.map_err(|error| CudaError::of_driver(error, "making a stream"))
    }

    /// Lets this thread call the driver for this device.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn bind_to_thread(&self) -> Result<(), CudaError> {
        let bound = self.context.bind_to_thread();
        bound.map_err(|error| CudaError::of_driver(error, "using the GPU from this thread"))
    }
}

/// What the driver says about itself.
struct Driver {
    version: i32,
    devices: usize,
}

/// Loads and starts the driver. Done again it does no harm.
fn start_driver() -> Result<Driver, CudaError> {
    // SAFETY: loading the driver's library runs nothing but its own initialisation.
    if !unsafe { sys::is_culib_present() } {
        let reason = "libcuda.so.1 is not in the library path".to_owned();
        return Err(CudaError::NoDriver { reason });
    }
    let no_driver = |error: DriverError| CudaError::NoDriver { reason: format!("{:?}", error.0) };
    let mut version: c_int = 0;
    // SAFETY: every driver has this function, and it may be called before all others.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(no_driver)?;
    if version < NEEDED_DRIVER {
        return Err(CudaError::OldDriver { found: version, needed: NEEDED_DRIVER });
    }
    match result::init() {
        Ok(()) => {}
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => {
            return Ok(Driver { version, devices: 0 });
        }
        Err(error) => return Err(no_driver(error)),
    }
    let devices = result::device::get_count().map_err(no_driver)?;
    Ok(Driver { version, devices: usize::try_from(devices).unwrap_or(0) })
}

/// Lets the device's pool keep memory that was freed: by default it goes back to the system at the
/// next wait, and has to be mapped again for the next allocation.
fn keep_freed_memory(context: &CudaContext) -> Result<(), DriverError> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    // SAFETY: the device is the context's.
    let pool = unsafe { result::device::get_default_mem_pool(context.cu_device()) }?;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    let mut threshold = u64::MAX;
    // SAFETY: this attribute is a u64, which is read during the call.
    unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()) }.result()
}

//! Memory for passes that are cut at a layer, beside what a target layer keeps for itself.
//!
//! Owns when it grows: the memory of a batch is allocated when a batch of that size comes, since a
//! caller whose device is short of memory comes with smaller ones. Upstream:
//! [`memory`](crate::memory) and [`buffers`](crate::buffers).

use std::sync::Arc;

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::buffers::BufferPlan;
use crate::error::CudaError;
use crate::memory::{DeviceMemory, DevicePointer};
use crate::number_format::NumberFormat;
use crate::operations::{BufferId, OperationList};

/// Memory for the values of passes that are cut at a layer, planned like that of a forward pass:
/// values that are never needed at the same time share a place. It grows to the largest batch that
/// was asked for.
#[derive(Debug, Default)]
pub(crate) struct CutActivations {
    planned: Option<Planned>,
}

#[derive(Debug)]
struct Planned {
    places: SharedPlaces,
    images: usize,
    memory: DeviceMemory,
}

/// Where the values of a pass lie that are not kept.
#[derive(Clone, Debug)]
pub(crate) struct SharedPlaces {
    start: DevicePointer,
    plan: Arc<BufferPlan>,
}

impl SharedPlaces {
    pub(crate) fn at(&self, buffer: BufferId) -> DevicePointer {
        self.start + self.plan.offset(buffer) as DevicePointer
    }

    /// True if both are the same places in the same memory.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.plan, &other.plan)
    }
}

impl CutActivations {
    /// Where each value lies, for up to `images` images. Places that were given before for a
    /// smaller batch are gone if the memory grows.
    ///
    /// # Errors
    /// If there is too little memory.
    pub(super) fn places(
        &mut self,
        stream: &Arc<CudaStream>,
        list: &OperationList,
        format: NumberFormat,
        images: usize,
    ) -> Result<SharedPlaces, CudaError> {
        if let Some(planned) = &self.planned
            && planned.images >= images
        {
            return Ok(planned.places.clone());
        }
        // The old memory first: there may not be room for both.
        self.planned = None;
        let plan = BufferPlan::new(list, format, images, 0);
        let what = "the activations before a target layer";
        let memory = DeviceMemory::new(stream, plan.bytes(), what)?;
        let places = SharedPlaces { start: memory.pointer(), plan: Arc::new(plan) };
        self.planned = Some(Planned { places: places.clone(), images, memory });
        Ok(places)
    }

    /// Bytes that it has now.
    pub(crate) fn bytes(&self) -> usize {
        self.planned.as_ref().map_or(0, |planned| planned.memory.bytes())
    }
}

/// Memory that is replaced by a larger one when more is needed.
#[derive(Debug)]
pub(crate) struct GrowingMemory {
    memory: Option<DeviceMemory>,
    /// Its use, for errors.
    what: &'static str,
}

impl GrowingMemory {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { memory: None, what }
    }

    /// The memory, with at least `bytes` bytes. Its content is lost if it grows.
    ///
    /// # Errors
    /// If there is too little memory.
    pub(crate) fn with_room(
        &mut self,
        stream: &Arc<CudaStream>,
        bytes: usize,
    ) -> Result<&DeviceMemory, CudaError> {
        if self.memory.as_ref().is_none_or(|memory| memory.bytes() < bytes) {
            // The old one first: there may not be room for both.
            self.memory = None;
            self.memory = Some(DeviceMemory::new(stream, bytes, self.what)?);
        }
        Ok(self.memory.as_ref().expect("it was just made"))
    }

    /// Uploads `values`, and waits until they are there. Returns their address.
    ///
    /// # Errors
    /// If there is too little memory, or the device fails.
    pub(crate) fn upload<T: DeviceRepr>(
        &mut self,
        stream: &Arc<CudaStream>,
        values: &[T],
    ) -> Result<DevicePointer, CudaError> {
        let memory = self.with_room(stream, size_of_val(values))?;
        memory.write(stream, values)?;
        Ok(memory.pointer())
    }

    /// Bytes that it has now.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, DeviceMemory::bytes)
    }
}

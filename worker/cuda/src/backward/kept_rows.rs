//! The memory of a gradient pass: what it keeps on the way to the logits, for the way back, and the
//! areas of gradients.
//!
//! Owns places alone. Upstream: [`layer_cut`](crate::layer_cut) and the [`program`](super::program).

use std::sync::Arc;

use cudarc::driver::CudaStream;

use crate::error::CudaError;
use crate::layer_cut::CutLayer;
use crate::memory::{ALIGNMENT, DeviceMemory, DevicePointer};
use crate::number_format::NumberFormat;
use crate::operations::{BufferId, OperationList};

/// Places of the values of up to some number of rows, each for itself.
#[derive(Debug)]
pub(super) struct KeptRows {
    rows: usize,
    /// By the value's id: what is after the layer, and what is carried past it.
    values: Vec<Option<DevicePointer>>,
    /// The layer's own output.
    layer: DevicePointer,
    /// The areas of gradients.
    areas: Vec<DevicePointer>,
    memory: DeviceMemory,
}

impl KeptRows {
    /// Allocates the memory. `areas` are the values of each area for one row.
    ///
    /// # Errors
    /// If there is too little memory.
    pub(super) fn new(
        stream: &Arc<CudaStream>,
        list: &OperationList,
        format: NumberFormat,
        layer: &CutLayer,
        areas: &[usize],
        rows: usize,
    ) -> Result<Self, CudaError> {
        let mut end = 0;
        let mut offset_of = |values: usize| {
            let start = end;
            end += (rows * values * format.bytes()).next_multiple_of(ALIGNMENT);
            start as DevicePointer
        };
        let place = &layer.place;
        let mut offsets = vec![None; list.buffers.len()];
        let after = list.operations[place.after..].iter().map(|operation| operation.output());
        for value in after.chain(place.carried).chain([place.output]) {
            offsets[value.0] = Some(offset_of(list.shape(value).values()));
        }
        // A convolution's own output is needed for maps, and what follows is computed in place.
        let layer_offset = match (&layer.convolution, offsets[place.output.0]) {
            (None, Some(offset)) => offset,
            _ => offset_of(list.shape(place.output).values()),
        };
        let area_offsets: Vec<_> = areas.iter().map(|&values| offset_of(values)).collect();
        let what = format!("the gradients of {rows} targets");
        let memory = DeviceMemory::new(stream, end, &what)?;
        let start = memory.pointer();
        let values = offsets.into_iter().map(|offset| offset.map(|offset| start + offset));
        let areas = area_offsets.into_iter().map(|offset| start + offset);
        let (values, areas) = (values.collect(), areas.collect());
        Ok(Self { rows, values, layer: start + layer_offset, areas, memory })
    }

    /// Rows that it has room for.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Where a value lies. It is after the layer, or carried past it.
    pub(super) fn at(&self, value: BufferId) -> DevicePointer {
        self.values[value.0].expect("a value that is needed after the layer")
    }

    /// Where the layer's own output lies.
    pub(super) fn layer(&self) -> DevicePointer {
        self.layer
    }

    /// Where an area of gradients starts.
    pub(super) fn area(&self, area: usize) -> DevicePointer {
        self.areas[area]
    }

    /// Bytes of its memory on the device.
    pub(super) fn bytes(&self) -> usize {
        self.memory.bytes()
    }
}

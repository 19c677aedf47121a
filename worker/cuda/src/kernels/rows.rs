//! Kernels that change or copy rows of channels.
//!
//! Owns their arguments and blocks; the kernels are in `kernels_rows.h`. Upstream: passes, forward
//! and backward.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::launch::Argument::{Count, Flag, OptionalPointer, Pointer, Size};
use super::launch::{blocks_for, groups_of};
use super::{Kernels, TILE};
use crate::error::CudaError;
use crate::memory::DevicePointer;
use crate::number_format::NumberFormat;

#[expect(clippy::too_many_arguments, reason = "a kernel takes pointers and sizes")]
impl Kernels {
    /// `values = relu(values + residual + bias)`, in place: values and residual `[rows, C]`, bias
    /// `[C]`, all in the format. Without `relu`, negative values stay.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn add_bias_relu(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        values: DevicePointer,
        bias: DevicePointer,
        residual: Option<DevicePointer>,
        relu: bool,
        rows: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        let kernel = &self.of(format).add_bias_relu;
        let arguments = [
            Pointer(values),
            Pointer(bias),
            OptionalPointer(residual),
            Flag(relu),
            Count(rows),
            Size(channels),
        ];
        kernel.launch(stream, blocks_of_rows(format, rows, channels), &arguments)
    }

    /// `values = values * factors`, in place: values `[rows, C]`, factors f32 `[C]`.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn scale_channels(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        values: DevicePointer,
        factors: DevicePointer,
        rows: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        self.affine(stream, format, values, factors, None, false, rows, channels)
    }

    /// `values = relu(values * scale + shift)`, in place: values `[rows, C]`, scale and shift f32
    /// `[C]`. Without `relu`, negative values stay.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn affine(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        values: DevicePointer,
        scale: DevicePointer,
        shift: Option<DevicePointer>,
        relu: bool,
        rows: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        let kernel = &self.of(format).affine;
        let arguments = [
            Pointer(values),
            Pointer(scale),
            OptionalPointer(shift),
            Flag(relu),
            Count(rows),
            Size(channels),
        ];
        kernel.launch(stream, blocks_of_rows(format, rows, channels), &arguments)
    }

    /// Sets the gradient to zero, in place, wherever the ReLU's output is zero. Both have `values`
    /// values.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn relu_mask(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        gradient: DevicePointer,
        output: DevicePointer,
        values: usize,
    ) -> Result<(), CudaError> {
        let arguments = [Pointer(gradient), Pointer(output), Count(values)];
        let blocks = blocks_for(groups_of(format, values));
        self.of(format).relu_mask.launch(stream, blocks, &arguments)
    }

    /// `to = to + from`, of `values` values.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn add(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        to: DevicePointer,
        from: DevicePointer,
        values: usize,
    ) -> Result<(), CudaError> {
        let arguments = [Pointer(to), Pointer(from), Count(values)];
        let blocks = blocks_for(groups_of(format, values));
        self.of(format).add.launch(stream, blocks, &arguments)
    }

    /// Copies row `indices[r]` of `from` to row r of `to`, for `rows` indices, i32. Rows have
    /// `row_values` values.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn gather_rows(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        from: DevicePointer,
        indices: DevicePointer,
        to: DevicePointer,
        rows: usize,
        row_values: usize,
    ) -> Result<(), CudaError> {
        let arguments = [Pointer(from), Pointer(indices), Pointer(to), Size(row_values)];
        let blocks = rows * blocks_for(groups_of(format, row_values));
        self.of(format).gather_rows.launch(stream, blocks, &arguments)
    }

    /// Copies one image's features `[P, C]` to `output`, `[count, P, C]`: each copy with one
    /// channel set to zero, from channel `first` on.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn ablate(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        features: DevicePointer,
        first: usize,
        count: usize,
        output: DevicePointer,
        positions: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        let arguments =
            [Pointer(features), Pointer(output), Size(first), Size(positions), Size(channels)];
        let blocks = count * blocks_for(positions * groups_of(format, channels));
        self.of(format).ablate.launch(stream, blocks, &arguments)
    }

    /// Activations `[N, P, C]` to f32 `[N, C, P]`.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn export(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        from: DevicePointer,
        to: DevicePointer,
        images: usize,
        positions: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        let arguments = [Pointer(from), Pointer(to), Size(positions), Size(channels)];
        let blocks = images * tiles_of(positions, channels);
        self.of(format).export_planes.launch(stream, blocks, &arguments)
    }

    /// f32 `[N, C, P]` to activations `[N, P, C]`.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn import(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        from: DevicePointer,
        to: DevicePointer,
        images: usize,
        positions: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        let arguments = [Pointer(from), Pointer(to), Size(positions), Size(channels)];
        let blocks = images * tiles_of(positions, channels);
        self.of(format).import_planes.launch(stream, blocks, &arguments)
    }
}

/// Blocks of a kernel whose threads each take a group of one row's channels.
fn blocks_of_rows(format: NumberFormat, rows: usize, channels: usize) -> usize {
    blocks_for(rows * groups_of(format, channels))
}

/// Blocks of a kernel that transposes one image's `[positions, channels]`.
fn tiles_of(positions: usize, channels: usize) -> usize {
    positions.div_ceil(TILE) * channels.div_ceil(TILE)
}

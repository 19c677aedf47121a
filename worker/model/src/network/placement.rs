//! Where a network's tensors lie, and their number format.

use candle_core::{DType, Device};

/// The device and number format of a network's tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement<'a> {
    /// The device that holds them.
    pub(crate) device: &'a Device,
    /// Their number format.
    pub(crate) dtype: DType,
}

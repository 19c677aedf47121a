//! Tensors read from another format, and how they become a safetensors file.

use std::borrow::Cow;

use bytes::Bytes;
use safetensors::tensor::{Dtype, View};

use super::error::CheckpointError;
use super::state_dict::StateDictChoice;

/// A checkpoint as one safetensors file.
#[derive(Clone, Debug)]
pub(crate) struct Converted {
    /// The file.
    pub(crate) file: Bytes,
    /// Which of several state_dicts it holds.
    pub(crate) choice: Option<StateDictChoice>,
    /// The user's key, if it was not that of a state_dict: only tensors whose names begin with it
    /// count.
    pub(crate) part: Option<String>,
}

/// A tensor read from another format, to be written to a safetensors file.
pub(super) struct ConvertedTensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Row-major, little-endian.
    pub(super) values: Vec<u8>,
}

impl View for &ConvertedTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        (&self.values).into()
    }

    fn data_len(&self) -> usize {
        self.values.len()
    }
}

/// Writes tensors in safetensors' format.
pub(super) fn serialize(tensors: &[(String, ConvertedTensor)]) -> Result<Bytes, CheckpointError> {
    let named = tensors.iter().map(|(name, tensor)| (name, tensor));
    safetensors::serialize(named, None)
        .map(Bytes::from)
        .map_err(|error| CheckpointError::Damaged(error.to_string()))
}

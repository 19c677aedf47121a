//! Weights files of other programs, as safetensors.
//!
//! Tells a file's kind by its first bytes, whatever it is called. Names and shapes of tensors
//! stay as they are: [`super::naming`] translates them. Upstream: a file's bytes from whoever
//! made it, so nothing in them is trusted, and none of their code is run. Downstream:
//! [`super::weights`].

use std::borrow::Cow;

use bytes::Bytes;
use safetensors::tensor::{Dtype, View};

mod pickle;
mod torch;

/// Largest converted checkpoint: views of one storage could otherwise claim any size.
const MAX_CONVERTED_BYTES: u64 = camshaft_common::model::MAX_WEIGHTS_BYTES;

/// Why a weights file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A clone without its large files.
    #[error("the file is a Git LFS pointer, not the weights; run `git lfs pull`")]
    LfsPointer,
    /// What a failed download leaves.
    #[error("the file is a web page, not weights; download it again")]
    WebPage,
    /// `torch.save` before PyTorch 1.6.
    #[error(
        "the file is in PyTorch's format of before 1.6; load it with torch.load and write its \
         state_dict again with torch.save or safetensors"
    )]
    LegacyTorch,
    /// A pickled object instead of its tensors.
    #[error(
        "the file holds a pickled {class}, which can't be read without running its code; write \
         its state_dict() instead"
    )]
    WholeModule {
        /// What Python calls it.
        class: String,
    },
    /// A pickle that holds something else.
    #[error("the file has no state_dict: {0}")]
    NoStateDict(String),
    /// HDF5 or a `.keras` archive.
    #[error(
        "the file is Keras' ({0}); convert it to safetensors with the few lines of Python in \
         docs/models.md"
    )]
    Keras(&'static str),
    /// Cut or corrupt.
    #[error("the file is damaged ({0}); copy it again")]
    Damaged(String),
}

/// A file's kind, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Safetensors,
    Zip,
    LegacyTorch,
    Hdf5,
    LfsPointer,
    WebPage,
}

impl Kind {
    fn of(file: &[u8]) -> Self {
        // Pickle protocols 2 to 5, and a long of ten bytes: torch.save's magic number.
        let legacy = matches!(file, [0x80, 2..=5, 0x8a, 10, 0x6c, 0xfc, ..]);
        let start = file.trim_ascii_start();
        if file.starts_with(b"PK\x03\x04") {
            Self::Zip
        } else if file.starts_with(b"\x89HDF\r\n\x1a\n") {
            Self::Hdf5
        } else if legacy {
            Self::LegacyTorch
        } else if file.starts_with(b"version https://git-lfs.github.com/") {
            Self::LfsPointer
        } else if start.len() > 1
            && start[0] == b'<'
            && matches!(start[1], b'!' | b'h' | b'H' | b'?')
        {
            Self::WebPage
        } else {
            // The length of its header; the reader says what is wrong with it.
            Self::Safetensors
        }
    }
}

/// A weights file as safetensors: itself where it is one, or may be.
///
/// # Errors
/// Where it is of a kind that can't be read, or damaged.
pub(super) fn to_safetensors(file: Bytes) -> Result<Bytes, CheckpointError> {
    match Kind::of(&file) {
        Kind::Safetensors => Ok(file),
        Kind::Zip => torch::convert(&file),
        Kind::LegacyTorch => Err(CheckpointError::LegacyTorch),
        Kind::Hdf5 => Err(CheckpointError::Keras("HDF5")),
        Kind::LfsPointer => Err(CheckpointError::LfsPointer),
        Kind::WebPage => Err(CheckpointError::WebPage),
    }
}

/// A tensor on its way into a safetensors file.
struct Converted {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Row-major, little-endian.
    values: Vec<u8>,
}

impl View for &Converted {
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
fn serialize(tensors: &[(String, Converted)]) -> Result<Bytes, CheckpointError> {
    let named = tensors.iter().map(|(name, tensor)| (name, tensor));
    safetensors::serialize(named, None)
        .map(Bytes::from)
        .map_err(|error| CheckpointError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_shows_in_the_first_bytes() {
        for (start, kind) in [
            (&b"PK\x03\x04"[..], Kind::Zip),
            (b"\x89HDF\r\n\x1a\n", Kind::Hdf5),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", Kind::LegacyTorch),
            (b"version https://git-lfs.github.com/spec/v1\n", Kind::LfsPointer),
            (b"\n<!DOCTYPE html>", Kind::WebPage),
            (b"\x08\0\0\0\0\0\0\0{}", Kind::Safetensors),
            (b"", Kind::Safetensors),
        ] {
            assert_eq!(Kind::of(start), kind);
        }
    }
}

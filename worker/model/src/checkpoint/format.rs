//! The format of a file of weights, and the conversion of every readable format to safetensors.
//!
//! A file's format is told by its first bytes, whatever the file is called. Names and shapes of
//! tensors stay as they are: [`naming`](super::naming) translates names. Nothing in a file is
//! trusted, and no code in it is run. Upstream: the bytes of a model's files. Downstream:
//! [`weights`](super::weights).

use std::collections::BTreeMap;

use bytes::Bytes;
use safetensors::SafeTensors;

use super::converted::Converted;
use super::error::CheckpointError;
use super::tensor_filter::TensorFilter;
use super::torch;

/// The format of a file of weights, told by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WeightsFormat {
    Empty,
    Safetensors,
    Zip,
    LegacyTorch,
    Hdf5,
    LfsPointer,
    WebPage,
    Unknown,
}

/// Bytes before the header of a safetensors file, which is JSON: they tell its length.
const SAFETENSORS_LENGTH_BYTES: usize = 8;

impl WeightsFormat {
    fn detect(file: &[u8]) -> Self {
        // Pickle protocols 2 to 5, and a long of ten bytes: torch.save's magic number.
        let legacy = matches!(file, [0x80, 2..=5, 0x8a, 10, 0x6c, 0xfc, ..]);
        let start = file.trim_ascii_start();
        if file.is_empty() {
            Self::Empty
        } else if file.starts_with(b"PK\x03\x04") {
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
        } else if is_json(file.get(SAFETENSORS_LENGTH_BYTES..).unwrap_or_default()) {
            Self::Safetensors
        } else {
            Self::Unknown
        }
    }
}

/// True if this may be the beginning of a JSON object.
fn is_json(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{")
}

/// Converts a checkpoint to safetensors: one file, or all its shards. A file that is safetensors
/// already is returned as it is: the reader of safetensors says what is wrong with it.
///
/// # Errors
/// If a file has a format that can't be read, or is damaged, or has several state_dicts.
pub(crate) fn to_safetensors(
    mut files: Vec<Bytes>,
    filter: &TensorFilter,
) -> Result<Converted, CheckpointError> {
    if files.len() == 1 {
        return convert(files.remove(0), filter);
    }
    let converted: Vec<_> =
        files.into_iter().map(|file| convert(file, filter)).collect::<Result<_, _>>()?;
    let shards = converted.iter().map(|shard| SafeTensors::deserialize(&shard.file));
    let shards: Vec<_> =
        shards.collect::<Result<_, _>>().map_err(CheckpointError::NotSafetensors)?;
    let mut tensors = BTreeMap::new();
    let all = shards.iter().flat_map(SafeTensors::iter);
    // What is ignored may be in each of them.
    for (name, view) in all.filter(|(name, _)| filter.takes(name)) {
        if tensors.insert(name, view).is_some() {
            return Err(CheckpointError::TwoShards(name.to_owned()));
        }
    }
    let file = safetensors::serialize(tensors, None)
        .map_err(|error| CheckpointError::Damaged(error.to_string()))?;
    // All are of one program, so that one speaks for all.
    let (choice, part) = match &converted[..] {
        [first, ..] => (first.choice.clone(), first.part.clone()),
        [] => (None, None),
    };
    Ok(Converted { file: file.into(), choice, part })
}

fn convert(file: Bytes, filter: &TensorFilter) -> Result<Converted, CheckpointError> {
    match WeightsFormat::detect(&file) {
        WeightsFormat::Safetensors => {
            Ok(Converted { file, choice: None, part: filter.key.clone() })
        }
        WeightsFormat::Zip => torch::convert(&file, filter),
        WeightsFormat::LegacyTorch => Err(CheckpointError::LegacyTorch),
        WeightsFormat::Hdf5 => Err(CheckpointError::Keras("HDF5")),
        WeightsFormat::Empty => Err(CheckpointError::Empty),
        WeightsFormat::LfsPointer => Err(CheckpointError::LfsPointer),
        WeightsFormat::WebPage => Err(CheckpointError::WebPage),
        WeightsFormat::Unknown => Err(CheckpointError::Unrecognised),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_shows_in_the_first_bytes() {
        for (start, format) in [
            (&b"PK\x03\x04"[..], WeightsFormat::Zip),
            (b"\x89HDF\r\n\x1a\n", WeightsFormat::Hdf5),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", WeightsFormat::LegacyTorch),
            (b"", WeightsFormat::Empty),
            (b"version https://git-lfs.github.com/spec/v1\n", WeightsFormat::LfsPointer),
            (b"\n<!DOCTYPE html>", WeightsFormat::WebPage),
            (b"\x08\0\0\0\0\0\0\0{}", WeightsFormat::Safetensors),
            (b"\x09\0\0\0\0\0\0\0 {}", WeightsFormat::Safetensors),
            (b"\x08\0\0\0\0", WeightsFormat::Unknown),
            (b"no weights at all", WeightsFormat::Unknown),
            // Another program's pickle.
            (b"\x80\x04\x95\x10\0\0\0\0\0\0\0}", WeightsFormat::Unknown),
        ] {
            assert_eq!(WeightsFormat::detect(start), format);
        }
    }
}

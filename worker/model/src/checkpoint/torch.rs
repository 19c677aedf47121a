//! Files of `torch.save` since PyTorch 1.6, converted to safetensors.
//!
//! Such a file is a zip archive. Its pickle, `data.pkl`, describes tensors as views of storages,
//! and each storage is a file of the archive.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Read};

use camshaft_common::printable::shortened;
use safetensors::tensor::Dtype;
use zip::{CompressionMethod, ZipArchive};

use super::converted::{Converted, ConvertedTensor, serialize};
use super::error::CheckpointError;
use super::pickle::{Pickle, PickleValue, ValueIndex};
use super::state_dict::{self, MAX_TENSOR_NAME_BYTES, is_tensor};
use super::tensor_filter::TensorFilter;

/// Largest pickle. A ResNet-152's has 100 kB; with an optimiser's state it is a few times larger.
const MAX_PICKLE_BYTES: u64 = 16 << 20;

/// How often the file's bytes may be in the tensors: weights that two layers share are there twice.
const MAX_COPIES: u64 = 4;
/// What tensors may take beside that: numbers that are expanded from one.
const SMALL_BYTES: u64 = 1 << 20;
/// The most axes of a tensor. A convolution's weight has four.
const MAX_RANK: usize = 8;

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// Converts the tensors of a state_dict to safetensors, all but those that `filter` ignores.
pub(super) fn convert(file: &[u8], filter: &TensorFilter) -> Result<Converted, CheckpointError> {
    let mut archive = ZipArchive::new(Cursor::new(file)).map_err(damaged)?;
    let folder = folder_of_pickle(&archive)?;
    let order = format!("{folder}byteorder");
    if archive.index_for_name(&order).is_some() && read(&mut archive, &order, 16)? != b"little" {
        return Err(CheckpointError::Damaged("its numbers are big-endian".into()));
    }
    let pickle = read(&mut archive, &format!("{folder}data.pkl"), MAX_PICKLE_BYTES)?;
    let pickle = Pickle::read(&pickle).map_err(damaged)?;
    let found = state_dict::find(&pickle, filter.key.as_deref())?;

    let mut storages = HashMap::new();
    // torch.save writes each storage once and compresses nothing. Two tensors of one storage are both
    // copied out of it.
    let mut left_to_read = file.len() as u64;
    let mut left = file.len() as u64 * MAX_COPIES + SMALL_BYTES;
    let mut converted = Vec::new();
    for (name, tensor) in tensors(&pickle, found.index, filter)? {
        let bytes = tensor.bytes().filter(|&bytes| bytes <= left);
        left -= bytes.ok_or_else(|| {
            CheckpointError::Damaged(format!("{name} has more values than the file"))
        })?;
        let storage = match storages.entry(tensor.storage) {
            std::collections::hash_map::Entry::Occupied(read) => read.into_mut(),
            std::collections::hash_map::Entry::Vacant(empty) => {
                let path = format!("{folder}data/{}", tensor.storage);
                let content = read(&mut archive, &path, left_to_read)?;
                left_to_read -= content.len() as u64;
                empty.insert(content)
            }
        };
        let values = tensor.values(storage).ok_or_else(|| {
            CheckpointError::Damaged(format!("{name} reaches beyond its storage"))
        })?;
        let StorageView { dtype, shape, .. } = tensor;
        converted.push((name.to_owned(), ConvertedTensor { dtype, shape, values }));
    }
    let part = filter.key.clone().filter(|_| !found.by_key);
    Ok(Converted { file: serialize(&converted)?, choice: found.choice, part })
}

/// The tensors of a state_dict.
fn tensors<'a>(
    pickle: &'a Pickle,
    state_dict: ValueIndex,
    filter: &TensorFilter,
) -> Result<Vec<(&'a str, StorageView<'a>)>, CheckpointError> {
    let PickleValue::Dict(entries) = pickle.value(state_dict) else { return Ok(Vec::new()) };
    let mut tensors = Vec::with_capacity(entries.len());
    let mut names = HashSet::new();
    for &(key, value) in entries {
        let (Some(name), true) = (pickle.text(key), is_tensor(pickle, value)) else { continue };
        if name.len() > MAX_TENSOR_NAME_BYTES {
            let length = name.len();
            let problem = format!("the name {} of a tensor has {length} bytes", shown(name));
            return Err(CheckpointError::Damaged(problem));
        }
        if !filter.takes(name) {
            continue;
        }
        if !names.insert(name) {
            return Err(CheckpointError::Damaged(format!("it has two tensors {}", shown(name))));
        }
        let tensor = StorageView::of(pickle, value).ok_or_else(|| {
            let kind = kind_of(pickle, value);
            CheckpointError::Tensor { name: shown(name).into_owned(), kind }
        })?;
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

/// The name of a tensor for a message: a file made to do harm may have one of megabytes.
fn shown(name: &str) -> Cow<'_, str> {
    shortened(name, 200)
}

/// What an unreadable tensor is, in words.
fn kind_of(pickle: &Pickle, index: ValueIndex) -> String {
    let function = pickle.call(index).and_then(|(callable, _)| pickle.global(callable));
    match function.map(|(_, name)| name) {
        Some("_rebuild_qtensor") => "quantised".to_owned(),
        Some("_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => "sparse".to_owned(),
        Some("_rebuild_meta_tensor_no_storage") => "a meta tensor without values".to_owned(),
        Some("_rebuild_tensor_v2") => {
            format!("of an unknown number format, or has more than {MAX_RANK} axes")
        }
        Some(name) => format!("made by {name}"),
        None => "of an unknown kind".to_owned(),
    }
}

/// The folder of `data.pkl` in the archive: `archive/`, or the file's name when it was written.
fn folder_of_pickle(archive: &Archive<'_>) -> Result<String, CheckpointError> {
    let mut names = archive.file_names().filter_map(Result::ok);
    let keras = |name: &str| name == "model.weights.h5";
    let found = names.find_map(|name| {
        let folder = name.strip_suffix("data.pkl").map(str::to_owned);
        folder.filter(|folder| folder.is_empty() || folder.ends_with('/'))
    });
    match found {
        Some(folder) => Ok(folder),
        None if archive.file_names().filter_map(Result::ok).any(|name| keras(&name)) => {
            Err(CheckpointError::Keras(".keras"))
        }
        None => Err(CheckpointError::NoStateDict("it is a zip archive without data.pkl".into())),
    }
}

/// Reads a file of the archive, and checks its length and checksum.
fn read(archive: &mut Archive<'_>, path: &str, max: u64) -> Result<Vec<u8>, CheckpointError> {
    let file = archive
        .by_name(path)
        .map_err(|error| CheckpointError::Damaged(format!("{path}: {error}")))?;
    // torch.save compresses nothing. Refusing compression keeps small files from becoming large.
    if file.compression() != CompressionMethod::Stored {
        return Err(CheckpointError::Damaged(format!("{path} is compressed")));
    }
    if file.size() > max {
        return Err(CheckpointError::Damaged(format!("{path} has {} bytes", file.size())));
    }
    let mut content = Vec::new();
    file.take(max).read_to_end(&mut content).map_err(damaged)?;
    Ok(content)
}

fn damaged(error: impl std::fmt::Display) -> CheckpointError {
    CheckpointError::Damaged(error.to_string())
}

/// A tensor as a view of a storage: the arguments of `torch._utils._rebuild_tensor_v2`.
#[derive(Debug)]
struct StorageView<'a> {
    dtype: Dtype,
    /// Name of the storage's file.
    storage: &'a str,
    /// Where the tensor begins, in elements.
    offset: usize,
    shape: Vec<usize>,
    /// Steps along each axis, in elements.
    strides: Vec<usize>,
}

impl<'a> StorageView<'a> {
    fn of(pickle: &'a Pickle, index: ValueIndex) -> Option<Self> {
        let (callable, arguments) = pickle.call(index)?;
        match (pickle.global(callable)?, arguments) {
            (("torch._utils", "_rebuild_tensor_v2"), arguments) => Self::view(pickle, arguments),
            // A parameter, and an instance of a subclass, both wrap a tensor.
            (("torch._utils", name), &[tensor, ..]) if name.starts_with("_rebuild_parameter") => {
                let (callable, arguments) = pickle.call(tensor)?;
                let plain = pickle.global(callable)? == ("torch._utils", "_rebuild_tensor_v2");
                plain.then(|| Self::view(pickle, arguments)).flatten()
            }
            (("torch._tensor", "_rebuild_from_type_v2"), &[function, _, arguments, ..]) => {
                let plain = pickle.global(function)? == ("torch._utils", "_rebuild_tensor_v2");
                plain.then(|| Self::view(pickle, pickle.tuple(arguments)?)).flatten()
            }
            _ => None,
        }
    }

    fn view(pickle: &'a Pickle, arguments: &[ValueIndex]) -> Option<Self> {
        let &[storage, offset, shape, strides, ..] = arguments else { return None };
        let PickleValue::Persistent(id) = *pickle.value(storage) else { return None };
        // ("storage", class, key, device, elements)
        let &[_, class, key, ..] = pickle.tuple(id)? else { return None };
        let dtype = match pickle.global(class)?.1 {
            "FloatStorage" => Dtype::F32,
            "DoubleStorage" => Dtype::F64,
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::BF16,
            "LongStorage" => Dtype::I64,
            "IntStorage" => Dtype::I32,
            "ShortStorage" => Dtype::I16,
            "CharStorage" => Dtype::I8,
            "ByteStorage" => Dtype::U8,
            "BoolStorage" => Dtype::BOOL,
            _ => return None,
        };
        let (shape, strides) = (pickle.sizes(shape, MAX_RANK)?, pickle.sizes(strides, MAX_RANK)?);
        let (storage, offset) = (pickle.text(key)?, pickle.size(offset)?);
        (shape.len() == strides.len()).then_some(Self { dtype, storage, offset, shape, strides })
    }

    fn element_bytes(&self) -> usize {
        self.dtype.bitsize() / 8
    }

    fn bytes(&self) -> Option<u64> {
        let sides = self.shape.iter().map(|&side| side as u64);
        sides.chain([self.element_bytes() as u64]).try_fold(1, u64::checked_mul)
    }

    /// Its elements, row by row. None if some lie outside the storage.
    fn values(&self, storage: &[u8]) -> Option<Vec<u8>> {
        let size = self.element_bytes();
        let count: usize = self.shape.iter().product();
        if count == 0 {
            return Some(Vec::new());
        }
        // The index of the last element: strides are never below zero.
        let mut reach = self.shape.iter().zip(&self.strides);
        let last = reach.try_fold(self.offset, |at, (side, stride)| {
            at.checked_add((side - 1).checked_mul(*stride)?)
        })?;
        if last.checked_add(1)?.checked_mul(size)? > storage.len() {
            return None;
        }
        if self.is_contiguous() {
            return Some(storage[self.offset * size..][..count * size].to_vec());
        }
        let mut values = Vec::with_capacity(count * size);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..count {
            let steps = index.iter().zip(&self.strides).map(|(at, stride)| at * stride);
            let at = (self.offset + steps.sum::<usize>()) * size;
            values.extend_from_slice(&storage[at..at + size]);
            for (at, &side) in index.iter_mut().zip(&self.shape).rev() {
                *at += 1;
                if *at < side {
                    break;
                }
                *at = 0;
            }
        }
        Some(values)
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&side, &stride)| {
            let fits = side == 1 || stride == expected;
            expected *= side;
            fits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(offset: usize, shape: &[usize], strides: &[usize]) -> StorageView<'static> {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        StorageView { dtype: Dtype::U8, storage: "0", offset, shape, strides }
    }

    #[test]
    fn views_are_read_row_by_row_whatever_their_strides() {
        let storage: Vec<u8> = (0..12).collect();
        assert_eq!(tensor(2, &[2, 3], &[3, 1]).values(&storage).unwrap(), [2, 3, 4, 5, 6, 7]);
        assert_eq!(tensor(0, &[2, 3], &[1, 4]).values(&storage).unwrap(), [0, 4, 8, 1, 5, 9]);
        assert_eq!(tensor(11, &[], &[]).values(&storage).unwrap(), [11]);
        assert!(tensor(99, &[0, 3], &[3, 1]).values(&storage).unwrap().is_empty());
    }

    #[test]
    fn a_view_beyond_its_storage_is_none() {
        let storage = [0; 12];
        for outside in [
            tensor(12, &[1], &[1]),
            tensor(7, &[2, 3], &[3, 1]),
            tensor(0, &[2], &[usize::MAX]),
            tensor(usize::MAX, &[2], &[1]),
        ] {
            assert!(outside.values(&storage).is_none(), "{outside:?}");
        }
        assert_eq!(tensor(0, &[usize::MAX, 2], &[0, 0]).bytes(), None);
    }

    /// A pickled tensor of the storage `0`.
    fn pickled(shape: &[u8], strides: &[u8]) -> Vec<u8> {
        let mut bytes =
            b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010\
            U\x03cpuK\x04tQK\x00"
                .to_vec();
        for sides in [shape, strides] {
            bytes.push(b'(');
            bytes.extend(sides.iter().flat_map(|&side| [b'K', side]));
            bytes.push(b't');
        }
        bytes.extend(b"tR");
        bytes
    }

    /// A file with these tensors, and with one float in the storage `0`.
    fn converted(tensors: &[(&str, Vec<u8>)]) -> Result<Converted, String> {
        let mut pickle = b"\x80\x02}".to_vec();
        for (name, tensor) in tensors {
            pickle.extend([b'U', name.len() as u8]);
            pickle.extend(name.as_bytes());
            pickle.extend(tensor);
            pickle.push(b's');
        }
        pickle.push(b'.');
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let stored =
            zip::write::SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, content) in [("a/data.pkl", &pickle[..]), ("a/data/0", &1f32.to_le_bytes())] {
            archive.start_file(name, stored).unwrap();
            std::io::Write::write_all(&mut archive, content).unwrap();
        }
        let file = archive.finish().unwrap().into_inner();
        convert(&file, &TensorFilter::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_small_file_gives_no_more_than_a_small_model() {
        let name = "layer1.0.conv1.weight";
        assert!(converted(&[(name, pickled(&[1; 4], &[1; 4]))]).is_ok());
        // A number that is expanded to four gigabytes.
        let error = converted(&[(name, pickled(&[255, 255, 255, 64], &[0; 4]))]).unwrap_err();
        assert!(error.contains("more values than the file"), "{error}");
        let error = converted(&[(name, pickled(&[1; 9], &[1; 9]))]).unwrap_err();
        assert!(error.contains("more than 8 axes"), "{error}");
        let twice = [(name, pickled(&[1; 4], &[1; 4])), (name, pickled(&[1; 4], &[1; 4]))];
        let error = converted(&twice).unwrap_err();
        assert!(error.contains("two tensors layer1.0.conv1.weight"), "{error}");
    }
}

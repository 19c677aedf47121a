//! Reading tensors out of a safetensors file by name and shape.
//!
//! Knows nothing of the network. Tensors come in PyTorch's order of axes, whatever the file's order
//! is. Every tensor that doesn't fit is remembered, so that one error can name several.

use candle_core::safetensors::{Load, SliceSafetensors};
use candle_core::{DType, Device, Tensor};

use super::naming::{Naming, TensorNames};

/// Default of `nn.BatchNorm2d`, which torchvision and transformers use.
const BATCH_NORM_EPS: f64 = 1e-5;
/// The value in `keras.applications.resnet`.
const KERAS_BATCH_NORM_EPS: f64 = 1.001e-5;

/// An error names at most this many misfits, and counts the others.
const NAMED_MISFITS: usize = 5;

/// The tensors of a safetensors file.
pub struct Weights<'a> {
    tensors: SliceSafetensors<'a>,
    names: TensorNames,
    misfits: Vec<Misfit>,
}

/// A tensor that the network needs, and that is missing in the file or has another shape there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The name in the file.
    pub(crate) name: String,
    /// The shape that the network needs.
    pub(crate) expected: Vec<usize>,
    /// The shape and type in the file; none if the tensor is missing.
    actual: Option<String>,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, expected, actual } = self;
        match actual {
            None => write!(f, "{name} is missing"),
            Some(actual) => write!(f, "{name} is {actual} instead of {expected:?}"),
        }
    }
}

impl<'a> Weights<'a> {
    /// Reads the header of a safetensors file.
    ///
    /// # Errors
    /// If it is not a safetensors file, or a truncated one.
    pub fn read(file: &'a [u8]) -> candle_core::Result<Self> {
        let tensors = SliceSafetensors::new(file)?;
        let all = tensors.tensors();
        let names = TensorNames::detect(all.iter().map(|(name, _)| name.as_str()));
        Ok(Self { tensors, names, misfits: Vec::new() })
    }

    /// The number that a BatchNorm adds to the variance before the square root.
    pub(crate) fn batch_norm_eps(&self) -> f64 {
        match self.names.naming() {
            Naming::Torchvision | Naming::Transformers => BATCH_NORM_EPS,
            Naming::Keras => KERAS_BATCH_NORM_EPS,
        }
    }

    /// Name in the file, and shape in PyTorch's order of axes, of the tensor that torchvision calls
    /// `name`. None if the tensor is missing.
    pub(crate) fn find(&self, name: &str) -> Option<(String, Vec<usize>)> {
        let name = self.names.in_file(name);
        let shape = self.tensors.get(&name).ok()?.shape().to_vec();
        Some((name, self.shape_in_pytorch_order(&shape)))
    }

    /// The tensor that torchvision calls `name`, on the CPU, converted to f32 from f16, bf16, f32
    /// or f64. A tensor that is missing, or has another shape or type, is remembered as a misfit,
    /// and zeros are returned.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> candle_core::Result<Tensor> {
        let name = self.names.in_file(name);
        let actual = match self.tensors.get(&name) {
            Err(_) => None,
            Ok(view) => match DType::try_from(view.dtype()) {
                Ok(DType::F16 | DType::BF16 | DType::F32 | DType::F64)
                    if self.shape_in_pytorch_order(view.shape()) == shape =>
                {
                    let tensor = view.load(&Device::Cpu)?.to_dtype(DType::F32)?;
                    return self.to_pytorch_order(&tensor);
                }
                _ => Some(format!("{:?} of {:?}", view.shape(), view.dtype())),
            },
        };
        let expected = self.shape_in_file_order(shape);
        self.misfits.push(Misfit { name, expected, actual });
        Tensor::zeros(shape, DType::F32, &Device::Cpu)
    }

    /// As [`Self::tensor`], but None if the tensor is missing.
    pub(crate) fn optional(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> candle_core::Result<Option<Tensor>> {
        self.find(name).map(|_| self.tensor(name, shape)).transpose()
    }

    /// Keras stores a kernel as rows, columns, inputs, outputs.
    fn to_pytorch_order(&self, tensor: &Tensor) -> candle_core::Result<Tensor> {
        match (self.names.naming(), tensor.rank()) {
            (Naming::Keras, 4) => tensor.permute((3, 2, 0, 1))?.contiguous(),
            (Naming::Keras, 2) => tensor.t()?.contiguous(),
            _ => Ok(tensor.clone()),
        }
    }

    fn shape_in_pytorch_order(&self, shape: &[usize]) -> Vec<usize> {
        match (self.names.naming(), shape) {
            (Naming::Keras, &[rows, columns, inputs, outputs]) => {
                vec![outputs, inputs, rows, columns]
            }
            (Naming::Keras, &[inputs, outputs]) => vec![outputs, inputs],
            _ => shape.to_vec(),
        }
    }

    fn shape_in_file_order(&self, shape: &[usize]) -> Vec<usize> {
        match (self.names.naming(), shape) {
            (Naming::Keras, &[outputs, inputs, rows, columns]) => {
                vec![rows, columns, inputs, outputs]
            }
            (Naming::Keras, &[outputs, inputs]) => vec![inputs, outputs],
            _ => shape.to_vec(),
        }
    }

    /// The tensors that didn't fit.
    pub fn into_misfits(self) -> Vec<Misfit> {
        self.misfits
    }
}

/// Describes the first misfits, and counts the others.
pub fn describe_misfits(misfits: &[Misfit]) -> String {
    let named: Vec<_> = misfits.iter().take(NAMED_MISFITS).map(ToString::to_string).collect();
    let more = misfits.len() - named.len();
    let named = named.join(", ");
    if more == 0 { named } else { format!("{named}, and {more} more") }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn halves_are_read_and_misfits_named() {
        let half = Tensor::new(&[[0.5f32, -2.0]], &Device::Cpu).unwrap();
        let file = HashMap::from([
            ("half", half.to_dtype(DType::F16).unwrap()),
            ("brain", half.to_dtype(DType::BF16).unwrap()),
            ("count", Tensor::new(&[1i64], &Device::Cpu).unwrap()),
        ]);
        let file = safetensors::serialize(&file, None).unwrap();
        let mut weights = Weights::read(&file).unwrap();
        for name in ["half", "brain"] {
            let read = weights.tensor(name, &[1, 2]).unwrap();
            assert_eq!(read.to_vec2::<f32>().unwrap(), [[0.5, -2.0]]);
        }
        weights.tensor("half", &[2, 1]).unwrap();
        weights.tensor("count", &[1]).unwrap();
        weights.tensor("none", &[3]).unwrap();
        assert_eq!(
            describe_misfits(&weights.into_misfits()),
            "half is [1, 2] of F16 instead of [2, 1], count is [1] of I64 instead of [1], \
             none is missing"
        );
    }

    #[test]
    fn a_cut_file_is_refused() {
        let file = HashMap::from([("a", Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap())]);
        let file = safetensors::serialize(&file, None).unwrap();
        assert!(Weights::read(&file[..file.len() - 1]).is_err());
        assert!(Weights::read(b"<html>").is_err());
    }
}

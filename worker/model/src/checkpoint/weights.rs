//! Reading tensors out of a safetensors file by name and shape.
//!
//! Knows nothing of the network. Tensors come in PyTorch's order of axes, whatever the file's order
//! is. Every tensor that doesn't fit is remembered, so that one error can name several.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use safetensors::SafeTensors;

use super::naming::{Naming, TensorNames};
use super::structure::Shapes;
use super::values::to_f32;

/// Default of `nn.BatchNorm2d`, which torchvision and transformers use.
const BATCH_NORM_EPS: f64 = 1e-5;
/// The value in `keras.applications.resnet`.
const KERAS_BATCH_NORM_EPS: f64 = 1.001e-5;

/// An error names at most this many tensors, and counts the others.
const NAMED_TENSORS: usize = 5;

/// The tensors of a safetensors file.
pub struct Weights<'a> {
    tensors: Arc<SafeTensors<'a>>,
    /// The tensors that count; the file may have others.
    shapes: Arc<Shapes>,
    names: TensorNames,
    notes: Notes,
}

/// What was found out about tensors.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Names in the file of the tensors that were asked for.
    used: HashSet<String>,
    misfits: Vec<Misfit>,
    bad: Vec<BadTensor>,
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

impl Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, expected, actual } = self;
        match actual {
            None => write!(f, "{name} is missing"),
            Some(actual) if actual.starts_with(&format!("{expected:?} of ")) => {
                write!(f, "{name} is {actual} instead of floating-point numbers")
            }
            Some(actual) => write!(f, "{name} is {actual} instead of {expected:?}"),
        }
    }
}

/// A tensor with values that no trained network has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTensor {
    /// The name in the file.
    name: String,
    /// What is wrong, and in how many values.
    problem: String,
}

impl Display for BadTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} has {}", self.name, self.problem)
    }
}

impl<'a> Weights<'a> {
    /// Reads a file of which every tensor counts, and whose names are torchvision's.
    #[cfg(test)]
    fn read(file: &'a [u8]) -> candle_core::Result<Self> {
        let all = SafeTensors::deserialize(file)?;
        let shapes = all.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec()));
        Self::open(file, Arc::new(shapes.collect()), TensorNames::new(Naming::Torchvision, ""))
    }

    /// Opens a file whose network is found already.
    pub(super) fn open(
        file: &'a [u8],
        shapes: Arc<Shapes>,
        names: TensorNames,
    ) -> candle_core::Result<Self> {
        let tensors = Arc::new(SafeTensors::deserialize(file)?);
        Ok(Self { tensors, shapes, names, notes: Notes::default() })
    }

    /// The same file for another thread, without what was noted.
    pub(crate) fn for_thread(&self) -> Self {
        let Self { tensors, shapes, names, .. } = self;
        let (tensors, shapes) = (Arc::clone(tensors), Arc::clone(shapes));
        Self { tensors, shapes, names: names.clone(), notes: Notes::default() }
    }

    /// What was noted.
    pub(crate) fn into_notes(self) -> Notes {
        self.notes
    }

    /// Adds what another thread noted.
    pub(crate) fn add_notes(&mut self, Notes { used, misfits, bad }: Notes) {
        self.notes.used.extend(used);
        self.notes.misfits.extend(misfits);
        self.notes.bad.extend(bad);
    }

    /// The library whose names the file has.
    pub(crate) fn naming(&self) -> Naming {
        self.names.naming()
    }

    /// True if the file has a tensor whose name has `part` in it.
    pub(crate) fn any_name_has(&self, part: &str) -> bool {
        self.shapes.keys().any(|name| name.contains(part))
    }

    /// The number that a BatchNorm adds to the variance before the square root.
    pub(crate) fn batch_norm_eps(&self) -> f64 {
        match self.names.naming() {
            Naming::Torchvision | Naming::Sequential | Naming::Transformers => BATCH_NORM_EPS,
            Naming::Keras => KERAS_BATCH_NORM_EPS,
        }
    }

    /// Name in the file, and shape in PyTorch's order of axes, of the tensor that torchvision calls
    /// `name`. None if the tensor is missing.
    pub(crate) fn find(&self, name: &str) -> Option<(String, Vec<usize>)> {
        let name = self.names.in_file(name);
        let shape = self.shapes.get(&name)?;
        let shape = self.shape_in_pytorch_order(shape);
        Some((name, shape))
    }

    /// Counts every tensor outside the stages as used: heads and whatever else follows the
    /// convolutions, for a network that gets a new head.
    pub fn pass_over_heads(&mut self) {
        let outside = self.shapes.keys().filter(|name| !self.names.is_in_stages(name));
        self.notes.used.extend(outside.cloned());
    }

    /// The tensor that torchvision calls `name`, on the CPU, converted to f32 from f16, bf16, f32
    /// or f64. A tensor that is missing, or has another shape or type, is remembered as a misfit,
    /// and zeros are returned. One with values that are not finite is remembered too.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> candle_core::Result<Tensor> {
        let name = self.names.in_file(name);
        self.notes.used.insert(name.clone());
        let counts = self.shapes.contains_key(&name);
        let actual = match self.tensors.tensor(&name) {
            Ok(view) if counts => match DType::try_from(view.dtype()) {
                Ok(dtype)
                    if self.shape_in_pytorch_order(view.shape()) == shape
                        && let Some(values) = to_f32(view.data(), dtype) =>
                {
                    let tensor = Tensor::from_vec(values, view.shape(), &Device::Cpu)?;
                    self.note_values(name, &tensor, "NaN, infinite or too large", is_not_finite)?;
                    return self.to_pytorch_order(&tensor);
                }
                _ => Some(format!("{:?} of {:?}", view.shape(), view.dtype())),
            },
            _ => None,
        };
        let expected = self.shape_in_file_order(shape);
        self.notes.misfits.push(Misfit { name, expected, actual });
        Tensor::zeros(shape, DType::F32, &Device::Cpu)
    }

    /// As [`Self::tensor`], and remembers a variance below zero, which would make NaN of every
    /// image.
    pub(crate) fn variance(&mut self, name: &str, shape: &[usize]) -> candle_core::Result<Tensor> {
        let variance = self.tensor(name, shape)?;
        let lowest = -self.batch_norm_eps() as f32;
        let name = self.names.in_file(name);
        self.note_values(name, &variance, "below zero", move |value| value <= lowest)?;
        Ok(variance)
    }

    /// Remembers a tensor with bad values. The values were copied just before, so that they are in
    /// the CPU's caches.
    fn note_values(
        &mut self,
        name: String,
        tensor: &Tensor,
        what: &str,
        is_bad: impl Fn(f32) -> bool,
    ) -> candle_core::Result<()> {
        let (storage, layout) = tensor.storage_and_layout();
        let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
            (&*storage, layout.contiguous_offsets())
        else {
            candle_core::bail!("a tensor that was just read is contiguous, on the CPU, and f32");
        };
        let values = &values[start..end];
        // Without a branch, so that the compiler takes several values at once.
        if values.iter().fold(false, |any, &value| any | is_bad(value)) {
            let bad = values.iter().filter(|&&value| is_bad(value)).count();
            let problem = format!("{bad} of {} values that are {what}", values.len());
            self.notes.bad.push(BadTensor { name, problem });
        }
        Ok(())
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
    #[must_use]
    pub fn misfits(&self) -> &[Misfit] {
        &self.notes.misfits
    }

    /// The tensors that were read and have bad values.
    #[must_use]
    pub fn bad(&self) -> &[BadTensor] {
        &self.notes.bad
    }

    /// The tensors that count and that nothing has asked for, with their shapes, by name.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        let unused = self.shapes.iter().filter(|(name, _)| !self.notes.used.contains(*name));
        unused.map(|(name, shape)| format!("{name} {shape:?}")).collect()
    }
}

/// A value that is NaN or infinite, by the bits of its exponent.
fn is_not_finite(value: f32) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    value.to_bits() & EXPONENT == EXPONENT
}

/// Describes the first items, and counts the others.
pub fn describe<T: Display>(items: &[T]) -> String {
    let named: Vec<_> = items.iter().take(NAMED_TENSORS).map(ToString::to_string).collect();
    let more = items.len() - named.len();
    let named = named.join(", ");
    if more == 0 { named } else { format!("{named}, and {more} more") }
}

/// Describes the names of some tensors.
pub(crate) fn describe_names(shapes: &Shapes) -> String {
    match shapes.is_empty() {
        true => "no tensor".to_owned(),
        false => describe(&shapes.keys().collect::<Vec<_>>()),
    }
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
            describe(weights.misfits()),
            "half is [1, 2] of F16 instead of [2, 1], count is [1] of I64 instead of \
             floating-point numbers, none is missing"
        );
    }

    #[test]
    fn values_that_are_not_finite_are_named_in_every_format() {
        let tensor = |values: &[f32; 2], dtype: DType| {
            Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
        };
        let large = Tensor::new(&[1e300f64, 0.0], &Device::Cpu).unwrap();
        let file = HashMap::from([
            ("a", tensor(&[f32::NAN, f32::INFINITY], DType::F32)),
            ("b", tensor(&[1.0, f32::NEG_INFINITY], DType::F16)),
            ("c", tensor(&[f32::NAN, 1.0], DType::BF16)),
            ("d", large),
            ("e", tensor(&[f32::MAX, f32::MIN], DType::F32)),
            ("bn1.running_var", tensor(&[1.0, -0.5], DType::F32)),
        ]);
        let file = safetensors::serialize(&file, None).unwrap();
        let mut weights = Weights::read(&file).unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            weights.tensor(name, &[2]).unwrap();
        }
        assert_eq!(weights.unused(), ["bn1.running_var [2]"]);
        weights.variance("bn1.running_var", &[2]).unwrap();
        let one = "has 1 of 2 values that are NaN, infinite or too large";
        let expected = format!(
            "a has 2 of 2 values that are NaN, infinite or too large, b {one}, c {one}, d {one}, \
             bn1.running_var has 1 of 2 values that are below zero"
        );
        assert_eq!(describe(weights.bad()), expected);
        assert!(weights.misfits().is_empty() && weights.unused().is_empty());
    }

    #[test]
    fn a_cut_file_is_refused() {
        let file = HashMap::from([("a", Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap())]);
        let file = safetensors::serialize(&file, None).unwrap();
        assert!(Weights::read(&file[..file.len() - 1]).is_err());
        assert!(Weights::read(b"<html>").is_err());
    }
}

//! Cutting a pass at a target layer: which operations come before the layer, which come after it,
//! and what the latter read besides the layer's output.
//!
//! Owns where layers are in a list of operations, the weights of a convolution whose own output,
//! before its BatchNorm, is the layer, and running the operations on either side of the cut.
//! Upstream: [`operations`](crate::operations) and [`network`](crate::network). Downstream:
//! [`rest`](crate::rest) and [`backward`](crate::backward).

mod cut_memory;
mod partial_pass;

use std::sync::Arc;

use cudarc::driver::CudaStream;

use crate::error::CudaError;
use crate::memory::{DeviceMemory, DevicePointer};
use crate::network::{DeviceConvolution, DeviceNetwork, upload_convolution};
use crate::operations::{BufferId, Operation, OperationList};
use crate::weight_layout::{
    Geometry, IMAGE_CHANNELS, STEM_KERNEL, channels_last, stem_geometry, stem_weights,
};

pub(crate) use cut_memory::{CutActivations, GrowingMemory, SharedPlaces};
pub(crate) use partial_pass::{CutEngine, NormaliseStep, PartialPass, PassToLayer};

/// A target layer. Stages, blocks and convolutions count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// The output of the stem's convolution, before its BatchNorm.
    Stem,
    /// A block's output after its last ReLU: stage and block.
    Block(usize, usize),
    /// The output of a convolution of a block's path, before its BatchNorm: stage, block and
    /// convolution.
    Path(usize, usize, usize),
    /// The output of the convolution of a block's shortcut, before its BatchNorm: stage and block.
    Shortcut(usize, usize),
}

/// A convolution whose own output is the target layer, apart from its BatchNorm.
#[derive(Clone, Copy, Debug)]
pub struct CutConvolution<'a> {
    /// `[outputs, inputs, kernel, kernel]`.
    pub weights: &'a [f32],
    /// `[outputs]`, a part of the layer's output; empty if the convolution has none. Only Keras'
    /// convolutions have one.
    pub bias: &'a [f32],
    /// `[outputs]`: the BatchNorm makes `scale * output + shift` of the output.
    pub scale: &'a [f32],
    /// `[outputs]`.
    pub shift: &'a [f32],
}

/// Where a cut is in a list of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CutPlace {
    /// The number of operations before the layer.
    pub(crate) before: usize,
    /// The index of the first operation after the layer, and after what follows the layer's
    /// convolution.
    pub(crate) after: usize,
    /// The operation whose convolution is the layer; none if the layer is a block's output.
    convolution: Option<usize>,
    /// The layer's output; or, if the layer is a convolution, what the convolution's operation
    /// writes, which has the same shape.
    pub(crate) output: BufferId,
    /// A value from before the layer that is read after it.
    pub(crate) carried: Option<BufferId>,
    /// The input of the layer's block, if the layer is within a block.
    pub(crate) block_input: Option<BufferId>,
    /// The operation that computes the carried value from the block's input; none if they are the
    /// same.
    pub(crate) shortcut: Option<usize>,
}

impl CutPlace {
    /// Where `cut` is.
    ///
    /// # Errors
    /// If the network has no such layer.
    pub(crate) fn find(cut: Cut, list: &OperationList) -> Result<Self, CudaError> {
        Self::of(cut, list)
            .ok_or_else(|| CudaError::Unsupported { what: format!("maps of a layer at {cut:?}") })
    }

    fn of(cut: Cut, list: &OperationList) -> Option<Self> {
        let block = |stage: usize, block: usize| list.blocks.get(stage)?.get(block);
        let output = |operation: usize| list.operations[operation].output();
        let at_convolution = |operation: usize| Self {
            before: operation,
            after: operation + 1,
            convolution: Some(operation),
            output: output(operation),
            carried: None,
            block_input: None,
            shortcut: None,
        };
        match cut {
            Cut::Stem => Some(at_convolution(0)),
            Cut::Block(stage, number) => {
                let block = block(stage, number)?;
                let (before, after) = (block.path.end, block.path.end);
                let place = at_convolution(block.path.end - 1);
                Some(Self { before, after, convolution: None, ..place })
            }
            Cut::Path(stage, number, convolution) => {
                let block = block(stage, number)?;
                let operation = block.path.clone().nth(convolution)?;
                // The shortcut's operation comes before the path's.
                Some(Self {
                    carried: Some(block.shortcut.map_or(block.input, output)),
                    block_input: Some(block.input),
                    shortcut: block.shortcut,
                    ..at_convolution(operation)
                })
            }
            Cut::Shortcut(stage, number) => {
                let block = block(stage, number)?;
                let (carried, block_input) = (Some(block.input), Some(block.input));
                Some(Self { carried, block_input, ..at_convolution(block.shortcut?) })
            }
        }
    }
}

/// A target layer of a network on the device.
#[derive(Debug)]
pub(crate) struct CutLayer {
    pub(crate) cut: Cut,
    pub(crate) place: CutPlace,
    /// None if the layer is a block's output.
    pub(crate) convolution: Option<LayerConvolution>,
}

/// A convolution whose own output is the target layer.
#[derive(Debug)]
pub(crate) struct LayerConvolution {
    pub(crate) input: BufferId,
    /// What is added after the BatchNorm.
    pub(crate) residual: Option<BufferId>,
    /// Whether a ReLU follows then.
    pub(crate) relu: bool,
    pub(crate) weights: LayerWeights,
}

/// The weights of a [`CutConvolution`] on the device.
#[derive(Debug)]
pub(crate) struct LayerWeights {
    /// The convolution without its BatchNorm.
    pub(crate) convolution: DeviceConvolution,
    /// Zero for each channel, in the network's format.
    pub(crate) no_bias: DevicePointer,
    /// The BatchNorm's factors, f32.
    pub(crate) scale: DevicePointer,
    /// What the BatchNorm adds, f32.
    pub(crate) shift: DevicePointer,
    /// Holds all of them.
    _memory: [DeviceMemory; 4],
}

impl CutLayer {
    /// Finds a layer, and uploads the weights of its convolution if it is one.
    ///
    /// # Errors
    /// If the network has no such layer; if the layer is a convolution, and `given` is none or has
    /// other sizes; if the device has too little memory, or fails.
    pub(crate) fn new(
        stream: &Arc<CudaStream>,
        network: &DeviceNetwork,
        list: &OperationList,
        cut: Cut,
        given: Option<&CutConvolution<'_>>,
    ) -> Result<Self, CudaError> {
        let place = CutPlace::find(cut, list)?;
        let Some(operation) = place.convolution else {
            return Ok(Self { cut, place, convolution: None });
        };
        let Operation::Convolution { convolution, input, residual, relu, .. } =
            list.operations[operation]
        else {
            unreachable!("no cut is at a pooling");
        };
        let folded = &list.convolutions[convolution];
        let weights = LayerWeights::upload(stream, network, folded, operation == 0, given)?;
        let convolution = Some(LayerConvolution { input, residual, relu, weights });
        Ok(Self { cut, place, convolution })
    }
}

impl LayerWeights {
    /// `folded` is the same convolution with its BatchNorm folded in. The stem's depends on the
    /// layout of the network's input.
    fn upload(
        stream: &Arc<CudaStream>,
        network: &DeviceNetwork,
        folded: &DeviceConvolution,
        is_stem: bool,
        given: Option<&CutConvolution<'_>>,
    ) -> Result<Self, CudaError> {
        let &DeviceConvolution { inputs, outputs, kernel, stride, padding, .. } = folded;
        let [given_inputs, given_kernel] =
            if is_stem { [IMAGE_CHANNELS, STEM_KERNEL] } else { [inputs, kernel] };
        let values = outputs * given_inputs * given_kernel * given_kernel;
        let sizes = given.map(|given| [given.weights.len(), given.scale.len(), given.shift.len()]);
        let biases = given.map_or(0, |given| given.bias.len());
        let fits = sizes == Some([values, outputs, outputs]) && [0, outputs].contains(&biases);
        let Some(given) = given.filter(|_| fits) else {
            return Err(CudaError::Failed {
                operation: "taking a target layer's convolution".to_owned(),
                reason: format!(
                    "it has {values} weights and a BatchNorm of {outputs} channels, and was given \
                     {sizes:?} and {biases} biases"
                ),
            });
        };
        let (laid_out, geometry) = if is_stem {
            (stem_weights(given.weights, outputs, network.layout), stem_geometry(network.layout))
        } else {
            let geometry = Geometry { inputs, kernel, stride, padding };
            (channels_last(given.weights, [outputs, inputs, kernel], inputs), geometry)
        };
        let zeros = vec![0.0; outputs];
        let bias = if given.bias.is_empty() { zeros.as_slice() } else { given.bias };
        let (convolution, memory) =
            upload_convolution(stream, &laid_out, bias, geometry, network.format)?;
        let hold = |values: &[f32]| DeviceMemory::holding(stream, values, "a BatchNorm");
        let (scale, shift) = (hold(given.scale)?, hold(given.shift)?);
        let zeros = network.format.encode(&zeros);
        let no_bias = DeviceMemory::holding(stream, &zeros, "a BatchNorm")?;
        Ok(Self {
            convolution,
            no_bias: no_bias.pointer(),
            scale: scale.pointer(),
            shift: shift.pointer(),
            _memory: [memory, scale, shift, no_bias],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::tests::imagined_network;
    use crate::operations::operations;

    fn every_cut(list: &OperationList) -> Vec<Cut> {
        let mut cuts = vec![Cut::Stem];
        for (stage, blocks) in list.blocks.iter().enumerate() {
            for (number, block) in blocks.iter().enumerate() {
                let path = 0..block.path.len();
                cuts.extend(path.map(|place| Cut::Path(stage, number, place)));
                cuts.extend(block.shortcut.map(|_| Cut::Shortcut(stage, number)));
                cuts.push(Cut::Block(stage, number));
            }
        }
        cuts
    }

    #[test]
    fn what_comes_after_reads_only_the_layer_and_the_carried_value() {
        let list = operations(&imagined_network([2, 1, 2, 1], 64));
        for cut in every_cut(&list) {
            let place = CutPlace::find(cut, &list).unwrap();
            let mut known = vec![place.output];
            known.extend(place.carried);
            if let Some(operation) = place.convolution {
                // Its residual is added after its BatchNorm.
                let mut inputs = list.operations[operation].inputs();
                let convolved = inputs.next().unwrap();
                assert!(inputs.all(|residual| known.contains(&residual)), "{cut:?}");
                let mut before = list.operations[..place.before].iter();
                let input = convolved == list.input;
                assert!(input || before.any(|other| other.output() == convolved), "{cut:?}");
            }
            for operation in &list.operations[place.after..] {
                assert!(operation.inputs().all(|input| known.contains(&input)), "{cut:?}");
                known.push(operation.output());
            }
            assert!(known.contains(&list.features()), "{cut:?}");
        }
    }

    #[test]
    fn the_carried_value_comes_from_the_blocks_input() {
        let list = operations(&imagined_network([2, 1, 1, 1], 64));
        for cut in every_cut(&list) {
            let place = CutPlace::find(cut, &list).unwrap();
            assert_eq!(place.carried.is_some(), place.block_input.is_some(), "{cut:?}");
            match place.shortcut {
                Some(operation) => {
                    let shortcut = &list.operations[operation];
                    assert_eq!(Some(shortcut.output()), place.carried);
                    assert_eq!(shortcut.inputs().next(), place.block_input);
                    assert!(operation < place.before);
                }
                None => assert_eq!(place.carried, place.block_input),
            }
        }
    }

    #[test]
    fn layers_that_are_not_there_are_told() {
        let list = operations(&imagined_network([2, 1, 1, 1], 64));
        let cuts = [Cut::Block(4, 0), Cut::Block(1, 1), Cut::Path(0, 0, 3), Cut::Shortcut(0, 1)];
        for cut in cuts {
            assert!(CutPlace::find(cut, &list).is_err(), "{cut:?}");
        }
    }
}

//! A network as a list of operations on buffers, which a pass runs one after the other.
//!
//! Owns the order, and the size of what each operation reads and writes. Where buffers lie, and
//! what an operation is computed with, is not known here: a forward pass lets buffers that are
//! never needed together share memory ([`buffers`](crate::buffers)), and a backward pass keeps all
//! of them. Another kind of network needs another function that makes such a list. Upstream:
//! [`network`](crate::network).

use std::ops::Range;

use camshaft_kernels::STAGES;

use crate::network::{DeviceBlock, DeviceConvolution, DeviceNetwork};
use crate::weight_layout::input_shape;

/// A value of a pass: an operation's output, or the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BufferId(pub(crate) usize);

/// The size of a buffer for one image, channels last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferShape {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
}

impl BufferShape {
    /// Positions of an image.
    pub(crate) fn positions(self) -> usize {
        self.height * self.width
    }

    /// Values of an image.
    pub(crate) fn values(self) -> usize {
        self.positions() * self.channels
    }
}

/// One step of a pass. Heights and widths are its input's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `output = relu(convolution(input) + bias + residual)`, the last two steps if they are there.
    Convolution {
        /// Index into [`OperationList::convolutions`].
        convolution: usize,
        input: BufferId,
        residual: Option<BufferId>,
        relu: bool,
        output: BufferId,
        height: usize,
        width: usize,
    },
    /// The largest of each 3×3 window with stride 2 and padding 1.
    MaxPool { input: BufferId, output: BufferId, height: usize, width: usize, channels: usize },
}

impl Operation {
    /// What it writes.
    pub(crate) fn output(&self) -> BufferId {
        match *self {
            Self::Convolution { output, .. } | Self::MaxPool { output, .. } => output,
        }
    }

    /// What it reads.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = BufferId> {
        let (input, residual) = match *self {
            Self::Convolution { input, residual, .. } => (input, residual),
            Self::MaxPool { input, .. } => (input, None),
        };
        [Some(input), residual].into_iter().flatten()
    }
}

/// The operations of one residual block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockOperations {
    pub(crate) input: BufferId,
    /// The block's output, after its last ReLU.
    pub(crate) output: BufferId,
    /// Index into [`OperationList::operations`] of the shortcut's convolution.
    pub(crate) shortcut: Option<usize>,
    /// Indices of the path's convolutions, the first one first.
    pub(crate) path: Range<usize>,
}

/// The operations of a pass, from the network's input to the last stage's output. The head comes
/// after them.
#[derive(Clone, Debug)]
pub(crate) struct OperationList {
    pub(crate) operations: Vec<Operation>,
    /// All convolutions, in the order of the operations. The stem is the first.
    pub(crate) convolutions: Vec<DeviceConvolution>,
    /// The size of each buffer, by its id.
    pub(crate) buffers: Vec<BufferShape>,
    /// The network's input.
    pub(crate) input: BufferId,
    pub(crate) blocks: [Vec<BlockOperations>; STAGES],
}

impl OperationList {
    /// The output of a stage, counted from 0.
    pub(crate) fn stage_output(&self, stage: usize) -> BufferId {
        let last = self.blocks[stage].last().expect("every stage has a block");
        last.output
    }

    /// What the head reads.
    pub(crate) fn features(&self) -> BufferId {
        self.stage_output(STAGES - 1)
    }

    /// The size of a buffer for one image.
    pub(crate) fn shape(&self, buffer: BufferId) -> BufferShape {
        self.buffers[buffer.0]
    }

    fn add_buffer(&mut self, shape: BufferShape) -> BufferId {
        self.buffers.push(shape);
        BufferId(self.buffers.len() - 1)
    }

    /// Adds a convolution, and returns its output.
    fn add_convolution(
        &mut self,
        convolution: DeviceConvolution,
        input: BufferId,
        residual: Option<BufferId>,
        relu: bool,
    ) -> BufferId {
        let BufferShape { height, width, .. } = self.shape(input);
        let shape = convolution.shape(1, height, width);
        let output = self.add_buffer(BufferShape {
            height: shape.output_height(),
            width: shape.output_width(),
            channels: convolution.outputs,
        });
        self.convolutions.push(convolution);
        let convolution = self.convolutions.len() - 1;
        self.operations.push(Operation::Convolution {
            convolution,
            input,
            residual,
            relu,
            output,
            height,
            width,
        });
        output
    }

    /// Adds a pooling, and returns its output.
    fn add_max_pool(&mut self, input: BufferId) -> BufferId {
        let BufferShape { height, width, channels } = self.shape(input);
        let output = self.add_buffer(BufferShape {
            height: height.div_ceil(2),
            width: width.div_ceil(2),
            channels,
        });
        self.operations.push(Operation::MaxPool { input, output, height, width, channels });
        output
    }

    /// Adds a block, and returns its output.
    fn add_block(&mut self, block: &DeviceBlock, input: BufferId) -> BlockOperations {
        let (mut residual, mut shortcut) = (input, None);
        if let Some(convolution) = block.shortcut {
            shortcut = Some(self.operations.len());
            residual = self.add_convolution(convolution, input, None, false);
        }
        let first = self.operations.len();
        let mut output = input;
        for (place, &convolution) in block.path.iter().enumerate() {
            let last = place + 1 == block.path.len();
            output = self.add_convolution(convolution, output, last.then_some(residual), true);
        }
        BlockOperations { input, output, shortcut, path: first..self.operations.len() }
    }
}

/// The operations of a ResNet.
pub(crate) fn operations(network: &DeviceNetwork) -> OperationList {
    let [height, width, channels] = input_shape(network.layout, network.height, network.width);
    let input = BufferId(0);
    let mut list = OperationList {
        operations: Vec::new(),
        convolutions: Vec::new(),
        buffers: vec![BufferShape { height, width, channels }],
        input,
        blocks: Default::default(),
    };
    let stem = list.add_convolution(network.stem, input, None, true);
    let mut value = list.add_max_pool(stem);
    for (stage, blocks) in network.stages.iter().enumerate() {
        for block in blocks {
            let added = list.add_block(block, value);
            value = added.output;
            list.blocks[stage].push(added);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::tests::imagined_network;

    #[test]
    fn a_resnet50_has_its_convolutions_and_sizes() {
        let list = operations(&imagined_network([3, 4, 6, 3], 224));
        // 53 convolutions and a pooling; each has an output of its own.
        assert_eq!(list.convolutions.len(), 53);
        assert_eq!(list.operations.len(), 54);
        assert_eq!(list.buffers.len(), 55);
        let sizes = (0..STAGES).map(|stage| list.shape(list.stage_output(stage)));
        let expected = [(56, 256), (28, 512), (14, 1024), (7, 2048)]
            .map(|(side, channels)| BufferShape { height: side, width: side, channels });
        assert_eq!(sizes.collect::<Vec<_>>(), expected);
        // The largest are the stem's output and those of the first stage.
        let most = list.buffers.iter().map(|shape| shape.values()).max();
        assert_eq!(most, Some(112 * 112 * 64));
    }

    #[test]
    fn operations_read_only_what_was_written_before() {
        let list = operations(&imagined_network([2, 1, 2, 1], 72));
        let mut written = vec![list.input];
        for operation in &list.operations {
            assert!(operation.inputs().all(|input| written.contains(&input)), "{operation:?}");
            assert!(!written.contains(&operation.output()), "{operation:?}");
            written.push(operation.output());
        }
    }

    #[test]
    fn a_blocks_last_convolution_adds_its_shortcut() {
        let list = operations(&imagined_network([1, 2, 1, 1], 64));
        for block in list.blocks.iter().flatten() {
            let residual = match block.shortcut {
                Some(shortcut) => list.operations[shortcut].output(),
                None => block.input,
            };
            for operation in block.path.clone() {
                let Operation::Convolution { residual: found, relu, .. } =
                    list.operations[operation]
                else {
                    panic!("a path of convolutions");
                };
                let last = operation + 1 == block.path.end;
                assert_eq!((found, relu), (last.then_some(residual), true));
            }
        }
    }
}

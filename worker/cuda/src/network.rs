//! A residual network's weights on the device, in one number format.
//!
//! Owns that the weights fit each other, how they are laid out there, and their memory. Which
//! operations a pass has, and in which order, is [`operations`](crate::operations)' to know.
//! Upstream: folded f32 weights. Downstream: passes, forward and backward.

use std::sync::Arc;

use camshaft_kernels::{BlockWeights, ConvolutionWeights, NetworkWeights, STAGES};
use cudarc::driver::CudaStream;

use crate::cudnn::ConvolutionShape;
use crate::error::CudaError;
use crate::kernels::InputLayout;
use crate::memory::{ALIGNMENT, DeviceMemory, DevicePointer};
use crate::number_format::NumberFormat;
use crate::weight_layout::{
    Geometry, IMAGE_CHANNELS, STEM_KERNEL, channels_last, stem_geometry, stem_weights,
};

/// The smallest height and width of an input, as for the CPU's kernels.
const SMALLEST_SIDE: usize = 32;
/// Our kernels, and tensor cores, take this many channels at once.
const CHANNELS_AT_ONCE: usize = 8;

/// A head: its linear layer, and what that takes.
#[derive(Clone, Copy, Debug)]
pub struct HeadWeights<'a> {
    /// `[K, C]` on features averaged over space, or `[K, C, H, W]` on all of them.
    pub weight: &'a [f32],
    /// `[K]`.
    pub bias: &'a [f32],
    /// Number of classes, `K`.
    pub classes: usize,
    /// True if the linear layer takes the features of all positions, not their average.
    pub flatten: bool,
}

/// How images become a network's input.
#[derive(Clone, Debug)]
pub struct InputFormat {
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// The input's value for each value of a pixel, for each of the network's input channels.
    pub table: [[f32; 256]; 3],
    /// The image's channel (red, green and blue are 0, 1 and 2) of each input channel.
    pub sources: [usize; 3],
}

/// A convolution on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceConvolution {
    /// `[outputs, kernel, kernel, inputs]`.
    pub(crate) weights: DevicePointer,
    /// `[outputs]`, in the network's format.
    pub(crate) bias: DevicePointer,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Zeros before and after the input, in both directions.
    pub(crate) padding: [usize; 2],
}

impl DeviceConvolution {
    /// Its shape on `images` inputs of `height` × `width`.
    pub(crate) fn shape(&self, images: usize, height: usize, width: usize) -> ConvolutionShape {
        let &Self { inputs, outputs, kernel, stride, padding, .. } = self;
        ConvolutionShape { images, height, width, inputs, outputs, kernel, stride, padding }
    }
}

/// A residual block: `relu(path(x) + shortcut(x))`.
#[derive(Clone, Debug)]
pub(crate) struct DeviceBlock {
    /// A ReLU follows each but the last.
    pub(crate) path: Vec<DeviceConvolution>,
    /// If there is none, the shortcut is the input itself.
    pub(crate) shortcut: Option<DeviceConvolution>,
}

/// A head on the device; all of it is f32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceHead {
    /// `[K, C]`, or `[K, C, P]` if it takes the features of all positions.
    pub(crate) weight: DevicePointer,
    /// `[K]`.
    pub(crate) bias: DevicePointer,
    /// `[K, C]`: each class's gradient with respect to a channel, averaged over positions.
    pub(crate) cam_weight: DevicePointer,
    pub(crate) classes: usize,
    pub(crate) channels: usize,
    /// Positions of the features, `P` = height × width.
    pub(crate) positions: usize,
    pub(crate) flatten: bool,
}

/// The stem for one layout of the input.
#[derive(Debug)]
pub(crate) struct DeviceStem {
    pub(crate) layout: InputLayout,
    pub(crate) convolution: DeviceConvolution,
    memory: DeviceMemory,
}

impl DeviceStem {
    /// Lays `weights` out for inputs in `layout`, and uploads them.
    ///
    /// # Errors
    /// If the device has too little memory, or fails.
    pub(crate) fn new(
        stream: &Arc<CudaStream>,
        weights: &ConvolutionWeights<'_>,
        layout: InputLayout,
        format: NumberFormat,
    ) -> Result<Self, CudaError> {
        let laid_out = stem_weights(weights.weight, weights.outputs, layout);
        let (convolution, memory) =
            upload_convolution(stream, &laid_out, weights.bias, stem_geometry(layout), format)?;
        Ok(Self { layout, convolution, memory })
    }
}

/// A network on the device, with the memory of its weights.
#[derive(Debug)]
pub(crate) struct DeviceNetwork {
    /// The stem, on inputs in `layout`.
    pub(crate) stem: DeviceConvolution,
    pub(crate) layout: InputLayout,
    pub(crate) stages: [Vec<DeviceBlock>; STAGES],
    pub(crate) head: DeviceHead,
    pub(crate) format: NumberFormat,
    /// Rows of an input.
    pub(crate) height: usize,
    /// Columns of an input.
    pub(crate) width: usize,
    /// [`InputFormat::table`], f32.
    pub(crate) table: DevicePointer,
    /// [`InputFormat::sources`], i32.
    pub(crate) sources: DevicePointer,
    stem_memory: Option<DeviceMemory>,
    memory: Vec<DeviceMemory>,
}

impl DeviceNetwork {
    /// Uploads a network. Its stem takes inputs of 8 channels; [`Self::set_stem`] replaces it.
    ///
    /// # Errors
    /// If the weights don't fit each other or can't be computed here, or if the device has too
    /// little memory or fails.
    pub(crate) fn new(
        stream: &Arc<CudaStream>,
        weights: &NetworkWeights<'_>,
        head: &HeadWeights<'_>,
        input: &InputFormat,
        format: NumberFormat,
    ) -> Result<Self, CudaError> {
        let sizes = FeatureSizes::check(weights, head, input)?;
        let stem = DeviceStem::new(stream, &weights.stem, InputLayout::Padded(8), format)?;
        let mut memory = Vec::new();
        let mut upload =
            |weights: &ConvolutionWeights<'_>| -> Result<DeviceConvolution, CudaError> {
                let &ConvolutionWeights { weight, bias, inputs, outputs, kernel, stride } = weights;
                let laid_out = channels_last(weight, [outputs, inputs, kernel], inputs);
                let geometry = Geometry { inputs, kernel, stride, padding: [kernel / 2; 2] };
                let (convolution, owned) =
                    upload_convolution(stream, &laid_out, bias, geometry, format)?;
                memory.push(owned);
                Ok(convolution)
            };
        let mut stages: [Vec<DeviceBlock>; STAGES] = Default::default();
        for (stage, blocks) in stages.iter_mut().zip(&weights.stages) {
            for block in blocks {
                let path = block.path.iter().map(&mut upload).collect::<Result<_, CudaError>>()?;
                let shortcut = block.shortcut.as_ref().map(&mut upload).transpose()?;
                stage.push(DeviceBlock { path, shortcut });
            }
        }
        let head = upload_head(stream, head, sizes, &mut memory)?;
        let table = DeviceMemory::holding(stream, input.table.as_flattened(), "the input's table")?;
        let sources = input.sources.map(|source| source as i32);
        let sources = DeviceMemory::holding(stream, &sources, "the input's channels")?;
        let (table_at, sources_at) = (table.pointer(), sources.pointer());
        memory.extend([table, sources]);
        Ok(Self {
            stem: stem.convolution,
            layout: stem.layout,
            stages,
            head,
            format,
            height: input.height,
            width: input.width,
            table: table_at,
            sources: sources_at,
            stem_memory: Some(stem.memory),
            memory,
        })
    }

    /// Replaces the stem by another of the same weights. Passes that were made for the one before
    /// must not run any more.
    pub(crate) fn set_stem(&mut self, stem: DeviceStem) {
        self.stem = stem.convolution;
        self.layout = stem.layout;
        self.stem_memory = Some(stem.memory);
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.iter().chain(&self.stem_memory).map(DeviceMemory::bytes).sum()
    }
}

/// Uploads a convolution's weights, which are laid out as the device reads them, and its bias.
/// Both lie in the memory that is returned.
///
/// # Errors
/// If the device has too little memory, or fails.
pub(crate) fn upload_convolution(
    stream: &Arc<CudaStream>,
    laid_out: &[f32],
    bias: &[f32],
    Geometry { inputs, kernel, stride, padding }: Geometry,
    format: NumberFormat,
) -> Result<(DeviceConvolution, DeviceMemory), CudaError> {
    let mut bytes = format.encode(laid_out);
    let bias_at = bytes.len().next_multiple_of(ALIGNMENT);
    bytes.resize(bias_at, 0);
    bytes.extend(format.encode(bias));
    let memory = DeviceMemory::holding(stream, &bytes, "weights")?;
    let weights = memory.pointer();
    let bias_pointer = weights + bias_at as DevicePointer;
    let outputs = bias.len();
    let convolution =
        DeviceConvolution { weights, bias: bias_pointer, inputs, outputs, kernel, stride, padding };
    Ok((convolution, memory))
}

fn upload_head(
    stream: &Arc<CudaStream>,
    head: &HeadWeights<'_>,
    FeatureSizes { channels, positions }: FeatureSizes,
    memory: &mut Vec<DeviceMemory>,
) -> Result<DeviceHead, CudaError> {
    let cam_weight = cam_weights(head, positions);
    let mut upload = |values: &[f32]| -> Result<DevicePointer, CudaError> {
        let owned = DeviceMemory::holding(stream, values, "the head's weights")?;
        let pointer = owned.pointer();
        memory.push(owned);
        Ok(pointer)
    };
    Ok(DeviceHead {
        weight: upload(head.weight)?,
        bias: upload(head.bias)?,
        cam_weight: upload(&cam_weight)?,
        classes: head.classes,
        channels,
        positions,
        flatten: head.flatten,
    })
}

/// The weights `[K, C]` of Grad-CAM at the last block: each class's gradient with respect to a
/// channel, averaged over positions (Selvaraju et al. 2017, equation 1).
fn cam_weights(head: &HeadWeights<'_>, positions: usize) -> Vec<f32> {
    let share = 1.0 / positions as f64;
    if head.flatten {
        let mean = |gradient: &[f32]| gradient.iter().map(|&g| f64::from(g)).sum::<f64>() * share;
        head.weight.chunks_exact(positions).map(|gradient| mean(gradient) as f32).collect()
    } else {
        head.weight.iter().map(|&weight| (f64::from(weight) * share) as f32).collect()
    }
}

/// The sizes of the last stage's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FeatureSizes {
    channels: usize,
    positions: usize,
}

impl FeatureSizes {
    /// Follows the channels and sides through a network, and checks that all parts fit.
    ///
    /// # Errors
    /// If they don't, or if a part can't be computed here.
    fn check(
        weights: &NetworkWeights<'_>,
        head: &HeadWeights<'_>,
        input: &InputFormat,
    ) -> Result<Self, CudaError> {
        let NetworkWeights { stem, stages } = weights;
        let InputFormat { height, width, sources, .. } = *input;
        if height.min(width) < SMALLEST_SIDE || sources.iter().any(|&s| s >= IMAGE_CHANNELS) {
            return unsupported(format!("an input of {height} x {width}"));
        }
        if (stem.inputs, stem.kernel, stem.stride) != (IMAGE_CHANNELS, STEM_KERNEL, 2) {
            return unsupported("a stem that is not 7x7 with stride 2".to_owned());
        }
        check_values(stem)?;
        // The stem and the pooling each halve the sides, and round up.
        let mut sides = [height, width].map(|side| side.div_ceil(4));
        let mut channels = stem.outputs;
        for blocks in stages {
            if blocks.is_empty() {
                return unsupported("a stage without blocks".to_owned());
            }
            for block in blocks {
                let stride = check_block(block, channels)?;
                channels = block.path.last().map_or(channels, |last| last.outputs);
                sides = sides.map(|side| side.div_ceil(stride));
            }
        }
        let positions = sides[0] * sides[1];
        let inputs = if head.flatten { channels * positions } else { channels };
        let fits = head.classes > 0
            && head.bias.len() == head.classes
            && head.weight.len() == head.classes * inputs;
        if !fits {
            return unsupported(format!(
                "a head of {} weights and {} biases for {} classes of {inputs} inputs",
                head.weight.len(),
                head.bias.len(),
                head.classes
            ));
        }
        Ok(Self { channels, positions })
    }
}

/// The block's stride.
///
/// # Errors
/// If its convolutions don't fit each other.
fn check_block(block: &BlockWeights<'_>, inputs: usize) -> Result<usize, CudaError> {
    let mut channels = inputs;
    for convolution in &block.path {
        let known = matches!(convolution.kernel, 1 | 3) && matches!(convolution.stride, 1 | 2);
        if convolution.inputs != channels || !known {
            return unsupported("a block's path whose convolutions don't fit".to_owned());
        }
        check_values(convolution)?;
        channels = convolution.outputs;
    }
    let stride = block.path.iter().map(|convolution| convolution.stride).product();
    let fits = match &block.shortcut {
        None => stride == 1 && channels == inputs,
        Some(shortcut) => {
            check_values(shortcut)?;
            (shortcut.kernel, shortcut.stride) == (1, stride)
                && (shortcut.inputs, shortcut.outputs) == (inputs, channels)
        }
    };
    if !fits || block.path.len() < 2 {
        return unsupported("a shortcut that does not fit its block".to_owned());
    }
    Ok(stride)
}

/// Checks that a convolution has the values of its sizes, and channels for our kernels.
fn check_values(convolution: &ConvolutionWeights<'_>) -> Result<(), CudaError> {
    let &ConvolutionWeights { weight, bias, inputs, outputs, kernel, .. } = convolution;
    let whole = outputs > 0 && outputs.is_multiple_of(CHANNELS_AT_ONCE);
    if whole && weight.len() == outputs * inputs * kernel * kernel && bias.len() == outputs {
        return Ok(());
    }
    unsupported(format!(
        "a convolution of {inputs} to {outputs} channels, {kernel}x{kernel}, with {} weights and \
         {} biases",
        weight.len(),
        bias.len()
    ))
}

fn unsupported<T>(what: String) -> Result<T, CudaError> {
    Err(CudaError::Unsupported { what })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A network with sizes and without weights, for tests that don't run it.
    pub(crate) fn imagined_network(blocks: [usize; STAGES], height: usize) -> DeviceNetwork {
        let convolution = |[inputs, outputs, kernel, stride]: [usize; 4]| DeviceConvolution {
            weights: 0,
            bias: 0,
            inputs,
            outputs,
            kernel,
            stride,
            padding: [kernel / 2; 2],
        };
        let mut inputs = 64;
        let stages = std::array::from_fn(|stage| {
            let block = |number: usize| {
                let (width, stride) = (64 << stage, if number == 0 && stage > 0 { 2 } else { 1 });
                let outputs = 4 * width;
                let path =
                    [[inputs, width, 1, 1], [width, width, 3, stride], [width, outputs, 1, 1]];
                let shortcut = (number == 0).then(|| convolution([inputs, outputs, 1, stride]));
                inputs = outputs;
                DeviceBlock { path: path.map(convolution).to_vec(), shortcut }
            };
            (0..blocks[stage]).map(block).collect()
        });
        let side = height.div_ceil(32);
        DeviceNetwork {
            stem: convolution([8, 64, 7, 2]),
            layout: InputLayout::Padded(8),
            stages,
            head: DeviceHead {
                weight: 0,
                bias: 0,
                cam_weight: 0,
                classes: 10,
                channels: 2048,
                positions: side * side,
                flatten: false,
            },
            format: NumberFormat::F16,
            height,
            width: height,
            table: 0,
            sources: 0,
            stem_memory: None,
            memory: Vec::new(),
        }
    }

    #[test]
    fn cam_weights_are_mean_gradients() {
        let bias = [0.0; 2];
        let head = |weight, flatten| HeadWeights { weight, bias: &bias, classes: 2, flatten };
        let pooled = [4.0, 8.0, -4.0, 0.0];
        assert_eq!(cam_weights(&head(&pooled, false), 4), [1.0, 2.0, -1.0, 0.0]);
        let flattened = [1.0, 3.0, 5.0, 7.0, -1.0, 1.0, 0.0, 2.0];
        assert_eq!(cam_weights(&head(&flattened, true), 2), [2.0, 6.0, 0.0, 1.0]);
    }

    #[test]
    fn parts_that_do_not_fit_are_told_before_anything_is_uploaded() {
        let bias = vec![0.0; 64];
        let stem_weight = vec![0.0; 64 * 3 * 49];
        let stem = ConvolutionWeights {
            weight: &stem_weight,
            bias: &bias,
            inputs: 3,
            outputs: 64,
            kernel: 7,
            stride: 2,
        };
        let weight = vec![0.0; 64 * 64 * 9];
        let inner =
            ConvolutionWeights { weight: &weight, inputs: 64, kernel: 3, stride: 1, ..stem };
        let block = BlockWeights { path: vec![inner; 2], shortcut: None };
        let network = NetworkWeights { stem, stages: std::array::from_fn(|_| vec![block.clone()]) };
        let input =
            InputFormat { height: 64, width: 96, table: [[0.0; 256]; 3], sources: [0, 1, 2] };
        let weight = vec![0.0; 2 * 64];
        let head = HeadWeights { weight: &weight, bias: &[0.0; 2], classes: 2, flatten: false };
        let sizes = FeatureSizes::check(&network, &head, &input).unwrap();
        assert_eq!(sizes, FeatureSizes { channels: 64, positions: 16 * 24 });

        let other = HeadWeights { flatten: true, ..head };
        assert!(FeatureSizes::check(&network, &other, &input).is_err());
        let small = InputFormat { height: 16, ..input.clone() };
        assert!(FeatureSizes::check(&network, &head, &small).is_err());
        let mut wrong = network.clone();
        wrong.stages[1][0].path[1].inputs = 32;
        assert!(FeatureSizes::check(&wrong, &head, &input).is_err());
    }
}

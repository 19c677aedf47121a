//! A residual network's convolutions as a caller gives them. Does not pack them.

use crate::layout::PLANE;

/// Residual stages of a network.
pub const STAGES: usize = 4;

/// A residual block: `relu(path(x) + shortcut(x))`. A ReLU follows each convolution of the path
/// but the last.
#[derive(Clone, Debug)]
pub struct BlockWeights<'a> {
    /// Two or more 1×1 and 3×3 convolutions, one after the other.
    pub path: Vec<ConvolutionWeights<'a>>,
    /// A 1×1 convolution; if there is none, the shortcut is the input itself.
    pub shortcut: Option<ConvolutionWeights<'a>>,
}

/// A network without its head: a 7×7 stem with stride 2 and a ReLU, 3×3 max-pooling with stride
/// 2, and stages of blocks.
#[derive(Clone, Debug)]
pub struct NetworkWeights<'a> {
    /// The 7×7 convolution with stride 2 from 3 channels.
    pub stem: ConvolutionWeights<'a>,
    /// The blocks of each stage. Only the first block of a stage may have a stride or a shortcut
    /// convolution.
    pub stages: [Vec<BlockWeights<'a>>; STAGES],
}

/// The kernels cannot run a network, and why. The caller must run it by other code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the CPU kernels do not support this network: {0}")]
pub struct UnsupportedNetwork(pub(crate) String);

/// A convolution with BatchNorm folded in. Its input is padded with `kernel / 2` zeros.
#[derive(Clone, Copy, Debug)]
pub struct ConvolutionWeights<'a> {
    /// `[outputs, inputs, kernel, kernel]`, row-major.
    pub weight: &'a [f32],
    /// `[outputs]`.
    pub bias: &'a [f32],
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Height and width of the filter.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
}

impl ConvolutionWeights<'_> {
    /// True for the 7×7 convolution with stride 2 from 3 channels.
    pub(crate) fn is_stem(&self) -> bool {
        (self.inputs, self.kernel, self.stride) == (3, 7, 2)
    }

    /// # Errors
    /// If the kernels' layout does not support it, or it has not as many weights as it says.
    pub(crate) fn check(&self) -> Result<(), UnsupportedNetwork> {
        let &Self { weight, bias, inputs, outputs, kernel: side, stride } = self;
        let stem = self.is_stem();
        let fits = stem || inputs % PLANE == 0 && matches!(side, 1 | 3) && matches!(stride, 1 | 2);
        if !fits || inputs == 0 || outputs == 0 || outputs % PLANE != 0 {
            return Err(UnsupportedNetwork(format!(
                "convolution of {inputs} to {outputs} channels, {side}x{side}, stride {stride}"
            )));
        }
        if weight.len() != outputs * inputs * side * side || bias.len() != outputs {
            return Err(UnsupportedNetwork(format!(
                "{} weights and {} biases for {outputs}x{inputs}x{side}x{side}",
                weight.len(),
                bias.len()
            )));
        }
        Ok(())
    }
}

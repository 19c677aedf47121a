//! Shapes of convolutions, and the names of their parameters.

/// Shape of a convolution with a square kernel and equal padding on all sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
}

impl ConvShape {
    /// Width of the border of zeros around the input. With stride 1 the output has the input's
    /// size, as in all of torchvision's ResNets.
    pub(crate) fn padding(self) -> usize {
        self.kernel / 2
    }

    /// Output rows or columns for `side` rows or columns of the input.
    pub fn output_side(self, side: usize) -> usize {
        (side + 2 * self.padding() - self.kernel) / self.stride + 1
    }
}

/// A convolution that is followed by a BatchNorm, and the names of both in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedConvolution {
    /// torchvision's name of the convolution: `layer1.0.conv1`.
    pub conv: String,
    /// torchvision's name of the BatchNorm: `layer1.0.bn1`.
    pub norm: String,
    /// Shape of the convolution.
    pub shape: ConvShape,
}

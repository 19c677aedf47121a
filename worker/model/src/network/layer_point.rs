//! Positions of target layers in a network of residual blocks. What lies there is
//! [`resnet`](super::resnet)'s.

/// The position of a target layer in a network. Stages, blocks and convolutions count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LayerPoint {
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

//! The networks and heads that a `config.json` can name.

use serde::{Deserialize, Serialize};

/// A network that can be run: He et al. 2015, <https://arxiv.org/abs/1512.03385>, table 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, strum::IntoStaticStr)]
pub enum Architecture {
    /// Basic blocks, 18 layers.
    #[serde(rename = "resnet18")]
    #[strum(serialize = "resnet18")]
    ResNet18,
    /// Basic blocks, 34 layers.
    #[serde(rename = "resnet34")]
    #[strum(serialize = "resnet34")]
    ResNet34,
    /// Bottlenecks, 50 layers, with torchvision's strides ("v1.5": in the 3×3).
    #[serde(rename = "resnet50")]
    #[strum(serialize = "resnet50")]
    ResNet50,
    /// Bottlenecks, 101 layers, strides as torchvision's.
    #[serde(rename = "resnet101")]
    #[strum(serialize = "resnet101")]
    ResNet101,
    /// Bottlenecks, 152 layers, strides as torchvision's.
    #[serde(rename = "resnet152")]
    #[strum(serialize = "resnet152")]
    ResNet152,
    /// Keras' ResNet50: strides in a block's first 1×1 ("v1"), as in the paper.
    #[serde(rename = "resnet50-v1")]
    #[strum(serialize = "resnet50-v1")]
    ResNet50V1,
    /// Keras' ResNet101.
    #[serde(rename = "resnet101-v1")]
    #[strum(serialize = "resnet101-v1")]
    ResNet101V1,
    /// Keras' ResNet152.
    #[serde(rename = "resnet152-v1")]
    #[strum(serialize = "resnet152-v1")]
    ResNet152V1,
}

impl Architecture {
    /// Every architecture, in the order that errors list them.
    pub const ALL: [Self; 8] = [
        Self::ResNet18,
        Self::ResNet34,
        Self::ResNet50,
        Self::ResNet101,
        Self::ResNet152,
        Self::ResNet50V1,
        Self::ResNet101V1,
        Self::ResNet152V1,
    ];

    /// True if its blocks are two 3×3 convolutions.
    #[must_use]
    pub(crate) fn is_basic(self) -> bool {
        matches!(self, Self::ResNet18 | Self::ResNet34)
    }

    /// True if the first convolution of a bottleneck has its stride, as Keras has it.
    #[must_use]
    pub(crate) fn has_stride_first(self) -> bool {
        matches!(self, Self::ResNet50V1 | Self::ResNet101V1 | Self::ResNet152V1)
    }

    /// The name in `config.json` and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What follows the last residual stage, whose output is `[C, H, W]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// Global average pooling, then a linear layer: `fc.weight` is `[classes, C]`.
    #[default]
    AveragePool,
    /// All values in the order channel, row, column, then a linear layer: `fc.weight` is
    /// `[classes, C * H * W]`.
    Flatten,
}

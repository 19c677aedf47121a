//! Target layers: their names, and lists of layers whose maps are fused into one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ParseChoiceError, parse_list, print_list};

/// A target layer: the layer whose output a map weighs. Named as in torchvision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TargetLayer {
    /// `conv1`: the stem's convolution.
    Stem,
    /// `layer1` to `layer4`: a residual stage, after its last ReLU.
    Stage(u8),
    /// `layer4.2`: a residual block, counted from 0, after its last ReLU.
    Block {
        /// Stage, 1 to 4.
        stage: u8,
        /// Block in its stage, from 0.
        block: u8,
    },
    /// `layer4.2.conv3`: a convolution's own output, before BatchNorm and ReLU.
    Convolution {
        /// Stage, 1 to 4.
        stage: u8,
        /// Block in its stage, from 0.
        block: u8,
        /// Convolution in the block's main path, from 1.
        number: u8,
    },
    /// `layer4.0.downsample.0`: the convolution of a block's shortcut, before its BatchNorm.
    Shortcut {
        /// Stage, 1 to 4.
        stage: u8,
        /// Block in its stage, from 0.
        block: u8,
    },
}

impl fmt::Display for TargetLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stem => f.write_str("conv1"),
            Self::Stage(stage) => write!(f, "layer{stage}"),
            Self::Block { stage, block } => write!(f, "layer{stage}.{block}"),
            Self::Convolution { stage, block, number } => {
                write!(f, "layer{stage}.{block}.conv{number}")
            }
            Self::Shortcut { stage, block } => write!(f, "layer{stage}.{block}.downsample.0"),
        }
    }
}

impl FromStr for TargetLayer {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| ParseChoiceError {
            what: "target layer",
            text: text.to_owned(),
            choices: "a stage (layer1 to layer4), a block (layer4.2), a convolution \
                      (layer4.2.conv3, layer4.0.downsample.0, conv1), or several fused \
                      (layer3+layer4)"
                .to_owned(),
        })
    }
}

impl TargetLayer {
    fn parse(text: &str) -> Option<Self> {
        if text == "conv1" {
            return Some(Self::Stem);
        }
        // Not `parse` alone, which takes "+1" and "01" too: one layer has one name.
        let number = |text: &str| {
            let number = text.parse::<u8>().ok()?;
            (number.to_string() == text).then_some(number)
        };
        let (stage, rest) = match text.strip_prefix("layer")?.split_once('.') {
            Some((stage, rest)) => (stage, Some(rest)),
            None => (text.strip_prefix("layer")?, None),
        };
        let stage = number(stage).filter(|stage| (1..=4).contains(stage))?;
        let Some(rest) = rest else { return Some(Self::Stage(stage)) };
        let (block, module) = match rest.split_once('.') {
            Some((block, module)) => (number(block)?, Some(module)),
            None => (number(rest)?, None),
        };
        match module {
            None => Some(Self::Block { stage, block }),
            Some("downsample.0") => Some(Self::Shortcut { stage, block }),
            Some(module) => {
                let number = number(module.strip_prefix("conv")?).filter(|&number| number > 0)?;
                Some(Self::Convolution { stage, block, number })
            }
        }
    }
}
serialize_as_text!(TargetLayer);

/// Layers whose maps are fused into one: `layer3+layer4`. Usually one layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FusedLayers(Vec<TargetLayer>);

impl FusedLayers {
    /// The layers in the order given; at least one.
    #[must_use]
    pub fn as_slice(&self) -> &[TargetLayer] {
        &self.0
    }
}

impl From<TargetLayer> for FusedLayers {
    fn from(layer: TargetLayer) -> Self {
        Self(vec![layer])
    }
}

impl fmt::Display for FusedLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_list(f, &self.0, '+')
    }
}

impl FromStr for FusedLayers {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_list(text, '+').map(Self)
    }
}
serialize_as_text!(FusedLayers);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_layer_has_one_name() {
        for text in ["conv1", "layer1", "layer3.11", "layer4.2.conv3", "layer2.0.downsample.0"] {
            assert_eq!(text.parse::<TargetLayer>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "layer",
            "layer0",
            "layer5",
            "layer4.",
            "layer4.x",
            "layer4.01",
            "layer+4",
            "conv2",
            "layer4.2.bn3",
            "layer4.2.conv0",
            "layer4.2.conv",
            "layer4.0.downsample",
            "fc",
        ] {
            assert!(text.parse::<TargetLayer>().is_err(), "{text:?} was taken");
        }
    }
}

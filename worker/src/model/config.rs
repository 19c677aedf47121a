//! `config.json` of a model folder: what the weights don't say about themselves.

use serde::{Deserialize, Serialize};

use super::ModelError;

/// Class names and how an image becomes the network's input.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct ModelConfig {
    /// The network the weights are for.
    pub architecture: Architecture,
    /// What follows the last residual stage.
    #[serde(default)]
    pub head: HeadKind,
    /// Class names, by class index.
    pub classes: Vec<String>,
    /// How an image becomes the network's input.
    pub input: InputRule,
}

impl ModelConfig {
    /// Reads `config.json` of the model called `model`.
    ///
    /// # Errors
    /// Where it is no such file, asks for what this version can't do, or contradicts itself.
    pub fn parse(model: &str, json: &[u8]) -> Result<Self, ModelError> {
        let config: Self = serde_json::from_slice(json)
            .map_err(|source| ModelError::Config { model: model.to_owned(), source })?;
        config
            .check()
            .map_err(|problem| ModelError::ConfigValue { model: model.to_owned(), problem })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), &'static str> {
        let InputRule { height, width, mean, std, .. } = &self.input;
        if self.classes.is_empty() {
            return Err("\"classes\" is empty; list the class names in order");
        }
        if self.classes.iter().any(String::is_empty) {
            return Err("\"classes\" has an empty name; name every class");
        }
        // ResNet halves the image five times; beyond 4096 a batch no longer fits anywhere.
        if [height, width].into_iter().any(|side| !(32..=4096).contains(side)) {
            return Err("\"input\" is not between 32 and 4096 pixels a side");
        }
        if !mean.iter().all(|value| value.is_finite()) {
            return Err("\"mean\" is not finite; give the mean of each channel, 0 to 1");
        }
        if !std.iter().all(|&value| value.is_finite() && value > 0.0) {
            return Err("\"std\" is not above zero; use 1 to leave a channel as it is");
        }
        Ok(())
    }
}

/// A network this worker can run: He et al. 2015, table 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Architecture {
    /// Basic blocks, 18 layers.
    #[serde(rename = "resnet18")]
    ResNet18,
    /// Basic blocks, 34 layers.
    #[serde(rename = "resnet34")]
    ResNet34,
    /// Bottlenecks, 50 layers, with torchvision's strides ("v1.5": in the 3×3).
    #[serde(rename = "resnet50")]
    ResNet50,
    /// Bottlenecks, 101 layers, strides as torchvision's.
    #[serde(rename = "resnet101")]
    ResNet101,
    /// Bottlenecks, 152 layers, strides as torchvision's.
    #[serde(rename = "resnet152")]
    ResNet152,
    /// Keras' ResNet50: as the paper has it, strides in a block's first 1×1 ("v1").
    #[serde(rename = "resnet50-v1")]
    ResNet50V1,
    /// Keras' ResNet101.
    #[serde(rename = "resnet101-v1")]
    ResNet101V1,
    /// Keras' ResNet152.
    #[serde(rename = "resnet152-v1")]
    ResNet152V1,
}

impl Architecture {
    /// Every one, in the order errors list them.
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

    /// As `config.json` and the command line write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet18 => "resnet18",
            Self::ResNet34 => "resnet34",
            Self::ResNet50 => "resnet50",
            Self::ResNet101 => "resnet101",
            Self::ResNet152 => "resnet152",
            Self::ResNet50V1 => "resnet50-v1",
            Self::ResNet101V1 => "resnet101-v1",
            Self::ResNet152V1 => "resnet152-v1",
        }
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

/// How an image becomes a `[3, height, width]` tensor: resized, `value / 255`, then
/// `(value - mean) / std` for each channel.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct InputRule {
    /// Input height in pixels.
    pub height: usize,
    /// Input width in pixels.
    pub width: usize,
    /// How the image's shape becomes the input's.
    pub resize: Resize,
    /// How pixels are interpolated.
    pub interpolation: Interpolation,
    /// From bytes to numbers.
    pub scale: Scale,
    /// Subtracted from each channel after scaling.
    pub mean: [f32; 3],
    /// Divides each channel after that.
    pub std: [f32; 3],
    /// Order of the channels.
    pub color: ChannelOrder,
}

/// How an image's shape becomes the input's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// Both sides to the input's, whatever the aspect ratio.
    Stretch,
}

/// How pixels are interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// Pillow's `BILINEAR`: a triangle filter as wide as the scale when shrinking.
    BilinearAntialiased,
}

/// From bytes to numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Scale {
    /// 0..255 to 0..1.
    #[serde(rename = "1/255")]
    ByteToUnit,
}

/// Order of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config() -> Value {
        json!({
            "architecture": "resnet50",
            "classes": ["cat", "dog"],
            "input": {
                "height": 224, "width": 224, "resize": "stretch",
                "interpolation": "bilinear-antialiased", "scale": "1/255",
                "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "color": "rgb"
            },
            "license": "BSD-2-Clause"
        })
    }

    fn parse(config: &Value) -> Result<ModelConfig, ModelError> {
        ModelConfig::parse("pets", config.to_string().as_bytes())
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_known_ones() {
        assert_eq!(parse(&config()).unwrap().classes, ["cat", "dog"]);
        for (field, known) in [("resize", "stretch"), ("scale", "1/255"), ("color", "rgb")] {
            let mut config = config();
            config["input"][field] = "other".into();
            let error = parse(&config).unwrap_err().to_string();
            assert!(error.contains("other") && error.contains(known), "{error}");
        }
        let mut config = config();
        config["architecture"] = "vgg16".into();
        let error = parse(&config).unwrap_err().to_string();
        assert!(
            error.contains("`vgg16`, expected one of `resnet18`, `resnet34`, `resnet50`"),
            "{error}"
        );
    }

    #[test]
    fn a_config_that_would_divide_by_zero_is_refused() {
        let mut config = config();
        config["input"]["std"] = json!([1.0, 0.0, 1.0]);
        assert!(matches!(parse(&config), Err(ModelError::ConfigValue { .. })));
    }
}

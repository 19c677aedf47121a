//! `config.json` of a model folder: what the weights don't say about themselves.
//!
//! Owns our own format, which says everything, and telling whose format a file is. timm's and
//! transformers' are turned into it by [`timm`] and [`transformers`]; what they ask for and this
//! version can't do is refused, never ignored.

mod classes;
mod timm;
mod transformers;

use camshaft_vision::input::{InputRule, Resize};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::ModelError;

/// Class names and how an image becomes the network's input.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct ModelConfig {
    /// The network the weights are for.
    pub architecture: Architecture,
    /// What follows the last residual stage.
    #[serde(default)]
    pub head: HeadKind,
    /// Class names, by class index. In a file also `"imagenet-1k"`, for that data set's.
    #[serde(deserialize_with = "class_names")]
    pub classes: Vec<String>,
    /// How an image becomes the network's input.
    pub input: InputRule,
}

/// Why a config of another program's format can't be turned into ours.
type Refusal = String;

impl ModelConfig {
    /// Reads `config.json` of the model called `model`: our own format or timm's.
    ///
    /// # Errors
    /// Where it is no such file, asks for what this version can't do, or contradicts itself.
    pub fn parse(model: &str, json: &[u8]) -> Result<Self, ModelError> {
        Self::read(model, json, None)
    }

    /// As [`Self::parse`], and also transformers' format, with the `preprocessor_config.json`
    /// that goes with it.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn read(model: &str, json: &[u8], preprocessor: Option<&[u8]>) -> Result<Self, ModelError> {
        let syntax = |source| ModelError::Config { model: model.to_owned(), source };
        let refused = |problem| ModelError::ConfigValue { model: model.to_owned(), problem };
        let value: Value = serde_json::from_slice(json).map_err(syntax)?;
        let config = if timm::is_timm(&value) {
            timm::read(&value).map_err(refused)?
        } else if transformers::is_transformers(&value) {
            let preprocessor = preprocessor.map(serde_json::from_slice).transpose();
            let preprocessor = preprocessor.map_err(|error| {
                refused(format!("preprocessor_config.json is not JSON ({error})"))
            })?;
            transformers::read(&value, preprocessor.as_ref()).map_err(refused)?
        } else {
            // From the text, not the value: its errors tell line and column.
            serde_json::from_slice(json).map_err(syntax)?
        };
        config.check().map_err(|problem| refused(problem.to_owned()))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), &'static str> {
        let InputRule { height, width, resize, mean, std, .. } = &self.input;
        if self.classes.is_empty() {
            return Err("\"classes\" is empty; list the class names in order");
        }
        if self.classes.iter().any(String::is_empty) {
            return Err("\"classes\" has an empty name; name every class");
        }
        // ResNet halves the image five times; beyond 4096 a batch no longer fits anywhere.
        if [height, width].into_iter().any(|side| !(32..=MAX_SIDE).contains(side)) {
            return Err("\"input\" is not between 32 and 4096 pixels a side");
        }
        let holds_crop = match *resize {
            Resize::Stretch => true,
            Resize::ShorterSide(side) => side >= *height.max(width) && side <= MAX_SIDE,
            Resize::StretchTo { height: high, width: wide } => {
                (*height..=MAX_SIDE).contains(&high) && (*width..=MAX_SIDE).contains(&wide)
            }
        };
        if !holds_crop {
            return Err("\"resize\" gives less than the input's height and width, or more than \
                        4096 pixels; the input is cut out of the middle of it");
        }
        if !mean.iter().all(|value| value.is_finite()) {
            return Err("\"mean\" is not finite; give the mean of each channel after scaling");
        }
        if !std.iter().all(|&value| value.is_finite() && value > 0.0) {
            return Err("\"std\" is not above zero; use 1 to leave a channel as it is");
        }
        Ok(())
    }
}

/// Largest side of an input or of what it is cut out of.
const MAX_SIDE: usize = 4096;

/// A list of names, or the name of a list.
fn class_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "\"classes\" is neither a list of names nor \"imagenet-1k\"")]
    enum Classes {
        Names(Vec<String>),
        List(NamedList),
    }
    #[derive(Deserialize)]
    enum NamedList {
        #[serde(rename = "imagenet-1k")]
        ImageNet1k,
    }
    Ok(match Classes::deserialize(deserializer)? {
        Classes::Names(names) => names,
        Classes::List(NamedList::ImageNet1k) => classes::imagenet_1k(),
    })
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

/// The first of these that `object` has and that says something.
fn field<'a>(object: &'a Value, names: &[&str]) -> Option<&'a Value> {
    names.iter().filter_map(|name| object.get(name)).find(|value| !value.is_null())
}

/// Three numbers, as mean and deviation are.
fn triple(name: &str, value: &Value) -> Result<[f32; 3], Refusal> {
    let numbers: Option<Vec<f64>> =
        value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    let numbers = numbers.and_then(|numbers| <[f64; 3]>::try_from(numbers).ok());
    let numbers = numbers.ok_or_else(|| format!("\"{name}\" is {value}, not three numbers"))?;
    Ok(numbers.map(|number| number as f32))
}

/// A number of pixels.
fn pixels(name: &str, value: &Value) -> Result<usize, Refusal> {
    value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| format!("\"{name}\" is {value}, not a number of pixels"))
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
    fn every_rule_is_written_as_it_is_read() {
        let mut config = config();
        for resize in [
            json!("stretch"),
            json!({"shorter-side": 256}),
            json!({"stretch-to": {"height": 256, "width": 240}}),
        ] {
            config["input"]["resize"] = resize.clone();
            let written = serde_json::to_value(parse(&config).unwrap()).unwrap();
            assert_eq!(written["input"]["resize"], resize);
        }
        config["classes"] = "imagenet-1k".into();
        assert_eq!(parse(&config).unwrap().classes.len(), 1000);
        config["classes"] = "imagenet".into();
        let error = parse(&config).unwrap_err().to_string();
        assert!(error.contains("neither a list of names nor \"imagenet-1k\""), "{error}");
    }

    #[test]
    fn an_input_larger_than_what_it_is_cut_from_is_refused() {
        let mut config = config();
        config["input"]["resize"] = json!({"shorter-side": 223});
        let error = parse(&config).unwrap_err().to_string();
        assert!(error.contains("\"resize\" gives less"), "{error}");
    }

    #[test]
    fn a_config_that_would_divide_by_zero_is_refused() {
        let mut config = config();
        config["input"]["std"] = json!([1.0, 0.0, 1.0]);
        assert!(matches!(parse(&config), Err(ModelError::ConfigValue { .. })));
    }
}

//! `config.json` of a model folder: what the weights don't say about themselves.
//!
//! Owns reading it, in our own format or in that of timm or transformers, which [`timm`] and
//! [`transformers`] convert. What a file asks for and this version can't do is refused, never
//! ignored. Upstream: the files of a model. Downstream: the network, and how images become input.

mod architecture;
mod classes;
mod fields;
mod model_config;
mod timm;
mod transformers;

use serde_json::Value;

pub use architecture::{Architecture, HeadKind};
pub use model_config::ModelConfig;

use crate::error::ModelError;

impl ModelConfig {
    /// Reads the `config.json` of the model called `model`, in our own format or timm's.
    ///
    /// # Errors
    /// If it has another format, asks for something that this version can't do, or contradicts
    /// itself.
    pub fn parse(model: &str, json: &[u8]) -> Result<Self, ModelError> {
        Self::read(model, json, None)
    }

    /// As [`Self::parse`], and also transformers' format, which comes with a
    /// `preprocessor_config.json`.
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
            // From the text, not the value, so that errors say line and column.
            serde_json::from_slice(json).map_err(syntax)?
        };
        config.check().map_err(|problem| refused(problem.to_owned()))?;
        Ok(config)
    }
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

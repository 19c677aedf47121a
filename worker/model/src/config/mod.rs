//! `config.json` of a model folder: what the weights don't say about themselves.
//!
//! Owns reading it, in our own format or in that of timm or transformers, which [`timm`] and
//! [`transformers`] convert. What a file asks for and this version can't do is refused, never
//! ignored. Upstream: the files of a model. Downstream: the network, and how images become input.

mod architecture;
mod classes;
mod fields;
mod model_config;
mod outputs;
mod own;
mod timm;
mod transformers;

use camshaft_common::model::ClassNames;
use serde_json::Value;

pub use architecture::{Architecture, HeadKind};
pub use model_config::ModelConfig;

use crate::error::ModelError;

/// What is known of a model beside its configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownParts {
    /// The architecture that its tensors have, for a configuration that names none.
    pub(crate) architecture: Option<Architecture>,
    /// The classes that the user names, instead of those in the configuration.
    pub(crate) classes: Option<ClassNames>,
}

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
        Self::complete(model, json, preprocessor, &KnownParts::default())
    }

    /// As [`Self::read`], but of our own format parts may be missing that are known otherwise.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(crate) fn complete(
        model: &str,
        json: &[u8],
        preprocessor: Option<&[u8]>,
        known: &KnownParts,
    ) -> Result<Self, ModelError> {
        let syntax = |source| ModelError::Config { model: model.to_owned(), source };
        let refused = |problem| ModelError::ConfigValue { model: model.to_owned(), problem };
        let mut value: Value = serde_json::from_slice(json).map_err(syntax)?;
        outputs::check(&value).map_err(refused)?;
        let names = known.classes.as_ref().map(|names| match names {
            ClassNames::ImageNet1k => classes::imagenet_1k(),
            ClassNames::List(names) => names.clone(),
        });
        let config = if timm::is_timm(&value) {
            timm::read(&value, names).map_err(refused)?
        } else if transformers::is_transformers(&value) {
            let preprocessor = preprocessor.map(serde_json::from_slice).transpose();
            let preprocessor = preprocessor.map_err(|error| {
                refused(format!("preprocessor_config.json is not JSON ({error})"))
            })?;
            transformers::read(&value, preprocessor.as_ref(), names).map_err(refused)?
        } else {
            own::check_fields(&value).map_err(refused)?;
            match own::fill_in(&mut value, known.architecture, names) {
                true => serde_json::from_value(value).map_err(syntax)?,
                // From the text, not the value, so that errors say line and column.
                false => serde_json::from_slice(json).map_err(syntax)?,
            }
        };
        config.check().map_err(refused)?;
        Ok(config)
    }

    /// True if a `config.json` in our own format leaves the architecture to the tensors.
    pub(crate) fn names_no_architecture(json: &[u8]) -> bool {
        let Ok(value) = serde_json::from_slice::<Value>(json) else { return false };
        let is_ours = !timm::is_timm(&value) && !transformers::is_transformers(&value);
        is_ours && value.as_object().is_some_and(|fields| !fields.contains_key("architecture"))
    }

    /// The configuration of a file of weights that has none: torchvision's input.
    ///
    /// # Errors
    /// If the classes can't be used.
    pub(crate) fn of_weights(model: &str, known: &KnownParts) -> Result<Self, ModelError> {
        let json = own::TORCHVISIONS_INPUT.as_bytes();
        Self::complete(model, json, None, known)
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
    fn a_field_that_would_be_ignored_is_refused() {
        for (place, field, part) in [
            ("", "transparancy", "did you mean \"transparency\""),
            ("", "Classes", "did you mean \"classes\""),
            ("", "mean", "move it into that"),
            ("/input", "gamma", "unknown field \"gamma\"; there can be height, width"),
            ("/input", "colour", "unknown field \"colour\""),
            ("/input", "transparency", "move it out of that"),
        ] {
            let mut config = config();
            config.pointer_mut(place).unwrap()[field] = "ignore".into();
            let error = parse(&config).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        // All that a configuration can have is known, and notes may be there.
        let mut config = config();
        config["aliases"] = json!([[], ["hound"]]);
        config["transparency"] = "ignore".into();
        config["notes"] = "trained in May".into();
        let parsed = parse(&config).unwrap();
        let written = serde_json::to_value(&parsed).unwrap();
        assert_eq!(written.as_object().unwrap().len(), 6);
        assert_eq!(parse(&written).unwrap(), parsed);
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
    fn what_is_known_otherwise_may_be_missing() {
        let mut config = config();
        config.as_object_mut().unwrap().remove("architecture");
        let read = |config: &Value, known: &KnownParts| {
            ModelConfig::complete("pets", config.to_string().as_bytes(), None, known)
        };
        let error = read(&config, &KnownParts::default()).unwrap_err().to_string();
        assert!(error.contains("missing field `architecture`"), "{error}");
        let list = ClassNames::List(vec!["a".into(), "b".into(), "c".into()]);
        let known =
            KnownParts { architecture: Some(Architecture::ResNet34), classes: Some(list.clone()) };
        let told = read(&config, &known).unwrap();
        assert_eq!(told.architecture, Architecture::ResNet34);
        assert_eq!(told.classes, ["a", "b", "c"]);
        // What the file names counts; classes are the user's.
        config["architecture"] = "resnet18".into();
        let told = read(&config, &known).unwrap();
        assert_eq!(told.architecture, Architecture::ResNet18);
        let bare = ModelConfig::of_weights("w.pth", &known).unwrap();
        assert_eq!((bare.input.height, bare.classes.len()), (224, 3));
        let words = KnownParts { classes: Some(ClassNames::ImageNet1k), ..known };
        assert_eq!(ModelConfig::of_weights("w.pth", &words).unwrap().classes.len(), 1000);
    }

    #[test]
    fn classes_that_cannot_be_told_apart_are_refused_by_name() {
        let mut config = config();
        for (classes, part) in [
            (json!(["cat"]), "only one class"),
            (json!([]), "there are none"),
            (json!(["cat", ""]), "class 1 has an empty name"),
            (json!(["cat", "\t"]), "class 1 has an empty name"),
            (json!(["cat", "dog", "cat"]), "classes 0 and 2 are both called \"cat\""),
            (json!(["cat", "cat "]), "classes 0 and 1 are both called \"cat\""),
        ] {
            config["classes"] = classes;
            let error = parse(&config).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("\"classes\""), "{error}");
        }
    }

    #[test]
    fn an_output_that_is_no_softmax_is_refused() {
        for problem in ["multi_label_classification", "regression", "ranking"] {
            let mut config = config();
            config["problem_type"] = problem.into();
            let error = parse(&config).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("one of several classes"), "{error}");
        }
        for problem in [json!("single_label_classification"), Value::Null] {
            let mut config = config();
            config["problem_type"] = problem;
            assert!(parse(&config).is_ok());
        }
    }

    #[test]
    fn labels_may_use_wordnet_ids_and_further_names() {
        let mut config = config();
        config["aliases"] = json!([["n02121808", "kitty"], []]);
        let written = serde_json::to_value(parse(&config).unwrap()).unwrap();
        assert_eq!(written["aliases"], config["aliases"]);
        let matcher = parse(&config).unwrap().label_matcher();
        assert_eq!(matcher.find("Kitty"), Ok(0));
        assert_eq!(matcher.find("n02121808"), Ok(0));
        config["aliases"] = json!([["n02121808"]]);
        assert!(parse(&config).unwrap_err().to_string().contains("\"aliases\""));
        config["classes"] = "imagenet-1k".into();
        config["aliases"] = json!([]);
        let matcher = parse(&config).unwrap().label_matcher();
        for label in ["n02123045", "tabby", "Tabby", "281"] {
            assert_eq!(matcher.find(label), Ok(281), "{label}");
        }
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

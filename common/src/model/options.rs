//! What a user says about a model beside its place: class names, which tensors count, which
//! state_dict.
//!
//! They travel in jobs and in `run.json` as a part of the model's identity, and they count in its
//! `config_digest`: a program that doesn't know them finds another digest and refuses the model.
//! Upstream: the command line. Downstream: [`files`](super::files), and the worker.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{FileDigest, ModelReference};
use crate::location::{Location, LocationError};

/// The word for the class names of ImageNet-1k.
const IMAGENET_1K: &str = "imagenet-1k";

/// Options of a model that change what its files mean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOptions {
    /// The names of the classes, instead of those in `config.json`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub classes: Option<ClassesReference>,
    /// Patterns of names of tensors that don't belong to the classifier. `*` stands for any
    /// characters, `?` for one.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ignore_tensors: Vec<String>,
    /// Which of several state_dicts in a file to take, or which part of its tensors.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights_key: Option<String>,
    /// The scales of a network in 8 bits: it is computed so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calibration: Option<CalibrationReference>,
}

/// The calibration of a run in 8 bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationReference {
    /// The file.
    pub place: Location,
    /// Its digest. Every worker computes with the same scales, or not at all.
    pub digest: FileDigest,
}

impl ModelOptions {
    /// The calibration, if nothing else is said.
    #[must_use]
    pub fn only_calibration(&self) -> Option<&CalibrationReference> {
        let calibration = self.calibration.as_ref()?;
        let others = Self { calibration: None, ..self.clone() };
        others.is_default().then_some(calibration)
    }

    /// True if nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A model as a user names it: `--model` and the options that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRequest {
    /// The place to load it from.
    pub reference: ModelReference,
    /// What its files don't say.
    pub options: ModelOptions,
}

impl From<ModelReference> for ModelRequest {
    fn from(reference: ModelReference) -> Self {
        Self { reference, options: ModelOptions::default() }
    }
}

/// The value of `--classes`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ClassesReference {
    /// `imagenet-1k`: that data set's 1000 classes.
    ImageNet1k,
    /// A file with the names.
    File(Location),
}

impl FromStr for ClassesReference {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == IMAGENET_1K { Ok(Self::ImageNet1k) } else { text.parse().map(Self::File) }
    }
}

impl fmt::Display for ClassesReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImageNet1k => f.write_str(IMAGENET_1K),
            Self::File(place) => place.fmt(f),
        }
    }
}

impl TryFrom<String> for ClassesReference {
    type Error = LocationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ClassesReference> for String {
    fn from(reference: ClassesReference) -> Self {
        match reference {
            ClassesReference::File(place) => place.to_text(),
            ClassesReference::ImageNet1k => reference.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_json_and_unknown_ones_are_refused() {
        let options = ModelOptions {
            classes: Some("/models/names.txt".parse().unwrap()),
            ignore_tensors: vec!["projector.*".into()],
            weights_key: Some("state_dict_ema".into()),
            calibration: Some(CalibrationReference {
                place: "s3://results/calibration.json".parse().unwrap(),
                digest: FileDigest::of(b"{}"),
            }),
        };
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<ModelOptions>(&json).unwrap(), options);
        assert!(serde_json::from_str::<ModelOptions>(r#"{"sigmoid":true}"#).is_err());
        let word: ClassesReference = "imagenet-1k".parse().unwrap();
        assert_eq!(word, ClassesReference::ImageNet1k);
        assert_ne!("./imagenet-1k".parse::<ClassesReference>().unwrap(), word);
    }
}

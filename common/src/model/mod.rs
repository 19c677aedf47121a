//! Models as producer and worker know them: references to models, their files, and their digests.
//!
//! Does not load or run models: `camshaft-model` does. The producer only records which one a run
//! uses.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

mod calibration;
mod class_names;
mod files;
mod folder_files;
mod hub;
mod options;
mod reference;
mod trained_layers;

pub use calibration::{
    Agreement, CALIBRATION_FILE, CalibratedModel, CalibrationError, CalibrationHead, Int8Outcome,
    MAX_CALIBRATION_BYTES,
};
pub use class_names::{ClassNames, ClassNamesError, check_class_names};
pub use files::{ModelFilesError, StoredModel};
pub use folder_files::{
    CONFIG_FILE, MAX_CONFIG_BYTES, MAX_WEIGHTS_BYTES, ModelFolderError, PREPROCESSOR_FILE,
    WEIGHTS_FILE, folder_of_weights,
};
pub use hub::HubError;
pub use options::{CalibrationReference, ClassesReference, ModelOptions, ModelRequest};
pub use reference::{HubModel, ModelReference, ModelReferenceError};
pub use trained_layers::TrainedLayers;

/// Name of the model that is built into the programs.
pub const BUNDLED_MODEL: &str = "cats-vs-dogs";

/// SHA-256 of a file, written `sha256:…`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileDigest(String);

impl FileDigest {
    /// The digest of a file's content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self::of_parts(&[content])
    }

    /// The digest of several files' contents, one after the other.
    #[must_use]
    pub fn of_parts(contents: &[&[u8]]) -> Self {
        use fmt::Write;
        let mut hash = Sha256::new();
        contents.iter().for_each(|content| hash.update(content));
        let mut text = String::from("sha256:");
        for byte in hash.finalize() {
            write!(text, "{byte:02x}").expect("writing to a string can't fail");
        }
        Self(text)
    }

    /// The digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name, place and digests of a model: which model a result comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Short name, for people.
    pub name: String,
    /// The place to load it from.
    pub reference: ModelReference,
    /// The weights file's digest.
    pub digest: FileDigest,
    /// The digest of `config.json` and, if there are some, `preprocessor_config.json` and
    /// `options`: input rules and class names change results too.
    pub config_digest: FileDigest,
    /// What the user says about the model. The field is absent if that is nothing, as in older
    /// messages.
    #[serde(skip_serializing_if = "ModelOptions::is_default", default)]
    pub options: ModelOptions,
}

impl ModelIdentity {
    /// Identifies a model by the content of its files: the weights, `config.json` and, if there is
    /// one, `preprocessor_config.json`.
    #[must_use]
    pub fn of_files(
        reference: ModelReference,
        weights: &[u8],
        config: &[u8],
        preprocessor: Option<&[u8]>,
    ) -> Self {
        Self {
            name: reference.name().to_owned(),
            reference,
            digest: FileDigest::of(weights),
            config_digest: FileDigest::of_parts(&[config, preprocessor.unwrap_or_default()]),
            options: ModelOptions::default(),
        }
    }

    /// Identifies a model by the content of all that it consists of: of the weights several files
    /// if they are shards, of `classes` the names that `options` refer to.
    ///
    /// Without options, a model of one file has the identity that [`Self::of_files`] gives. With
    /// options the digest differs, so that a program that doesn't know them refuses the model.
    #[must_use]
    pub fn of_content(
        reference: ModelReference,
        weights: &[&[u8]],
        [config, preprocessor]: [&[u8]; 2],
        mut options: ModelOptions,
        classes: Option<&ClassNames>,
    ) -> Self {
        let calibration = options.calibration.take();
        let mut rules = vec![config, preprocessor];
        let said = if options.is_default() {
            Vec::new()
        } else {
            // Not the place of the names: the same names elsewhere are the same model.
            let names = classes.map(|names| match names {
                ClassNames::ImageNet1k => serde_json::json!("imagenet-1k"),
                ClassNames::List(names) => serde_json::json!(names),
            });
            let said = (names, &options.ignore_tensors, &options.weights_key);
            serde_json::to_vec(&said).expect("it has only strings")
        };
        rules.push(&said);
        let identity = Self {
            name: reference.name().to_owned(),
            reference,
            digest: FileDigest::of_parts(weights),
            config_digest: FileDigest::of_parts(&rules),
            options,
        };
        match calibration {
            Some(calibration) => identity.with_calibration(calibration),
            None => identity,
        }
    }

    /// The same model, computed in 8 bits.
    #[must_use]
    pub fn with_calibration(self, calibration: CalibrationReference) -> Self {
        let parts = [&self.config_digest, &calibration.digest].map(|digest| digest.as_str());
        Self {
            config_digest: FileDigest::of_parts(&parts.map(str::as_bytes)),
            options: ModelOptions { calibration: Some(calibration), ..self.options },
            ..self
        }
    }

    /// The bundled model's identity without its bytes, for a producer that is built without model
    /// code. A test in `camshaft-worker` compares it with the bytes.
    #[must_use]
    pub fn bundled() -> Self {
        Self {
            name: BUNDLED_MODEL.to_owned(),
            reference: ModelReference::Bundled,
            digest: FileDigest(
                "sha256:15684d4d93c2d1a74e56dea268786e30114355165e4eeddc3def0e8b1609a05b".into(),
            ),
            config_digest: FileDigest(
                "sha256:10bc063fa9d6b46ea2808e94facf3076f03d00edfc5d0fe6fec444bbbc46e535".into(),
            ),
            options: ModelOptions::default(),
        }
    }

    /// True if both have the same weights and rules, whatever their names.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.digest == other.digest && self.config_digest == other.config_digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_program_does_not_know_changes_the_digest_that_it_compares() {
        let reference: ModelReference = "/models/pets".parse().unwrap();
        let plain = ModelIdentity::of_files(reference.clone(), b"w", b"{}", None);
        let identify = |options: ModelOptions, names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let names = (!names.is_empty()).then_some(ClassNames::List(names));
            let files = [&b"{}"[..], b""];
            ModelIdentity::of_content(reference.clone(), &[b"w"], files, options, names.as_ref())
        };
        assert_eq!(identify(ModelOptions::default(), &[]), plain);
        let json = serde_json::to_value(&plain).unwrap();
        assert!(json.get("options").is_none(), "written as before: {json}");

        let classes = |place: &str| ModelOptions {
            classes: Some(place.parse().unwrap()),
            ..ModelOptions::default()
        };
        let calibrated = |digest: &[u8]| ModelOptions {
            calibration: Some(CalibrationReference {
                place: "/results/calibration.json".parse().unwrap(),
                digest: FileDigest::of(digest),
            }),
            ..ModelOptions::default()
        };
        let key = ModelOptions { weights_key: Some("ema".into()), ..ModelOptions::default() };
        let ignore = ModelOptions { ignore_tensors: vec!["a.*".into()], ..ModelOptions::default() };
        let named = identify(classes("/names"), &["cat", "dog"]);
        let all = [
            plain,
            named.clone(),
            identify(classes("/names"), &["dog", "cat"]),
            identify(key, &[]),
            identify(ignore, &[]),
            identify(calibrated(b"one"), &[]),
            identify(calibrated(b"another"), &[]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(one.digest, all[0].digest);
            assert!(all[..at].iter().all(|other| !one.same_content(other)), "{one:?}");
            let json = serde_json::to_string(one).unwrap();
            assert_eq!(serde_json::from_str::<ModelIdentity>(&json).unwrap(), *one);
        }
        // The place of the names is not what they say.
        assert!(named.same_content(&identify(classes("s3://bucket/names"), &["cat", "dog"])));
    }
}

//! Naming a model: how a user points at one, and how both sides know it is the same.
//!
//! Loading and running it is the worker's business; the producer only writes down which.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::location::{Location, LocationError};

/// Name of the model inside the programs.
pub const BUNDLED_MODEL: &str = "cats-vs-dogs";
/// File with the weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// File with class names and input rules in a model folder.
pub const CONFIG_FILE: &str = "config.json";

/// SHA-256 of a file, written `sha256:…`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileDigest(String);

impl FileDigest {
    /// Of a file's whole content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        use fmt::Write;
        let mut text = String::from("sha256:");
        for byte in Sha256::digest(content) {
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

/// Where a model is to be had: `--model`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ModelReference {
    /// The one inside the programs.
    Bundled,
    /// A folder on disk or in a store.
    Folder(Location),
}

/// Why a text is no model reference.
#[derive(Debug, thiserror::Error)]
pub enum ModelReferenceError {
    /// Hugging Face models need a download this version doesn't do.
    #[error(
        "models from a hub ({0:?}) can't be loaded yet; download the model and pass its folder"
    )]
    Hub(String),
    /// Neither a bundled model nor a place.
    #[error("{text:?} is not a model")]
    Location {
        /// The text.
        text: String,
        /// Why it is no place either.
        #[source]
        source: LocationError,
    },
}

impl FromStr for ModelReference {
    type Err = ModelReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == BUNDLED_MODEL {
            return Ok(Self::Bundled);
        }
        if text.starts_with("hf:") {
            return Err(ModelReferenceError::Hub(text.to_owned()));
        }
        text.parse()
            .map(Self::Folder)
            .map_err(|source| ModelReferenceError::Location { text: text.to_owned(), source })
    }
}

impl fmt::Display for ModelReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundled => f.write_str(BUNDLED_MODEL),
            Self::Folder(location) => location.fmt(f),
        }
    }
}

impl TryFrom<String> for ModelReference {
    type Error = ModelReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ModelReference> for String {
    fn from(reference: ModelReference) -> Self {
        reference.to_string()
    }
}

impl ModelReference {
    /// A short name for results: the bundled model's, or the folder's own.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Bundled => BUNDLED_MODEL,
            Self::Folder(location) => location.name(),
        }
    }
}

/// Which model a result comes from, wherever it was loaded from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Short name, for people.
    pub name: String,
    /// Where to get it.
    pub reference: ModelReference,
    /// Of the weights file.
    pub digest: FileDigest,
    /// Of the config file, since input rules and class names change results too.
    pub config_digest: FileDigest,
}

impl ModelIdentity {
    /// Names a model by the content of its two files.
    #[must_use]
    pub fn of_files(reference: ModelReference, weights: &[u8], config: &[u8]) -> Self {
        Self {
            name: reference.name().to_owned(),
            reference,
            digest: FileDigest::of(weights),
            config_digest: FileDigest::of(config),
        }
    }

    /// The bundled model, without its bytes: a producer built with no model code can name
    /// it. The worker's tests hold these against the bytes.
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
        }
    }

    /// Whether two names mean the same weights and rules, whatever they are called.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.digest == other.digest && self.config_digest == other.config_digest
    }
}

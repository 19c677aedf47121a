//! Models as producer and worker know them: references to models, their files, and their digests.
//!
//! Does not load or run models: `camshaft-model` does. The producer only records which one a run
//! uses.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

mod files;
mod folder_files;
mod hub;
mod reference;

pub use files::{ModelFilesError, StoredModel};
pub use folder_files::{
    CONFIG_FILE, MAX_CONFIG_BYTES, MAX_WEIGHTS_BYTES, ModelFolderError, PREPROCESSOR_FILE,
    WEIGHTS_FILE,
};
pub use hub::HubError;
pub use reference::{HubModel, ModelReference, ModelReferenceError};

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
    /// The digest of `config.json` and, if there is one, `preprocessor_config.json`: input rules
    /// and class names change results too.
    pub config_digest: FileDigest,
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
        }
    }

    /// True if both have the same weights and rules, whatever their names.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.digest == other.digest && self.config_digest == other.config_digest
    }
}

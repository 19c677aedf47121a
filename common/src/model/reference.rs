//! References to models, as `--model` and jobs write them.
//!
//! Parses them only; [`super::StoredModel`] reads the files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::BUNDLED_MODEL;
use crate::location::{Location, LocationError};

/// The start of a reference to a model on the hub.
const HUB_SCHEME: &str = "hf:";
/// The hub's branch if a reference names none.
const DEFAULT_REVISION: &str = "main";
/// The hub allows 96 characters in a name.
const MAX_NAME_CHARS: usize = 96;

/// A reference to a model: the value of `--model`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ModelReference {
    /// The model that is built into the programs.
    Bundled,
    /// A folder on disk or in a store.
    Folder(Location),
    /// A repository on the Hugging Face Hub.
    Hub(HubModel),
}

/// A model repository on the Hugging Face Hub, at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HubModel {
    owner: String,
    name: String,
    revision: String,
}

impl HubModel {
    /// The user or organisation it belongs to.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A branch, tag or commit.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The same repository at a commit, which never changes.
    #[must_use]
    pub(super) fn at(&self, commit: &str) -> Self {
        Self { revision: commit.to_owned(), ..self.clone() }
    }

    /// Parses `owner/name[@revision]`.
    fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let (owner, name) = repository.split_once('/')?;
        // They become parts of URLs and of paths in the cache.
        let is_name = |part: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty()
                && part.len() <= MAX_NAME_CHARS
                && part.chars().all(fits)
                && !part.starts_with(['.', '-'])
                && !part.contains("..")
        };
        let named = is_name(owner) && is_name(name) && revision.split('/').all(is_name);
        let [owner, name, revision] = [owner, name, revision].map(str::to_owned);
        named.then_some(Self { owner, name, revision })
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HUB_SCHEME}{}/{}", self.owner, self.name)?;
        if self.revision == DEFAULT_REVISION { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// Why a text is not a model reference.
#[derive(Debug, thiserror::Error)]
pub enum ModelReferenceError {
    /// Not a repository's name.
    #[error("{0:?} is not a model on the hub; write hf:OWNER/NAME or hf:OWNER/NAME@REVISION")]
    Hub(String),
    /// Neither a bundled model nor a place.
    #[error("{text:?} is not a model")]
    Location {
        /// The text.
        text: String,
        /// Why it is not a place either.
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
        if let Some(model) = text.strip_prefix(HUB_SCHEME) {
            return HubModel::parse(model)
                .map(Self::Hub)
                .ok_or_else(|| ModelReferenceError::Hub(text.to_owned()));
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
            Self::Hub(model) => model.fmt(f),
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
        match reference {
            ModelReference::Folder(location) => location.to_text(),
            other => other.to_string(),
        }
    }
}

impl ModelReference {
    /// A short name for results: the bundled model's, the folder's own or the repository's.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Bundled => BUNDLED_MODEL,
            Self::Folder(location) => location.name(),
            Self::Hub(model) => model.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_any_name_is_read_as_it_was_written() {
        for text in ["/models/pets", "/models/a b", "/models/tab\there", "/m/del\u{7f}", "s3://b/m"]
        {
            let reference: ModelReference = text.parse().unwrap();
            let written = String::from(reference.clone());
            assert_eq!(written.parse::<ModelReference>().unwrap(), reference, "{written}");
        }
        assert_eq!(String::from("/models/a b".parse::<ModelReference>().unwrap()), "/models/a b");
    }

    #[test]
    fn hub_models_are_read_and_written_the_same() {
        for (text, revision) in [
            ("hf:microsoft/resnet-50", "main"),
            ("hf:timm/resnet50.a1_in1k@v1.0", "v1.0"),
            ("hf:o/n@refs/pr/1", "refs/pr/1"),
        ] {
            let reference: ModelReference = text.parse().unwrap();
            let ModelReference::Hub(model) = &reference else { panic!("{reference:?}") };
            assert_eq!(model.revision(), revision);
            assert_eq!(reference.to_string(), text);
            let json = serde_json::to_string(&reference).unwrap();
            assert_eq!(serde_json::from_str::<ModelReference>(&json).unwrap(), reference);
        }
    }

    #[test]
    fn a_hub_name_that_could_lead_elsewhere_is_refused() {
        for text in ["hf:", "hf:resnet", "hf:../x", "hf:a/..", "hf:a/b/c", "hf:a/b@../x", "hf:a/b@"]
        {
            assert!(matches!(
                text.parse::<ModelReference>(),
                Err(ModelReferenceError::Hub(refused)) if refused == text
            ));
        }
    }
}

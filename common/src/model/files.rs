//! A model's files: finding which of a folder's files they are, and reading them whole.
//!
//! What is in them is the worker's business. Upstream: a [`ModelReference`]. Downstream: the
//! worker loads them; the producer only takes their digests.

use bytes::Bytes;

use super::hub::{self, HubError};
use super::{HubModel, ModelIdentity, ModelReference};
use crate::location::Location;
use crate::store::{Folder, StoreError, StoreErrorKind, StoreOptions};

/// File with the weights in a model folder, where it has its usual name.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// File with class names and input rules in a model folder.
pub const CONFIG_FILE: &str = "config.json";
/// Further input rules, as transformers writes them.
pub const PREPROCESSOR_FILE: &str = "preprocessor_config.json";

/// A ResNet-152 in f32 has 240 MB.
pub const MAX_WEIGHTS_BYTES: u64 = 4 << 30;
/// Names of all of ImageNet-21k's classes are 1 MB.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Names and kinds of weights files, best first: those that PyTorch's programs and Keras write.
const WEIGHTS: [Candidates; 5] = [
    Candidates::Named(WEIGHTS_FILE),
    Candidates::Ending(&[".safetensors"]),
    Candidates::Named("pytorch_model.bin"),
    Candidates::Ending(&[".pth", ".pt", ".bin"]),
    Candidates::Ending(&[".h5", ".hdf5", ".keras"]),
];

/// What training writes beside weights and nobody means as such.
const NO_WEIGHTS: [&str; 4] = ["optimizer.", "scheduler.", "rng_state", "training_args."];

/// Weights files that are as good as each other.
#[derive(Clone, Copy)]
enum Candidates {
    Named(&'static str),
    Ending(&'static [&'static str]),
}

impl Candidates {
    fn has(self, name: &str) -> bool {
        match self {
            Self::Named(wanted) => name == wanted,
            Self::Ending(endings) => {
                let lower = name.to_ascii_lowercase();
                endings.iter().any(|ending| lower.ends_with(ending))
                    && !NO_WEIGHTS.iter().any(|start| lower.starts_with(start))
            }
        }
    }
}

/// A model's files can't be found or read.
#[derive(Debug, thiserror::Error)]
pub enum ModelFilesError {
    /// The store can't or won't give them.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The hub can't or won't give them.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Nothing says what the network is.
    #[error(
        "{place} has no {CONFIG_FILE}, which names the architecture, the classes and the input; \
         docs/models.md tells how to write one"
    )]
    NoConfig {
        /// The folder or repository.
        place: String,
    },
    /// No file has a name as weights have.
    #[error(
        "{place} has no weights; a model folder has {WEIGHTS_FILE} or another .safetensors, .pth, \
         .pt or .bin file"
    )]
    NoWeights {
        /// The folder or repository.
        place: String,
    },
    /// Several files could be the weights.
    #[error(
        "{place} has several files that could be the weights ({candidates}); keep one, or call it \
         {WEIGHTS_FILE}"
    )]
    ManyWeights {
        /// The folder or repository.
        place: String,
        /// Their names.
        candidates: String,
    },
}

/// A model's files as they lie in a folder or on the hub.
#[derive(Clone, Debug)]
pub struct StoredModel {
    /// Name, place and digests. A hub's revision is the commit it stood for, where the hub or
    /// its cache tells.
    pub identity: ModelIdentity,
    /// The weights, in whichever format.
    pub weights: Bytes,
    /// `config.json`.
    pub config: Bytes,
    /// `preprocessor_config.json`, where there is one.
    pub preprocessor: Option<Bytes>,
}

impl StoredModel {
    /// Reads a model from a folder on disk or in a store.
    ///
    /// # Errors
    /// Where files are missing, ambiguous or too large, or the store fails.
    pub async fn from_folder(
        location: &Location,
        options: &StoreOptions,
    ) -> Result<Self, ModelFilesError> {
        let folder = Folder::open(location, options)?;
        Self::read(&folder, &location.to_string(), ModelReference::Folder(location.clone())).await
    }

    /// Reads a model from the Hugging Face Hub or its cache.
    ///
    /// # Errors
    /// As [`Self::from_folder`], and where neither hub nor cache has it.
    pub async fn from_hub(
        model: &HubModel,
        options: &StoreOptions,
    ) -> Result<Self, ModelFilesError> {
        let snapshot = hub::snapshot(model, options).await?;
        let folder = Folder::open(&snapshot.folder, options)?;
        let reference = ModelReference::Hub(model.at(&snapshot.commit));
        Self::read(&folder, &model.to_string(), reference).await
    }

    async fn read(
        folder: &Folder,
        place: &str,
        reference: ModelReference,
    ) -> Result<Self, ModelFilesError> {
        let Some(config) = if_there(folder.get(CONFIG_FILE, MAX_CONFIG_BYTES).await)? else {
            return Err(ModelFilesError::NoConfig { place: place.to_owned() });
        };
        let preprocessor = if_there(folder.get(PREPROCESSOR_FILE, MAX_CONFIG_BYTES).await)?;
        // A bucket need not allow listing where the file has its usual name.
        let weights = match if_there(folder.get(WEIGHTS_FILE, MAX_WEIGHTS_BYTES).await)? {
            Some(weights) => weights,
            None => {
                let name = weights_among(&folder.names().await?, place)?;
                folder.get(&name, MAX_WEIGHTS_BYTES).await?.bytes
            }
        };
        let identity =
            ModelIdentity::of_files(reference, &weights, &config, preprocessor.as_deref());
        Ok(Self { identity, weights, config, preprocessor })
    }
}

fn if_there(
    read: Result<crate::store::FetchedObject, StoreError>,
) -> Result<Option<Bytes>, ModelFilesError> {
    match read {
        Ok(fetched) => Ok(Some(fetched.bytes)),
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Which of a folder's files are the weights.
pub(super) fn weights_among(names: &[String], place: &str) -> Result<String, ModelFilesError> {
    for candidates in WEIGHTS {
        let mut found: Vec<_> = names.iter().filter(|name| candidates.has(name)).collect();
        found.sort();
        match found[..] {
            [] => {}
            [name] => return Ok(name.clone()),
            _ => {
                let names: Vec<_> = found.iter().map(|name| name.as_str()).collect();
                return Err(ModelFilesError::ManyWeights {
                    place: place.to_owned(),
                    candidates: names.join(", "),
                });
            }
        }
    }
    Err(ModelFilesError::NoWeights { place: place.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Result<String, ModelFilesError> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        weights_among(&names, "here")
    }

    #[test]
    fn safetensors_come_first_and_the_usual_name_before_others() {
        for (names, expected) in [
            (&["pytorch_model.bin", "model.safetensors", "a.safetensors"][..], "model.safetensors"),
            (&["pytorch_model.bin", "a.safetensors", "tf_model.h5"][..], "a.safetensors"),
            (&["pytorch_model.bin", "best.pth", "optimizer.pt"][..], "pytorch_model.bin"),
            (&["resnet50-11ad3fa6.PTH", "training_args.bin"][..], "resnet50-11ad3fa6.PTH"),
            (&["README.md", "weights.h5"][..], "weights.h5"),
        ] {
            assert_eq!(chosen(names).unwrap(), expected);
        }
    }

    #[test]
    fn several_candidates_are_named_and_none_guessed() {
        let error = chosen(&["last.pth", "best.pt"]).unwrap_err().to_string();
        assert!(
            error.contains("here has several") && error.contains("best.pt, last.pth"),
            "{error}"
        );
        assert!(matches!(chosen(&["README.md"]), Err(ModelFilesError::NoWeights { .. })));
    }

    #[tokio::test]
    async fn a_folder_is_read_with_its_preprocessor_in_the_digest() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            std::fs::write(directory.path().join(name), content).unwrap();
        };
        let location: Location = directory.path().to_str().unwrap().parse().unwrap();
        let options = StoreOptions::default();
        let read = async || StoredModel::from_folder(&location, &options).await;
        write("best.pth", "weights");
        assert!(matches!(read().await, Err(ModelFilesError::NoConfig { .. })));
        write("config.json", "{}");
        let plain = read().await.unwrap();
        assert_eq!((&plain.weights[..], &plain.config[..]), (&b"weights"[..], &b"{}"[..]));
        write("preprocessor_config.json", "{ }");
        let more = read().await.unwrap();
        assert_eq!(more.preprocessor.as_deref(), Some(&b"{ }"[..]));
        assert_eq!(plain.identity.digest, more.identity.digest);
        assert_ne!(plain.identity.config_digest, more.identity.config_digest);
    }
}

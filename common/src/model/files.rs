//! Reads a model's files whole, from a folder or from the Hugging Face Hub.
//!
//! Does not look into the files: the worker does. [`folder_files`](super::folder_files) knows their
//! names, [`hub`] downloads them. Upstream: a [`ModelReference`]. Downstream: the worker loads the
//! files; the producer only computes their digests.

use bytes::Bytes;

use super::folder_files::{
    CONFIG_FILE, MAX_CONFIG_BYTES, MAX_WEIGHTS_BYTES, ModelFolderError, PREPROCESSOR_FILE,
    WEIGHTS_FILE, weights_among,
};
use super::hub::{self, HubError, SnapshotError};
use super::{HubModel, ModelIdentity, ModelReference};
use crate::location::Location;
use crate::store::{Folder, StoreError, StoreErrorKind, StoreOptions};

/// A model's files can't be found or read.
#[derive(Debug, thiserror::Error)]
pub enum ModelFilesError {
    /// The folder's store failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The hub failed or refused, and its cache does not have the model.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The folder or repository lacks a file, or its weights are ambiguous.
    #[error(transparent)]
    Folder(#[from] ModelFolderError),
}

impl From<SnapshotError> for ModelFilesError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Hub(error) => Self::Hub(error),
            SnapshotError::Folder(error) => Self::Folder(error),
        }
    }
}

/// A model's files, as a folder or the hub has them.
#[derive(Clone, Debug)]
pub struct StoredModel {
    /// Name, place and digests. The revision of a model on the hub is a commit, not a branch.
    pub identity: ModelIdentity,
    /// The weights, in any supported format.
    pub weights: Bytes,
    /// `config.json`.
    pub config: Bytes,
    /// `preprocessor_config.json`, if there is one.
    pub preprocessor: Option<Bytes>,
}

impl StoredModel {
    /// Reads a model from a folder on disk or in a store.
    ///
    /// # Errors
    /// If files are missing, ambiguous or too large, or if the store fails.
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
    /// As [`Self::from_folder`], and if neither the hub nor its cache has the model.
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
        let Some(config) = bytes_if_found(folder.get(CONFIG_FILE, MAX_CONFIG_BYTES).await)? else {
            return Err(ModelFolderError::NoConfig { place: place.to_owned() }.into());
        };
        let preprocessor = bytes_if_found(folder.get(PREPROCESSOR_FILE, MAX_CONFIG_BYTES).await)?;
        // Tried by name first: a bucket that forbids listing will do if the file has its usual
        // name.
        let weights = match bytes_if_found(folder.get(WEIGHTS_FILE, MAX_WEIGHTS_BYTES).await)? {
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

/// The object's content; `None` if there is no such object.
fn bytes_if_found(
    read: Result<crate::store::FetchedObject, StoreError>,
) -> Result<Option<Bytes>, ModelFilesError> {
    match read {
        Ok(fetched) => Ok(Some(fetched.bytes)),
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let error = read().await.unwrap_err();
        assert!(matches!(error, ModelFilesError::Folder(ModelFolderError::NoConfig { .. })));
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

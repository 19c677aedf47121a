//! Which models this worker may use, and their files, read once.

use std::sync::Arc;

use camshaft_common::model::{ModelFilesError, ModelIdentity, ModelReference, StoredModel};
use camshaft_common::store::StoreOptions;
use tokio::sync::Mutex;

use crate::cores;
use camshaft_model::{ModelError, ModelFiles};

/// Runs rarely mix models; a second one lets two runs share workers without reloading.
const KEPT_MODELS: usize = 2;

/// A job's model can't be used by this worker.
#[derive(Debug, thiserror::Error)]
pub enum ModelUnavailable {
    /// The worker was started for another model.
    #[error(
        "this worker was started with --model {ours}, the job asks for {wanted}; start workers without --model, or enqueue with the same one"
    )]
    Pinned {
        /// The worker's.
        ours: String,
        /// The job's.
        wanted: String,
    },
    /// The files at the model's place are not those the run was started with.
    #[error(
        "the files of model {name} have changed since the run was started ({found}, the job says {wanted}); enqueue again"
    )]
    Changed {
        /// The model.
        name: String,
        /// Digest found.
        found: String,
        /// Digest in the job.
        wanted: String,
    },
    /// The files can't be had.
    #[error(transparent)]
    Files(#[from] ModelFilesError),
    /// The files are no model this worker can run.
    #[error("{0}")]
    Unusable(#[source] Arc<ModelError>),
    /// This program was built without the bundled model.
    #[error(
        "this build has no bundled model; pass --model FOLDER, or build with --features bundled-model"
    )]
    NotBundled,
}

/// Reads a model's files from where a reference points.
///
/// # Errors
/// Where they can't be read, or its config is not one.
pub async fn read(
    reference: &ModelReference,
    options: &StoreOptions,
) -> Result<ModelFiles, ModelUnavailable> {
    let stored = match reference {
        ModelReference::Bundled => return bundled(),
        ModelReference::Folder(location) => StoredModel::from_folder(location, options).await?,
        ModelReference::Hub(model) => StoredModel::from_hub(model, options).await?,
    };
    // Converting other programs' weights takes a while.
    let files = cores::compute(move || ModelFiles::from_stored(stored)).await;
    files
        .expect("reading files never panics")
        .map_err(|error| ModelUnavailable::Unusable(Arc::new(error)))
}

#[cfg(feature = "bundled-model")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature there is none")]
fn bundled() -> Result<ModelFiles, ModelUnavailable> {
    Ok(ModelFiles::bundled())
}

#[cfg(not(feature = "bundled-model"))]
fn bundled() -> Result<ModelFiles, ModelUnavailable> {
    Err(ModelUnavailable::NotBundled)
}

/// The models in use, most recent last.
#[derive(Debug)]
pub struct ModelShelf {
    pinned: Option<Arc<ModelFiles>>,
    options: StoreOptions,
    files: Mutex<Vec<Arc<ModelFiles>>>,
}

impl ModelShelf {
    /// Holds `first`; with `pinned`, no other model is ever used.
    #[must_use]
    pub fn new(first: Option<Arc<ModelFiles>>, pinned: bool, options: StoreOptions) -> Self {
        let files = Mutex::new(first.iter().cloned().collect());
        Self { pinned: first.filter(|_| pinned), options, files }
    }

    /// The files of the model a job asks for.
    ///
    /// # Errors
    /// Where this worker may not or can't use it.
    pub async fn files_for(
        &self,
        wanted: &ModelIdentity,
    ) -> Result<Arc<ModelFiles>, ModelUnavailable> {
        if let Some(pinned) = &self.pinned {
            if pinned.identity().same_content(wanted) {
                return Ok(Arc::clone(pinned));
            }
            return Err(ModelUnavailable::Pinned {
                ours: pinned.identity().reference.to_string(),
                wanted: format!("{} ({})", wanted.reference, wanted.digest),
            });
        }
        // Held while reading, so that a model many images wait for is read once.
        let mut shelf = self.files.lock().await;
        if let Some(files) = shelf.iter().find(|files| files.identity().same_content(wanted)) {
            return Ok(Arc::clone(files));
        }
        let files = Arc::new(read(&wanted.reference, &self.options).await?);
        if !files.identity().same_content(wanted) {
            return Err(ModelUnavailable::Changed {
                name: wanted.name.clone(),
                found: files.identity().digest.to_string(),
                wanted: wanted.digest.to_string(),
            });
        }
        if shelf.len() >= KEPT_MODELS {
            shelf.remove(0);
        }
        shelf.push(Arc::clone(&files));
        Ok(files)
    }
}

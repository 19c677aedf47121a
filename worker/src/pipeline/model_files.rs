//! A model's files, and why a worker can't use them.
//!
//! Owns reading them once. Which models are read when, and for how long they are kept, is in
//! [`model_files_cache`](super::model_files_cache).

use std::sync::Arc;
use std::time::Duration;

use camshaft_arguments::advice::describe_model_files_error;
use camshaft_arguments::size::format_bytes;
use camshaft_common::model::{
    ModelFilesError, ModelIdentity, ModelReference, ModelRequest, StoredModel,
};
use camshaft_common::store::StoreOptions;
use camshaft_model::{ModelError, ModelFiles};
use tracing::warn;

use crate::advice::describe_model_error;
use crate::cores;

/// How many models are kept, as files here and loaded on the device. A run has one model; with a
/// second one, two runs can share workers without reloading.
pub const KEPT_MODELS: usize = 2;

/// This worker can't use a job's model.
#[derive(Debug, thiserror::Error)]
pub enum ModelUnavailable {
    /// The worker was started for another model.
    #[error(
        "this worker was started with --model {ours}, the job asks for {wanted}; start workers without --model, or enqueue with the same one"
    )]
    Pinned {
        /// The worker's model.
        ours: String,
        /// The job's model.
        wanted: String,
    },
    /// The model's files are not read yet.
    #[error(
        "model {name} is not read yet, after {} s{}",
        waited.as_secs(),
        problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"))
    )]
    BeingRead {
        /// The model's name.
        name: String,
        /// How long so far.
        waited: Duration,
        /// Why the last try failed; `None` while the first is under way.
        problem: Option<Arc<ModelUnavailable>>,
    },
    /// The model's files on this machine are not those of the run.
    #[error(
        "this worker's copy of model {name} has other files ({found}) than the run ({wanted}); copy the run's here, or enqueue again if the model was changed"
    )]
    OtherCopy {
        /// The model's name.
        name: String,
        /// The digest of the files.
        found: String,
        /// The digest in the job.
        wanted: String,
    },
    /// The model's files changed after the run was started.
    #[error(
        "the files of model {name} have changed since the run was started ({found}, the job says {wanted}); enqueue again"
    )]
    Changed {
        /// The model's name.
        name: String,
        /// The digest of the files.
        found: String,
        /// The digest in the job.
        wanted: String,
    },
    /// The files can't be read.
    #[error("{}", describe_model_files_error(.0))]
    Files(#[from] ModelFilesError),
    /// The files are not a model that this worker can run.
    #[error("{}", describe_model_error(.0))]
    Unusable(#[source] Arc<ModelError>),
    /// The network's input is so large that one image takes more memory than there is for all.
    #[error(
        "one image of the model's {width}×{height} pixels takes {} in the network, more than the {} that \
         --max-held-bytes leaves for it; allow more, or use a model with a smaller input",
        format_bytes(*bytes),
        format_bytes(*max_bytes)
    )]
    LargeInput {
        /// Width of the input in pixels.
        width: usize,
        /// Height of the input in pixels.
        height: usize,
        /// What one image takes.
        bytes: u64,
        /// What all images may hold.
        max_bytes: u64,
    },
    /// A bug.
    #[error(
        "the model's files crashed their reader, which is a bug; write them anew as safetensors"
    )]
    ReaderPanicked,
    /// This program was built without the bundled model.
    #[error(
        "this build has no bundled model; pass --model FOLDER, or build with --features bundled-model"
    )]
    NotBundled,
}

/// Reads the files of a model.
///
/// # Errors
/// If the files can't be read, or its config is not valid.
pub async fn read(
    request: &ModelRequest,
    stores: &StoreOptions,
) -> Result<ModelFiles, ModelUnavailable> {
    read_if(request, stores, |_| Ok(())).await
}

/// Reads the files of the model that a job asks for.
///
/// # Errors
/// As [`read`], and if they are other files than the job says.
pub(super) async fn read_wanted(
    wanted: &ModelIdentity,
    stores: &StoreOptions,
) -> Result<ModelFiles, ModelUnavailable> {
    let check = |found: &ModelIdentity| {
        if found.same_content(wanted) {
            return Ok(());
        }
        let (found, digest) = (found.digest.to_string(), wanted.digest.to_string());
        let name = wanted.name.clone();
        Err(match &wanted.reference {
            // Each machine may have files of its own under that path.
            ModelReference::Folder(place) if place.local_path().is_some() => {
                ModelUnavailable::OtherCopy { name, found, wanted: digest }
            }
            _ => ModelUnavailable::Changed { name, found, wanted: digest },
        })
    };
    let (reference, options) = (wanted.reference.clone(), wanted.options.clone());
    read_if(&ModelRequest { reference, options }, stores, check).await
}

/// Reads the files of a model, and looks into them only if `check` finds nothing wrong with what they
/// are.
async fn read_if(
    request: &ModelRequest,
    stores: &StoreOptions,
    check: impl FnOnce(&ModelIdentity) -> Result<(), ModelUnavailable>,
) -> Result<ModelFiles, ModelUnavailable> {
    let ModelRequest { reference, options } = request;
    let stored = match reference {
        ModelReference::Bundled if options.is_default() => {
            let files = bundled()?;
            check(files.identity())?;
            return Ok(files);
        }
        ModelReference::Bundled => {
            let Some(calibration) = options.only_calibration() else {
                return Err(ModelFilesError::OptionsOfBundled.into());
            };
            let json = calibration.read(stores).await?;
            let files = bundled()?.calibrated_by(calibration.clone(), &json);
            let files = files.map_err(|error| ModelUnavailable::Unusable(Arc::new(error)))?;
            check(files.identity())?;
            return Ok(files);
        }
        ModelReference::Folder(place) => StoredModel::from_place(place, options, stores).await?,
        ModelReference::Hub(model) => StoredModel::from_hub(model, options, stores).await?,
    };
    check(&stored.identity)?;
    // Converting the weights of other programs takes a while.
    let files = cores::beside_network(move || ModelFiles::from_stored(stored)).await;
    let files = files.map_err(|_panic| ModelUnavailable::ReaderPanicked)?;
    let files = files.map_err(|error| ModelUnavailable::Unusable(Arc::new(error)))?;
    tell_choices(&files);
    Ok(files)
}

impl ModelUnavailable {
    /// True if the files may be read later without a change to the configuration: their store, or
    /// the hub, did not answer.
    #[must_use]
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Files(error) if error.may_pass())
    }
}

/// Warns of what was chosen for the user, who may want something else.
fn tell_choices(files: &ModelFiles) {
    let model = &files.identity().name;
    if let Some(choice) = files.weights().choice() {
        warn!(model, "of the model's weights, {choice}; --weights-key takes another");
    }
    if files.input_is_assumed() {
        let architecture = files.config().architecture.name();
        warn!(
            model,
            architecture,
            "there is no config.json: the architecture was told from the weights, and images are \
             prepared as torchvision does (shorter side 256, the middle 224 × 224, ImageNet's mean \
             and deviation); write a config.json if the model was trained otherwise"
        );
    }
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

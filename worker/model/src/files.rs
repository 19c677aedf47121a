//! The files of a model, before anything is computed from them. Fetching them from a store is
//! not done here.

use bytes::Bytes;
use camshaft_common::model::{ModelIdentity, ModelReference, StoredModel};

use super::{ModelConfig, ModelError, checkpoint};

/// Weights and configuration of a model.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    identity: ModelIdentity,
    config: ModelConfig,
    weights: Bytes,
}

impl ModelFiles {
    /// Takes a model's files as they were found: the weights in any format this version
    /// reads, the config in ours, timm's or transformers'. Whether the weights are those of
    /// the network shows only when the model is loaded.
    ///
    /// # Errors
    /// Where the config can't be read or asks for what this version can't do, or the weights
    /// are of a format that can't be read.
    pub fn from_stored(stored: StoredModel) -> Result<Self, ModelError> {
        let StoredModel { identity, weights, config, preprocessor } = stored;
        let config = ModelConfig::read(&identity.name, &config, preprocessor.as_deref())?;
        let weights = checkpoint::to_safetensors(weights)
            .map_err(|source| ModelError::Checkpoint { model: identity.name.clone(), source })?;
        Ok(Self { identity, config, weights })
    }

    /// Takes a model's files: `weights` in any format this version reads, `config` as JSON.
    ///
    /// # Errors
    /// As [`Self::from_stored`].
    pub fn from_bytes(
        reference: ModelReference,
        weights: Bytes,
        config: &[u8],
    ) -> Result<Self, ModelError> {
        let identity = ModelIdentity::of_files(reference, &weights, config, None);
        let config = Bytes::copy_from_slice(config);
        Self::from_stored(StoredModel { identity, weights, config, preprocessor: None })
    }

    /// The model inside the program.
    #[cfg(feature = "bundled")]
    #[must_use]
    pub fn bundled() -> Self {
        use super::bundled::{CONFIG, WEIGHTS};
        Self::from_bytes(ModelReference::Bundled, Bytes::from_static(WEIGHTS), CONFIG)
            .expect("the bundled config.json is part of this version")
    }

    /// Name and digests.
    #[must_use]
    pub fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    /// Class names and input rule.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The safetensors file.
    #[must_use]
    pub fn weights(&self) -> Bytes {
        self.weights.clone()
    }
}

//! The files of a model: its weights and its configuration.
//!
//! Owns reading them, not fetching them and not computing with them. Upstream: files from a store.
//! Downstream: [`Model`](crate::Model).

use bytes::Bytes;
use camshaft_common::model::{ModelIdentity, ModelReference, StoredModel};

#[cfg(feature = "bundled")]
use crate::bundled::{CONFIG, WEIGHTS};
use crate::checkpoint;
use crate::config::ModelConfig;
use crate::error::ModelError;

/// Weights and configuration of a model.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    identity: ModelIdentity,
    config: ModelConfig,
    weights: Bytes,
}

impl ModelFiles {
    /// Reads a model's files as they were stored: the weights in any supported format, the
    /// configuration in our format, timm's or transformers'. Whether the weights match the network
    /// is checked only when the model is loaded.
    ///
    /// # Errors
    /// If the configuration can't be read or asks for something that this version can't do, or the
    /// weights have a format that can't be read.
    pub fn from_stored(stored: StoredModel) -> Result<Self, ModelError> {
        let StoredModel { identity, weights, config, preprocessor } = stored;
        let config = ModelConfig::read(&identity.name, &config, preprocessor.as_deref())?;
        let weights = checkpoint::to_safetensors(weights)
            .map_err(|source| ModelError::Checkpoint { model: identity.name.clone(), source })?;
        Ok(Self { identity, config, weights })
    }

    /// Reads a model's files: `weights` in any supported format, `config` as JSON.
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

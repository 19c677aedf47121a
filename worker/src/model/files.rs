//! The two files of a model, before anything is computed from them. Fetching them from a
//! store is not done here.

use bytes::Bytes;
use camshaft_common::model::{ModelIdentity, ModelReference};

use super::{ModelConfig, ModelError};

/// Weights and configuration of a model.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    identity: ModelIdentity,
    config: ModelConfig,
    weights: Bytes,
}

impl ModelFiles {
    /// Takes a model's files: `weights` as safetensors, `config` as JSON. The weights are
    /// looked into only when the model is loaded.
    ///
    /// # Errors
    /// Where `config` can't be read or contradicts itself.
    pub fn from_bytes(
        reference: ModelReference,
        weights: Bytes,
        config: &[u8],
    ) -> Result<Self, ModelError> {
        let identity = ModelIdentity::of_files(reference, &weights, config);
        let config = ModelConfig::parse(&identity.name, config)?;
        Ok(Self { identity, config, weights })
    }

    /// The model inside the program.
    #[cfg(feature = "bundled-model")]
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

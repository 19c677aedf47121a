//! The files of a model: its weights and its configuration.
//!
//! Owns reading them, finding the network in them, and whether its tensors are all used; not
//! fetching files and not computing with them. Upstream: files from a store. Downstream:
//! [`Model`](crate::Model).

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use camshaft_common::label::LabelMatcher;
use camshaft_common::model::{
    CalibrationReference, FileDigest, ModelIdentity, ModelReference, StoredModel,
};

#[cfg(feature = "bundled")]
use crate::bundled::{CONFIG, WEIGHTS};
use crate::calibration::Calibration;
use crate::checkpoint::{self, TensorFilter, Weights, WeightsFile, describe};
use crate::config::{KnownParts, ModelConfig};
use crate::error::ModelError;
use crate::network::head::HeadShape;
use crate::network::resnet::{ResNetShape, architecture_of, other_architecture};

/// Weights and configuration of a model.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    identity: ModelIdentity,
    config: ModelConfig,
    /// Made when it is first needed.
    labels: OnceLock<LabelMatcher>,
    weights: WeightsFile,
    /// True if no `config.json` says how an image becomes the input.
    input_is_assumed: bool,
    /// True if no `config.json` names the architecture.
    architecture_is_told: bool,
    calibration: Option<Arc<Calibration>>,
}

impl ModelFiles {
    /// Reads a model's files as they were stored: the weights in any supported format, the
    /// configuration in our format, timm's or transformers'. What the configuration doesn't say is
    /// told from the weights. Whether every tensor fits is checked only when the model is loaded.
    ///
    /// # Errors
    /// If the configuration can't be read or asks for something that this version can't do, or the
    /// weights have a format that can't be read, or several networks or heads.
    pub fn from_stored(stored: StoredModel) -> Result<Self, ModelError> {
        let StoredModel { identity, weights, config, preprocessor, classes, calibration } = stored;
        let model = identity.name.clone();
        let unreadable = |source| ModelError::Checkpoint { model: model.clone(), source };
        let options = &identity.options;
        let filter = TensorFilter {
            ignored: options.ignore_tensors.clone(),
            key: options.weights_key.clone(),
        };
        let weights = checkpoint::to_safetensors(weights, &filter).map_err(unreadable)?;
        let weights = WeightsFile::new(weights, &filter).map_err(unreadable)?;
        let architecture = weights.open().map(|weights| architecture_of(&weights));
        let architecture =
            architecture.map_err(|source| ModelError::Weights { model: model.clone(), source })?;
        let known = KnownParts { architecture, classes };
        let input_is_assumed = config.is_none();
        let architecture_is_told = config.as_deref().is_none_or(ModelConfig::names_no_architecture);
        if architecture_is_told && architecture.is_none() {
            return Err(no_architecture(model, &weights));
        }
        let config = match &config {
            Some(json) => ModelConfig::complete(&model, json, preprocessor.as_deref(), &known)?,
            None => ModelConfig::of_weights(&model, &known)?,
        };
        let weights = weights.with_head(config.classes.len(), head(&config).inputs());
        let weights = weights.map_err(unreadable)?;
        let labels = OnceLock::new();
        let files = Self {
            identity,
            config,
            labels,
            weights,
            input_is_assumed,
            architecture_is_told,
            calibration: None,
        };
        match calibration {
            None => Ok(files),
            Some(json) => files.with_calibration_of(&json),
        }
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
        Self::from_stored(StoredModel {
            identity,
            weights: vec![weights],
            config: Some(Bytes::copy_from_slice(config)),
            preprocessor: None,
            classes: None,
            calibration: None,
        })
    }

    /// The model inside the program.
    #[cfg(feature = "bundled")]
    #[must_use]
    pub fn bundled() -> Self {
        Self::from_stored(StoredModel {
            // As the bytes are: a test compares. Hashing takes a tenth of the time to start.
            identity: ModelIdentity::bundled(),
            weights: vec![Bytes::from_static(WEIGHTS)],
            config: Some(Bytes::from_static(CONFIG)),
            preprocessor: None,
            classes: None,
            calibration: None,
        })
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

    /// Finds the classes that labels mean.
    #[must_use]
    pub(crate) fn labels(&self) -> &LabelMatcher {
        self.labels.get_or_init(|| self.config.label_matcher())
    }

    /// The weights.
    #[must_use]
    pub fn weights(&self) -> &WeightsFile {
        &self.weights
    }

    /// True if no `config.json` says how an image becomes the input, so that torchvision's usual
    /// input is assumed.
    #[must_use]
    pub fn input_is_assumed(&self) -> bool {
        self.input_is_assumed
    }

    /// What 8 bits need, if the model is computed in them.
    #[must_use]
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_deref()
    }

    /// The same model, computed in 8 bits.
    #[must_use]
    pub fn with_calibration(self, calibration: Calibration) -> Self {
        Self { calibration: Some(Arc::new(calibration)), ..self }
    }

    /// The same model, not computed in 8 bits: for what changes its weights, or compares it with f32. Its
    /// identity stays.
    #[must_use]
    pub fn without_calibration(&self) -> Self {
        Self { calibration: None, ..self.clone() }
    }

    /// The same model, computed in 8 bits by the calibration that `reference` names: it counts in the
    /// model's identity.
    ///
    /// # Errors
    /// If the calibration can't be used.
    pub fn calibrated_by(
        self,
        reference: CalibrationReference,
        json: &[u8],
    ) -> Result<Self, ModelError> {
        let identity = self.identity.clone().with_calibration(reference);
        Ok(Self { identity, ..self.with_calibration_of(json)? })
    }

    fn with_calibration_of(self, json: &[u8]) -> Result<Self, ModelError> {
        let calibration = Calibration::read(json, &self.identity).map_err(|source| {
            ModelError::Calibration { model: self.identity.name.clone(), source }
        })?;
        Ok(self.with_calibration(calibration))
    }

    /// The same model with other values in its tensors.
    pub(crate) fn with_weights(&self, file: Bytes) -> Self {
        let identity = ModelIdentity { digest: FileDigest::of(&file), ..self.identity.clone() };
        Self { identity, weights: self.weights.with_bytes(file), ..self.clone() }
    }

    /// Checks the tensors that were read for a network: that all fit, that none is left over, and
    /// that all values are finite.
    ///
    /// # Errors
    /// About the first tensors for which that is not so.
    pub fn check_tensors(&self, weights: &Weights<'_>) -> Result<(), ModelError> {
        let (misfits, unused, bad) = (weights.misfits(), weights.unused(), weights.bad());
        let model = self.identity.name.clone();
        let architecture = self.config.architecture;
        let looks_like = || other_architecture(weights, Some(architecture));
        let name = architecture.name();
        let choice = match self.weights.choice() {
            Some(choice) => format!(" ({choice})"),
            None => String::new(),
        };
        if !misfits.is_empty() {
            let found = match unused.is_empty() {
                true => "nothing else".to_owned(),
                false => describe(&unused),
            };
            let misfits = describe(misfits);
            let hint = looks_like().map(|other| format!("; it looks like {other}"));
            let hint = hint.unwrap_or_default() + &choice;
            let named_by = match self.architecture_is_told {
                true => "that their shapes tell",
                false => "in its config.json",
            };
            let architecture = format!("{name} {named_by}");
            return Err(ModelError::Misfit { model, architecture, misfits, found: found + &hint });
        }
        if !unused.is_empty() {
            let (tensors, looks_like) = (describe(&unused) + &choice, looks_like());
            return Err(ModelError::Unused { model, architecture: name, tensors, looks_like });
        }
        match bad {
            [] => Ok(()),
            bad => Err(ModelError::NotFinite { model, tensors: describe(bad) + &choice }),
        }
    }

    /// An error if the head has another number of outputs than there are classes.
    pub(crate) fn check_classes(&self, tensor: String, rows: usize) -> Result<(), ModelError> {
        let classes = self.config.classes.len();
        let model = self.identity.name.clone();
        if rows == 1 {
            return Err(ModelError::OneOutput { model, tensor });
        }
        if rows == classes {
            return Ok(());
        }
        let named_by = match &self.identity.options.classes {
            Some(names) => names.to_string(),
            None => "config.json".to_owned(),
        };
        Err(ModelError::ClassCount { model, named_by, classes, tensor, rows })
    }
}

/// The head that a configuration asks for.
pub(crate) fn head(config: &ModelConfig) -> HeadShape {
    let input = &config.input;
    let features = ResNetShape::of(config.architecture).features(input.height, input.width);
    HeadShape { kind: config.head, classes: config.classes.len(), features }
}

fn no_architecture(model: String, weights: &WeightsFile) -> ModelError {
    match weights.open() {
        Err(source) => ModelError::Weights { model, source },
        Ok(weights) => {
            let found = match weights.unused() {
                none if none.is_empty() => "no tensors".to_owned(),
                tensors => describe(&tensors),
            };
            let looks_like = other_architecture(&weights, None);
            ModelError::NoArchitecture { model, found, looks_like }
        }
    }
}

#[cfg(test)]
mod tests;

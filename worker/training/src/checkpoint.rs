//! The state of a training after an epoch, as one file: so it can't be half of one epoch and half
//! of another.
//!
//! It is a safetensors file with the trained tensors and the optimiser's moments. Its metadata
//! holds settings and history. Convolutions lie in the layout in which they are multiplied: the
//! file is for resuming only; every other program reads `model.safetensors`.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::error::TrainingError;
use super::record::{EpochRecord, most_accurate};
use super::settings::Settings;

/// Key of the JSON in the file's metadata.
const METADATA_KEY: &str = "camshaft.training";
/// Version of that JSON.
const SCHEMA: u32 = 1;

/// The state of a training after an epoch.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    metadata: CheckpointMetadata,
    tensors: HashMap<String, Tensor>,
}

/// Everything but tensors, as JSON in the file's metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct CheckpointMetadata {
    schema: u32,
    settings: Settings,
    history: Vec<EpochRecord>,
    /// The epoch whose weights are the model's. Older checkpoints don't name it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    kept_epoch: Option<u32>,
    skipped_images: u64,
    steps: u64,
}

impl Checkpoint {
    pub(super) fn new(
        settings: Settings,
        (history, kept_epoch): (Vec<EpochRecord>, Option<u32>),
        (skipped_images, steps): (u64, u64),
        tensors: Vec<(String, Tensor)>,
    ) -> Self {
        let schema = SCHEMA;
        let metadata =
            CheckpointMetadata { schema, settings, history, kept_epoch, skipped_images, steps };
        Self { metadata, tensors: tensors.into_iter().collect() }
    }

    /// The content of a file.
    ///
    /// # Errors
    /// If a tensor can't be read.
    pub fn encode(&self) -> Result<Vec<u8>, TrainingError> {
        let json = serde_json::to_string(&self.metadata).expect("metadata can be written as JSON");
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), json)]);
        safetensors::serialize(&self.tensors, Some(metadata))
            .map_err(|error| TrainingError::Compute(error.into()))
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// If it is no checkpoint of this version, or a truncated one.
    pub fn decode(file: &[u8]) -> Result<Self, TrainingError> {
        let broken = |error: &dyn std::fmt::Display| TrainingError::Checkpoint(error.to_string());
        let (_, header) = SafeTensors::read_metadata(file).map_err(|error| broken(&error))?;
        let json = header.metadata().as_ref().and_then(|entries| entries.get(METADATA_KEY));
        let json = json.ok_or_else(|| broken(&"it is not from a training"))?;
        let metadata: CheckpointMetadata =
            serde_json::from_str(json).map_err(|error| broken(&error))?;
        if metadata.schema != SCHEMA {
            return Err(broken(&format!("it is of version {}, not {SCHEMA}", metadata.schema)));
        }
        let tensors = candle_core::safetensors::load_buffer(file, &Device::Cpu)
            .map_err(|error| broken(&error))?;
        Ok(Self { metadata, tensors })
    }

    /// The settings of the training.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.metadata.settings
    }

    /// Every epoch so far.
    #[must_use]
    pub fn history(&self) -> &[EpochRecord] {
        &self.metadata.history
    }

    /// The epoch whose weights are in `model.safetensors`.
    #[must_use]
    pub fn kept_epoch(&self) -> Option<u32> {
        let older = || most_accurate(self.history()).map(|epoch| epoch.epoch);
        self.metadata.kept_epoch.or_else(older)
    }

    /// Number of images that were left out because they can't be read.
    #[must_use]
    pub fn skipped_images(&self) -> u64 {
        self.metadata.skipped_images
    }

    pub(super) fn steps(&self) -> u64 {
        self.metadata.steps
    }

    pub(super) fn tensor(&self, name: &str) -> candle_core::Result<Tensor> {
        match self.tensors.get(name) {
            Some(tensor) => Ok(tensor.clone()),
            None => candle_core::bail!("{name} is missing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_names_no_kept_epoch_kept_the_most_accurate_one() {
        let json = r#"{
            "schema": 1, "skipped_images": 0, "steps": 4,
            "settings": {
                "init": {"name": "random", "digest": null},
                "layers": "head", "flip": true, "batch": 16, "learning_rate": 0.001, "seed": 0,
                "dataset": {"training_images": 4, "validation_images": 2, "digest": "sha256:0"},
                "model": MODEL
            },
            "history": [
                {"epoch": 1, "training_loss": 1, "training_accuracy": 1, "seconds": 1,
                 "validation_loss": 0.9, "validation_accuracy": 0.945},
                {"epoch": 2, "training_loss": 1, "training_accuracy": 1, "seconds": 1,
                 "validation_loss": 0.2, "validation_accuracy": 0.94}
            ]
        }"#;
        let model = camshaft_model::testing::small_model().config().clone();
        let json = json.replace("MODEL", &serde_json::to_string(&model).unwrap());
        let metadata: CheckpointMetadata = serde_json::from_str(&json).unwrap();
        let checkpoint = Checkpoint { metadata, tensors: HashMap::new() };
        assert_eq!(checkpoint.kept_epoch(), Some(1));
        let written = serde_json::to_string(&checkpoint.metadata).unwrap();
        assert!(!written.contains("kept_epoch") && !written.contains("split"), "{written}");
    }
}

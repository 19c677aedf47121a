//! Where a training is after an epoch, as one file, so that it can't be half of one epoch and
//! half of another: a safetensors file with what was trained and the optimiser's moments,
//! and, as its metadata, settings and history. Convolutions are in the layout they are
//! multiplied in: the file is for going on, `model.safetensors` for everything else.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::error::TrainingError;
use super::record::EpochRecord;
use super::settings::Settings;

/// Key of the JSON in the file's metadata.
const STATE: &str = "camshaft.training";
/// Version of that JSON.
const SCHEMA: u32 = 1;

/// Where a training is after an epoch.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    state: State,
    tensors: HashMap<String, Tensor>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    schema: u32,
    settings: Settings,
    history: Vec<EpochRecord>,
    skipped_images: u64,
    steps: u64,
}

impl Checkpoint {
    pub(super) fn new(
        settings: Settings,
        history: Vec<EpochRecord>,
        skipped_images: u64,
        steps: u64,
        tensors: Vec<(String, Tensor)>,
    ) -> Self {
        let state = State { schema: SCHEMA, settings, history, skipped_images, steps };
        Self { state, tensors: tensors.into_iter().collect() }
    }

    /// As a file's content.
    ///
    /// # Errors
    /// Where a tensor can't be read.
    pub fn encode(&self) -> Result<Vec<u8>, TrainingError> {
        let state = serde_json::to_string(&self.state).expect("a state can be written as JSON");
        let metadata = HashMap::from([(STATE.to_owned(), state)]);
        safetensors::serialize(&self.tensors, Some(metadata))
            .map_err(|error| TrainingError::Compute(error.into()))
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// Where it is no checkpoint, or not a whole one.
    pub fn decode(file: &[u8]) -> Result<Self, TrainingError> {
        let broken = |error: &dyn std::fmt::Display| TrainingError::Checkpoint(error.to_string());
        let (_, metadata) = SafeTensors::read_metadata(file).map_err(|error| broken(&error))?;
        let state = metadata.metadata().as_ref().and_then(|metadata| metadata.get(STATE));
        let state = state.ok_or_else(|| broken(&"it is not from a training"))?;
        let state: State = serde_json::from_str(state).map_err(|error| broken(&error))?;
        if state.schema != SCHEMA {
            return Err(broken(&format!("it is of version {}, not {SCHEMA}", state.schema)));
        }
        let tensors = candle_core::safetensors::load_buffer(file, &Device::Cpu)
            .map_err(|error| broken(&error))?;
        Ok(Self { state, tensors })
    }

    /// What the training was told.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.state.settings
    }

    /// Every epoch so far.
    #[must_use]
    pub fn history(&self) -> &[EpochRecord] {
        &self.state.history
    }

    /// Images that can't be read and were left out.
    #[must_use]
    pub fn skipped_images(&self) -> u64 {
        self.state.skipped_images
    }

    pub(super) fn steps(&self) -> u64 {
        self.state.steps
    }

    pub(super) fn tensor(&self, name: &str) -> candle_core::Result<Tensor> {
        match self.tensors.get(name) {
            Some(tensor) => Ok(tensor.clone()),
            None => candle_core::bail!("{name} is missing"),
        }
    }
}

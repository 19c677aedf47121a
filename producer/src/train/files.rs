//! The folder that a training writes to.
//!
//! Every file is replaced as a whole: a reader finds the old file or the new one, while a training
//! runs and after it was killed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use camshaft_common::model::TrainedLayers;
use camshaft_common::model::{CONFIG_FILE, WEIGHTS_FILE};
use camshaft_training::{EpochRecord, Settings, TrainingRecord};

use crate::train::learning_curve::{self, CurveError};

/// What a training goes on from.
const CHECKPOINT_FILE: &str = "checkpoint.safetensors";
/// The settings, and what each epoch came to.
const RECORD_FILE: &str = "training.json";
/// Version of the record's format.
const SCHEMA: u32 = 1;
/// The extensions of weights that a training must not write beside: they would be ignored from then
/// on.
const WEIGHTS_EXTENSIONS: [&str; 6] = ["safetensors", "pth", "pt", "bin", "ckpt", "h5"];

/// A file of a training can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} can't be {verb}: {source}; check space and permissions, and run the same command again"
)]
pub struct TrainingFileError {
    path: PathBuf,
    verb: &'static str,
    source: io::Error,
}

/// The record of a training, or its picture, can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteRecordError {
    /// A file can't be written.
    #[error(transparent)]
    File(#[from] TrainingFileError),
    /// The picture can't be drawn.
    #[error(transparent)]
    Picture(#[from] CurveError),
}

/// The folder that a training writes to.
#[derive(Clone, Debug)]
pub(crate) struct TrainingFiles {
    folder: PathBuf,
}

impl TrainingFiles {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// True if the folder has a configuration or weights, of any program.
    pub(crate) fn has_model(&self) -> bool {
        let Ok(entries) = fs::read_dir(&self.folder) else { return false };
        entries.flatten().any(|entry| {
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            entry.file_name() == CONFIG_FILE
                || extension.is_some_and(|extension| WEIGHTS_EXTENSIONS.contains(&extension))
        })
    }

    pub(crate) fn has_record(&self) -> bool {
        self.folder.join(RECORD_FILE).exists()
    }

    /// The checkpoint, if there is one.
    pub(crate) fn read_checkpoint(&self) -> Result<Option<Vec<u8>>, TrainingFileError> {
        let path = self.folder.join(CHECKPOINT_FILE);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TrainingFileError { path, verb: "read", source }),
        }
    }

    pub(crate) fn write_checkpoint(&self, bytes: &[u8]) -> Result<(), TrainingFileError> {
        self.write(CHECKPOINT_FILE, bytes)
    }

    /// Writes the two files that make the folder a model.
    pub(crate) fn write_model(
        &self,
        settings: &Settings,
        weights: &[u8],
    ) -> Result<(), TrainingFileError> {
        self.write(CONFIG_FILE, &json(&settings.model))?;
        self.write(WEIGHTS_FILE, weights)
    }

    /// Writes the settings and history, and a picture of it. `best_epoch` is the epoch whose
    /// weights are the model's.
    pub(crate) fn write_record(
        &self,
        settings: &Settings,
        skipped_images: u64,
        best_epoch: Option<u32>,
        history: &[EpochRecord],
    ) -> Result<(), WriteRecordError> {
        let record =
            TrainingRecord { schema: SCHEMA, settings, skipped_images, best_epoch, history };
        self.write(RECORD_FILE, &json(&record))?;
        let layers = match settings.layers {
            TrainedLayers::Head => "new head",
            TrainedLayers::All => "all layers",
        };
        let architecture = settings.model.architecture.name();
        let title = format!("Accuracy while training: {architecture}, {layers}");
        let svg = learning_curve::svg(&title, history);
        self.write("learning-curve.svg", svg.as_bytes())?;
        self.write("learning-curve.png", &learning_curve::png(&title, history)?)?;
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TrainingFileError> {
        let path = self.folder.join(name);
        let temporary = self.folder.join(format!(".{name}.part"));
        let write = || {
            fs::create_dir_all(&self.folder)?;
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            // Before the file gets its name: a file with that name must be whole, whatever fails.
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| TrainingFileError { path: path.clone(), verb: "written", source })
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("these types can be written as JSON");
    text.push(b'\n');
    text
}

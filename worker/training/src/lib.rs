//! Transfer learning: a new head on a network's frozen features, or every layer.
//!
//! Owns the data set's images, the trainable layers and their gradients, the optimiser, an epoch,
//! and the content of a checkpoint. Writing files and telling users is the program's. Start reading
//! at [`Trainer`].
//!
//! Each layer has a backward pass beside its forward pass; candle's autograd is not used. So every
//! activation is kept once, a convolution's patches are computed again instead of kept, and all
//! cores work, also on operations that are not matrix products. Training runs on the CPU only.

mod adam;
mod checkpoint;
mod dataset;
mod error;
mod exported_model;
mod frozen_features;
mod initial_weights;
mod inputs;
mod learner;
mod loss;
mod network;
mod random;
mod record;
mod setting_differences;
mod settings;
#[cfg(test)]
mod tests;
mod trainer;
mod whole_network;

pub use checkpoint::Checkpoint;
pub use dataset::{
    Dataset, DatasetError, DatasetImage, DatasetOptions, LeftOut, LeftOutFolder, ListedError,
    ListedExample, SplitRule,
};
pub use error::TrainingError;
pub use initial_weights::Init;
pub use learner::Watch;
pub use record::{EpochRecord, TrainingRecord, best};
pub use setting_differences::{SettingDifference, SettingDifferences};
pub use settings::{DatasetRecord, InitRecord, Options, Settings};
pub use trainer::Trainer;

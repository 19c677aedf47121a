//! Transfer learning: a new head on a network's frozen features, or every layer.
//!
//! Owns what is trained and how: the data set's images, the trainable layers and their
//! gradients, the optimiser, an epoch, and what a checkpoint holds. Where files are written
//! and what is printed is the program's business. Start reading at [`Trainer`].
//!
//! Gradients are written out layer by layer, beside each layer's forward pass, instead of
//! recorded by candle's autograd: that keeps every activation once, recomputes a
//! convolution's patches instead of keeping them, and runs what is not a matrix product on
//! all cores. The CPU only.

mod adam;
mod batch_norm;
mod block;
mod checkpoint;
mod convolution;
mod dataset;
mod error;
mod examples;
mod frozen;
mod head;
mod initial;
mod layer;
mod learner;
mod loss;
mod network;
mod parameter;
mod random;
mod record;
mod settings;
#[cfg(test)]
mod slopes;
#[cfg(test)]
mod tests;
mod trainer;
mod values;
mod whole;

pub use checkpoint::Checkpoint;
pub use dataset::{Dataset, DatasetError, Sample};
pub use error::TrainingError;
pub use initial::Init;
pub use learner::Watch;
pub use record::{EpochRecord, TrainingRecord, best};
pub use settings::{DatasetRecord, InitRecord, Options, Settings, TrainedLayers};
pub use trainer::Trainer;

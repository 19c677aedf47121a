//! Files of weights: reading every supported format, and finding tensors by name and shape.
//!
//! `format` converts other programs' files to safetensors, `naming` translates names of
//! parameters, `weights` hands out tensors. Nothing here computes with weights. Upstream: the
//! files of a model. Downstream: [`network`](crate::network).

mod converted;
mod error;
mod format;
mod naming;
mod pickle;
mod torch;
mod weights;

pub use error::CheckpointError;
pub(crate) use format::to_safetensors;
pub(crate) use naming::TensorNames;
pub use weights::{Misfit, Weights, describe_misfits};

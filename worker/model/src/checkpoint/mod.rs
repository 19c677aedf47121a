//! Files of weights: reading every supported format, and finding tensors by name and shape.
//!
//! `format` converts other programs' files to safetensors, `structure` finds the network in a file,
//! `naming` translates names of parameters, `weights` hands out tensors, which `values` converts. Nothing here computes with
//! weights. Upstream: the files of a model. Downstream: [`network`](crate::network).

mod converted;
mod error;
mod format;
mod naming;
mod pickle;
mod state_dict;
mod structure;
mod tensor_filter;
mod torch;
mod values;
mod weights;
mod weights_file;

pub use error::CheckpointError;
pub(crate) use format::to_safetensors;
pub(crate) use naming::Naming;
pub use tensor_filter::TensorFilter;
pub(crate) use weights::Notes;
pub use weights::{BadTensor, Misfit, Weights, describe};
pub use weights_file::WeightsFile;

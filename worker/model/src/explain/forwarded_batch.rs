//! A batch between the pass that predicts and its maps.

use super::batch_input::BatchInput;
use super::early_end::EarlyEnd;
use crate::network::inference::ForwardOutput;

/// A batch after its forward pass.
pub(super) struct ForwardedBatch<'a> {
    /// The network's input.
    pub(super) input: &'a BatchInput<'a>,
    /// The pass's logits, and the outputs of the stages that [`starting_stages`] names.
    pub(super) forward: &'a ForwardOutput,
    /// Whether the maps are still wanted. It is checked before each pass.
    pub(super) early_end: &'a EarlyEnd<'a>,
}

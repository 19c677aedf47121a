//! Activations and gradients of a target layer, for several targets: all gradient methods start
//! from them. Gradients come from a backward pass through the rest of the network, or from a closed
//! form if the rest is linear.

use candle_core::{Result, Tensor, Var};

/// A target layer's output, and the gradient of a logit with respect to it: one row for each
/// target.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[P, C, H, W]`, f32.
    pub(super) activations: Tensor,
    /// `[P, C, H, W]`, or `[P, C, 1, 1]` if it is the same at every position; f32.
    pub(super) gradients: Tensor,
}

impl Gradients {
    /// Of a layer on which logits depend linearly. `activations` are `[P, C, H, W]`; `gradients`
    /// are `[P, C, H, W]`, or `[P, C, 1, 1]` if they are the same at every position; f32.
    #[must_use]
    pub fn linear(activations: Tensor, gradients: Tensor) -> Self {
        Self { activations, gradients }
    }

    /// Of any layer, by a backward pass through `rest`. `rest` takes the layer's output
    /// `[P, C, H, W]` to logits `[P, K]`; a row must depend on its own image only. `classes` are
    /// `[P]`, u32.
    ///
    /// # Errors
    /// If shapes don't fit, an index is out of range, `rest` can't be differentiated, or the
    /// device fails.
    pub fn back_through(
        activations: &Tensor,
        classes: &Tensor,
        rest: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let variable = Var::from_tensor(&activations.contiguous()?)?;
        let logits = rest(&variable)?;
        // Rows don't depend on each other, so one backward pass from their sum gives all gradients.
        let sum = logits.gather(&classes.unsqueeze(1)?, 1)?.sum_all()?;
        let gradients = sum.backward()?;
        let Some(gradients) = gradients.get(&variable) else {
            candle_core::bail!("the logits don't depend on the target layer");
        };
        Ok(Self { activations: activations.contiguous()?, gradients: gradients.contiguous()? })
    }

    /// The layer's output, `[P, C, H, W]`.
    pub(crate) fn activations(&self) -> &Tensor {
        &self.activations
    }

    /// The gradients at every position: `[P, C, H, W]`.
    pub(super) fn everywhere(&self) -> Result<Tensor> {
        self.gradients.broadcast_as(self.activations.shape())?.contiguous()
    }
}

//! Activations and gradients of a target layer, for a batch of targets: what gradient methods
//! start from. Two ways to the gradient: back through the rest of the network, or written down
//! where that is linear.

use candle_core::{Result, Tensor, Var};

use super::CamTarget;

/// A target layer's output and the gradient of a logit with respect to it, one row for each
/// target.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[P, C, H, W]`, f32.
    pub(super) activations: Tensor,
    /// `[P, C, H, W]`, or `[P, C, 1, 1]` where it is the same everywhere; f32.
    pub(super) gradients: Tensor,
}

impl Gradients {
    /// Of a layer from which logits depend linearly: `gradients` `[P, C, H, W]` or, where they
    /// are the same everywhere, `[P, C, 1, 1]`; `activations` `[P, C, H, W]`; f32.
    #[must_use]
    pub fn linear(activations: Tensor, gradients: Tensor) -> Self {
        Self { activations, gradients }
    }

    /// Of any layer, by going back through `rest`, which takes the layer's output
    /// `[P, C, H, W]` to logits `[P, K]`, each row from its own image alone. `classes` `[P]`,
    /// u32.
    ///
    /// # Errors
    /// Where shapes don't fit, an index is out of range, `rest` can't be differentiated, or the
    /// device fails.
    pub fn back_through(
        activations: &Tensor,
        classes: &Tensor,
        rest: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let variable = Var::from_tensor(&activations.contiguous()?)?;
        let logits = rest(&variable)?;
        // Rows don't depend on each other, so one backward pass from their sum serves them all.
        let sum = logits.gather(&classes.unsqueeze(1)?, 1)?.sum_all()?;
        let gradients = sum.backward()?;
        let Some(gradients) = gradients.get(&variable) else {
            candle_core::bail!("the logits don't depend on the target layer");
        };
        Ok(Self { activations: activations.contiguous()?, gradients: gradients.contiguous()? })
    }

    /// The gradients, written out where they are the same everywhere: `[P, C, H, W]`.
    pub(super) fn everywhere(&self) -> Result<Tensor> {
        self.gradients.broadcast_as(self.activations.shape())?.contiguous()
    }
}

/// The images of some targets, `[P]`, u32, on the device of `like`.
///
/// # Errors
/// Where the device fails.
pub(crate) fn images(targets: &[CamTarget], like: &Tensor) -> Result<Tensor> {
    let images: Vec<_> = targets.iter().map(|target| target.image as u32).collect();
    Tensor::new(images, like.device())
}

/// The classes of some targets, `[P]`, u32, on the device of `like`.
///
/// # Errors
/// Where the device fails.
pub(crate) fn classes(targets: &[CamTarget], like: &Tensor) -> Result<Tensor> {
    let classes: Vec<_> = targets.iter().map(|target| target.class as u32).collect();
    Tensor::new(classes, like.device())
}

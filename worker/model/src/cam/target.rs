//! The classes and images that maps are asked for.

use candle_core::{Result, Tensor};

/// One image of a batch, and the class to explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CamTarget {
    /// Index of the image in the batch.
    pub image: usize,
    /// Index of the class.
    pub class: usize,
}

/// The image of each target, `[P]`, u32, on the device of `like`.
///
/// # Errors
/// If the device fails.
pub(crate) fn image_indices(targets: &[CamTarget], like: &Tensor) -> Result<Tensor> {
    let images: Vec<_> = targets.iter().map(|target| target.image as u32).collect();
    Tensor::new(images, like.device())
}

/// The class of each target, `[P]`, u32, on the device of `like`.
///
/// # Errors
/// If the device fails.
pub(crate) fn class_indices(targets: &[CamTarget], like: &Tensor) -> Result<Tensor> {
    let classes: Vec<_> = targets.iter().map(|target| target.class as u32).collect();
    Tensor::new(classes, like.device())
}

//! The images of some targets, each once, whatever number of targets it has.
//!
//! Owns indices and slices on the host alone.

use std::borrow::Cow;

use crate::error::CudaError;
use crate::results::PassInput;

/// Some targets, and the images that they are of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TargetGroup {
    /// The images, each once.
    pub(super) images: Vec<usize>,
    /// For each target, the index into `images`.
    pub(super) rows: Vec<i32>,
    /// For each target, its class.
    pub(super) classes: Vec<i32>,
}

impl TargetGroup {
    /// Of targets (image, class) that were checked.
    pub(super) fn new(targets: &[(usize, usize)]) -> Self {
        let mut images: Vec<usize> = Vec::new();
        let mut rows = Vec::with_capacity(targets.len());
        for &(image, _) in targets {
            // The targets of an image are neighbours, usually.
            let known = images.iter().rposition(|&known| known == image);
            rows.push(number(known.unwrap_or_else(|| {
                images.push(image);
                images.len() - 1
            })));
        }
        let classes = targets.iter().map(|&(_, class)| number(class)).collect();
        Self { images, rows, classes }
    }

    /// Its rows and classes, for a batch of `bucket`: further rows are of the first image.
    pub(super) fn padded(&self, bucket: usize) -> [Vec<i32>; 2] {
        let padded = |values: &[i32]| {
            let mut values = values.to_vec();
            values.resize(bucket, 0);
            values
        };
        [padded(&self.rows), padded(&self.classes)]
    }
}

/// Checks that targets are of `images` images and `classes` classes.
///
/// # Errors
/// If one is not.
pub(super) fn check_targets(
    targets: &[(usize, usize)],
    images: usize,
    classes: usize,
) -> Result<(), CudaError> {
    match targets.iter().find(|&&(image, class)| image >= images || class >= classes) {
        None => Ok(()),
        Some((image, class)) => Err(CudaError::Failed {
            operation: "taking targets".to_owned(),
            reason: format!(
                "class {class} of image {image} is not one of {classes} classes of {images} images"
            ),
        }),
    }
}

/// Some images of a batch.
pub(super) enum SelectedImages<'a> {
    Pixels(Cow<'a, [u8]>),
    Scaled(Cow<'a, [f32]>),
}

impl<'a> SelectedImages<'a> {
    /// The images with these indices, in their order. An image has `values` values.
    pub(super) fn new(input: PassInput<'a>, values: usize, images: &[usize]) -> Self {
        match input {
            PassInput::Pixels(pixels) => Self::Pixels(select(pixels, values, images)),
            PassInput::Scaled(scaled) => Self::Scaled(select(scaled, values, images)),
        }
    }

    pub(super) fn input(&self) -> PassInput<'_> {
        match self {
            Self::Pixels(pixels) => PassInput::Pixels(pixels),
            Self::Scaled(scaled) => PassInput::Scaled(scaled),
        }
    }
}

/// Selects images. Neighbours are not copied.
fn select<'a, T: Copy>(all: &'a [T], values: usize, images: &[usize]) -> Cow<'a, [T]> {
    let first = images.first().copied().unwrap_or(0);
    if images.iter().copied().eq(first..first + images.len()) {
        return Cow::Borrowed(&all[first * values..][..images.len() * values]);
    }
    let image = |&image: &usize| all[image * values..][..values].iter().copied();
    Cow::Owned(images.iter().flat_map(image).collect())
}

/// A checked index as the kernels take it.
fn number(index: usize) -> i32 {
    i32::try_from(index).expect("there are fewer images and classes than numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_with_several_targets_is_run_once() {
        let group = TargetGroup::new(&[(4, 1), (4, 0), (2, 7), (4, 2)]);
        assert_eq!(group.images, [4, 2]);
        assert_eq!(group.rows, [0, 0, 1, 0]);
        assert_eq!(group.classes, [1, 0, 7, 2]);
        assert_eq!(group.padded(6), [[0, 0, 1, 0, 0, 0], [1, 0, 7, 2, 0, 0]]);
    }

    #[test]
    fn neighbours_are_not_copied() {
        let values: Vec<u8> = (0..8).collect();
        let neighbours = select(&values, 2, &[1, 2]);
        assert!(matches!(&neighbours, Cow::Borrowed([2, 3, 4, 5])), "{neighbours:?}");
        assert_eq!(select(&values, 2, &[3, 0]), Cow::<[u8]>::Owned(vec![6, 7, 0, 1]));
    }

    #[test]
    fn targets_that_are_not_there_are_told() {
        assert!(check_targets(&[(0, 1), (2, 3)], 3, 4).is_ok());
        assert!(check_targets(&[(0, 1), (3, 3)], 3, 4).is_err());
        assert!(check_targets(&[(0, 4)], 3, 4).is_err());
    }
}

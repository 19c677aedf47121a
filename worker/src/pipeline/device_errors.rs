//! What is tried after the network failed on a batch.
//!
//! Only want of memory makes batches smaller. Any other error would come again: if it is one image's,
//! the other images of its batch get their results. Does not run the network. Upstream:
//! [`explain`](super::explain). Downstream: [`disposition`](super::disposition), which decides what
//! becomes of an image that failed.

use std::sync::Arc;

use camshaft_model::{ExplainError, ExplainRequest, ExplainedImage, ImageResults, ModelError};
use tracing::warn;

use super::batch_size::BatchSize;
use super::exit::ExitCause;

/// Why an image of a batch has no result.
#[derive(Clone, Debug)]
pub(super) enum ImageError {
    /// It can't be explained.
    Explain(ExplainError),
    /// The network failed on it.
    Device(Arc<ModelError>),
}

impl From<ImageError> for ExitCause {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Explain(error) => Self::Explain(error),
            ImageError::Device(error) => Self::Device(error),
        }
    }
}

/// A result for each image of a batch.
pub(super) type BatchResults = Vec<Result<ExplainedImage, ImageError>>;

/// Images in the network's input and what is asked of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchPart<'a> {
    /// Bytes `[N, H, W, 3]`.
    pub(super) pixels: &'a [u8],
    /// One for each image.
    pub(super) requests: &'a [ExplainRequest<'a>],
}

impl BatchPart<'_> {
    fn split_at(self, images: usize) -> (Self, Self) {
        let bytes = self.pixels.len() / self.requests.len().max(1);
        let (first_pixels, other_pixels) = self.pixels.split_at(images * bytes);
        let (first, others) = self.requests.split_at(images);
        (
            Self { pixels: first_pixels, requests: first },
            Self { pixels: other_pixels, requests: others },
        )
    }
}

/// The results of a batch whose pass gave `given`. `run` runs the network on a part of it again, if
/// that may help.
///
/// # Errors
/// If the images were given up, or the device is lost.
pub(super) fn results_or_parts(
    given: Result<ImageResults, ModelError>,
    batch: BatchPart<'_>,
    size: &BatchSize,
    run: &dyn Fn(BatchPart<'_>) -> Result<ImageResults, ModelError>,
) -> Result<BatchResults, ModelError> {
    let images = batch.requests.len();
    let first_part = match given {
        Ok(results) => {
            return Ok(results.into_iter().map(|one| one.map_err(ImageError::Explain)).collect());
        }
        Err(error @ (ModelError::GivenUp | ModelError::DeviceLost(_))) => return Err(error),
        Err(error) if images <= 1 => {
            let error = Arc::new(error);
            return Ok(vec![Err(ImageError::Device(error)); images]);
        }
        Err(ModelError::OutOfMemory(reason)) => {
            warn!(images, reason, "the device ran out of memory; trying the batch's halves");
            size.shrink_below(images);
            images / 2
        }
        Err(error) => {
            warn!(images, %error, "the network failed on a batch; trying each image alone");
            1
        }
    };
    let mut results = Vec::with_capacity(images);
    let mut rest = batch;
    while !rest.requests.is_empty() {
        let (part, others) = rest.split_at(first_part.min(rest.requests.len()));
        results.extend(results_or_parts(run(part), part, size, run)?);
        rest = others;
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use camshaft_common::explain::ExplainOptions;

    use super::*;

    const BYTES: usize = 12;

    /// Runs a batch of eight images, whose bytes are their numbers. `fails` says how a pass ends.
    fn run(
        fails: impl Fn(&[u8]) -> Option<ModelError>,
    ) -> (Result<BatchResults, ModelError>, Vec<Vec<u8>>, usize) {
        let options = ExplainOptions::default();
        let requests = [ExplainRequest { options: &options, label: None }; 8];
        let pixels: Vec<u8> = (0..8).flat_map(|image| [image; BYTES]).collect();
        let (size, tried) = (BatchSize::fixed(8), RefCell::new(Vec::new()));
        let pass = |part: BatchPart<'_>| {
            let numbers: Vec<_> = part.pixels.chunks(BYTES).map(|image| image[0]).collect();
            assert_eq!(numbers.len(), part.requests.len());
            let failed = fails(&numbers);
            tried.borrow_mut().push(numbers.clone());
            match failed {
                Some(error) => Err(error),
                // A result that tells the images apart.
                None => Ok(numbers.into_iter().map(|_| Err(ExplainError::NoLabel)).collect()),
            }
        };
        let whole = BatchPart { pixels: &pixels, requests: &requests };
        let results = results_or_parts(pass(whole), whole, &size, &pass);
        (results, tried.into_inner(), size.now())
    }

    fn failed() -> ModelError {
        ModelError::Compute(candle_core::Error::Msg("no such operation".to_owned()))
    }

    #[test]
    fn want_of_memory_halves_batches_until_they_fit() {
        let (results, tried, size) =
            run(|images| (images.len() > 2).then(|| ModelError::OutOfMemory("1 GiB".to_owned())));
        assert!(results.unwrap().iter().all(|one| matches!(one, Err(ImageError::Explain(_)))));
        let sizes: Vec<_> = tried.iter().map(Vec::len).collect();
        assert_eq!((sizes, size), (vec![8, 4, 2, 2, 4, 2, 2], 2));
    }

    #[test]
    fn an_image_that_has_no_room_even_alone_fails_alone() {
        let too_large = |images: &[u8]| images.contains(&5);
        let (results, _tried, _size) =
            run(|images| too_large(images).then(|| ModelError::OutOfMemory("1 GiB".to_owned())));
        for (image, result) in results.unwrap().into_iter().enumerate() {
            let of_device = matches!(result, Err(ImageError::Device(_)));
            assert_eq!(of_device, image == 5, "{image}");
        }
    }

    #[test]
    fn an_error_that_would_come_again_is_tried_once_for_each_image_in_batches_of_the_same_size() {
        let (results, tried, size) = run(|images| images.contains(&3).then(failed));
        for (image, result) in results.unwrap().into_iter().enumerate() {
            match result {
                Err(ImageError::Device(error)) => {
                    assert_eq!(image, 3);
                    assert!(error.to_string().contains("no such operation"), "{error}");
                }
                _ => assert_ne!(image, 3),
            }
        }
        assert_eq!((tried.len(), size), (1 + 8, 8));
    }

    #[test]
    fn a_lost_device_is_tried_no_further() {
        let lost = || ModelError::DeviceLost("illegal address".to_owned());
        let (results, tried, size) = run(|_| Some(lost()));
        assert!(matches!(results, Err(ModelError::DeviceLost(_))));
        assert_eq!((tried.len(), size), (1, 8));
        let (results, tried, _size) = run(|images| match images.len() {
            8 => Some(ModelError::OutOfMemory("1 GiB".to_owned())),
            _ => images.contains(&6).then(lost),
        });
        assert!(matches!(results, Err(ModelError::DeviceLost(_))));
        assert_eq!(tried.len(), 3);
        let (results, ..) = run(|_| Some(ModelError::GivenUp));
        assert!(matches!(results, Err(ModelError::GivenUp)));
    }
}

//! From the image files of a data set to the network's input.
//!
//! Owns reading, decoding and mirroring, and what happens to images that can't be read. Upstream:
//! [`dataset`](super::dataset). Downstream: what is trained.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use camshaft_decoding::{ImageLimits, decode};
use camshaft_model::ModelConfig;
use camshaft_vision::input::{InputRule, to_input};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use tracing::warn;

use super::dataset::{Dataset, DatasetImage};
use super::error::TrainingError;
use super::learner::Watch;

/// Reads one image to an input, `[3, height, width]`, f32, as the model's configuration says.
///
/// # Errors
/// If the image can't be read; the text says why.
pub(super) fn read_input(image: &DatasetImage, model: &ModelConfig) -> Result<Vec<f32>, String> {
    let bytes = fs::read(&image.path).map_err(|error| error.to_string())?;
    // A decoder may panic on a file that was made to break it.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        decode(&bytes, &ImageLimits::default(), model.transparency)
    }));
    match decoded {
        Ok(Ok(image)) => Ok(to_input(&image, &model.input)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("its decoder crashed".to_owned()),
    }
}

/// Reads several images on all cores; results are in the images' order.
pub(super) fn read_inputs(
    images: &[&DatasetImage],
    model: &ModelConfig,
) -> Vec<Result<Vec<f32>, String>> {
    images.par_iter().map(|image| read_input(image, model)).collect()
}

/// Exchanges left and right of an input `[3, height, width]`.
pub(super) fn mirror(input: &mut [f32], rule: &InputRule) {
    input.chunks_mut(rule.width).for_each(<[f32]>::reverse);
}

/// Joins `N` inputs to a batch, `[N, 3, height, width]`, f32.
pub(super) fn to_batch(inputs: &[Vec<f32>], rule: &InputRule) -> candle_core::Result<Tensor> {
    let shape = (inputs.len(), 3, rule.height, rule.width);
    Tensor::from_vec(inputs.concat(), shape, &Device::Cpu)
}

/// Logs that an image is left out, and why.
pub(super) fn warn_skipped(image: &DatasetImage, reason: &str) {
    warn!(image = image.key, reason, "leaving out an image that can't be read");
}

/// The images that can be read, and the number of those that can't.
///
/// # Errors
/// If the training was stopped.
pub(super) fn find_readable(
    images: &[DatasetImage],
    model: &ModelConfig,
    watch: &Watch,
) -> Result<(Vec<DatasetImage>, u64), TrainingError> {
    let mut kept = Vec::with_capacity(images.len());
    for chunk in images.chunks(64) {
        watch.check()?;
        let found = read_inputs(&chunk.iter().collect::<Vec<_>>(), model);
        for (image, input) in chunk.iter().zip(found) {
            match input {
                Ok(_) => kept.push(image.clone()),
                Err(reason) => warn_skipped(image, &reason),
            }
        }
        watch.advance(chunk.len());
    }
    let skipped = (images.len() - kept.len()) as u64;
    Ok((kept, skipped))
}

/// Checks that `images`, one side of the data set, has images of every class.
///
/// # Errors
/// If a class has none; the error names the first.
pub(super) fn check_classes(
    dataset: &Dataset,
    images: &[DatasetImage],
    purpose: &'static str,
) -> Result<(), TrainingError> {
    for (index, class) in dataset.classes.iter().enumerate() {
        if !images.iter().any(|image| image.class == index) {
            return Err(TrainingError::UnreadableClass { class: class.clone(), purpose });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirrored_input_is_the_mirrored_images_input() {
        let image = image::RgbImage::from_fn(40, 30, |x, y| {
            image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y) as u8])
        });
        let config = camshaft_model::testing::small_model().config().clone();
        let rule = InputRule { height: 30, width: 40, ..config.input };
        let mut input = to_input(&image, &rule);
        mirror(&mut input, &rule);
        assert_eq!(input, to_input(&image::imageops::flip_horizontal(&image), &rule));
    }
}

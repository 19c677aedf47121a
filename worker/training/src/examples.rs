//! Images of a data set as the network's input.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use tracing::warn;

use super::dataset::{Dataset, Sample};
use super::error::TrainingError;
use super::learner::Watch;
use camshaft_decoding::{ImageLimits, decode};
use camshaft_vision::input::InputRule;
use camshaft_vision::input::to_input;

/// One image's input, `[3, height, width]`, or why there is none.
pub(super) fn input(sample: &Sample, rule: &InputRule) -> Result<Vec<f32>, String> {
    let bytes = fs::read(&sample.path).map_err(|error| error.to_string())?;
    // Decoders may panic over a file that was made to break them.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(&bytes, &ImageLimits::default())));
    match decoded {
        Ok(Ok(image)) => Ok(to_input(&image, rule)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("its decoder broke down".to_owned()),
    }
}

/// Several images' inputs, in their order, on all cores.
pub(super) fn inputs(samples: &[&Sample], rule: &InputRule) -> Vec<Result<Vec<f32>, String>> {
    samples.par_iter().map(|sample| input(sample, rule)).collect()
}

/// Exchanges left and right.
pub(super) fn mirror(input: &mut [f32], rule: &InputRule) {
    input.chunks_mut(rule.width).for_each(<[f32]>::reverse);
}

/// `[N, 3, height, width]` of as many inputs.
pub(super) fn batch(inputs: &[Vec<f32>], rule: &InputRule) -> candle_core::Result<Tensor> {
    let shape = (inputs.len(), 3, rule.height, rule.width);
    Tensor::from_vec(inputs.concat(), shape, &Device::Cpu)
}

/// Says that an image is left out, and why.
pub(super) fn report_skip(sample: &Sample, reason: &str) {
    warn!(image = sample.key, reason, "leaving out an image that can't be read");
}

/// Images of a side that can be read, and how many can't.
///
/// # Errors
/// Where the training was stopped.
pub(super) fn readable(
    samples: &[Sample],
    rule: &InputRule,
    watch: &Watch,
) -> Result<(Vec<Sample>, u64), TrainingError> {
    let mut kept = Vec::with_capacity(samples.len());
    for chunk in samples.chunks(64) {
        watch.check()?;
        let found = inputs(&chunk.iter().collect::<Vec<_>>(), rule);
        for (sample, input) in chunk.iter().zip(found) {
            match input {
                Ok(_) => kept.push(sample.clone()),
                Err(reason) => report_skip(sample, &reason),
            }
        }
        watch.advance(chunk.len());
    }
    let skipped = (samples.len() - kept.len()) as u64;
    Ok((kept, skipped))
}

/// Checks that every class still has images on one side of a data set.
///
/// # Errors
/// With the first that has none.
pub(super) fn check_classes(
    dataset: &Dataset,
    samples: &[Sample],
    purpose: &'static str,
) -> Result<(), TrainingError> {
    for (index, class) in dataset.classes.iter().enumerate() {
        if !samples.iter().any(|sample| sample.class == index) {
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

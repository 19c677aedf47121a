//! Measures the maps of a sample of images, with a model and with copies of it whose weights are
//! partly random.
//!
//! Does not find, read or decode images. Upstream: the producer's audit. Downstream: [`measure`],
//! `summary`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use camshaft_common::explain::{ExplainOptions, Target};
use camshaft_common::key::ImageKey;
use camshaft_common::model::FileDigest;
use camshaft_common::prediction::ModelRecord;
use camshaft_common::trust::{MapTrust, TrustSettings};
use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::curves::{self, blur_sigma};
use super::pixels::{InputImage, PixelHeat, push_input};
use super::sanity::{HARDLY_CHANGED, REDRAWS, is_flat, rank_correlation};
use super::summary::{MapWithRandom, RedrawComparison, map_trust};
use super::{MapMeasures, PreparedImage, estimate, measure, road};
use camshaft_model::{
    ComputeDevice, ComputeSettings, ExplainRequest, Model, ModelError, ModelFiles, NetworkPart,
    redraw,
};
use camshaft_vision::heat_map::HeatMap;

/// An image of the sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledImage {
    /// Its key.
    pub key: ImageKey,
    /// The class that it is said to have.
    pub label: Option<String>,
    /// The network's input `[3, H, W]`.
    pub input: Vec<f32>,
}

/// Why a sample can't be measured.
#[derive(Debug, thiserror::Error)]
pub enum ExaminationError {
    /// The model, or a re-drawn copy of it, can't be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// [`ExaminationProgress::stop`] was set.
    #[error("stopped before the sample was measured; run the same command again")]
    Stopped,
}

/// Shared with the caller while [`examine`] works.
#[derive(Debug, Default)]
pub struct ExaminationProgress {
    /// Images measured.
    pub measured: AtomicU64,
    /// Set it to end early.
    pub stop: AtomicBool,
}

impl ExaminationProgress {
    /// Fails if `stop` is set.
    fn check_stop(&self) -> Result<(), ExaminationError> {
        if self.stop.load(Relaxed) { Err(ExaminationError::Stopped) } else { Ok(()) }
    }
}

/// The measures of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredSample {
    /// The model, and what it ran on.
    pub model: ModelRecord,
    /// Images measured, in the order given.
    pub keys: Vec<ImageKey>,
    /// The measures of each method at each layer.
    pub maps: Vec<MapTrust>,
    /// The constants of the measures.
    pub settings: TrustSettings,
}

/// Method and layer, as results write them.
type MapName = (String, String);

/// An image with its maps from the run's model, all for the most probable of the target classes.
/// One class for each image keeps the numbers independent, as confidence intervals require.
struct ImageWithMaps<'a> {
    image: &'a SampledImage,
    class: usize,
    /// By method and layer.
    maps: BTreeMap<MapName, HeatMap>,
    /// Options that ask for maps of `class`.
    options: ExplainOptions,
}

/// Measures all maps of a sample. Leaves out images that can't be explained.
///
/// # Errors
/// If the model can't be loaded or run, or if `progress.stop` is set.
pub fn examine(
    files: &ModelFiles,
    device: &ComputeDevice,
    compute: ComputeSettings,
    explain: &ExplainOptions,
    images: &[SampledImage],
    progress: &ExaminationProgress,
) -> Result<MeasuredSample, ExaminationError> {
    let batch = compute.largest_batch;
    let load = |files: &ModelFiles| Model::load(files, device, compute);
    let model = load(files)?;
    let explained = explain_all(&model, explain, images, batch)?;

    let parts = [NetworkPart::Head, NetworkPart::LastStage];
    let mut comparisons = [const { BTreeMap::new() }; 2];
    for (part, comparisons) in parts.iter().zip(&mut comparisons) {
        for draw in 0..REDRAWS {
            progress.check_stop()?;
            let redrawn = load(&redraw(files, *part, draw as u64)?)?;
            compare_maps(&redrawn, &explained, batch, comparisons)?;
        }
    }
    let mut pairs = BTreeMap::<_, Vec<_>>::new();
    for explained in &explained {
        progress.check_stop()?;
        for (name, measures) in measure_image(&model, explained, batch)? {
            pairs.entry(name).or_default().push(measures);
        }
        progress.measured.fetch_add(1, Relaxed);
    }
    let [head, last_stage] = comparisons;
    let none = Vec::new();
    let maps = pairs.into_iter().map(|(name, pairs)| {
        let [head, last_stage] = [&head, &last_stage].map(|part| part.get(&name).unwrap_or(&none));
        map_trust(name, &pairs, (head, last_stage))
    });
    Ok(MeasuredSample {
        model: model.record(),
        keys: explained.iter().map(|explained| explained.image.key.clone()).collect(),
        maps: maps.collect(),
        settings: settings(&model),
    })
}

fn settings(model: &Model) -> TrustSettings {
    let rule = &model.config().input;
    TrustSettings {
        confidence: estimate::CONFIDENCE,
        curve_steps: curves::STEPS,
        blur_sigma: blur_sigma(rule.height, rule.width),
        road_percentiles: road::PERCENTILES.into(),
        road_noise: road::NOISE,
        redraws: REDRAWS,
        hardly_changed: HARDLY_CHANGED,
    }
}

/// A tensor `[N, 3, H, W]` of the inputs of *n* images.
pub(crate) fn input_tensor(values: Vec<f32>, model: &Model) -> Result<Tensor, ModelError> {
    let rule = &model.config().input;
    let count = values.len() / (3 * rule.height * rule.width);
    Ok(Tensor::from_vec(values, (count, 3, rule.height, rule.width), &Device::Cpu)?)
}

/// Explains the sample with the run's own options.
fn explain_all<'a>(
    model: &Model,
    explain: &ExplainOptions,
    images: &'a [SampledImage],
    batch: usize,
) -> Result<Vec<ImageWithMaps<'a>>, ModelError> {
    let mut all = Vec::with_capacity(images.len());
    for images in images.chunks(batch) {
        let input = input_tensor(
            images.iter().flat_map(|image| image.input.iter().copied()).collect(),
            model,
        )?;
        let requests: Vec<_> = images
            .iter()
            .map(|image| ExplainRequest { options: explain, label: image.label.as_deref() })
            .collect();
        for (image, result) in images.iter().zip(model.explain_batch(&input, &requests)?) {
            // The run recorded a failure for such an image, and no prediction.
            let Ok(result) = result else { continue };
            let Some(first) = result.explanations.first() else { continue };
            let class = first.class;
            let target = Target::Class(first.label.clone());
            let maps = result.explanations.into_iter().filter(|map| map.class == class);
            let maps = maps.map(|map| ((map.method.to_string(), map.layer.to_string()), map.map));
            let options = ExplainOptions { target, ..explain.clone() };
            all.push(ImageWithMaps { image, class, maps: maps.collect(), options });
        }
    }
    Ok(all)
}

/// Compares the maps of a re-drawn network with the model's, for the same classes.
fn compare_maps(
    redrawn: &Model,
    explained: &[ImageWithMaps<'_>],
    batch: usize,
    comparisons: &mut BTreeMap<MapName, Vec<Vec<RedrawComparison>>>,
) -> Result<(), ModelError> {
    for (chunk, explained_chunk) in explained.chunks(batch).enumerate() {
        let inputs = explained_chunk.iter().flat_map(|explained| explained.image.input.iter());
        let input = input_tensor(inputs.copied().collect(), redrawn)?;
        let requests: Vec<_> = explained_chunk
            .iter()
            .map(|explained| ExplainRequest { options: &explained.options, label: None })
            .collect();
        let results = redrawn.explain_batch(&input, &requests)?;
        for (at, (before, after)) in explained_chunk.iter().zip(results).enumerate() {
            // Not compared: a class that shares its name with another one can't be asked for.
            let Ok(after) = after else { continue };
            for after in after.explanations {
                let name = (after.method.to_string(), after.layer.to_string());
                let Some(before) = before.maps.get(&name) else { continue };
                let correlation = rank_correlation(&before.values, &after.map.values);
                let of_images =
                    comparisons.entry(name).or_insert_with(|| vec![Vec::new(); explained.len()]);
                let flat = is_flat(&after.map.values);
                of_images[chunk * batch + at].push(RedrawComparison { correlation, flat });
            }
        }
    }
    Ok(())
}

/// Measures every map of an image, and for each a random map of its size.
fn measure_image(
    model: &Model,
    explained: &ImageWithMaps<'_>,
    batch: usize,
) -> Result<Vec<(MapName, MapWithRandom)>, ModelError> {
    let rule = &model.config().input;
    let seed = seed_of(&explained.image.key);
    let image =
        PreparedImage::new(InputImage::of_input(&explained.image.input, rule), rule.mean, seed);
    let mut score = |images: &[Vec<f32>]| probabilities(model, images, explained.class, batch);
    let whole = score(std::slice::from_ref(&image.pixels.values))?[0];
    let mut measure_map = |map: &HeatMap| {
        measure(&image, &PixelHeat::of(map, (rule.height, rule.width)), whole, &mut score)
    };
    let mut randoms = BTreeMap::<_, MapMeasures>::new();
    let mut pairs = Vec::with_capacity(explained.maps.len());
    for (name, map) in &explained.maps {
        let random = match randoms.entry((map.height, map.width)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(measure_map(&random_map(map.height, map.width, seed))?)
            }
        };
        let random = random.clone();
        pairs.push((name.clone(), MapWithRandom { map: measure_map(map)?, random }));
    }
    Ok(pairs)
}

/// A map of independent uniform values, the baseline for maps of its size.
fn random_map(height: usize, width: usize, seed: u64) -> HeatMap {
    let mut random = Pcg64::seed_from_u64(seed);
    HeatMap { height, width, values: (0..height * width).map(|_| random.random()).collect() }
}

/// The seed of an image. It depends on the key only, not on the rest of the sample.
///
/// # Panics
/// Never: a digest is hexadecimal.
#[must_use]
pub fn seed_of(key: &ImageKey) -> u64 {
    let digest = FileDigest::of(key.as_str().as_bytes());
    let (_, hex) = digest.as_str().split_once(':').expect("a digest names its function");
    u64::from_str_radix(&hex[..16], 16).expect("a digest is hexadecimal")
}

/// Softmax probabilities of a class for images `[3, H, W]`, whose pixels are 0 to 1, before
/// normalisation. Runs `batch` images at once.
///
/// # Errors
/// If the device fails.
pub fn probabilities(
    model: &Model,
    images: &[Vec<f32>],
    class: usize,
    batch: usize,
) -> Result<Vec<f32>, ModelError> {
    let mut all = Vec::with_capacity(images.len());
    for images in images.chunks(batch) {
        let mut values = Vec::with_capacity(images.iter().map(Vec::len).sum());
        for image in images {
            push_input(image, &model.config().input, &mut values);
        }
        let logits = model.forward(&input_tensor(values, model)?, &[])?.logits.to_vec2::<f32>()?;
        all.extend(logits.iter().map(|logits| softmax_of(logits, class) as f32));
    }
    Ok(all)
}

/// The probability of a class.
pub(crate) fn softmax_of(logits: &[f32], class: usize) -> f64 {
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - logits[class]).exp()).sum();
    sum.recip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probability_is_the_softmaxs() {
        assert_eq!(softmax_of(&[3.0, 3.0], 1), 0.5);
        assert!((softmax_of(&[0.0, 3f32.ln()], 1) - 0.75).abs() < 1e-6);
        assert_eq!(softmax_of(&[-800.0, 800.0], 0), 0.0);
    }

    #[test]
    fn seeds_and_random_maps_belong_to_their_image() {
        let [one, other] = ["cat/a.jpg", "cat/b.jpg"].map(|key| ImageKey::parse(key).unwrap());
        assert_eq!(seed_of(&one), seed_of(&one));
        assert_ne!(seed_of(&one), seed_of(&other));
        let map = random_map(7, 7, seed_of(&one));
        assert_eq!(map, random_map(7, 7, seed_of(&one)));
        assert!(!is_flat(&map.values));
    }
}

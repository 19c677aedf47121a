//! A batch from input to predictions and maps, in one forward pass.
//!
//! Owns the steps and their order. [`scores`] decides which classes are explained, [`maps`] how
//! their maps are computed; [`relabel`] makes a result for another label without the network. An image
//! that can't be explained fails alone; the other images of its batch get their results. Upstream:
//! batches of the network's input. Downstream: overlays and results.

mod batch_input;
mod check;
mod cost;
mod early_end;
mod engine_maps;
mod error;
mod forwarded_batch;
#[cfg(all(test, feature = "cuda"))]
mod gpu_tests;
mod maps;
mod relabel;
mod result;
mod scores;
#[cfg(test)]
mod tests;

use camshaft_common::explain::{ExplainOptions, FusedLayers, Method, Target};
use camshaft_vision::heat_map::HeatMap;
use camshaft_vision::input::InputRule;
use candle_core::Tensor;

pub use cost::ExplanationCost;
pub use error::ExplainError;
pub use relabel::{KnownMap, Relabelled};
pub use result::{ClassMap, ExplainRequest, ExplainedImage};

use crate::cam::{CamTarget, MapStatistics};
use crate::error::ModelError;
use crate::model::Model;
use crate::network::inference::{PassInput, PassRequest, StartedPass};
use batch_input::BatchInput;
use check::check_layers;
use early_end::EarlyEnd;
use forwarded_batch::ForwardedBatch;
use scores::{ImageScores, ScorePlan};

/// A result for each image of a batch.
pub type ImageResults = Vec<Result<ExplainedImage, ExplainError>>;

/// A batch whose forward pass was started.
#[derive(Debug)]
pub struct StartedBatch(StartedPass);

impl Model {
    /// Predicts and explains a batch with one forward pass. `input` is `[N, 3, H, W]`, f32, scaled as
    /// the input rule says. There is one request for each image.
    ///
    /// # Errors
    /// The outer error is about the whole batch: a wrong shape or a failing device. An error of a
    /// single image is in that image's result.
    pub fn explain_batch(
        &self,
        input: &Tensor,
        requests: &[ExplainRequest<'_>],
    ) -> Result<ImageResults, ModelError> {
        if requests.is_empty() {
            self.check_shape(input.dims(), 0)?;
            return Ok(Vec::new());
        }
        self.check_shape(input.dims(), requests.len())?;
        let input = PassInput::Scaled(input);
        self.finish(self.begin(input, requests)?, input, requests, &|| true)
    }

    /// Starts the forward pass of a batch. `pixels` are bytes `[N, H, W, 3]`, resized as the input rule
    /// says and not scaled. There is one request for each image.
    ///
    /// # Errors
    /// As [`Model::finish_batch`].
    pub fn begin_batch(
        &self,
        pixels: &[u8],
        requests: &[ExplainRequest<'_>],
    ) -> Result<StartedBatch, ModelError> {
        let InputRule { height, width, .. } = self.config().input;
        let images = pixels.len() / (3 * height * width).max(1);
        self.check_shape(&[images, 3, height, width], requests.len())?;
        self.begin(PassInput::Pixels(pixels), requests)
    }

    /// Waits for a batch's forward pass, and predicts and explains. `pixels` and `requests` are those
    /// that it was started with. Gives up once `goes_on` is false. It is asked before each further pass
    /// of the network that the maps need.
    ///
    /// # Errors
    /// As [`Model::explain_batch`], and [`ModelError::GivenUp`].
    pub fn finish_batch(
        &self,
        started: StartedBatch,
        pixels: &[u8],
        requests: &[ExplainRequest<'_>],
        goes_on: &dyn Fn() -> bool,
    ) -> Result<ImageResults, ModelError> {
        self.finish(started, PassInput::Pixels(pixels), requests, goes_on)
    }

    fn check_shape(&self, actual: &[usize], images: usize) -> Result<(), ModelError> {
        let InputRule { height, width, .. } = self.config().input;
        let expected = [images, 3, height, width];
        if actual != expected {
            return Err(ModelError::BatchShape { actual: actual.to_vec(), expected });
        }
        Ok(())
    }

    fn begin(
        &self,
        input: PassInput<'_>,
        requests: &[ExplainRequest<'_>],
    ) -> Result<StartedBatch, ModelError> {
        let labels = self.network().makes_maps().then(|| self.labels_for_maps(requests)).flatten();
        let stages = if labels.is_some() {
            Vec::new()
        } else {
            let layers = requests.iter().flat_map(|request| request.options.layer.iter());
            maps::starting_stages(self.network(), layers)
        };
        let request = PassRequest { stages, labels };
        let pass = self.network().begin(input, &request);
        Ok(StartedBatch(pass.map_err(|error| self.error_of(error))?))
    }

    /// If all that is asked for are Grad-CAM maps of the last stage, for classes that an engine knows at
    /// the end of its pass: the class of each image that is explained beside the most probable one.
    fn labels_for_maps(&self, requests: &[ExplainRequest<'_>]) -> Option<Vec<Option<usize>>> {
        let label = |request: &ExplainRequest<'_>| {
            let ExplainOptions { method, layer, target, .. } = request.options;
            let network = self.network();
            let is_last = |layer: &FusedLayers| match layer.as_slice() {
                [layer] => network.find(*layer).is_some_and(|point| network.is_last(point)),
                _ => false,
            };
            if method.as_slice() != [Method::GradCam] || !layer.iter().all(is_last) {
                return None;
            }
            let given = request.label.and_then(|label| self.labels().find(label).ok());
            match target {
                Target::Top(1) | Target::Label => Some(given),
                Target::Top(_) => None,
                Target::Class(name) => Some(self.config().class_named(name).ok()),
            }
        };
        requests.iter().map(label).collect()
    }

    fn finish(
        &self,
        StartedBatch(pass): StartedBatch,
        input: PassInput<'_>,
        requests: &[ExplainRequest<'_>],
        goes_on: &dyn Fn() -> bool,
    ) -> Result<ImageResults, ModelError> {
        let forward = self.network().finish(pass).map_err(|error| self.error_of(error))?;
        let logits = forward.logits.to_vec2::<f32>()?;
        let pooled = forward.pooled.to_vec2::<f32>()?;
        let shape = self.network().shape();
        let plans: Vec<_> = logits
            .iter()
            .zip(requests)
            .map(|(logits, request)| {
                check_layers(shape, &request.options.layer)?;
                ImageScores::of(logits)?.plan(self.config(), self.labels(), request)
            })
            .collect();
        let early_end = EarlyEnd::new(goes_on);
        let input = BatchInput::new(input, requests.len(), self.network().pixel_input());
        let batch = ForwardedBatch { input: &input, forward: &forward, early_end: &early_end };
        let maps = self.maps(&batch, &plans, requests);
        if early_end.has_come() {
            return Err(ModelError::GivenUp);
        }
        let mut maps = maps.map_err(|error| self.error_of(error))?;
        let results = plans.into_iter().zip(pooled).zip(requests).enumerate();
        let results = results.map(|(image, ((plan, features), request))| {
            self.explained(plan?, features, std::mem::take(&mut maps[image]), request)
        });
        let mut results = results.collect();
        self.explain_again(&mut results, &input, requests, goes_on)?;
        Ok(results)
    }

    /// Explains images again in f32, if the precision was left to the model, and could not hold their
    /// numbers.
    fn explain_again(
        &self,
        results: &mut ImageResults,
        input: &BatchInput<'_>,
        requests: &[ExplainRequest<'_>],
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), ModelError> {
        let overflowed = |result: &Result<ExplainedImage, ExplainError>| {
            matches!(result, Err(ExplainError::LogitsNotFinite | ExplainError::MapNotFinite { .. }))
        };
        if !results.iter().any(overflowed) {
            return Ok(());
        }
        let of_batch = |error| without_room_in_f32(error, requests.len());
        let Some(exact) = self.exact().map_err(of_batch)? else { return Ok(()) };
        let images = results.iter_mut().enumerate().filter(|(_, result)| overflowed(result));
        for (image, result) in images {
            let requests = &requests[image..=image];
            let again = input.with_image(image, |input| {
                Ok(exact
                    .begin(input, requests)
                    .and_then(|started| exact.finish(started, input, requests, goes_on)))
            });
            *result = again?.map_err(of_batch)?.remove(0);
        }
        Ok(())
    }

    /// Computes each image's maps: by method, then layer, then target.
    fn maps(
        &self,
        batch: &ForwardedBatch<'_>,
        plans: &[Result<ScorePlan, ExplainError>],
        requests: &[ExplainRequest<'_>],
    ) -> candle_core::Result<Vec<Vec<HeatMap>>> {
        let mut all = vec![Vec::new(); requests.len()];
        let wanted =
            |image: usize| (&requests[image].options.method, &requests[image].options.layer);
        let mut waiting: Vec<_> =
            (0..requests.len()).filter(|&image| plans[image].is_ok()).collect();
        // Images with the same methods and layers are computed together; usually these are all.
        while let Some(&first) = waiting.first() {
            let (methods, layers) = wanted(first);
            let same: Vec<_> =
                waiting.extract_if(.., |&mut image| wanted(image) == (methods, layers)).collect();
            let targets_of = |image: usize| {
                let targets = plans[image].as_ref().map_or(&[][..], |plan| &plan.targets);
                targets.iter().map(move |&class| CamTarget { image, class })
            };
            let targets: Vec<_> = same.iter().flat_map(|&image| targets_of(image)).collect();
            let (methods, layers) = (methods.as_slice(), layers.as_slice());
            for maps in maps::compute_maps(self.network(), batch, methods, layers, &targets)? {
                for (target, map) in targets.iter().zip(maps) {
                    all[target.image].push(map);
                }
            }
        }
        Ok(all)
    }

    /// Makes an image's result of its scores, features and maps. Maps are by method, then layer,
    /// then target.
    fn explained(
        &self,
        plan: ScorePlan,
        features: Vec<f32>,
        maps: Vec<HeatMap>,
        request: &ExplainRequest<'_>,
    ) -> Result<ExplainedImage, ExplainError> {
        let ExplainOptions { method, layer, .. } = request.options;
        let kinds = method.iter().flat_map(|&method| layer.iter().map(move |one| (method, one)));
        let kinds = kinds.flat_map(|kind| plan.targets.iter().map(move |&class| (kind, class)));
        let explanations = kinds.zip(maps).map(|(((method, layer), class), map)| {
            let label = self.config().classes[class].clone();
            if !map.is_finite() {
                return Err(ExplainError::MapNotFinite { class: label });
            }
            let (layer, statistics) = (layer.clone(), MapStatistics::of(&map));
            Ok(ClassMap { method, layer, class, label, map, statistics })
        });
        let explanations = explanations.collect::<Result<_, _>>()?;
        let ScorePlan { predictions, entropy, targets: _, label } = plan;
        let precision = self.precision();
        Ok(ExplainedImage { predictions, entropy, label, features, explanations, precision })
    }
}

/// The error of an image that was to be done again in f32. Want of memory there says nothing of
/// batches in f16, which stay as large as they are: the images of this batch are tried alone, and this
/// image later.
fn without_room_in_f32(error: ModelError, images: usize) -> ModelError {
    match error {
        ModelError::OutOfMemory(reason) if images > 1 => ModelError::Compute(
            candle_core::Error::Msg(format!("no memory to do an image again in f32: {reason}")),
        ),
        error => error,
    }
}

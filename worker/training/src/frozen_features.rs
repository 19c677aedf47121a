//! Training a head alone. The layers below it don't change, so their features are computed once for
//! each image and once for its mirror image, by the CPU's fast kernels.

use camshaft_model::{HeadKind, Model, Precision, STAGES};
use camshaft_vision::input::InputRule;
use candle_core::{D, DType, Tensor};

use super::adam::Adam;
use super::dataset::{Dataset, DatasetImage};
use super::error::TrainingError;
use super::exported_model::load_model;
use super::initial_weights::{Init, draw_head};
use super::inputs;
use super::learner::{Learner, Watch};
use super::loss::{Score, cross_entropy};
use super::network::{FindTensor, NamedTensors, TrainedHead, restore_all, save_all, tensor_values};
use super::random::EpochImage;
use super::settings::Settings;

/// Images that the network takes at a time.
const BATCH: usize = 16;
/// Images that are validated at a time. Their memory is small beside the features that are kept.
const VALIDATION_BATCH: usize = 64;
/// Larger features, in bytes, are kept in half precision.
const MAX_F32_BYTES: usize = 256 << 20;
/// Largest number of half precision.
const MAX_F16: f32 = 65_504.0;

/// A head, and the features of all images that it learns from.
pub(super) struct FrozenFeatures {
    backbone: NamedTensors,
    head: TrainedHead,
    adam: Adam,
    training: Vec<ImageFeatures>,
    validation: Vec<ImageFeatures>,
    skipped: u64,
}

/// The head's input for one image.
struct ImageFeatures {
    class: usize,
    /// `[inputs]`, f32 or f16.
    features: Tensor,
    /// The same of the mirror image.
    mirrored: Option<Tensor>,
}

impl FrozenFeatures {
    /// Computes the features of every image that can be read.
    pub(super) fn prepare(
        settings: &Settings,
        init: &Init,
        dataset: &Dataset,
        watch: &Watch,
    ) -> Result<Self, TrainingError> {
        let backbone = init.backbone(settings.seed)?;
        let mut tensors = backbone.clone();
        draw_head(&mut tensors, settings.head_shape(), settings.seed)?;
        let model = load_model(settings, &tensors, Precision::Auto)?;
        let passes = if settings.flip { 2 } else { 1 };
        let images = dataset.training.len() * passes + dataset.validation.len();
        watch.begin(images);
        let bytes = images * settings.head_shape().inputs() * size_of::<f32>();
        let dtype = if bytes > MAX_F32_BYTES { DType::F16 } else { DType::F32 };
        let compute = |images: &[DatasetImage], flip, purpose| {
            let found = compute_features(&model, images, FeatureOptions { flip, dtype }, watch)?;
            let kept = found.iter().map(|(image, _)| (*image).clone()).collect::<Vec<_>>();
            inputs::check_classes(dataset, &kept, purpose)?;
            let skipped = (images.len() - kept.len()) as u64;
            let examples = found.into_iter().map(|(_, example)| example);
            Ok::<_, TrainingError>((examples.collect(), skipped))
        };
        let (training, skipped) = compute(&dataset.training, settings.flip, "train")?;
        let (validation, more) = compute(&dataset.validation, false, "validate")?;
        let head = TrainedHead::new(&tensors, settings.head_shape());
        let adam = Adam::new(settings.learning_rate);
        Ok(Self { backbone, head, adam, training, validation, skipped: skipped + more })
    }
}

/// Which features are computed, and how they are stored.
#[derive(Clone, Copy)]
struct FeatureOptions {
    /// True if the mirror images' features are computed too.
    flip: bool,
    /// The number format in which they are stored.
    dtype: DType,
}

/// Computes the features of the images that can be read.
fn compute_features<'a>(
    model: &Model,
    images: &'a [DatasetImage],
    FeatureOptions { flip, dtype }: FeatureOptions,
    watch: &Watch,
) -> Result<Vec<(&'a DatasetImage, ImageFeatures)>, TrainingError> {
    let rule = &model.config().input;
    let mut found = Vec::with_capacity(images.len());
    for chunk in images.chunks(BATCH) {
        watch.check()?;
        let chunk: Vec<_> = chunk.iter().collect();
        let (mut read, mut inputs) = (Vec::new(), Vec::new());
        for (image, input) in chunk.iter().zip(inputs::read_inputs(&chunk, model.config())) {
            match input {
                Ok(input) => {
                    read.push(*image);
                    inputs.push(input);
                }
                Err(reason) => inputs::warn_skipped(image, &reason),
            }
        }
        if !read.is_empty() {
            let plain = head_inputs(model, &inputs, rule, dtype)?;
            let mut mirrored = Vec::new();
            if flip {
                inputs.iter_mut().for_each(|input| inputs::mirror(input, rule));
                mirrored = head_inputs(model, &inputs, rule, dtype)?;
            }
            let mut mirrored = mirrored.into_iter();
            for (image, features) in read.into_iter().zip(plain) {
                let mirrored = mirrored.next();
                found.push((image, ImageFeatures { class: image.class, features, mirrored }));
            }
        }
        watch.advance(chunk.len() * if flip { 2 } else { 1 });
    }
    Ok(found)
}

/// The head's input for each image of a batch, `[inputs]`.
fn head_inputs(
    model: &Model,
    inputs: &[Vec<f32>],
    rule: &InputRule,
    dtype: DType,
) -> Result<Vec<Tensor>, TrainingError> {
    let forward = model.forward(&inputs::to_batch(inputs, rule)?, &[STAGES])?;
    let features = forward.stages[STAGES - 1].as_ref().expect("it was asked for");
    let features = match model.config().head {
        HeadKind::AveragePool => features.mean((D::Minus2, D::Minus1))?,
        HeadKind::Flatten => features.flatten_from(1)?,
    };
    let features = match dtype {
        DType::F16 => features.clamp(-MAX_F16, MAX_F16)?.to_dtype(dtype)?,
        _ => features,
    };
    // Without a copy, each row would keep the whole batch in memory.
    let row = |index| features.get(index)?.copy();
    Ok((0..inputs.len()).map(row).collect::<candle_core::Result<_>>()?)
}

/// Stacks rows `[inputs]` to `[N, inputs]`, f32.
fn stack(rows: &[&Tensor]) -> candle_core::Result<Tensor> {
    Tensor::stack(rows, 0)?.to_dtype(DType::F32)
}

impl Learner for FrozenFeatures {
    fn images(&self) -> [usize; 2] {
        [self.training.len(), self.validation.len()]
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }

    fn step(&mut self, drawn: &[EpochImage]) -> Result<Score, TrainingError> {
        let picked = drawn.iter().map(|drawn| (&self.training[drawn.image], drawn.mirrored));
        let rows: Vec<_> = picked
            .clone()
            .map(|(example, mirrored)| {
                let mirrored = example.mirrored.as_ref().filter(|_| mirrored);
                mirrored.unwrap_or(&example.features)
            })
            .collect();
        let classes: Vec<_> = picked.map(|(example, _)| example.class).collect();
        let inputs = stack(&rows)?;
        let logits = self.head.forward(&inputs)?;
        let (score, gradient) = cross_entropy(&tensor_values::copy(&logits)?, &classes);
        let gradient = Tensor::from_vec(gradient, logits.dims(), logits.device())?;
        self.head.backward(&inputs, &gradient)?;
        self.adam.step(self.head.parameters_mut())?;
        Ok(score)
    }

    fn validate(&self, watch: &Watch) -> Result<Score, TrainingError> {
        let mut score = Score::default();
        for chunk in self.validation.chunks(VALIDATION_BATCH) {
            let rows: Vec<_> = chunk.iter().map(|example| &example.features).collect();
            let classes: Vec<_> = chunk.iter().map(|example| example.class).collect();
            let logits = self.head.forward(&stack(&rows)?)?;
            score += cross_entropy(&tensor_values::copy(&logits)?, &classes).0;
            watch.advance(chunk.len());
        }
        Ok(score)
    }

    fn steps(&self) -> u64 {
        self.adam.steps
    }

    fn save(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        save_all(self.head.parameters())
    }

    fn restore(&mut self, steps: u64, find: FindTensor<'_>) -> candle_core::Result<()> {
        self.adam.steps = steps;
        restore_all(self.head.parameters_mut(), find)
    }

    fn export(&self) -> candle_core::Result<NamedTensors> {
        let mut tensors = self.backbone.clone();
        self.head.export(&mut tensors);
        Ok(tensors)
    }
}

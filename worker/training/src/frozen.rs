//! Training a head alone: what the layers below it say about an image never changes, so it is
//! computed once for the image and once for its mirror image, by the CPU's fast kernels.

use candle_core::{D, DType, Tensor};

use super::adam::Adam;
use super::dataset::{Dataset, Sample};
use super::error::TrainingError;
use super::examples;
use super::head::TrainedHead;
use super::initial::{Init, draw_head};
use super::layer::NamedTensors;
use super::learner::{Learner, Watch};
use super::loss::{Score, cross_entropy};
use super::parameter::Parameter;
use super::random::Pick;
use super::settings::Settings;
use super::trainer::load;
use super::values;
use camshaft_model::{HeadKind, Model, Precision, STAGES};
use camshaft_vision::input::InputRule;

/// Images the network takes at once.
const BATCH: usize = 16;
/// Images validated at once: little beside the features that are kept.
const VALIDATION_BATCH: usize = 64;
/// Features of more bytes than this are kept in half precision.
const MAX_F32_BYTES: usize = 256 << 20;
/// Largest number of half precision.
const MAX_F16: f32 = 65_504.0;

/// A head on frozen features.
pub(super) struct FrozenFeatures {
    backbone: NamedTensors,
    head: TrainedHead,
    adam: Adam,
    training: Vec<Example>,
    validation: Vec<Example>,
    skipped: u64,
}

/// What the head sees of an image.
struct Example {
    class: usize,
    /// `[inputs]`, in f32 or f16.
    features: Tensor,
    /// Of the mirror image.
    mirrored: Option<Tensor>,
}

impl FrozenFeatures {
    /// Computes every image's features.
    pub(super) fn prepare(
        settings: &Settings,
        init: &Init,
        dataset: &Dataset,
        watch: &Watch,
    ) -> Result<Self, TrainingError> {
        let backbone = init.backbone(settings.seed)?;
        let mut tensors = backbone.clone();
        draw_head(&mut tensors, settings.head_shape(), settings.seed)?;
        let model = load(settings, &tensors, Precision::Auto)?;
        let passes = if settings.flip { 2 } else { 1 };
        let images = dataset.training.len() * passes + dataset.validation.len();
        watch.begin(images);
        let bytes = images * settings.head_shape().inputs() * size_of::<f32>();
        let dtype = if bytes > MAX_F32_BYTES { DType::F16 } else { DType::F32 };
        let compute = |samples: &[Sample], flip, purpose| {
            let found = features(&model, samples, (flip, dtype), watch)?;
            let kept = found.iter().map(|(sample, _)| (*sample).clone()).collect::<Vec<_>>();
            examples::check_classes(dataset, &kept, purpose)?;
            let skipped = (samples.len() - kept.len()) as u64;
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

/// Features of the images that can be read.
fn features<'a>(
    model: &Model,
    samples: &'a [Sample],
    (flip, dtype): (bool, DType),
    watch: &Watch,
) -> Result<Vec<(&'a Sample, Example)>, TrainingError> {
    let rule = &model.config().input;
    let mut found = Vec::with_capacity(samples.len());
    for chunk in samples.chunks(BATCH) {
        watch.check()?;
        let chunk: Vec<_> = chunk.iter().collect();
        let (mut read, mut inputs) = (Vec::new(), Vec::new());
        for (sample, input) in chunk.iter().zip(examples::inputs(&chunk, rule)) {
            match input {
                Ok(input) => {
                    read.push(*sample);
                    inputs.push(input);
                }
                Err(reason) => examples::report_skip(sample, &reason),
            }
        }
        if !read.is_empty() {
            let plain = rows(model, &inputs, rule, dtype)?;
            let mut mirrored = Vec::new();
            if flip {
                inputs.iter_mut().for_each(|input| examples::mirror(input, rule));
                mirrored = rows(model, &inputs, rule, dtype)?;
            }
            let mut mirrored = mirrored.into_iter();
            for (sample, features) in read.into_iter().zip(plain) {
                let mirrored = mirrored.next();
                found.push((sample, Example { class: sample.class, features, mirrored }));
            }
        }
        watch.advance(chunk.len() * if flip { 2 } else { 1 });
    }
    Ok(found)
}

/// What the head sees of each image of a batch.
fn rows(
    model: &Model,
    inputs: &[Vec<f32>],
    rule: &InputRule,
    dtype: DType,
) -> Result<Vec<Tensor>, TrainingError> {
    let forward = model.forward(&examples::batch(inputs, rule)?, &[STAGES])?;
    let features = forward.stages[STAGES - 1].as_ref().expect("it was asked for");
    let features = match model.config().head {
        HeadKind::AveragePool => features.mean((D::Minus2, D::Minus1))?,
        HeadKind::Flatten => features.flatten_from(1)?,
    };
    let features = match dtype {
        DType::F16 => features.clamp(-MAX_F16, MAX_F16)?.to_dtype(dtype)?,
        _ => features,
    };
    // Copied, or each would keep the whole batch.
    let row = |index| features.get(index)?.copy();
    Ok((0..inputs.len()).map(row).collect::<candle_core::Result<_>>()?)
}

/// `[N, inputs]` in f32.
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

    fn step(&mut self, picks: &[Pick]) -> Result<Score, TrainingError> {
        let picked = picks.iter().map(|pick| (&self.training[pick.sample], pick.mirrored));
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
        let (score, gradient) = cross_entropy(&values::copy(&logits)?, &classes);
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
            score += cross_entropy(&values::copy(&logits)?, &classes).0;
            watch.advance(chunk.len());
        }
        Ok(score)
    }

    fn steps(&self) -> u64 {
        self.adam.steps
    }

    fn save(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        let saved = self.head.parameters().iter().map(Parameter::save);
        Ok(saved.collect::<candle_core::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn restore(
        &mut self,
        steps: u64,
        find: &dyn Fn(&str) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<()> {
        self.adam.steps = steps;
        self.head.parameters_mut().iter_mut().try_for_each(|parameter| parameter.restore(find))
    }

    fn export(&self) -> candle_core::Result<NamedTensors> {
        let mut tensors = self.backbone.clone();
        self.head.export(&mut tensors);
        Ok(tensors)
    }
}

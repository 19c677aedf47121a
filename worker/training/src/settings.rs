//! The settings of a training. They don't change: a checkpoint can be resumed only with the same
//! settings.

use camshaft_model::network::head::HeadShape;
use camshaft_model::network::resnet::ResNetShape;
use camshaft_model::{HeadKind, ModelConfig};
use candle_core::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dataset::Dataset;
use super::error::TrainingError;
use super::initial_weights::{Init, RANDOM};

/// Which layers are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainedLayers {
    /// The new head only.
    Head,
    /// Every convolution, every BatchNorm and the head.
    All,
}

/// What a user may choose, apart from the data set and the initial model.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Which layers are trained.
    pub layers: TrainedLayers,
    /// Kind of the new head.
    pub head: HeadKind,
    /// Side of the input in pixels; none: as the initial model's.
    pub image_size: Option<usize>,
    /// True if half of the images, chosen at random, are mirrored.
    pub flip: bool,
    /// Number of images of a step.
    pub batch: usize,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// The settings of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What it starts from.
    pub init: InitRecord,
    /// Which layers are trained.
    pub layers: TrainedLayers,
    /// True if half of the images, chosen at random, are mirrored.
    pub flip: bool,
    /// Number of images of a step.
    pub batch: usize,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The images.
    pub dataset: DatasetRecord,
    /// `config.json` of the trained model.
    pub model: ModelConfig,
}

/// What a training starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitRecord {
    /// The initial model's name, or `random`.
    pub name: String,
    /// Digest of the initial model's weights; none for random weights.
    pub digest: Option<String>,
}

/// The images of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetRecord {
    /// Number of images to train on, unreadable ones included.
    pub training_images: usize,
    /// Number of images to validate on, unreadable ones included.
    pub validation_images: usize,
    /// Digest of the images' keys and sizes.
    pub digest: String,
}

impl Settings {
    /// Completes the options by what the initial model and the data set say.
    ///
    /// # Errors
    /// If the options contradict each other, or the model's input can't have that size.
    pub fn new(init: &Init, options: &Options, dataset: &Dataset) -> Result<Self, TrainingError> {
        let Options { layers, head, image_size, flip, batch, learning_rate, seed } = *options;
        if layers == TrainedLayers::All && batch < 2 {
            return Err(TrainingError::BatchOfOne);
        }
        let mut model = init.config()?;
        model.head = head;
        model.classes.clone_from(&dataset.classes);
        if let Some(side) = image_size {
            (model.input.height, model.input.width) = (side, side);
        }
        // The trained model's configuration must be readable.
        let json = serde_json::to_vec(&model).expect("a config can be written as JSON");
        let model = ModelConfig::parse("to be trained", &json)?;
        let init = match init {
            Init::Random(_) => InitRecord { name: RANDOM.to_owned(), digest: None },
            Init::Model(files) => InitRecord {
                name: files.identity().name.clone(),
                digest: Some(files.identity().digest.to_string()),
            },
        };
        let dataset = DatasetRecord {
            training_images: dataset.training.len(),
            validation_images: dataset.validation.len(),
            digest: dataset.digest(),
        };
        Ok(Self { init, layers, flip, batch, learning_rate, seed, dataset, model })
    }

    /// Describes the first difference from the settings that a training was started with.
    #[must_use]
    pub fn difference(&self, started: &Self) -> Option<String> {
        let json = |settings: &Self| {
            let mut settings = settings.clone();
            // The name of an initial model doesn't matter: its digest is compared.
            if settings.init.digest.is_some() {
                settings.init.name.clear();
            }
            serde_json::to_value(settings).expect("settings can be written as JSON")
        };
        let (path, then, now) = first_difference("", &json(started), &json(self))?;
        Some(match path.as_str() {
            "dataset.digest" => "the images' names or sizes have changed".to_owned(),
            _ => format!("{path} was {then} and is {now} now"),
        })
    }

    pub(super) fn shape(&self) -> ResNetShape {
        ResNetShape::of(self.model.architecture)
    }

    pub(super) fn head_shape(&self) -> HeadShape {
        let input = &self.model.input;
        HeadShape {
            kind: self.model.head,
            classes: self.model.classes.len(),
            features: self.shape().features(input.height, input.width),
        }
    }

    pub(super) fn device() -> &'static Device {
        &Device::Cpu
    }
}

/// The path of the first difference, and the two values there.
fn first_difference(path: &str, then: &Value, now: &Value) -> Option<(String, Value, Value)> {
    if let (Value::Object(a), Value::Object(b)) = (then, now) {
        let keys = a.keys().chain(b.keys());
        let missing = &Value::Null;
        return keys.into_iter().find_map(|key| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            first_difference(&path, a.get(key).unwrap_or(missing), b.get(key).unwrap_or(missing))
        });
    }
    (then != now).then(|| (path.to_owned(), then.clone(), now.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use camshaft_model::Architecture;

    fn settings(change: impl FnOnce(&mut Options)) -> Result<Settings, TrainingError> {
        let mut options = Options {
            layers: TrainedLayers::All,
            head: HeadKind::AveragePool,
            image_size: None,
            flip: true,
            batch: 16,
            learning_rate: 1e-4,
            seed: 0,
        };
        change(&mut options);
        let classes = vec!["a".to_owned(), "b".to_owned()];
        let dataset = Dataset { classes, training: Vec::new(), validation: Vec::new() };
        Settings::new(&Init::Random(Architecture::ResNet18), &options, &dataset)
    }

    #[test]
    fn a_difference_is_named() {
        let started = settings(|_| ()).unwrap();
        assert_eq!(started.difference(&started), None);
        let difference = |change: fn(&mut Options)| settings(change).unwrap().difference(&started);
        let batch = difference(|options| options.batch = 8).unwrap();
        assert_eq!(batch, "batch was 16 and is 8 now");
        let size = difference(|options| options.image_size = Some(64)).unwrap();
        assert_eq!(size, "model.input.height was 224 and is 64 now");
        let rate = difference(|options| options.learning_rate = 0.1).unwrap();
        assert_eq!(rate, "learning_rate was 0.0001 and is 0.1 now");
        let mut other = started.clone();
        other.dataset.digest = "sha256:0".to_owned();
        let images = other.difference(&started).unwrap();
        assert_eq!(images, "the images' names or sizes have changed");
    }

    #[test]
    fn settings_survive_json() {
        let settings = settings(|options| options.learning_rate = 0.1 + 0.2).unwrap();
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let error = settings(|options| options.batch = 1).unwrap_err().to_string();
        assert!(error.contains("batches of 2 images or more"), "{error}");
        let error = settings(|options| options.image_size = Some(16)).unwrap_err().to_string();
        assert!(error.contains("between 32 and 4096"), "{error}");
    }
}

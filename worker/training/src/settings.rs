//! The settings of a training. They don't change: a checkpoint can be resumed only with the same
//! settings.

use camshaft_common::model::TrainedLayers;
use camshaft_model::network::head::HeadShape;
use camshaft_model::network::resnet::ResNetShape;
use camshaft_model::{HeadKind, ModelConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dataset::{Dataset, SplitRule};
use super::error::TrainingError;
use super::initial_weights::{Init, RANDOM};
use super::setting_differences::SettingDifference;

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
    /// How the images to validate on were chosen. Absent in records of versions that had one rule.
    #[serde(
        default = "SplitRule::of_older_record",
        skip_serializing_if = "SplitRule::is_of_older_record"
    )]
    pub split: SplitRule,
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
        // They are other names of the initial model's classes.
        model.aliases.clear();
        // A new head alone leaves the layers below it as they are.
        if layers == TrainedLayers::All {
            model.trained_layers = Some(layers);
        }
        if let Some(side) = image_size {
            model.input = model.input.with_side(side);
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
            split: dataset.split,
        };
        Ok(Self { init, layers, flip, batch, learning_rate, seed, dataset, model })
    }

    /// These settings, with what earlier versions did otherwise if the training `begun` that they go on
    /// with is of one: they resized images as the initial model does, also for an input of another size,
    /// and did not say which layers were trained.
    ///
    /// # Errors
    /// If the initial model's configuration can't be used.
    pub fn as_begun(mut self, init: &Init, begun: &Self) -> Result<Self, TrainingError> {
        let resize = init.config()?.input.resize;
        if begun.model.input.resize == resize {
            self.model.input.resize = resize;
        }
        self.model.trained_layers = begun.model.trained_layers;
        Ok(self)
    }

    /// Checks that these are the settings that a training was started with.
    ///
    /// # Errors
    /// If they differ. The error names each difference.
    pub fn check_same(&self, started: &Self) -> Result<(), TrainingError> {
        let mut differences = Vec::new();
        differences.extend(self.init.difference(&started.init));
        differences.extend(self.image_difference(started));
        let json = |settings: &Self| {
            let mut settings = settings.clone();
            // These three have been compared.
            settings.init.clone_from(&self.init);
            settings.dataset.clone_from(&self.dataset);
            settings.model.classes.clear();
            serde_json::to_value(settings).expect("settings can be written as JSON")
        };
        add_differences("", &json(started), &json(self), &mut differences);
        match differences.as_slice() {
            [] => Ok(()),
            _ => Err(TrainingError::OtherTraining(differences.into())),
        }
    }

    fn image_difference(&self, started: &Self) -> Option<SettingDifference> {
        let (now, then) = (&self.dataset, &started.dataset);
        let mut text = if self.model.classes != started.model.classes {
            let [now, then] = [self, started].map(|settings| settings.model.classes.join(", "));
            format!("the classes were {then} and are {now} now")
        } else if now.digest == then.digest {
            return None;
        } else if (now.training_images, now.validation_images)
            == (then.training_images, then.validation_images)
        {
            "the images' names or sizes have changed".to_owned()
        } else {
            format!(
                "the data set had {} images to train on and {} to validate on, and has {} and {} \
                 now",
                then.training_images,
                then.validation_images,
                now.training_images,
                now.validation_images
            )
        };
        if then.split == SplitRule::ByPath {
            text.push_str(
                " (or an earlier version of Camshaft, which started the training, told classes \
                 and images from other files in another way)",
            );
        }
        Some(SettingDifference::of_images(text))
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
}

impl InitRecord {
    /// The name of an initial model doesn't matter: its digest is compared.
    fn difference(&self, started: &Self) -> Option<SettingDifference> {
        let same = match (&self.digest, &started.digest) {
            (None, None) => self.name == started.name,
            (now, then) => now == then,
        };
        let describe = |record: &Self| match &record.digest {
            Some(digest) => format!("{} ({digest})", record.name),
            None => record.name.clone(),
        };
        let differs = || SettingDifference {
            then: started.name.clone(),
            ..SettingDifference::of_values("init", describe(started), &describe(self))
        };
        (!same).then(differs)
    }
}

/// Adds every difference between two values, with its path.
fn add_differences(
    path: &str,
    then: &Value,
    now: &Value,
    differences: &mut Vec<SettingDifference>,
) {
    if let (Value::Object(a), Value::Object(b)) = (then, now) {
        let only_in_b = b.keys().filter(|key| !a.contains_key(*key));
        for key in a.keys().chain(only_in_b) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let [then, now] = [a, b].map(|object| object.get(key).unwrap_or(&Value::Null));
            add_differences(&path, then, now, differences);
        }
    } else if then != now {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => "absent".to_owned(),
            other => other.to_string(),
        };
        differences.push(SettingDifference::of_values(path, text(then), &text(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use camshaft_model::Architecture;
    use camshaft_vision::input::Resize;

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
        let dataset = Dataset { classes, ..Dataset::default() };
        Settings::new(&Init::Random(Architecture::ResNet18), &options, &dataset)
    }

    #[test]
    fn a_difference_is_named() {
        let started = settings(|_| ()).unwrap();
        started.check_same(&started).unwrap();
        let text = |now: &Settings| match now.check_same(&started).unwrap_err() {
            TrainingError::OtherTraining(differences) => differences.to_string(),
            other => panic!("{other}"),
        };
        let difference = |change: fn(&mut Options)| text(&settings(change).unwrap());
        let batch = difference(|options| options.batch = 8);
        assert_eq!(batch, "batch was 16 and is 8 now");
        let size = difference(|options| options.image_size = Some(64));
        assert!(size.starts_with("model.input.height was 224 and is 64 now, "), "{size}");
        let rate = difference(|options| options.learning_rate = 0.1);
        assert_eq!(rate, "learning_rate was 0.0001 and is 0.1 now");
        let both = difference(|options| (options.batch, options.seed) = (8, 3));
        assert_eq!(both, "batch was 16 and is 8 now, seed was 0 and is 3 now");
        let change = |change: fn(&mut Settings)| {
            let mut other = started.clone();
            change(&mut other);
            text(&other)
        };
        let images = change(|other| other.dataset.digest = "sha256:0".to_owned());
        assert_eq!(images, "the images' names or sizes have changed");
        let classes = change(|other| other.model.classes = vec!["Test".into(), "Train".into()]);
        assert_eq!(classes, "the classes were a, b and are Test, Train now");
        let init = change(|other| {
            other.init = InitRecord { name: "pets".into(), digest: Some("sha256:1".into()) };
        });
        assert_eq!(init, "init was random and is pets (sha256:1) now");
    }

    #[test]
    fn a_training_of_an_earlier_version_goes_on_with_the_resize_that_it_began_with() {
        let init = Init::Random(Architecture::ResNet18);
        let begun = settings(|options| options.image_size = Some(112)).unwrap();
        let mut now = begun.clone();
        now.model.input.resize = Resize::ShorterSide(128);
        assert_eq!(now.clone().as_begun(&init, &begun).unwrap(), begun);
        assert_eq!(now.clone().as_begun(&init, &now).unwrap(), now);
    }

    #[test]
    fn records_of_older_versions_tell_no_split() {
        let mut settings = settings(|_| ()).unwrap();
        settings.dataset.split = SplitRule::ByPath;
        let json = serde_json::to_string(&settings).unwrap();
        assert!(!json.contains("split"), "{json}");
        let read: Settings = serde_json::from_str(&json).unwrap();
        assert_eq!(read.dataset.split, SplitRule::ByPath);
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

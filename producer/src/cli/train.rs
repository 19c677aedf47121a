//! The arguments of `camshaft train`, and the config made of them.

use std::path::PathBuf;
use std::str::FromStr;

use camshaft_common::location::Location;
use camshaft_common::model::TrainedLayers;
use camshaft_common::model::{ModelReference, ModelReferenceError};
use camshaft_model::{Architecture, DeviceChoice, HeadKind};
use camshaft_training::Options;
use clap::{Args, ValueEnum};

use crate::cli::UsageError;
use crate::images::list_columns::ListColumns;
use crate::images::source_config::SourceConfigError;
use crate::train::{DatasetConfig, InitConfig, TrainConfig};

/// `camshaft train`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TrainArgs {
    /// Images: a local folder with train/CLASS and val/CLASS folders, or CLASS folders alone; or
    /// list:PATH, CSV with the columns key, label and perhaps split, such as camshaft apply writes
    #[arg(value_name = "DATASET", value_parser = dataset)]
    pub(crate) dataset: DatasetChoice,
    /// With list:PATH, the local folder that its keys are below
    #[arg(long, env = "CAMSHAFT_BASE", value_name = "DIR", value_parser = local_folder)]
    pub(crate) base: Option<PathBuf>,
    /// With list:PATH, the column of keys: its name, or its number from 1
    #[arg(long, env = "CAMSHAFT_KEY_COLUMN", value_name = "COLUMN")]
    pub(crate) key_column: Option<String>,
    /// With list:PATH, the column of labels
    #[arg(long, env = "CAMSHAFT_LABEL_COLUMN", value_name = "COLUMN")]
    pub(crate) label_column: Option<String>,
    /// Where the model goes: a local folder
    #[arg(long, env = "CAMSHAFT_OUT", value_name = "DIR", value_parser = local_folder)]
    pub(crate) out: PathBuf,
    /// Where to start: cats-vs-dogs, the model inside the program; a folder or store URL with
    /// model.safetensors and config.json; or random
    #[arg(long, env = "CAMSHAFT_INIT", value_name = "MODEL", default_value = "cats-vs-dogs")]
    pub(crate) init: InitChoice,
    /// With --init random, the network: resnet18, resnet34, resnet50 (the default), resnet101,
    /// resnet152, and resnet50-v1, … with Keras' strides
    #[arg(long, env = "CAMSHAFT_ARCHITECTURE", value_name = "NAME", value_parser = architecture)]
    pub(crate) architecture: Option<Architecture>,
    /// What is trained: the new head alone, which takes seconds, or all layers
    #[arg(long, env = "CAMSHAFT_LAYERS", value_enum, default_value_t)]
    pub(crate) layers: LayersChoice,
    /// What the new head is: one linear layer after average pooling or after flattening
    #[arg(long, env = "CAMSHAFT_HEAD", value_enum, default_value_t)]
    pub(crate) head: HeadChoice,
    /// How often to train on every image
    #[arg(long, env = "CAMSHAFT_EPOCHS", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) epochs: u32,
    /// Images in one step
    #[arg(long, env = "CAMSHAFT_BATCH", value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) batch: u16,
    /// Size of Adam's steps
    #[arg(long, env = "CAMSHAFT_LEARNING_RATE", value_name = "R", default_value = "1e-4", value_parser = learning_rate)]
    pub(crate) learning_rate: f64,
    /// Side of the network's input in pixels [default: the initial model's, or 224]
    #[arg(long, env = "CAMSHAFT_IMAGE_SIZE", value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(32..=4096))]
    pub(crate) image_size: Option<u16>,
    /// If no folder or list says which, the share of the images to validate on, chosen by their paths
    /// [default: 0.2]
    #[arg(long, env = "CAMSHAFT_VAL_SHARE", value_name = "R", value_parser = share)]
    pub(crate) val_share: Option<f64>,
    /// How images are varied: horizontal mirrors every second image at random
    #[arg(long, env = "CAMSHAFT_FLIP", value_enum, default_value_t)]
    pub(crate) flip: FlipChoice,
    /// Number that the head's first weights, the order of images and their mirroring are drawn
    /// from
    #[arg(long, env = "CAMSHAFT_SEED", value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Where the training runs: auto or cpu
    #[arg(long, env = "CAMSHAFT_DEVICE", default_value = "auto", value_parser = device)]
    pub(crate) device: DeviceChoice,
}

impl TrainArgs {
    pub(crate) fn resolve(self) -> Result<TrainConfig, UsageError> {
        let init = match (self.init, self.architecture) {
            (InitChoice::Random, architecture) => {
                InitConfig::Random(architecture.unwrap_or(Architecture::ResNet50))
            }
            (InitChoice::Model(_), Some(_)) => return Err(UsageError::ArchitectureOfModel),
            (InitChoice::Model(reference), None) => InitConfig::Model(reference),
        };
        let columns = ListColumns { key: self.key_column, label: self.label_column };
        let dataset = match (self.dataset, self.base) {
            (DatasetChoice::List(path), Some(base)) => DatasetConfig::List { path, base, columns },
            (DatasetChoice::List(_), None) => return Err(SourceConfigError::BaseMissing.into()),
            (DatasetChoice::Folder(folder), Some(_)) => {
                let folder = folder.display().to_string();
                return Err(SourceConfigError::BaseWithoutList(folder).into());
            }
            (DatasetChoice::Folder(folder), None) if columns.is_empty() => {
                DatasetConfig::Folder(folder)
            }
            (DatasetChoice::Folder(folder), None) => {
                let folder = folder.display().to_string();
                return Err(SourceConfigError::ColumnsWithoutList(folder).into());
            }
        };
        let options = Options {
            layers: self.layers.into(),
            head: self.head.into(),
            image_size: self.image_size.map(usize::from),
            flip: self.flip == FlipChoice::Horizontal,
            batch: usize::from(self.batch),
            learning_rate: self.learning_rate,
            seed: self.seed,
        };
        Ok(TrainConfig {
            dataset,
            out: self.out,
            init,
            epochs: self.epochs,
            validation_share: self.val_share,
            options,
        })
    }
}

/// DATASET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DatasetChoice {
    /// A folder of class folders.
    Folder(PathBuf),
    /// `list:PATH`; `-` is standard input.
    List(String),
}

/// `--init`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum InitChoice {
    /// `random`.
    Random,
    /// Another model.
    Model(ModelReference),
}

impl FromStr for InitChoice {
    type Err = ModelReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "random" { Ok(Self::Random) } else { text.parse().map(Self::Model) }
    }
}

/// `--layers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayersChoice {
    /// The head alone.
    #[default]
    Head,
    /// Every layer.
    All,
}

impl From<LayersChoice> for TrainedLayers {
    fn from(choice: LayersChoice) -> Self {
        match choice {
            LayersChoice::Head => Self::Head,
            LayersChoice::All => Self::All,
        }
    }
}

/// `--head`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeadChoice {
    /// The mean of each channel.
    #[default]
    AveragePool,
    /// Every value of every channel.
    Flatten,
}

impl From<HeadChoice> for HeadKind {
    fn from(choice: HeadChoice) -> Self {
        match choice {
            HeadChoice::AveragePool => Self::AveragePool,
            HeadChoice::Flatten => Self::Flatten,
        }
    }
}

/// `--flip`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FlipChoice {
    /// Left and right are exchanged in every second image, by chance.
    #[default]
    Horizontal,
    /// Images stay as they are: for writing, or if left and right differ.
    None,
}

fn dataset(text: &str) -> Result<DatasetChoice, String> {
    match text.strip_prefix("list:") {
        Some("") => Err("name the list, such as list:clean.csv".to_owned()),
        Some(path) => Ok(DatasetChoice::List(path.to_owned())),
        None => local_folder(text).map(DatasetChoice::Folder),
    }
}

fn local_folder(text: &str) -> Result<PathBuf, String> {
    let place: Location = text.parse().map_err(|error| format!("{error}"))?;
    place.local_path().ok_or_else(|| "training needs a local folder; copy it first".to_owned())
}

fn architecture(text: &str) -> Result<Architecture, String> {
    let found = Architecture::ALL.into_iter().find(|architecture| architecture.name() == text);
    found.ok_or_else(|| {
        format!("use one of {}", Architecture::ALL.map(Architecture::name).join(", "))
    })
}

fn learning_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("use a number above 0, such as 1e-4".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("use a number between 0 and 1, such as 0.2".to_owned()),
    }
}

fn device(text: &str) -> Result<DeviceChoice, String> {
    match text.parse::<DeviceChoice>() {
        Ok(DeviceChoice::Cuda(_)) => Err("training runs on the CPU only; use cpu".to_owned()),
        Ok(device) => Ok(device),
        Err(_) => Err("use auto or cpu".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_training_cannot_do_is_said_at_once() {
        assert!(device("cuda:1").unwrap_err().contains("CPU only"));
        assert_eq!(device("auto"), Ok(DeviceChoice::Auto));
        assert!(local_folder("s3://bucket/x").unwrap_err().contains("local folder"));
        assert_eq!(dataset("list:a.csv"), Ok(DatasetChoice::List("a.csv".to_owned())));
        assert!(dataset("list:").is_err());
        assert!(architecture("vgg16").unwrap_err().contains("resnet18, resnet34, resnet50"));
        for text in ["0", "-1", "inf", "x"] {
            assert!(learning_rate(text).is_err() && share(text).is_err(), "{text}");
        }
        assert_eq!("random".parse::<InitChoice>().unwrap(), InitChoice::Random);
    }
}

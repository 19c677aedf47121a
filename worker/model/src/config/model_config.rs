//! A model's configuration in our own format, and whether it contradicts itself.

use camshaft_common::label::{LabelMatcher, NamedClass};
use camshaft_common::model::{TrainedLayers, check_class_names};
use camshaft_common::transparency::Transparency;
use camshaft_vision::input::{InputRule, Resize};
use serde::{Deserialize, Deserializer, Serialize};

use super::architecture::{Architecture, HeadKind};
use super::classes;
use super::fields::Refusal;

/// Class names and how an image becomes the network's input.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct ModelConfig {
    /// The network that the weights belong to.
    pub architecture: Architecture,
    /// What follows the last residual stage.
    #[serde(default)]
    pub head: HeadKind,
    /// Class names, by class index. A file may say `"imagenet-1k"` instead of a list.
    #[serde(deserialize_with = "class_names")]
    pub classes: Vec<String>,
    /// Further names of the classes, by class index, which labels may use: WordNet ids, for
    /// example. Empty if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub aliases: Vec<Vec<String>>,
    /// How an image becomes the network's input.
    pub input: InputRule,
    /// What becomes of transparent pixels before that.
    #[serde(default, skip_serializing_if = "Transparency::is_default")]
    pub transparency: Transparency,
    /// Which layers were trained on the data set whose classes these are; absent if nobody said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trained_layers: Option<TrainedLayers>,
}

impl ModelConfig {
    /// Finds the classes that labels mean.
    #[must_use]
    pub fn label_matcher(&self) -> LabelMatcher {
        let ids = classes::wordnet_ids(&self.classes);
        let aliases: Vec<_> = (0..self.classes.len())
            .map(|index| {
                let id = ids.get(index).copied().flatten().map(str::to_owned);
                self.aliases.get(index).into_iter().flatten().cloned().chain(id).collect::<Vec<_>>()
            })
            .collect();
        let classes = self.classes.iter().zip(&aliases).enumerate();
        LabelMatcher::new(classes.map(|(index, (name, aliases))| NamedClass {
            index,
            name,
            aliases,
        }))
    }

    /// Finds a contradiction, and says what would be right.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        check_class_names(&self.classes)
            .map_err(|problem| format!("of its \"classes\", {problem}"))?;
        // The softmax of one number is 1, whatever the image.
        if let [only] = &self.classes[..] {
            return Err(format!(
                "its \"classes\" are only one class, {only:?}; every image would get it with \
                 probability 1. A model with a single output (a sigmoid) can't be run; train one \
                 with two classes"
            ));
        }
        self.check_input().map_err(str::to_owned)
    }

    fn check_input(&self) -> Result<(), &'static str> {
        let InputRule { height, width, resize, mean, std, .. } = &self.input;
        if !self.aliases.is_empty() && self.aliases.len() != self.classes.len() {
            return Err(
                "\"aliases\" has not one list of names for each class; write [] for a class \
                        that has none",
            );
        }
        // A ResNet halves the image five times. Beyond 4096 pixels a batch fits no device.
        if [height, width].into_iter().any(|side| !(32..=MAX_SIDE).contains(side)) {
            return Err("\"input\" is not between 32 and 4096 pixels a side");
        }
        let holds_crop = match *resize {
            Resize::Stretch => true,
            Resize::ShorterSide(side) => side >= *height.max(width) && side <= MAX_SIDE,
            Resize::StretchTo { height: high, width: wide } => {
                (*height..=MAX_SIDE).contains(&high) && (*width..=MAX_SIDE).contains(&wide)
            }
        };
        if !holds_crop {
            return Err("\"resize\" gives less than the input's height and width, or more than \
                        4096 pixels; the input is cut out of the middle of it");
        }
        if !mean.iter().all(|value| value.is_finite()) {
            return Err("\"mean\" is not finite; give the mean of each channel after scaling");
        }
        if !std.iter().all(|&value| value.is_finite() && value > 0.0) {
            return Err("\"std\" is not above zero; use 1 to leave a channel as it is");
        }
        Ok(())
    }
}

/// Largest side of an input, and of the resized image that it is cut out of.
const MAX_SIDE: usize = 4096;

/// Reads a list of names, or the name of a list.
fn class_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "\"classes\" is neither a list of names nor \"imagenet-1k\"")]
    enum ClassNames {
        Names(Vec<String>),
        List(NamedList),
    }
    #[derive(Deserialize)]
    enum NamedList {
        #[serde(rename = "imagenet-1k")]
        ImageNet1k,
    }
    Ok(match ClassNames::deserialize(deserializer)? {
        ClassNames::Names(names) => names,
        ClassNames::List(NamedList::ImageNet1k) => classes::imagenet_1k(),
    })
}

//! The options of an explanation: method, layer, target class, and how the overlay looks.
//!
//! They travel in every job and in `run.json`, so that producer and worker read the same words.
//! Does not compute maps: `camshaft-model` does. Upstream: the command line. Downstream:
//! [`job`](crate::job), [`run`](crate::run), the worker.

use std::fmt;
use std::ops::Not;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use strum::{EnumString, VariantArray};

/// Options of a run that change its results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainOptions {
    /// The CAM methods. Each makes one map for each layer and target class.
    pub method: Choices<Method>,
    /// The target layers. Each gets a map.
    pub layer: Choices<FusedLayers>,
    /// The target classes.
    pub target: Target,
    /// Colours of the heat map.
    pub colormap: Colormap,
    /// Opacity of the heat map over the image, 0 to 1.
    #[serde(deserialize_with = "unit_interval")]
    pub alpha: f32,
    /// File format of the overlay.
    pub overlay: OverlayFormat,
    /// Where the heat map is opaque. The field is absent if everywhere, as in older messages.
    #[serde(skip_serializing_if = "OverlayOpacity::is_constant", default)]
    pub overlay_style: OverlayOpacity,
    /// How large overlays are. It decides also the scale at which JPEGs are decoded. Always written: if
    /// it is absent, the message or record is of an older version, whose overlays had the size of their
    /// images.
    #[serde(default = "OverlaySize::of_older_versions")]
    pub overlay_size: OverlaySize,
    /// Whether results hold the whole embedding beside its sketch. The field is absent if not, as in
    /// older messages.
    #[serde(skip_serializing_if = "Not::not", default)]
    pub embeddings: bool,
}

impl Default for ExplainOptions {
    fn default() -> Self {
        Self {
            method: Choices::one(Method::GradCam),
            layer: Choices::one(TargetLayer::Stage(4).into()),
            target: Target::Top(1),
            colormap: Colormap::Jet,
            alpha: 0.4,
            overlay: OverlayFormat::Jpeg,
            overlay_style: OverlayOpacity::Constant,
            overlay_size: OverlaySize::default(),
            embeddings: false,
        }
    }
}

/// Checks the opacity: JSON can write numbers that no `f32` holds.
fn unit_interval<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    let share = f32::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&share) {
        return Ok(share);
    }
    Err(serde::de::Error::custom(format!("{share} is no number from 0 to 1")))
}

/// The text is not one of the known words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {} {what}; use {choices}", article(what))]
pub struct ParseChoiceError {
    what: &'static str,
    text: String,
    choices: String,
}

/// `a` or `an`, as the first letter of the words to come asks for.
fn article(words: &str) -> &'static str {
    if words.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// Serialises a type through `Display` and `FromStr`: JSON has the same words as the command line.
macro_rules! serialize_as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = ParseChoiceError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

mod layer;
mod overlay;

pub use layer::{FusedLayers, TargetLayer};
pub use overlay::{Colormap, OverlayFormat, OverlayOpacity, OverlaySize};

/// The error for a text that is not one of an enum's words.
fn unknown_word<T: VariantArray + fmt::Display>(
    what: &'static str,
    text: &str,
) -> ParseChoiceError {
    let words: Vec<_> = T::VARIANTS.iter().map(T::to_string).collect();
    ParseChoiceError { what, text: text.to_owned(), choices: words.join(", ") }
}

/// A class activation mapping method.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    EnumString,
    VariantArray,
)]
#[strum(serialize_all = "kebab-case", parse_err_ty = ParseChoiceError, parse_err_fn = unknown_method)]
#[serde(try_from = "String", into = "String")]
pub enum Method {
    /// Selvaraju et al. 2017, <https://arxiv.org/abs/1610.02391>.
    GradCam,
    /// Draelos and Carin 2020, <https://arxiv.org/abs/2011.08891>.
    #[strum(to_string = "hires-cam")]
    HiResCam,
    /// Chattopadhyay et al. 2018, <https://arxiv.org/abs/1710.11063>.
    #[strum(to_string = "grad-cam++")]
    GradCamPlusPlus,
    /// Fu et al. 2020, <https://arxiv.org/abs/2008.02312>.
    #[strum(to_string = "xgrad-cam")]
    XGradCam,
    /// Jiang et al. 2021, <https://doi.org/10.1109/TIP.2021.3089943>.
    LayerCam,
    /// Muhammad and Yeasin 2020, <https://arxiv.org/abs/2008.00299>.
    EigenCam,
    /// Eigen-CAM of the activations times their gradients, so that it tells classes apart.
    EigenGradCam,
    /// Wang et al. 2020, <https://arxiv.org/abs/1910.01279>.
    ScoreCam,
    /// Desai and Ramaswamy 2020, <https://doi.org/10.1109/WACV45572.2020.9093360>.
    AblationCam,
}
serialize_as_text!(Method);

impl Method {
    /// Every one, in the order of `--help`.
    pub const ALL: &[Self] = Self::VARIANTS;
}

fn unknown_method(text: &str) -> ParseChoiceError {
    unknown_word::<Method>("method", text)
}

/// A list of at least one value, none of them twice: `grad-cam,layer-cam`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Choices<T>(Vec<T>);

/// The most values in a list. A message with more is not read.
const MOST_CHOICES: usize = 32;

impl<T> Choices<T> {
    /// A list of one value.
    #[must_use]
    pub fn one(choice: T) -> Self {
        Self(vec![choice])
    }

    /// The values in the order given; at least one.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// The first value.
    #[must_use]
    pub fn first(&self) -> &T {
        &self.0[0]
    }

    /// The values in the order given.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

/// Parses a list of different values, separated by `separator`.
fn parse_list<T: FromStr<Err = ParseChoiceError> + PartialEq>(
    text: &str,
    separator: char,
) -> Result<Vec<T>, ParseChoiceError> {
    let mut list = Vec::new();
    for part in text.split(separator) {
        let choice = part.trim().parse()?;
        if list.contains(&choice) || list.len() == MOST_CHOICES {
            return Err(ParseChoiceError {
                what: "list of different choices",
                text: text.to_owned(),
                choices: format!("each one once, and at most {MOST_CHOICES}"),
            });
        }
        list.push(choice);
    }
    Ok(list)
}

/// Writes a list as [`parse_list`] reads it.
fn print_list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    list: &[T],
    separator: char,
) -> fmt::Result {
    for (index, choice) in list.iter().enumerate() {
        if index > 0 {
            write!(f, "{separator}")?;
        }
        choice.fmt(f)?;
    }
    Ok(())
}

impl<T: FromStr<Err = ParseChoiceError> + PartialEq> FromStr for Choices<T> {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_list(text, ',').map(Self)
    }
}

impl<T: fmt::Display> fmt::Display for Choices<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_list(f, &self.0, ',')
    }
}

impl<T: fmt::Display> Serialize for Choices<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T: FromStr<Err = ParseChoiceError> + PartialEq> Deserialize<'de> for Choices<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The target classes of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// The N most probable classes, and the image's label if it is another class of the model: an
    /// image that looks mislabelled gets both maps.
    Top(usize),
    /// The image's label, and the most probable class if it is another one. An image without a
    /// label fails.
    Label,
    /// One class by its name.
    Class(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top(1) => f.write_str("top1"),
            Self::Top(count) => write!(f, "top-{count}"),
            Self::Label => f.write_str("label"),
            Self::Class(name) => write!(f, "class:{name}"),
        }
    }
}

impl FromStr for Target {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseChoiceError {
            what: "target",
            text: text.to_owned(),
            choices: "top1, top-N, label or class:NAME".to_owned(),
        };
        if let Some(name) = text.strip_prefix("class:") {
            return if name.is_empty() { Err(error()) } else { Ok(Self::Class(name.to_owned())) };
        }
        if text == "label" {
            return Ok(Self::Label);
        }
        let count =
            text.strip_prefix("top-").or_else(|| text.strip_prefix("top")).ok_or_else(error)?;
        match count.parse() {
            Ok(count @ 1..) => Ok(Self::Top(count)),
            _ => Err(error()),
        }
    }
}
serialize_as_text!(Target);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_json() {
        let options =
            ExplainOptions { target: Target::Class("great dane".into()), ..Default::default() };
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(
            json,
            r#"{"method":"grad-cam","layer":"layer4","target":"class:great dane","colormap":"jet","alpha":0.4,"overlay":"jpeg","overlay_size":"2048"}"#
        );
        assert_eq!(serde_json::from_str::<ExplainOptions>(&json).unwrap(), options);
        let options =
            ExplainOptions { embeddings: true, overlay_style: OverlayOpacity::Heat, ..options };
        let json = serde_json::to_string(&options).unwrap();
        let end =
            r#""overlay":"jpeg","overlay_style":"heat","overlay_size":"2048","embeddings":true}"#;
        assert!(json.ends_with(end), "{json}");
        assert_eq!(serde_json::from_str::<ExplainOptions>(&json).unwrap(), options);
    }

    #[test]
    fn overlays_of_older_messages_are_as_large_as_their_images() {
        let older = r#"{"method":"grad-cam","layer":"layer4","target":"top1","colormap":"jet","alpha":0.4,"overlay":"jpeg"}"#;
        let options: ExplainOptions = serde_json::from_str(older).unwrap();
        assert_eq!(options.overlay_size, OverlaySize::Full);
        assert_ne!(options, ExplainOptions::default());
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<ExplainOptions>(&json).unwrap(), options);
    }

    #[test]
    fn overlay_sizes_are_pixels_of_the_longest_side_or_full() {
        for (text, size) in [("full", OverlaySize::Full), ("64", OverlaySize::AtMost(64))] {
            assert_eq!((text.parse(), size.to_string()), (Ok(size), text.to_owned()));
        }
        for text in ["", "63", "0", "-1", "+200", "65536", "99999999999", "2k", "Full", "1024px"] {
            let error = text.parse::<OverlaySize>().unwrap_err().to_string();
            let end =
                "is not an overlay size; use full, or the longest side in pixels, 64 to 65535";
            assert!(error.ends_with(end), "{error}");
        }
    }

    #[test]
    fn alpha_is_a_share_whatever_json_can_write() {
        let json = serde_json::to_string(&ExplainOptions::default()).unwrap();
        for alpha in ["-0.1", "1.1", "1e39", "null", "\"0.4\""] {
            let json = json.replace("0.4", alpha);
            assert!(serde_json::from_str::<ExplainOptions>(&json).is_err(), "{json}");
        }
    }

    #[test]
    fn several_methods_and_layers_survive_text() {
        let methods: Choices<Method> = "grad-cam, layer-cam,grad-cam++".parse().unwrap();
        assert_eq!(
            methods.as_slice(),
            [Method::GradCam, Method::LayerCam, Method::GradCamPlusPlus]
        );
        assert_eq!(methods.to_string(), "grad-cam,layer-cam,grad-cam++");
        let layers: Choices<FusedLayers> = "layer4.2.conv3,layer3+layer4".parse().unwrap();
        let fused = [TargetLayer::Stage(3), TargetLayer::Stage(4)];
        assert_eq!(layers.as_slice()[1].as_slice(), fused);
        assert_eq!(layers.to_string(), "layer4.2.conv3,layer3+layer4");
        for text in ["", "grad-cam,", "grad-cam,grad-cam", "cam"] {
            assert!(text.parse::<Choices<Method>>().is_err(), "{text:?} was taken");
        }
        assert!("layer4+layer4".parse::<FusedLayers>().is_err());
    }

    #[test]
    fn targets_parse_as_the_contract_writes_them() {
        assert_eq!("top1".parse(), Ok(Target::Top(1)));
        assert_eq!("top-5".parse(), Ok(Target::Top(5)));
        assert_eq!("label".parse(), Ok(Target::Label));
        assert_eq!("class:cat".parse(), Ok(Target::Class("cat".into())));
        for text in ["", "top", "top-0", "top-x", "class:", "cat"] {
            assert!(text.parse::<Target>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_wrong_word_is_answered_with_the_right_ones() {
        let error = "rainbow".parse::<Colormap>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"rainbow\" is not a colour map; use jet, turbo, viridis, inferno, magma"
        );
        let error = "tiff".parse::<OverlayFormat>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"tiff\" is not an overlay format; use jpeg, png, webp, none"
        );
    }
}

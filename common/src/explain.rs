//! What is asked of an explanation: method, layer, target class and how its overlay looks.
//!
//! Travels in every job and in `run.json`, so both sides read the same words. How a map
//! is computed is the worker's business.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Options of a run that change its results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainOptions {
    /// How the map is computed.
    pub method: Method,
    /// Whose output the map weighs.
    pub layer: TargetLayer,
    /// Which classes are explained.
    pub target: Target,
    /// Colours of the heat map.
    pub colormap: Colormap,
    /// Opacity of the heat map over the image, 0 to 1.
    pub alpha: f32,
    /// File format of the overlay.
    pub overlay: OverlayFormat,
}

impl Default for ExplainOptions {
    fn default() -> Self {
        Self {
            method: Method::GradCam,
            layer: TargetLayer::Stage(4),
            target: Target::Top(1),
            colormap: Colormap::Jet,
            alpha: 0.4,
            overlay: OverlayFormat::Jpeg,
        }
    }
}

/// A text that names none of the choices there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}; use {choices}")]
pub struct ParseChoiceError {
    what: &'static str,
    text: String,
    choices: String,
}

/// Serialises through the same words as the command line.
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

/// An enum of fixed words: parsing, printing and the list of its choices.
macro_rules! words {
    ($name:ident, $what:literal, $($variant:ident => $word:literal),+) => {
        impl $name {
            /// Every choice, in the order `--help` shows them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }
        impl FromStr for $name {
            type Err = ParseChoiceError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(ParseChoiceError {
                        what: $what,
                        text: text.to_owned(),
                        choices: [$($word),+].join(", "),
                    }),
                }
            }
        }
        serialize_as_text!($name);
    };
}

/// A class activation mapping method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Method {
    /// Selvaraju et al. 2017, <https://arxiv.org/abs/1610.02391>.
    GradCam,
}
words!(Method, "method", GradCam => "grad-cam");

/// Colours from low to high heat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Colormap {
    /// Blue, cyan, yellow, red: what Grad-CAM pictures usually wear.
    Jet,
    /// Mikhailov 2019: jet's order with even steps.
    Turbo,
    /// Matplotlib's perceptually uniform default.
    Viridis,
    /// Black, red, yellow, white.
    Inferno,
    /// Black, purple, white.
    Magma,
}
words!(Colormap, "colour map", Jet => "jet", Turbo => "turbo", Viridis => "viridis", Inferno => "inferno", Magma => "magma");

/// File format of an overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OverlayFormat {
    /// Small, lossy.
    Jpeg,
    /// Lossless.
    Png,
    /// Lossless, smaller than PNG.
    Webp,
    /// No overlay is written.
    None,
}
words!(OverlayFormat, "overlay format", Jpeg => "jpeg", Png => "png", Webp => "webp", None => "none");

impl OverlayFormat {
    /// File name extension without the dot; `None` where nothing is written.
    #[must_use]
    pub fn extension(self) -> Option<&'static str> {
        match self {
            Self::Jpeg => Some("jpg"),
            Self::Png => Some("png"),
            Self::Webp => Some("webp"),
            Self::None => None,
        }
    }

    /// Media type for the store; `None` where nothing is written.
    #[must_use]
    pub fn content_type(self) -> Option<&'static str> {
        match self {
            Self::Jpeg => Some("image/jpeg"),
            Self::Png => Some("image/png"),
            Self::Webp => Some("image/webp"),
            Self::None => None,
        }
    }
}

/// The layer whose output the map weighs: the output of a residual stage, after its ReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TargetLayer {
    /// `layer1` to `layer4`.
    Stage(u8),
}

impl fmt::Display for TargetLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Stage(stage) = self;
        write!(f, "layer{stage}")
    }
}

impl FromStr for TargetLayer {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "layer1" => Ok(Self::Stage(1)),
            "layer2" => Ok(Self::Stage(2)),
            "layer3" => Ok(Self::Stage(3)),
            "layer4" => Ok(Self::Stage(4)),
            _ => Err(ParseChoiceError {
                what: "target layer",
                text: text.to_owned(),
                choices: "layer1, layer2, layer3, layer4".to_owned(),
            }),
        }
    }
}
serialize_as_text!(TargetLayer);

/// Which classes get an explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// The N most probable classes.
    Top(usize),
    /// The image's given label.
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
            r#"{"method":"grad-cam","layer":"layer4","target":"class:great dane","colormap":"jet","alpha":0.4,"overlay":"jpeg"}"#
        );
        assert_eq!(serde_json::from_str::<ExplainOptions>(&json).unwrap(), options);
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
    }
}

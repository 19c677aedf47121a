//! How an overlay looks: its colours, its file format, its size, and where its heat map is opaque.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use strum::{EnumString, VariantArray};

use super::{ParseChoiceError, unknown_word};

/// Colours from low to high heat.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    EnumString,
    VariantArray,
)]
#[strum(serialize_all = "kebab-case", parse_err_ty = ParseChoiceError, parse_err_fn = unknown_colormap)]
#[serde(try_from = "String", into = "String")]
pub enum Colormap {
    /// Blue, cyan, yellow, red: the usual colours of Grad-CAM pictures.
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
serialize_as_text!(Colormap);

impl Colormap {
    /// Every one, in the order of `--help`.
    pub const ALL: &[Self] = Self::VARIANTS;
}

fn unknown_colormap(text: &str) -> ParseChoiceError {
    unknown_word::<Colormap>("colour map", text)
}

/// File format of an overlay.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    EnumString,
    VariantArray,
)]
#[strum(serialize_all = "kebab-case", parse_err_ty = ParseChoiceError, parse_err_fn = unknown_overlayformat)]
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
serialize_as_text!(OverlayFormat);

fn unknown_overlayformat(text: &str) -> ParseChoiceError {
    unknown_word::<OverlayFormat>("overlay format", text)
}

impl OverlayFormat {
    /// File name extension without the dot; `None` if no overlay is written.
    #[must_use]
    pub fn extension(self) -> Option<&'static str> {
        match self {
            Self::Jpeg => Some("jpg"),
            Self::Png => Some("png"),
            Self::Webp => Some("webp"),
            Self::None => None,
        }
    }

    /// Media type for the store; `None` if no overlay is written.
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

/// Where an overlay's heat map is opaque.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    EnumString,
    VariantArray,
)]
#[strum(serialize_all = "kebab-case", parse_err_ty = ParseChoiceError, parse_err_fn = unknown_overlay_style)]
#[serde(try_from = "String", into = "String")]
pub enum OverlayOpacity {
    /// Everywhere the same.
    #[default]
    Constant,
    /// As opaque as it is hot: what is cold stays the photograph.
    Heat,
}
serialize_as_text!(OverlayOpacity);

impl OverlayOpacity {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn is_constant(&self) -> bool {
        *self == Self::Constant
    }
}

fn unknown_overlay_style(text: &str) -> ParseChoiceError {
    unknown_word::<OverlayOpacity>("overlay style", text)
}

/// How large overlays are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OverlaySize {
    /// As large as their images.
    Full,
    /// Reduced to at most this many pixels on the longer side. Smaller images keep their own size.
    AtMost(u32),
}
serialize_as_text!(OverlaySize);

impl OverlaySize {
    /// The least that can be asked for, in pixels. On less nobody sees what the model looked at.
    pub const SMALLEST: u32 = 64;
    /// The most that can be asked for: the longest side that the format JPEG has.
    pub const LARGEST: u32 = 65_535;

    /// The size that overlays have had in messages and records without a field for it.
    pub(super) fn of_older_versions() -> Self {
        Self::Full
    }
}

impl Default for OverlaySize {
    /// As many pixels as a screen is wide.
    fn default() -> Self {
        Self::AtMost(2048)
    }
}

impl fmt::Display for OverlaySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::AtMost(pixels) => pixels.fmt(f),
        }
    }
}

impl FromStr for OverlaySize {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "full" {
            return Ok(Self::Full);
        }
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(pixels @ Self::SMALLEST..=Self::LARGEST) if is_digits => Ok(Self::AtMost(pixels)),
            _ => Err(ParseChoiceError {
                what: "overlay size",
                text: text.to_owned(),
                choices: format!(
                    "full, or the longest side in pixels, {} to {}",
                    Self::SMALLEST,
                    Self::LARGEST
                ),
            }),
        }
    }
}

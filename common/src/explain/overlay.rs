//! How an overlay looks: its colours, its file format, and where its heat map is opaque.

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

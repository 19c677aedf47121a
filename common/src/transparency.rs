//! What becomes of a picture's transparency.
//!
//! Owns the words of a model's `config.json`. Upstream: the model's configuration. Downstream:
//! decoding, in the worker and where models are trained.

use serde::{Deserialize, Serialize};

/// What becomes of a picture's transparency before the network sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transparency {
    /// Blends the colours over white, as a browser shows them on a white page.
    #[default]
    OverWhite,
    /// Takes the colours as if all were opaque, the hidden ones too. A model sees that if it was
    /// trained with Pillow's `convert("RGB")`, as torchvision's data sets do.
    Ignore,
}

impl Transparency {
    /// True for the default, which is not written.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

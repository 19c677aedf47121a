//! Measures that a worker records of an image beside its prediction. From them a report finds
//! duplicates, outliers and poor pictures without reading an image again.
//!
//! Owns the fields and their text form. Does not compute them: `camshaft-vision` and
//! `camshaft-model` do.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::finite::finite;

/// The measures that this version takes. Version 1 had none of the optional ones, and its records no
/// `version` and no camera.
pub const MEASURES_VERSION: u32 = 2;

/// Measures of an image's pixels.
///
/// Brightness is BT.601 luma, 0 black to 1 white, of the picture averaged down by a whole factor
/// to a shorter side of 256 to 511 pixels (smaller ones as they are; long and thin ones to a
/// longer side of 8192 at most), so that numbers compare across resolutions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageMeasures {
    /// The [`MEASURES_VERSION`] of the worker that took them; absent from JSON if it is 1.
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pub version: u32,
    /// Mean brightness.
    #[serde(deserialize_with = "finite")]
    pub brightness: f32,
    /// Standard deviation of brightness.
    #[serde(deserialize_with = "finite")]
    pub contrast: f32,
    /// 5th percentile of brightness.
    #[serde(deserialize_with = "finite")]
    pub dark_percentile: f32,
    /// 95th percentile of brightness.
    #[serde(deserialize_with = "finite")]
    pub bright_percentile: f32,
    /// Entropy of brightness in 256 steps, divided by 8 bits: 0 if all pixels have one shade, 1 if
    /// all shades are equally frequent.
    #[serde(deserialize_with = "finite")]
    pub information: f32,
    /// Blur effect (Crete et al. 2007, <https://hal.science/hal-00232709>), as scikit-image
    /// computes it: 0 sharp, 1 blurred. It is 1 if there is no edge along an axis, and 0 if a side has
    /// less than 4 pixels.
    #[serde(deserialize_with = "finite")]
    pub blur: f32,
    /// Mean difference of the largest and the smallest of red, green and blue, 0 to 1: 0 grey.
    #[serde(deserialize_with = "finite")]
    pub chroma: f32,
    /// A hash that is similar for pictures that look alike.
    pub perceptual_hash: PerceptualHash,
    /// Bars of one colour around the picture: how far they reach inwards from the left, top, right and
    /// lower edge, as shares of width and height. All 1 if the whole picture has one colour. Since
    /// version 2.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "finite")]
    pub border: Option<[f32; 4]>,
    /// How much stronger the steps of brightness are on the grid of a JPEG's blocks, every eighth
    /// pixel, than beside it: their mean divided by that of the others, of the weaker axis, less 1.
    /// Since version 2.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "finite")]
    pub blocking: Option<f32>,
}

fn first_version() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_first_version(version: &u32) -> bool {
    *version == first_version()
}

impl ImageMeasures {
    /// The share of the picture's area that is border: 0 none, 1 all.
    #[must_use]
    pub fn border_share(&self) -> Option<f32> {
        self.border.map(|[left, top, right, bottom]| {
            let [across, down] = [left + right, top + bottom].map(|bars| (1.0 - bars).max(0.0));
            1.0 - across * down
        })
    }
}

/// The signs of a picture's lowest 8 × 8 frequencies (pHash): pictures that look alike differ in
/// few bits. The highest bit, the mean's, is never set. Sixteen hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PerceptualHash(pub u64);

impl PerceptualHash {
    /// The hash of the picture's mirror image, left and right swapped, to a bit or two: mirroring
    /// changes the sign of the waves with an odd horizontal frequency.
    #[must_use]
    pub fn mirrored(self) -> Self {
        Self(self.0 ^ 0x5555_5555_5555_5555)
    }
}

impl fmt::Display for PerceptualHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<PerceptualHash> for String {
    fn from(hash: PerceptualHash) -> Self {
        hash.to_string()
    }
}

/// The text is not a perceptual hash, or not numbers in base64.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct ParseMeasureError {
    text: String,
    what: &'static str,
}

impl TryFrom<String> for PerceptualHash {
    type Error = ParseMeasureError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(&text, 16) {
            Ok(hash) if digits => Ok(Self(hash)),
            _ => Err(ParseMeasureError { text, what: "sixteen hexadecimal digits" }),
        }
    }
}

/// Numbers in a sketch of an embedding.
pub const SKETCH_NUMBERS: usize = 128;

/// The last stage's output averaged over space (of a model with a flattening head too).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// Channels.
    pub dimensions: usize,
    /// The factor of [`Self::sketch`]'s numbers.
    #[serde(deserialize_with = "finite")]
    pub scale: f32,
    /// The embedding times a fixed random matrix of signs, divided by the square root of
    /// [`SKETCH_NUMBERS`]: distances and angles are kept to about a tenth (Johnson and
    /// Lindenstrauss). Base64 of signed bytes.
    pub sketch: Sketch,
    /// The whole embedding, if `--embeddings` asks for it. Base64 of little-endian half precision
    /// numbers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub values: Option<HalfNumbers>,
}

/// Signed bytes, in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sketch(pub Box<[i8; SKETCH_NUMBERS]>);

impl From<Sketch> for String {
    fn from(sketch: Sketch) -> Self {
        BASE64.encode(sketch.0.map(i8::cast_unsigned))
    }
}

impl TryFrom<String> for Sketch {
    type Error = ParseMeasureError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = BASE64.decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
        match bytes {
            Some(bytes) => Ok(Self(Box::new(<[u8; SKETCH_NUMBERS]>::map(bytes, u8::cast_signed)))),
            None => Err(ParseMeasureError { text, what: "128 bytes in base64" }),
        }
    }
}

/// Little-endian half precision numbers (IEEE 754 binary16), in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HalfNumbers(pub Vec<[u8; 2]>);

impl From<HalfNumbers> for String {
    fn from(numbers: HalfNumbers) -> Self {
        BASE64.encode(numbers.0.as_flattened())
    }
}

impl TryFrom<String> for HalfNumbers {
    type Error = ParseMeasureError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = BASE64.decode(&text).unwrap_or_default();
        match bytes.as_chunks() {
            (numbers, []) if !numbers.is_empty() => Ok(Self(numbers.to_vec())),
            _ => Err(ParseMeasureError { text, what: "half precision numbers in base64" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_sketches_and_embeddings_survive_json() {
        let mut sketch = [0; SKETCH_NUMBERS];
        (sketch[0], sketch[127]) = (-128, 127);
        let embedding = Embedding {
            dimensions: 2,
            scale: 0.5,
            sketch: Sketch(Box::new(sketch)),
            values: Some(HalfNumbers(vec![[0, 0x3c], [1, 2]])),
        };
        let text = serde_json::to_string(&embedding).unwrap();
        assert_eq!(serde_json::from_str::<Embedding>(&text).unwrap(), embedding);
        let hash = PerceptualHash(0x00ab_0000_0000_0001);
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(text, "\"00ab000000000001\"");
        assert_eq!(serde_json::from_str::<PerceptualHash>(&text).unwrap(), hash);
    }

    #[test]
    fn what_is_none_of_them_is_refused() {
        for text in ["\"\"", "\"+0ab000000000001\"", "\"00ab\"", "7"] {
            assert!(serde_json::from_str::<PerceptualHash>(text).is_err(), "{text}");
        }
        for text in ["\"\"", "\"AAAA\"", "\"?\""] {
            assert!(serde_json::from_str::<Sketch>(text).is_err(), "{text}");
        }
        for text in ["\"\"", "\"AAAA\"", "\"?\""] {
            assert!(serde_json::from_str::<HalfNumbers>(text).is_err(), "{text}");
        }
    }
}

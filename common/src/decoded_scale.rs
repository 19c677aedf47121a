//! The scale at which a picture was decoded, and where its image then lies in the pixels.
//!
//! A JPEG can be decoded at a half, a quarter or an eighth of its size, for less time and memory. Owns
//! the words in records, and the geometry. Does not decode, and does not choose a scale. Upstream:
//! `camshaft-decoding`. Downstream: `camshaft-vision`, which chooses the scale and reads the pixels;
//! [`prediction`](crate::prediction).

use serde::{Deserialize, Serialize};

/// The width and height of a decoded picture, as a share of its file's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DecodedScale {
    /// Every pixel of the file. Records do not name it.
    #[default]
    #[serde(rename = "1")]
    Full,
    /// One pixel for 2 × 2.
    #[serde(rename = "1/2")]
    Half,
    /// One pixel for 4 × 4.
    #[serde(rename = "1/4")]
    Quarter,
    /// One pixel for 8 × 8.
    #[serde(rename = "1/8")]
    Eighth,
}

impl DecodedScale {
    /// Those that are not the full size, the smallest first.
    pub const REDUCED: [Self; 3] = [Self::Eighth, Self::Quarter, Self::Half];

    /// The word in records and tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "1",
            Self::Half => "1/2",
            Self::Quarter => "1/4",
            Self::Eighth => "1/8",
        }
    }

    /// How many pixels of the file a decoded pixel is wide and high.
    #[must_use]
    pub fn divisor(self) -> u32 {
        match self {
            Self::Full => 1,
            Self::Half => 2,
            Self::Quarter => 4,
            Self::Eighth => 8,
        }
    }

    /// The decoded width and height of a file's. A part of a pixel becomes a whole one.
    #[must_use]
    pub fn reduce(self, (width, height): (u32, u32)) -> (u32, u32) {
        (width.div_ceil(self.divisor()), height.div_ceil(self.divisor()))
    }

    /// True for the full size.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

/// Where an upright image lies in its decoded pixels. If its sides are not multiples of the scale's
/// divisor, the pixels at two edges reach beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedFrame {
    /// Width and height of the image in the file's pixels.
    pub size: (u32, u32),
    /// The scale of the decoded pixels.
    pub scale: DecodedScale,
    /// How far the decoded pixels begin before the image's left and upper edge, in the file's pixels.
    /// Less than the divisor.
    pub margin: (u32, u32),
}

impl DecodedFrame {
    /// An image of which every pixel was decoded.
    #[must_use]
    pub fn full(size: (u32, u32)) -> Self {
        Self { size, scale: DecodedScale::Full, margin: (0, 0) }
    }

    /// The image's left and upper edge, and its width and height, in decoded pixels.
    #[must_use]
    pub fn in_decoded_pixels(&self) -> [f64; 4] {
        let [left, top, width, height] =
            [self.margin.0, self.margin.1, self.size.0, self.size.1].map(f64::from);
        let divisor = f64::from(self.scale.divisor());
        [left / divisor, top / divisor, width / divisor, height / divisor]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_fractions_in_records() {
        let [full, half] = [DecodedScale::Full, DecodedScale::Half];
        assert_eq!(serde_json::to_value([full, half]).unwrap(), serde_json::json!(["1", "1/2"]));
        for scale in DecodedScale::REDUCED {
            let word = format!("1/{}", scale.divisor());
            assert_eq!(serde_json::to_value(scale).unwrap(), word);
            assert_eq!(scale.word(), word);
        }
        assert!(serde_json::from_str::<DecodedScale>("\"1/3\"").is_err());
    }

    #[test]
    fn an_image_need_not_fill_its_decoded_pixels() {
        let scale = DecodedScale::Quarter;
        assert_eq!(scale.reduce((4032, 3021)), (1008, 756));
        let turned = DecodedFrame { size: (3021, 4032), scale, margin: (3, 0) };
        assert_eq!(turned.in_decoded_pixels(), [0.75, 0.0, 755.25, 1008.0]);
    }
}

//! The input rule: how a model's input is made from pixels. It is a part of the model's
//! `config.json`.
//!
//! Does not apply the rule: [`input`](super) does.

use serde::{Deserialize, Serialize};

/// How an image becomes a `[3, height, width]` tensor: resized, scaled, then
/// `(value - mean) / std` for each channel.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct InputRule {
    /// Input height in pixels.
    pub height: usize,
    /// Input width in pixels.
    pub width: usize,
    /// How the image's size becomes the input's.
    pub resize: Resize,
    /// How pixels are interpolated.
    pub interpolation: Interpolation,
    /// How bytes become numbers.
    pub scale: Scale,
    /// Subtracted from each channel after scaling, in the order of `color`.
    pub mean: [f32; 3],
    /// Divides each channel after the subtraction, in the order of `color`.
    pub std: [f32; 3],
    /// Order of the channels.
    pub color: ChannelOrder,
}

impl InputRule {
    /// The rule for a square input of `side` pixels. The image that it is cut from changes in
    /// proportion, so that the network sees the same part of it.
    #[must_use]
    pub fn with_side(&self, side: usize) -> Self {
        let scaled = |pixels: usize, old: usize| (pixels * side).div_ceil(old.max(1));
        let resize = match self.resize {
            Resize::Stretch => Resize::Stretch,
            Resize::ShorterSide(pixels) => {
                Resize::ShorterSide(scaled(pixels, self.height.max(self.width)))
            }
            Resize::StretchTo { height, width } => Resize::StretchTo {
                height: scaled(height, self.height),
                width: scaled(width, self.width),
            },
        };
        Self { height: side, width: side, resize, ..self.clone() }
    }
}

/// How an image's size becomes the input's. If the resized image is larger than the input, the
/// input is cropped from its middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// Resizes both sides to the input's. The aspect ratio may change.
    Stretch,
    /// Resizes the shorter side to this number of pixels, and the other in proportion:
    /// torchvision's `Resize(side)` and `CenterCrop`. In a file `{"shorter-side": 256}`.
    ShorterSide(usize),
    /// Resizes both sides to a size larger than the input. In a file
    /// `{"stretch-to": {"height": 256, "width": 256}}`.
    StretchTo {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

/// How pixels are interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// Pillow's `BILINEAR`: a triangle filter, widened by the scale when shrinking.
    BilinearAntialiased,
    /// Pillow's `BICUBIC`: Keys' cubic with a = -0.5, widened by the scale when shrinking.
    BicubicAntialiased,
    /// Pillow's `LANCZOS`: three lobes, widened by the scale when shrinking.
    LanczosAntialiased,
}

/// How bytes become numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Scale {
    /// Divides by 255: 0 to 1.
    #[serde(rename = "1/255")]
    ByteToUnit,
    /// Keeps 0 to 255: Keras' "caffe" preprocessing.
    #[serde(rename = "1")]
    Byte,
}

/// Order of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red: Keras' "caffe" preprocessing.
    Bgr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_of_another_size_is_cut_from_an_image_of_another_size() {
        let rule = |side, resize| InputRule {
            height: side,
            width: side,
            resize,
            interpolation: Interpolation::BilinearAntialiased,
            scale: Scale::ByteToUnit,
            mean: [0.0; 3],
            std: [1.0; 3],
            color: ChannelOrder::Rgb,
        };
        let to = |height, width| Resize::StretchTo { height, width };
        for (old, new) in [
            (Resize::Stretch, Resize::Stretch),
            (Resize::ShorterSide(256), Resize::ShorterSide(74)),
            (to(256, 240), to(74, 69)),
        ] {
            assert_eq!(rule(224, old).with_side(64), rule(64, new));
            assert_eq!(rule(224, old).with_side(224), rule(224, old));
        }
    }
}

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

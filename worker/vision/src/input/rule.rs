//! The input rule: how a model wants its input made from pixels. A part of its `config.json`.

use serde::{Deserialize, Serialize};

/// How an image becomes a `[3, height, width]` tensor: resized, scaled, then
/// `(value - mean) / std` for each channel.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct InputRule {
    /// Input height in pixels.
    pub height: usize,
    /// Input width in pixels.
    pub width: usize,
    /// How the image's shape becomes the input's.
    pub resize: Resize,
    /// How pixels are interpolated.
    pub interpolation: Interpolation,
    /// From bytes to numbers.
    pub scale: Scale,
    /// Subtracted from each channel after scaling, in the order of `color`.
    pub mean: [f32; 3],
    /// Divides each channel after that, in the order of `color`.
    pub std: [f32; 3],
    /// Order of the channels.
    pub color: ChannelOrder,
}

/// How an image's shape becomes the input's. Where more comes of it than the input, that is
/// cut out of the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// Both sides to the input's, whatever the aspect ratio.
    Stretch,
    /// The shorter side to so many pixels, the other in proportion: torchvision's
    /// `Resize(side)` and `CenterCrop`. In a file `{"shorter-side": 256}`.
    ShorterSide(usize),
    /// Both sides to a size above the input's. In a file
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
    /// Pillow's `BILINEAR`: a triangle filter as wide as the scale when shrinking.
    BilinearAntialiased,
    /// Pillow's `BICUBIC`: Keys' cubic with a = -0.5, as wide as the scale when shrinking.
    BicubicAntialiased,
    /// Pillow's `LANCZOS`: three lobes, as wide as the scale when shrinking.
    LanczosAntialiased,
}

/// From bytes to numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Scale {
    /// 0..255 to 0..1.
    #[serde(rename = "1/255")]
    ByteToUnit,
    /// 0..255 as they are: Keras' "caffe" preprocessing.
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

//! A batch's images as callers give them: scaled values, or bytes that the stem scales while it copies
//! them. Does not convert them: [`stem`](crate::stem) does.

/// The value of each byte in each of the input's channels.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelValues {
    /// By the input's channel, then by byte.
    pub values: [[f32; 256]; 3],
    /// The image's channel for each of the input's channels, 0 to 2.
    pub sources: [usize; 3],
}

/// The images of a batch, one after the other.
#[derive(Clone, Copy, Debug)]
pub enum BatchInput<'a> {
    /// Scaled values, `[N, 3, H, W]`.
    Values(&'a [f32]),
    /// Bytes, `[N, H, W, 3]`.
    Pixels {
        /// The bytes.
        bytes: &'a [u8],
        /// What each byte means.
        values: &'a PixelValues,
    },
}

impl<'a> BatchInput<'a> {
    /// Values of all images together, one for each byte.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Values(values) => values.len(),
            Self::Pixels { bytes, .. } => bytes.len(),
        }
    }

    /// The first `count` values, and the others.
    pub(crate) fn split_at(self, count: usize) -> (Self, Self) {
        match self {
            Self::Values(all) => {
                let (first, rest) = all.split_at(count);
                (Self::Values(first), Self::Values(rest))
            }
            Self::Pixels { bytes, values } => {
                let (first, rest) = bytes.split_at(count);
                (Self::Pixels { bytes: first, values }, Self::Pixels { bytes: rest, values })
            }
        }
    }

    /// The scaled value of a channel at a pixel of a single image of `pixels` pixels.
    pub(crate) fn value(self, channel: usize, pixel: usize, pixels: usize) -> f32 {
        match self {
            Self::Values(values) => values[channel * pixels + pixel],
            Self::Pixels { bytes, values: PixelValues { values, sources } } => {
                values[channel][usize::from(bytes[3 * pixel + sources[channel]])]
            }
        }
    }

    /// The values of one image, of `count` values each.
    pub(crate) fn image(self, index: usize, count: usize) -> Self {
        self.split_at(index * count).1.split_at(count).0
    }
}

/// The smallest height and width of images.
pub const SMALLEST_SIDE: usize = 32;

/// The sizes of a batch: `[images, 3, height, width]` values, or as many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Number of images.
    pub images: usize,
    /// Rows of an image, at least [`SMALLEST_SIDE`].
    pub height: usize,
    /// Columns of an image, at least [`SMALLEST_SIDE`].
    pub width: usize,
}

impl BatchShape {
    /// Values of an image.
    pub(crate) fn image_values(self) -> usize {
        3 * self.height * self.width
    }
}

//! Mixes an image's pixels with the colours of heat levels in RGB, for lossless files. Does not know
//! where heat lies or how files are encoded.

use camshaft_common::explain::OverlayOpacity;

use crate::colormap::ColorTable;

/// The colours' weight at each level.
pub(super) fn weights_by_level(alpha: f32, opacity: OverlayOpacity) -> [f64; 256] {
    let alpha = f64::from(alpha.clamp(0.0, 1.0));
    std::array::from_fn(|level| match opacity {
        OverlayOpacity::Constant => alpha,
        OverlayOpacity::Heat => alpha * level as f64 / 255.0,
    })
}

/// `(1 - alpha) * pixel + alpha * colour` in RGB, rounded to nearest.
pub(super) struct RgbBlend {
    /// The pixel's weight, for each level.
    image: [u32; 256],
    /// The colour's term and the rounding, for each level.
    colors: [[u32; 3]; 256],
}

impl RgbBlend {
    /// Bits of fraction. A weight's own rounding is multiplied by up to 255.
    const BITS: u32 = 22;

    pub(super) fn new(alpha: f32, opacity: OverlayOpacity, colors: &ColorTable) -> Self {
        const ONE: f64 = (1 << RgbBlend::BITS) as f64;
        const HALF: u32 = 1 << (RgbBlend::BITS - 1);
        let weights = weights_by_level(alpha, opacity);
        let term = |level: usize, value: u8| (weights[level] * f64::from(value) * ONE).round();
        Self {
            image: weights.map(|weight| ((1.0 - weight) * ONE).round() as u32),
            colors: std::array::from_fn(|level| {
                colors[level].map(|channel| term(level, channel) as u32 + HALF)
            }),
        }
    }

    pub(super) fn apply(&self, pixel: &mut [u8; 3], level: u16) {
        let (image, color) = (self.image[usize::from(level)], &self.colors[usize::from(level)]);
        for (channel, color) in pixel.iter_mut().zip(color) {
            *channel = ((image * u32::from(*channel) + color) >> Self::BITS) as u8;
        }
    }
}

//! Average drop and average increase in confidence: Chattopadhyay et al. 2018, Grad-CAM++,
//! <https://arxiv.org/abs/1710.11063>, section 4.1.
//!
//! `Y` is the probability of the class for the whole image, `O` the probability for the image times
//! its map. An image's drop is `max(0, Y - O) / Y`; it counts as an increase if `O > Y`. The
//! average drop is the mean of the drops, the average increase the share of increases. The paper
//! gives both in percent.
//!
//! Downstream: [`measure`](crate::measure).

use super::pixels::{InputImage, PixelHeat};

/// One image's drop and increase in confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfidenceDrop {
    /// Lost share of the probability, 0 to 1.
    pub drop: f64,
    /// True if the probability rose.
    pub increased: bool,
}

impl ConfidenceDrop {
    /// Compares the class's probability for the whole image with that for its explanation map.
    #[must_use]
    pub fn new(whole: f32, explained: f32) -> Self {
        let (whole, explained) = (f64::from(whole), f64::from(explained));
        // A probability of zero can't drop.
        let drop = if whole > 0.0 { (whole - explained).max(0.0) / whole } else { 0.0 };
        Self { drop, increased: explained > whole }
    }
}

/// The paper's explanation map: the image `[3, H, W]`, each pixel times its heat.
#[must_use]
pub fn explanation_map(pixels: &InputImage, heat: &PixelHeat) -> Vec<f32> {
    let planes = pixels.values.chunks(pixels.plane());
    planes.flat_map(|plane| plane.iter().zip(&heat.values).map(|(v, heat)| v * heat)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_and_increase_by_hand() {
        assert_eq!(
            ConfidenceDrop::new(0.75, 0.5625),
            ConfidenceDrop { drop: 0.25, increased: false }
        );
        assert_eq!(ConfidenceDrop::new(0.5, 0.75), ConfidenceDrop { drop: 0.0, increased: true });
        assert_eq!(ConfidenceDrop::new(0.5, 0.5), ConfidenceDrop { drop: 0.0, increased: false });
        assert_eq!(ConfidenceDrop::new(0.0, 0.0), ConfidenceDrop { drop: 0.0, increased: false });
    }

    #[test]
    fn every_channel_is_weighed_by_the_heat() {
        let pixels =
            InputImage { height: 1, width: 2, values: vec![0.5, 1.0, 0.25, 0.5, 1.0, 0.0] };
        let heat = PixelHeat { values: vec![0.0, 0.5], order: vec![1, 0] };
        assert_eq!(explanation_map(&pixels, &heat), [0.0, 0.5, 0.0, 0.25, 0.0, 0.0]);
    }
}

//! Average drop and average increase in confidence: Chattopadhyay et al. 2018, Grad-CAM++,
//! <https://arxiv.org/abs/1710.11063>, section 4.1.
//!
//! With `Y` the probability of the class for the whole image and `O` that for the image times
//! its map, an image's drop is `max(0, Y - O) / Y`, and it counts as an increase where `O > Y`.
//! The average drop is the mean of the drops, the average increase the share of increases; the
//! paper gives both in percent.

use super::pixels::{Heat, Pixels};

/// What one image adds to both averages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drop {
    /// Share of the probability lost, 0 to 1.
    pub drop: f64,
    /// Whether the probability rose.
    pub increased: bool,
}

/// The image that only shows what is hot: `[3, H, W]`, each pixel times its heat.
#[must_use]
pub fn explanation_map(pixels: &Pixels, heat: &Heat) -> Vec<f32> {
    let planes = pixels.values.chunks(pixels.plane());
    planes.flat_map(|plane| plane.iter().zip(&heat.values).map(|(v, heat)| v * heat)).collect()
}

/// From the class's probability for the whole image and for its explanation map.
#[must_use]
pub fn drop(whole: f32, explained: f32) -> Drop {
    let (whole, explained) = (f64::from(whole), f64::from(explained));
    // A class the network is sure not to see has nothing to lose.
    let drop = if whole > 0.0 { (whole - explained).max(0.0) / whole } else { 0.0 };
    Drop { drop, increased: explained > whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_and_increase_by_hand() {
        assert_eq!(drop(0.75, 0.5625), Drop { drop: 0.25, increased: false });
        assert_eq!(drop(0.5, 0.75), Drop { drop: 0.0, increased: true });
        assert_eq!(drop(0.5, 0.5), Drop { drop: 0.0, increased: false });
        assert_eq!(drop(0.0, 0.0), Drop { drop: 0.0, increased: false });
    }

    #[test]
    fn every_channel_is_weighed_by_the_heat() {
        let pixels = Pixels { height: 1, width: 2, values: vec![0.5, 1.0, 0.25, 0.5, 1.0, 0.0] };
        let heat = Heat { values: vec![0.0, 0.5], order: vec![1, 0] };
        assert_eq!(explanation_map(&pixels, &heat), [0.0, 0.5, 0.0, 0.25, 0.0, 0.0]);
    }
}

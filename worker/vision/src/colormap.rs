//! Turns heat into colours.
//!
//! Owns the colour tables. Does not blend. Upstream: the colour map of the run. Downstream:
//! `overlay`.

use std::sync::LazyLock;

use camshaft_common::explain::Colormap;
use colorous::Gradient;

/// Colours of 256 levels of heat, the coldest first.
pub type ColorTable = [[u8; 3]; 256];

/// The colours of a colour map, computed once.
#[must_use]
pub fn color_table(colormap: Colormap) -> &'static ColorTable {
    static JET: LazyLock<ColorTable> = LazyLock::new(|| std::array::from_fn(jet));
    static TURBO: LazyLock<ColorTable> = LazyLock::new(|| sampled(colorous::TURBO));
    static VIRIDIS: LazyLock<ColorTable> = LazyLock::new(|| sampled(colorous::VIRIDIS));
    static INFERNO: LazyLock<ColorTable> = LazyLock::new(|| sampled(colorous::INFERNO));
    static MAGMA: LazyLock<ColorTable> = LazyLock::new(|| sampled(colorous::MAGMA));
    match colormap {
        Colormap::Jet => &JET,
        Colormap::Turbo => &TURBO,
        Colormap::Viridis => &VIRIDIS,
        Colormap::Inferno => &INFERNO,
        Colormap::Magma => &MAGMA,
    }
}

fn sampled(gradient: Gradient) -> ColorTable {
    std::array::from_fn(|level| gradient.eval_rational(level, 256).into_array())
}

/// MATLAB's `jet` as a formula: each channel is a trapezoid of height 1 and slope 4, centred at 3/4
/// for red, 1/2 for green and 1/4 for blue. OpenCV's `COLORMAP_JET` differs only by rounding;
/// Matplotlib's `jet` has other corners.
fn jet(level: usize) -> [u8; 3] {
    let heat = level as f32 / 255.0;
    [3.0, 2.0, 1.0].map(|center| {
        let value = (1.5 - (4.0 * heat - center).abs()).clamp(0.0, 1.0);
        (value * 255.0).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(colormap: Colormap, reference: [[u8; 3]; 5]) {
        let table = color_table(colormap);
        for (level, color) in [0, 64, 128, 192, 255].into_iter().zip(reference) {
            let close = table[level].iter().zip(color).all(|(a, b)| a.abs_diff(b) <= 1);
            assert!(close, "{colormap} at {level}: {:?} is not {color:?}", table[level]);
        }
    }

    /// `cv2.applyColorMap(levels, cv2.COLORMAP_JET)[:, 0, ::-1]`, OpenCV 4.
    #[test]
    fn jet_is_opencvs() {
        assert_close(
            Colormap::Jet,
            [[0, 0, 128], [0, 128, 255], [130, 255, 126], [255, 124, 0], [128, 0, 0]],
        );
    }

    /// `matplotlib.colormaps[name](levels, bytes=True)[:, :3]`, Matplotlib 3.
    #[test]
    fn uniform_maps_are_matplotlibs() {
        assert_close(
            Colormap::Viridis,
            [[68, 1, 84], [58, 82, 139], [32, 144, 140], [94, 201, 97], [253, 231, 36]],
        );
        assert_close(
            Colormap::Inferno,
            [[0, 0, 3], [87, 15, 109], [187, 55, 84], [249, 142, 8], [252, 254, 164]],
        );
        assert_close(
            Colormap::Magma,
            [[0, 0, 3], [80, 18, 123], [182, 54, 121], [251, 136, 97], [251, 252, 191]],
        );
    }

    #[test]
    fn turbo_goes_from_blue_over_green_to_red() {
        let table = color_table(Colormap::Turbo);
        let strongest = |level: usize| (0..3).max_by_key(|&channel| table[level][channel]);
        assert_eq!([32, 128, 240].map(strongest), [Some(2), Some(1), Some(0)]);
    }
}

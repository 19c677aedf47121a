//! Rows of an overlay as a JPEG wants them: a picture's pixels and a colour for each, mixed and
//! brought to Y, Cb and Cr in one step. Both are linear, so one sum of products does it.
//!
//! Which colour and how much of it is the caller's business.

/// Y, Cb and Cr of JFIF 1.02, page 3, from R, G and B.
const YCBCR: [[f64; 3]; 3] =
    [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]];
/// What Cb and Cr are off zero by.
const OFFSETS: [f64; 3] = [0.0, 128.0, 128.0];
/// Of sums, which are in 1/65536.
const FRACTION_BITS: u32 = 16;

/// How pixels are mixed with the colours of 256 levels.
#[derive(Clone, Debug)]
pub struct YcbcrBlend {
    /// For Y, Cb and Cr, of R, G and B.
    weights: [[i32; 3]; 3],
    /// Y, Cb and Cr of each colour's share, with offset and rounding; the last is nothing.
    colors: [[i32; 4]; 256],
}

impl YcbcrBlend {
    /// `1 - alpha` of the pixel and `alpha`, 0 to 1, of the level's colour.
    #[must_use]
    pub fn new(alpha: f64, colors: &[[u8; 3]; 256]) -> Self {
        let one = f64::from(1 << FRACTION_BITS);
        let fixed = |value: f64| (value * one).round() as i32;
        let component = |color: [u8; 3], at: usize| {
            let sum: f64 =
                (0..3).map(|channel| YCBCR[at][channel] * f64::from(color[channel])).sum();
            fixed(alpha * sum + OFFSETS[at] + 0.5)
        };
        Self {
            weights: YCBCR.map(|row| row.map(|weight| fixed((1.0 - alpha) * weight))),
            colors: colors
                .map(|color| [component(color, 0), component(color, 1), component(color, 2), 0]),
        }
    }

    /// Appends a row of so many pixels, each with its level, to Y, Cb and Cr.
    ///
    /// # Panics
    /// If there are not as many levels as pixels.
    pub fn row(&self, pixels: &[[u8; 3]], levels: &[u8], components: [&mut Vec<u8>; 3]) {
        assert_eq!(pixels.len(), levels.len(), "a level for each pixel");
        let [y, cb, cr] = components.map(|component| {
            let start = component.len();
            component.resize(start + pixels.len(), 0);
            &mut component[start..]
        });
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: there is AVX2.
            return unsafe { self.mix_avx2(pixels, levels, y, cb, cr) };
        }
        self.mix(pixels, levels, y, cb, cr);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn mix_avx2(
        &self,
        pixels: &[[u8; 3]],
        levels: &[u8],
        y: &mut [u8],
        cb: &mut [u8],
        cr: &mut [u8],
    ) {
        self.mix(pixels, levels, y, cb, cr);
    }

    #[inline(always)]
    fn mix(&self, pixels: &[[u8; 3]], levels: &[u8], y: &mut [u8], cb: &mut [u8], cr: &mut [u8]) {
        let outputs = y.iter_mut().zip(cb).zip(cr);
        for ((pixel, &level), ((y, cb), cr)) in pixels.iter().zip(levels).zip(outputs) {
            let [r, g, b] = pixel.map(i32::from);
            let color = &self.colors[usize::from(level)];
            let component = |at: usize| {
                let [of_r, of_g, of_b] = self.weights[at];
                let sum = of_r * r + of_g * g + of_b * b + color[at];
                (sum >> FRACTION_BITS).clamp(0, 255) as u8
            };
            (*y, *cb, *cr) = (component(0), component(1), component(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_formula_to_rounding() {
        let colors =
            std::array::from_fn(|level| [level as u8, 255 - level as u8, (level * 7) as u8]);
        for alpha in [0.0, 0.4, 1.0] {
            let blend = YcbcrBlend::new(alpha, &colors);
            let pixels: Vec<[u8; 3]> =
                (0..1000_u32).map(|x| [x * 37, x * 101, x * 53].map(|value| value as u8)).collect();
            let levels: Vec<u8> = (0..1000_u32).map(|x| (x * 11) as u8).collect();
            let mut rows = [vec![7], vec![7], vec![7]];
            let [y, cb, cr] = &mut rows;
            blend.row(&pixels, &levels, [y, cb, cr]);
            for (at, row) in rows.iter().enumerate() {
                assert_eq!((row.len(), row[0]), (1001, 7));
                for (x, &found) in row[1..].iter().enumerate() {
                    let color = colors[usize::from(levels[x])];
                    let mixed = |channel: usize| {
                        (1.0 - alpha) * f64::from(pixels[x][channel])
                            + alpha * f64::from(color[channel])
                    };
                    let sum: f64 = (0..3).map(|channel| YCBCR[at][channel] * mixed(channel)).sum();
                    let exact = (sum + OFFSETS[at]).clamp(0.0, 255.0);
                    assert!((f64::from(found) - exact).abs() <= 0.51, "{found} is not {exact}");
                }
            }
        }
    }
}

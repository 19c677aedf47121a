//! The exponential function of 16 numbers at once, which the compiler turns into vector
//! instructions; the standard library's is a call for each number.

use super::products::{LANES, Lanes};

/// Adding and subtracting it rounds a small number to a whole one: 1.5 · 2²³, after which an `f32`
/// has no room for fractions.
const ROUNDING: f32 = 12_582_912.0;
/// Below it, `exp` is no normal `f32`.
const LOWEST: f32 = -87.0;
/// ln 2 in two parts, whose first has few digits: Cephes' `expf` (Moshier 1992).
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// The polynomial of Cephes' `expf`, for numbers within ± ln 2 / 2.
const POLYNOMIAL: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// Replaces each number by its exponential. Numbers are at most 0, as those of a softmax are.
#[inline(always)]
pub(super) fn exponentials(values: &mut Lanes) {
    let mut lane = 0;
    while lane < LANES {
        let x = if values[lane] > LOWEST { values[lane] } else { LOWEST };
        let rounded = x * std::f32::consts::LOG2_E + ROUNDING;
        let power = rounded - ROUNDING;
        let rest = x - power * LN_2[0] - power * LN_2[1];
        let mut sum = POLYNOMIAL[0];
        let mut power_of_rest = 1;
        while power_of_rest < POLYNOMIAL.len() {
            sum = sum * rest + POLYNOMIAL[power_of_rest];
            power_of_rest += 1;
        }
        let of_rest = sum * rest * rest + rest + 1.0;
        // The bits of `rounded` end with the power, and those of a float begin with its exponent.
        let exponent = rounded.to_bits().wrapping_sub(ROUNDING.to_bits()).wrapping_add(127);
        values[lane] = of_rest * f32::from_bits(exponent << 23);
        lane += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_standard_library() {
        for start in 0..80 {
            let given: Lanes = std::array::from_fn(|lane| -(start as f32) - lane as f32 / 16.3);
            let mut found = given;
            exponentials(&mut found);
            for (x, found) in given.iter().zip(found) {
                assert!((found - x.exp()).abs() <= 2e-6 * x.exp(), "{x}: {found}");
            }
        }
        let mut far = [-1e30; LANES];
        exponentials(&mut far);
        assert!(far.iter().all(|value| (0.0..1e-37).contains(value)));
    }
}

//! The number format that a network computes in.

/// The number format that a network computes in. Logits, features and maps are f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, strum::Display, strum::EnumString)]
#[strum(
    serialize_all = "lowercase",
    parse_err_fn = ParsePrecisionError::of,
    parse_err_ty = ParsePrecisionError
)]
pub enum Precision {
    /// f16 on a GPU; bf16 on a CPU that is faster in it, f32 on others.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// On a GPU, 32 bits whose products are of 11 bits. Its logits are off by some 1e-3.
    Tf32,
    /// 16 bits with f32's range and 8 bits of mantissa.
    Bf16,
    /// 16 bits with 11 bits of mantissa and a narrow range.
    F16,
    /// On a CPU, 8 bits with the scales of a [calibration](crate::Calibration). Never chosen unasked.
    Int8,
}

/// A text that names no precision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a precision; use auto, f32, tf32, bf16, f16 or int8")]
pub struct ParsePrecisionError(String);

impl ParsePrecisionError {
    fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_parse_as_they_print() {
        for text in ["auto", "f32", "tf32", "bf16", "f16", "int8"] {
            assert_eq!(text.parse::<Precision>().unwrap().to_string(), text);
        }
        assert!("f64".parse::<Precision>().is_err());
    }
}

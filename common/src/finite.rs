//! A check of the numbers in records.
//!
//! JSON can write numbers that no `f32` holds, such as `1e39`. Unchecked, they become infinity, spoil
//! every sum, and are written again as null, which cannot be read.

use serde::de::{Deserialize, Deserializer, Error};

/// For `#[serde(deserialize_with)]`.
pub(crate) fn finite<'de, Numbers, D>(deserializer: D) -> Result<Numbers, D::Error>
where
    Numbers: Finite + Deserialize<'de>,
    D: Deserializer<'de>,
{
    let numbers = Numbers::deserialize(deserializer)?;
    if numbers.is_finite() {
        return Ok(numbers);
    }
    Err(D::Error::custom(format_args!("a number is beyond {:e}", f32::MAX)))
}

pub(crate) trait Finite {
    fn is_finite(&self) -> bool;
}

impl Finite for f32 {
    fn is_finite(&self) -> bool {
        f32::is_finite(*self)
    }
}

impl Finite for Vec<f32> {
    fn is_finite(&self) -> bool {
        self.iter().all(Finite::is_finite)
    }
}

impl<const N: usize> Finite for [f32; N] {
    fn is_finite(&self) -> bool {
        self.iter().all(Finite::is_finite)
    }
}

impl<Numbers: Finite> Finite for Option<Numbers> {
    fn is_finite(&self) -> bool {
        self.as_ref().is_none_or(Finite::is_finite)
    }
}

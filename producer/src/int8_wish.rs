//! Whether 8 bits were asked for, and how well they have to agree with f32. Does not know runs.

use std::fmt;
use std::str::FromStr;

use camshaft_common::model::Agreement;

/// Images that have to be compared, at least.
pub(crate) const LEAST_COMPARED: u64 = 20;

/// How well 8 bits have to agree with f32: the value of `--min-agreement`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MinAgreement {
    /// The share of images with the same most probable class.
    pub(crate) top_class: f64,
    /// The median cosine similarity of maps.
    pub(crate) median_cosine: f64,
}

impl MinAgreement {
    /// True if 8 bits agree that well.
    pub(crate) fn is_met_by(self, found: &Agreement) -> bool {
        // A few images agree by chance. Who asks for no agreement is not asked for images either.
        let asks_for_none = self.top_class == 0.0 && self.median_cosine == 0.0;
        let enough = asks_for_none || found.images >= LEAST_COMPARED;
        enough && self.is_met_by_few(found)
    }

    /// The same, however few were compared.
    pub(crate) fn is_met_by_few(self, found: &Agreement) -> bool {
        found.top_class >= self.top_class && found.median_cosine >= self.median_cosine
    }
}

impl Default for MinAgreement {
    fn default() -> Self {
        Self { top_class: 0.995, median_cosine: 0.99 }
    }
}

impl fmt::Display for MinAgreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.top_class, self.median_cosine)
    }
}

/// A text that is no agreement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no agreement; write the share of images with the same class, as 0.995, or that and the \
     cosine similarity of maps, as 0.995,0.99"
)]
pub(crate) struct ParseAgreementError(String);

impl FromStr for MinAgreement {
    type Err = ParseAgreementError;

    fn from_str(text: &str) -> Result<Self, ParseAgreementError> {
        let share = |part: &str| {
            let share = part.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
            share.ok_or_else(|| ParseAgreementError(text.to_owned()))
        };
        let (top_class, median_cosine) = match text.split_once(',') {
            Some((top_class, cosine)) => (top_class, share(cosine)?),
            None => (text, Self::default().median_cosine),
        };
        Ok(Self { top_class: share(top_class)?, median_cosine })
    }
}

/// What is to be done about 8 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Int8Wish {
    /// Nothing was said: the run in OUT decides.
    Unsaid,
    /// Another precision was asked for.
    No,
    /// `--precision int8`.
    Yes(MinAgreement),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreements_are_read_as_they_are_written() {
        let both = MinAgreement { top_class: 0.9, median_cosine: 0.5 };
        assert_eq!("0.9,0.5".parse(), Ok(both));
        assert_eq!(both.to_string().parse(), Ok(both));
        let class = MinAgreement { top_class: 1.0, ..MinAgreement::default() };
        assert_eq!("1".parse(), Ok(class));
        for text in ["", "x", "1.1", "-0.1", "0.9,", "0.9,2", "0.9,0.9,0.9", "nan"] {
            let parsed = text.parse::<MinAgreement>();
            assert!(parsed.is_err(), "{text:?}: {parsed:?}");
        }
    }
}

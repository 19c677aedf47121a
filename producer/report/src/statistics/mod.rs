//! Statistics on plain numbers: what is usual, how sure a share is, and which differences are real.
//!
//! Knows nothing of images or tables.

pub(crate) mod contingency;
pub(crate) mod discriminant;
pub(crate) mod proportion;
pub(crate) mod rank_sum;
pub(crate) mod robust_spread;
pub(crate) mod two_samples;

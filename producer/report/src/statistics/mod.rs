//! Statistics on plain numbers: what is usual, how sure a share is, and which differences are real.
//!
//! Knows nothing of images or tables.

pub(crate) mod proportion;
pub(crate) mod rank_sum;
pub(crate) mod robust_spread;

//! Searches for things that are alike among a million: nearest vectors, close hashes, and the sets
//! that pairs of alike things form.
//!
//! Knows nothing of images or tables.

pub(crate) mod close_hashes;
pub(crate) mod disjoint_sets;
pub(crate) mod nearest_neighbours;
pub(crate) mod orientation;

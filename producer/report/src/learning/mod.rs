//! Learns classes from features: matrices of numbers, and linear heads that are fitted to them.
//!
//! Pure mathematics: knows no table, no image and no label's name. Everything is deterministic,
//! whatever the number of threads: sums are over chunks of a fixed size, in their order. Downstream:
//! the searches that fit heads of their own to what the model has seen.

mod exponential;
mod feature_matrix;
mod minimiser;
mod multinomial_head;
mod objective;
mod products;

pub(crate) use feature_matrix::{FeatureMatrix, FeatureMatrixBuilder};
pub(crate) use multinomial_head::MultinomialHead;

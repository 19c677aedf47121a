//! What a person at a terminal sees: lines on standard output, progress on standard error.

pub(crate) mod output;
pub mod progress;

//! What a person at a terminal sees: lines on standard output, progress and logs on standard error.

pub(crate) mod output;
pub(crate) mod progress;

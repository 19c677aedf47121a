//! Turns what a run has left in OUT into an answer.

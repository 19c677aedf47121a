//! Ends an explanation early, between two passes of the network. A pass can't be cut off, but a
//! method that takes one for each channel has thousands, and so has a map for each of a thousand
//! classes.

use std::cell::Cell;

use candle_core::{Error, Result};

/// Asks before each pass whether the maps of a batch are still wanted.
pub(super) struct EarlyEnd<'a> {
    goes_on: &'a dyn Fn() -> bool,
    has_come: Cell<bool>,
}

impl<'a> EarlyEnd<'a> {
    /// The maps are given up once `goes_on` is false.
    pub(super) fn new(goes_on: &'a dyn Fn() -> bool) -> Self {
        Self { goes_on, has_come: Cell::new(false) }
    }

    /// Fails once the maps are no longer wanted.
    pub(super) fn check(&self) -> Result<()> {
        if (self.goes_on)() {
            return Ok(());
        }
        self.has_come.set(true);
        Err(Error::Msg("the maps are no longer wanted".to_owned()))
    }

    /// True if a check has failed.
    pub(super) fn has_come(&self) -> bool {
        self.has_come.get()
    }
}

//! Ends an explanation that takes too long, between two passes of the network: a pass can't be cut
//! off, but methods that take one for each channel have thousands.

use std::cell::Cell;
use std::time::Instant;

use candle_core::{Error, Result};

/// When the maps of a batch must be there.
#[derive(Debug)]
pub(super) struct Deadline {
    at: Option<Instant>,
    missed: Cell<bool>,
}

impl Deadline {
    /// Without a time, there is no deadline.
    pub(super) fn new(at: Option<Instant>) -> Self {
        Self { at, missed: Cell::new(false) }
    }

    /// Fails once the time is over.
    pub(super) fn check(&self) -> Result<()> {
        match self.at {
            Some(at) if Instant::now() >= at => {
                self.missed.set(true);
                Err(Error::Msg("the time for the maps is over".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// True if a check has failed.
    pub(super) fn was_missed(&self) -> bool {
        self.missed.get()
    }
}

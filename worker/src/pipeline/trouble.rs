//! Errors that no waiting mends and that every further image would meet: a bucket that is gone,
//! credentials that ran out, a full disk.
//!
//! `settle` notes them. A worker shows them in its health and goes on, since other runs' images
//! may do; an audit has only the one run, and stops.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// After so long without a further one, trouble is over.
const FRESH: Duration = Duration::from_secs(60);

/// The errors so far.
#[derive(Debug, Default)]
pub struct Trouble {
    seen: Mutex<Option<Seen>>,
    stop: Option<CancellationToken>,
}

#[derive(Debug)]
struct Seen {
    first: String,
    last: (String, Instant),
}

impl Trouble {
    /// Cancels `stop` at the first one.
    #[must_use]
    pub fn stopping(stop: CancellationToken) -> Self {
        Self { seen: Mutex::default(), stop: Some(stop) }
    }

    /// Notes one.
    pub fn note(&self, reason: &str) {
        let last = (reason.to_owned(), Instant::now());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *seen {
            Some(seen) => seen.last = last,
            None => *seen = Some(Seen { first: reason.to_owned(), last }),
        }
        drop(seen);
        if let Some(stop) = &self.stop {
            stop.cancel();
        }
    }

    /// The first one, which the others are most often a consequence of.
    #[must_use]
    pub fn first(&self) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map(|seen| seen.first.clone())
    }

    /// The last one, where it is recent.
    #[must_use]
    pub fn recent(&self) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (reason, at) = &seen.as_ref()?.last;
        (at.elapsed() < FRESH).then(|| reason.clone())
    }
}

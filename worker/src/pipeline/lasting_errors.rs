//! Errors that last for the run: waiting does not help, and every further image would meet them.
//! Examples: the bucket is gone, the credentials expired, the disk is full.
//!
//! `settle` notes them. A worker shows the latest one in its health and goes on, because other
//! runs may use other stores. An audit has one run only, and stops.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Health shows an error for this long after it was last met.
const SHOWN_FOR: Duration = Duration::from_secs(60);

/// The lasting errors since the pipeline started: the first and the latest.
#[derive(Debug, Default)]
pub struct LastingErrors {
    noted: Mutex<Option<FirstAndLatest>>,
    stop: Option<CancellationToken>,
}

#[derive(Debug)]
struct FirstAndLatest {
    first: String,
    latest: String,
    latest_at: Instant,
}

impl LastingErrors {
    /// Cancels `stop`, if there is one, at the first error.
    #[must_use]
    pub fn new(stop: Option<CancellationToken>) -> Self {
        Self { noted: Mutex::default(), stop }
    }

    /// True if the first error ends everything, as in an audit: no image is left to anybody.
    #[must_use]
    pub fn end_all(&self) -> bool {
        self.stop.is_some()
    }

    /// True if everything ends now, because of an error or since the user said so.
    #[must_use]
    pub fn have_ended_all(&self) -> bool {
        self.stop.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Notes an error.
    pub fn note(&self, error: &str) {
        let (latest, latest_at) = (error.to_owned(), Instant::now());
        let mut noted = self.noted.lock();
        match &mut *noted {
            Some(noted) => (noted.latest, noted.latest_at) = (latest, latest_at),
            None => *noted = Some(FirstAndLatest { first: latest.clone(), latest, latest_at }),
        }
        drop(noted);
        if let Some(stop) = &self.stop {
            stop.cancel();
        }
    }

    /// The first error. The later ones are most often its consequences.
    #[must_use]
    pub fn first(&self) -> Option<String> {
        self.noted.lock().as_ref().map(|noted| noted.first.clone())
    }

    /// The latest error, if it was met within the last minute.
    #[must_use]
    pub fn recent(&self) -> Option<String> {
        let noted = self.noted.lock();
        let noted = noted.as_ref()?;
        (noted.latest_at.elapsed() < SHOWN_FOR).then(|| noted.latest.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_stops_and_the_latest_is_shown() {
        let stop = CancellationToken::new();
        let errors = LastingErrors::new(Some(stop.clone()));
        assert_eq!((errors.first(), errors.recent()), (None, None));
        assert!(errors.end_all() && !errors.have_ended_all());
        errors.note("no bucket");
        errors.note("no credentials");
        assert!(stop.is_cancelled() && errors.have_ended_all());
        assert_eq!(errors.first().as_deref(), Some("no bucket"));
        assert_eq!(errors.recent().as_deref(), Some("no credentials"));
    }
}

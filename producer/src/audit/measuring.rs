//! What measurements on a run's images have in common: reading objects of which some may have gone, and
//! running the model on a thread of its own while progress is shown.
//!
//! Does not know what is measured. Downstream: `trust`, `shortcuts`, `remeasure`, and
//! `calibrate`.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use camshaft_common::key::ImageKey;
use camshaft_common::model::FileDigest;
use camshaft_common::store::{StoreError, StoreErrorKind};
use camshaft_model::{ComputeDevice, ComputeSettings, ModelError};
use camshaft_trust::examination::ExaminationProgress;
use camshaft_worker::config::ComputeConfig;
use tokio_util::sync::CancellationToken;

use crate::terminal::progress::{Progress, ProgressCounts};

/// Images read at once.
pub(crate) const MAX_FETCHES: usize = 8;

/// The object; `None` if this object alone can't be read.
pub(crate) fn if_readable<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(object) => Ok(Some(object)),
        Err(error) => match error.kind() {
            StoreErrorKind::NotFound
            | StoreErrorKind::TooLarge
            | StoreErrorKind::ArchivedOrEncrypted
            | StoreErrorKind::Unusable => Ok(None),
            _ => Err(error),
        },
    }
}

/// Opens the device, and settles how large its batches are.
pub(super) fn open_device(
    compute: &ComputeConfig,
) -> Result<(ComputeDevice, ComputeSettings), ModelError> {
    let device = compute.device.open().map_err(ModelError::from)?;
    let largest_batch = compute.batch_size(&device).now();
    let settings = compute.settings(largest_batch);
    Ok((device, settings))
}

/// The `count` images whose keys have the smallest digests. They are spread over the data set whatever its
/// order, and stay the same ones each time.
#[derive(Debug)]
pub(crate) struct KeySample {
    count: usize,
    smallest: BTreeSet<(String, ImageKey)>,
}

impl KeySample {
    pub(crate) fn new(count: usize) -> Self {
        Self { count, smallest: BTreeSet::new() }
    }

    pub(crate) fn add(&mut self, key: ImageKey) {
        let digest = FileDigest::of(key.as_str().as_bytes());
        self.smallest.insert((digest.as_str().to_owned(), key));
        if self.smallest.len() > self.count {
            self.smallest.pop_last();
        }
    }

    /// In the order of their digests.
    pub(crate) fn into_keys(self) -> Vec<ImageKey> {
        self.smallest.into_iter().map(|(_digest, key)| key).collect()
    }
}

/// What a measurement on another thread shares with whoever follows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Followed<'a> {
    /// What happens to images, as in "measured".
    pub(crate) verb: &'static str,
    /// Images to which it has happened.
    pub(crate) done: &'a AtomicU64,
    /// Tells it to end early.
    pub(crate) stop: &'a AtomicBool,
}

impl<'a> From<&'a ExaminationProgress> for Followed<'a> {
    fn from(progress: &'a ExaminationProgress) -> Self {
        Self { verb: "measured", done: &progress.measured, stop: &progress.stop }
    }
}

/// Follows a measurement of `total` images with a progress bar. If `stop` is cancelled, tells it to end,
/// and waits until it has.
pub(crate) async fn follow<T>(
    measuring: impl Future<Output = T>,
    Followed { verb, done, stop: told }: Followed<'_>,
    total: u64,
    stop: &CancellationToken,
) -> T {
    let stoppable = async {
        let mut measuring = pin!(measuring);
        tokio::select! {
            measured = &mut measuring => measured,
            () = stop.cancelled() => {
                told.store(true, Relaxed);
                measuring.await
            }
        }
    };
    let counts = || ProgressCounts { done: done.load(Relaxed), total: Some(total), failed: 0 };
    Progress::start(verb).follow(stoppable, counts).await
}

//! What measurements on a run's images have in common: reading objects of which some may have gone, and
//! running the model on a thread of its own while progress is shown.
//!
//! Does not know what is measured. Downstream: `trust`, `shortcuts`, `remeasure`, and
//! `calibrate`.

use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;

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

/// Follows a measurement of `total` images with a progress bar. If `stop` is cancelled, tells it to end,
/// and waits until it has.
pub(super) async fn follow<T>(
    measuring: impl Future<Output = T>,
    progress: &ExaminationProgress,
    total: u64,
    stop: &CancellationToken,
) -> T {
    let stoppable = async {
        let mut measuring = pin!(measuring);
        tokio::select! {
            measured = &mut measuring => measured,
            () = stop.cancelled() => {
                progress.stop.store(true, Relaxed);
                measuring.await
            }
        }
    };
    let counts =
        || ProgressCounts { done: progress.measured.load(Relaxed), total: Some(total), failed: 0 };
    Progress::start("measured").follow(stoppable, counts).await
}

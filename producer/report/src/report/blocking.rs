//! Work on tables that would keep other tasks waiting.

use crate::error::ReportError;
use crate::table::TableError;

/// Does the work on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TableError> + Send + 'static,
) -> Result<T, ReportError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_panicked| ReportError::Panicked)??)
}

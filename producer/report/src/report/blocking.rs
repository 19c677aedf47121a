//! Work on tables that would keep other tasks waiting.

use crate::error::ReportError;

/// Does the work on a thread of its own.
pub(super) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ReportError>
where
    T: Send + 'static,
    E: Into<ReportError> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_panicked| ReportError::Panicked)?.map_err(Into::into)
}

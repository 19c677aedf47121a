//! Trying again after an error of the broker: for how long, and what is logged.

use std::time::Duration;

use camshaft_common::backoff::Retries;

use crate::error::QueueError;

/// The tries of one operation on the broker.
pub(super) struct BrokerRetries(Retries);

impl BrokerRetries {
    /// Tries until `limit` has passed, counted from now; without a limit, for ever.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self(limit.map_or_else(Retries::unlimited, Retries::within))
    }

    /// Waits before the next try. Gives `error` back if another try is no use or comes too late.
    pub(super) async fn pause(&mut self, error: QueueError) -> Result<(), QueueError> {
        if !error.is_transient() {
            return Err(error);
        }
        let Some(delay) = self.0.next_delay() else { return Err(error) };
        warn_of(&error, delay);
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Calls `operation` until it succeeds, fails for good, or `limit` has passed; without a limit,
/// for ever.
pub(super) async fn retry<T, Operation: Future<Output = Result<T, QueueError>>>(
    limit: Option<Duration>,
    mut operation: impl FnMut() -> Operation,
) -> Result<T, QueueError> {
    let mut retries = BrokerRetries::new(limit);
    loop {
        match operation().await {
            Err(error) => retries.pause(error).await?,
            done => return done,
        }
    }
}

/// Logs that a try failed and when the next comes.
pub(super) fn warn_of(error: &QueueError, retry_in: Duration) {
    let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
    match error {
        QueueError::Unreachable { address, reason, .. } => {
            tracing::warn!(address, reason, retry_in_ms, "broker not reachable, trying again");
        }
        error => tracing::warn!(%error, retry_in_ms, "broker not ready, trying again"),
    }
}

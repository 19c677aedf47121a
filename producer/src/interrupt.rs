//! Ctrl-C and SIGTERM: the first asks a command to finish what is in work, the second ends it.

use camshaft_worker::signals::Signals;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Cancels `stop` at the first signal, and ends the process at the second.
///
/// # Errors
/// If the system does not deliver signals.
pub(crate) fn cancel_on_signal(stop: CancellationToken) -> std::io::Result<()> {
    let mut signals = Signals::listen()?;
    tokio::spawn(async move {
        signals.next().await;
        warn!("stopping: finishing what is in work");
        stop.cancel();
        signals.next().await;
        std::process::exit(1);
    });
    Ok(())
}

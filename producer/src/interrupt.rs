//! Ctrl-C and SIGTERM: the first asks a command to finish what is in work, the second ends it.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Cancels `stop` at the first signal, and ends the process at the second.
///
/// # Errors
/// If the system refuses to deliver signals.
pub(crate) fn cancel_on_signal(stop: CancellationToken) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        for is_second in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if is_second {
                std::process::exit(1);
            }
            warn!("stopping: finishing what is in work");
            stop.cancel();
        }
    });
    Ok(())
}

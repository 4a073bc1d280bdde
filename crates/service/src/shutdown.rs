//! How a process learns that it is to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled at the first SIGTERM or SIGINT. A second one ends the process at once, for people who do
/// not want to wait for the drain.
///
/// # Errors
/// When the signals cannot be caught.
pub fn stop_signal() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        for attempt in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if attempt > 0 {
                tracing::warn!("stopping at once: asked for the second time");
                std::process::exit(1);
            }
            tracing::info!("stopping: finishing what is on its way");
            stopping.cancel();
        }
    });
    Ok(stop)
}

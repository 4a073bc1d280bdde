//! Shutdown by signals.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Creates a token that the first SIGTERM or SIGINT cancels. A second signal ends the process at once, for people who
/// do not want to wait for the drain.
///
/// # Errors
/// If the signals cannot be caught.
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
                tracing::warn!("stopping at once after a second signal");
                std::process::exit(1);
            }
            tracing::info!("stopping after the work in progress; a second signal stops at once");
            stopping.cancel();
        }
    });
    Ok(stop)
}

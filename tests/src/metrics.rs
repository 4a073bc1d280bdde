//! What a process counts, as its `/metrics` shows it.

use crate::{patience::until, process::Process, world::get};

/// The value of one series, labels included as they are printed: `fanfare_parked_total{reason="too_deep"}`.
/// Zero where there is none, as a counter is not shown before it first counts.
///
/// # Panics
/// When the process does not answer.
pub async fn metric(process: &Process, series: &str) -> f64 {
    let address = process.address("serving health and metrics").await;
    let metrics = get(address, "metrics").await.expect("the metrics");
    let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    metrics.lines().find_map(value).unwrap_or_default()
}

/// Waits until a series has at least this value.
pub async fn counted(process: &Process, series: &str, least: u32) {
    until(&format!("{series} to reach {least}"), async || {
        (metric(process, series).await >= f64::from(least)).then_some(())
    })
    .await;
}

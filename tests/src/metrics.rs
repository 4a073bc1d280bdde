//! Metrics of a process, read from `/metrics`.

use crate::{
    patience::until,
    world::process::{Process, get},
};

/// The value of a series, named with the labels as printed: `fanfare_parked_total{reason="too_deep"}`. Zero for an
/// absent series, as a counter appears only after the first increment.
///
/// # Panics
/// If the process does not answer.
pub async fn metric(process: &Process, series: &str) -> f64 {
    let address = process.address("serving health and metrics").await;
    let metrics = get(address, "metrics").await.expect("the metrics");
    let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    metrics.lines().find_map(value).unwrap_or_default()
}

/// Waits until a series reaches at least `least`.
pub async fn counted(process: &Process, series: &str, least: u32) {
    until(&format!("{series} to reach {least}"), async || {
        (metric(process, series).await >= f64::from(least)).then_some(())
    })
    .await;
}

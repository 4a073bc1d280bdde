//! The listener for operators: `/healthz`, `/readyz` and `/metrics`, on a separate port.

use std::{fmt::Write, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Environment, listener::serve};

/// Upper bounds of the buckets of every histogram, in seconds.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Maximum connections: enough for scrapers and probes.
const MAX_CONNECTIONS: usize = 256;

/// Kind of a metric's series.
#[derive(Debug, Clone, Copy)]
pub enum MetricKind {
    /// Only increases.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Counts of durations, in seconds.
    Histogram,
}

/// A metric exported by a process. A label never contains the id of an endpoint or application: the number of ids has
/// no bound.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name of the metric.
    pub name: &'static str,
    /// Kind of series.
    pub kind: MetricKind,
    /// Explanation for operators.
    pub meaning: &'static str,
}

type ReadyCheck = dyn Fn() -> Result<(), String> + Send + Sync;

/// The listener, bound and ready to run.
pub struct Operations {
    listener: TcpListener,
    metrics: PrometheusHandle,
}

#[derive(Clone)]
struct Shared {
    metrics: PrometheusHandle,
    ready: Arc<ReadyCheck>,
}

impl Operations {
    /// Binds the port and begins to collect metrics.
    ///
    /// # Errors
    /// If the port is in use, or metrics are already collected.
    pub async fn bind(address: SocketAddr, described: &[Metric]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| anyhow::anyhow!("cannot listen on {address} for health and metrics: {error}"))?;
        let metrics = PrometheusBuilder::new().set_buckets(&BUCKETS)?.install_recorder()?;
        for metric in described {
            match metric.kind {
                MetricKind::Counter => metrics::describe_counter!(metric.name, metric.meaning),
                MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.meaning),
                MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.meaning),
            }
        }
        Ok(Self { listener, metrics })
    }

    /// Serves until `stop`. `ready` returns the reason if the process cannot work at the moment.
    pub async fn run(self, ready: impl Fn() -> Result<(), String> + Send + Sync + 'static, stop: CancellationToken) {
        if let Ok(address) = self.listener.local_addr() {
            tracing::info!(%address, "serving health and metrics");
        }
        let shared = Shared { metrics: self.metrics.clone(), ready: Arc::new(ready) };
        let router = Router::new()
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(render))
            .with_state(shared);
        let upkeep = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                self.metrics.run_upkeep();
            }
        });
        serve(self.listener, router, MAX_CONNECTIONS, stop).await;
        upkeep.abort();
    }
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    match (shared.ready)() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn render(State(shared): State<Shared>) -> String {
    shared.metrics.render()
}

/// Settings and metrics of a process, in Markdown: the text required in `deploy/settings.md`.
pub fn reference(environment: &Environment, metrics: &[Metric]) -> String {
    let mut text = environment.reference();
    text.push_str("\n| metric | kind | meaning |\n|---|---|---|\n");
    for metric in metrics {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let _ = writeln!(text, "| `{}` | {kind} | {} |", metric.name, metric.meaning);
    }
    text
}

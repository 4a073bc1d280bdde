//! The listener for operators: `/healthz`, `/readyz` and `/metrics`, on a separate port.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::StatusCode,
    routing::get,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    Metric, PROCESS_METRICS,
    listener::{Room, serve},
    observability::process::report_log,
};

/// Age of a gauge without a report after which the gauge ends: an old number would be a lie.
const GAUGE_AGE: Duration = Duration::from_secs(180);

/// Maximum connections: enough for scrapers and probes.
const MAX_CONNECTIONS: usize = 256;

/// Answers to `/readyz`. Each error names the reason.
#[derive(Debug)]
pub struct Readiness {
    /// Error if the process cannot work, whatever the broker does.
    pub process: Result<(), String>,
    /// Error if the broker cannot be used.
    pub broker: Result<(), String>,
}

type ReadyCheck = dyn Fn() -> Readiness + Send + Sync;

/// Query of `/readyz` that asks for readiness without the broker.
const WITHOUT_BROKER: &str = "exclude=broker";

/// The listener, bound and ready to run.
pub struct Operations {
    listener: TcpListener,
    metrics: PrometheusHandle,
    /// Reads CPU, memory and open files of the process.
    process: metrics_process::Collector,
}

#[derive(Clone)]
struct Shared {
    metrics: PrometheusHandle,
    process: metrics_process::Collector,
    ready: Arc<ReadyCheck>,
    /// True once the broker could be used.
    had_broker: Arc<AtomicBool>,
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
        let all = || PROCESS_METRICS.iter().chain(described);
        let builder = PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(GAUGE_AGE));
        let metrics = all().try_fold(builder, |builder, metric| metric.set_buckets(builder))?.install_recorder()?;
        all().for_each(Metric::begin);
        let process = metrics_process::Collector::default();
        process.describe();
        Ok(Self { listener, metrics, process })
    }

    /// Serves until `stop`.
    pub async fn run(self, ready: impl Fn() -> Readiness + Send + Sync + 'static, stop: CancellationToken) {
        if let Ok(address) = self.listener.local_addr() {
            tracing::info!(%address, "serving health and metrics");
        }
        let shared = Shared {
            metrics: self.metrics.clone(),
            process: self.process,
            ready: Arc::new(ready),
            had_broker: Arc::default(),
        };
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
        serve(self.listener, router, Room::new(MAX_CONNECTIONS), stop).await;
        upkeep.abort();
    }
}

/// With `?exclude=broker`, a process stays ready after the broker was usable once. An outage of the broker would
/// otherwise take all replicas out of the load balancer, and callers would get no answer of Fanfare.
async fn readyz(State(shared): State<Shared>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let Readiness { process, broker } = (shared.ready)();
    let had_broker = shared.had_broker.fetch_or(broker.is_ok(), Ordering::Relaxed) || broker.is_ok();
    let broker = match query.as_deref().unwrap_or_default() {
        "" => broker,
        WITHOUT_BROKER if had_broker => Ok(()),
        WITHOUT_BROKER => broker,
        other => return (StatusCode::BAD_REQUEST, format!("unknown query {other:?}; known: {WITHOUT_BROKER}\n")),
    };
    match process.and(broker) {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn render(State(shared): State<Shared>) -> String {
    shared.process.collect();
    report_log();
    shared.metrics.render()
}

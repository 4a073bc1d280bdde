//! Logs and traces.

use std::{
    str::FromStr,
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{Environment, observability::traces::TraceSettings};

/// Prefixes of the targets of exported spans: the libraries and the two services.
const OURS: [&str; 3] = ["fanfare", "ingest", "dispatcher"];

/// Lines of the log that wait for the reader of the standard output. A reader that stops must not stop the process:
/// further lines are dropped and counted.
const MAX_WAITING_LINES: usize = 8192;

/// Count of dropped lines.
static DROPPED_LINES: OnceLock<ErrorCounter> = OnceLock::new();

/// Number of lines of the log that were dropped.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED_LINES.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// Log format, log filter, and the settings of traces.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    format: LogFormat,
    filter: LogFilter,
    traces: TraceSettings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogFormat {
    Json,
    Text,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("expected json or text"),
        }
    }
}

#[derive(Debug, Clone)]
struct LogFilter(String);

impl FromStr for LogFilter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        EnvFilter::try_new(text).map_err(|_| "expected directives such as info,fanfare_store=debug")?;
        Ok(Self(text.to_owned()))
    }
}

impl TelemetrySettings {
    /// Reads the settings.
    pub fn read(environment: &mut Environment) -> Option<Self> {
        let format =
            environment.with_default("FANFARE_LOG_FORMAT", "json", "`json`, an object per line, or `text` for people");
        let filter = environment.with_default(
            "RUST_LOG",
            // lapin logs each lost connection as an error of its own; Fanfare logs the consequences.
            "info,lapin=off",
            "filter of the log, in the syntax of `tracing`'s `EnvFilter`",
        );
        let traces = TraceSettings::read(environment);
        Some(Self { format: format?, filter: filter?, traces: traces? })
    }
}

/// Running telemetry of a process.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    log: WorkerGuard,
}

/// Longest wait for the last lines of the log.
const LAST_LINES: Duration = Duration::from_millis(1200);

impl Telemetry {
    /// Starts logging, and exports traces if a destination is set.
    ///
    /// # Errors
    /// If the filter or the destination is unusable, or logging was started before.
    ///
    /// # Panics
    /// If a destination is set, outside a runtime of Tokio.
    pub fn start(service: &'static str, settings: &TelemetrySettings) -> anyhow::Result<Self> {
        let filter = EnvFilter::try_new(&settings.filter.0).context("RUST_LOG is not a filter")?;
        let (writer, log) =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MAX_WAITING_LINES).finish(std::io::stdout());
        DROPPED_LINES.get_or_init(|| writer.error_counter());
        let logs = tracing_subscriber::fmt::layer().with_target(false).with_ansi(false).with_writer(writer);
        let logs = match settings.format {
            LogFormat::Json => logs.json().flatten_event(true).with_current_span(false).boxed(),
            LogFormat::Text => logs.boxed(),
        };
        let traces = settings.traces.provider(service)?;
        let spans = traces.as_ref().map(|provider| {
            // The exporter's own requests must not create spans.
            let ours = filter_fn(|metadata| {
                metadata.is_span() && OURS.iter().any(|prefix| metadata.target().starts_with(prefix))
            });
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer(service))
                // Source lines, threads and idle times would double each span.
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_tracked_inactivity(false)
                .with_filter(ours)
        });
        tracing_subscriber::registry()
            .with(spans)
            .with(logs.with_filter(filter.and(filter_fn(|metadata| metadata.is_event()))))
            .try_init()?;
        Ok(Self { traces, log })
    }

    /// Sends the remaining traces, and writes the remaining lines of the log.
    pub fn finish(self) {
        if let Some(Err(error)) = self.traces.map(|provider| provider.shutdown()) {
            tracing::warn!(%error, "some traces were not exported");
        }
        // The drop of the guard waits without a limit while nothing reads the standard output.
        let (written, is_written) = mpsc::channel();
        thread::spawn(move || {
            drop(self.log);
            let _ = written.send(());
        });
        let _ = is_written.recv_timeout(LAST_LINES);
    }
}

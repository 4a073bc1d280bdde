//! Descriptions of metrics, for the reference and for the first scrape.

use std::fmt::Write;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

use crate::{Environment, PROCESS_METRICS, observability::process::SYSTEM_METRICS};

/// Upper bounds of the buckets of most histograms, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Upper bounds of the buckets of delays that may take an hour, in seconds.
const DELAYS: [f64; 14] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// Upper bounds of the buckets of numbers of rows.
const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Kind of a metric's series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only increases.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Counts of durations up to 30 s.
    Seconds,
    /// Counts of delays up to an hour, in seconds.
    Delays,
    /// Counts of the rows of a commit.
    Rows,
}

/// Labels of a metric, with all known values.
#[derive(Debug, Clone, Copy)]
pub enum Labels {
    /// A single series.
    None,
    /// A label whose values are known.
    One(&'static str, &'static [&'static str]),
    /// Two labels whose pairs of values are known.
    Two([&'static str; 2], &'static [[&'static str; 2]]),
    /// Labels whose values are known only when they occur. Only for gauges and histograms: PromQL's `increase` does
    /// not see a counter that begins at 1.
    Open,
}

/// A metric exported by a process. A label never contains the id of an endpoint or application: the number of ids has
/// no bound.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name of the metric.
    pub name: &'static str,
    /// Kind of series.
    pub kind: MetricKind,
    /// Labels of the series.
    pub labels: Labels,
    /// Explanation for operators.
    pub meaning: &'static str,
}

impl Metric {
    /// Labels of each known series.
    fn series(&self) -> Vec<Vec<metrics::Label>> {
        let label = metrics::Label::from_static_parts;
        match self.labels {
            Labels::None => vec![Vec::new()],
            Labels::One(name, values) => values.iter().map(|value| vec![label(name, value)]).collect(),
            Labels::Two([first, second], values) => {
                values.iter().map(|[one, two]| vec![label(first, one), label(second, two)]).collect()
            }
            Labels::Open => Vec::new(),
        }
    }

    /// Describes the metric, and begins each known counter and histogram at 0. A gauge begins with the first look: 0
    /// would be a lie.
    pub(crate) fn begin(&self) {
        match self.kind {
            MetricKind::Counter => {
                metrics::describe_counter!(self.name, self.meaning);
                self.series().into_iter().for_each(|labels| drop(metrics::counter!(self.name, labels)));
            }
            MetricKind::Gauge => metrics::describe_gauge!(self.name, self.meaning),
            MetricKind::Seconds | MetricKind::Delays | MetricKind::Rows => {
                metrics::describe_histogram!(self.name, self.meaning);
                self.series().into_iter().for_each(|labels| drop(metrics::histogram!(self.name, labels)));
            }
        }
    }

    /// Sets the buckets of a histogram.
    pub(crate) fn set_buckets(&self, builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
        let bounds: &[f64] = match self.kind {
            MetricKind::Counter | MetricKind::Gauge => return Ok(builder),
            MetricKind::Seconds => &SECONDS,
            MetricKind::Delays => &DELAYS,
            MetricKind::Rows => &ROWS,
        };
        builder.set_buckets_for_metric(Matcher::Full(self.name.to_owned()), bounds)
    }
}

/// Settings and metrics of a process, in Markdown: the text required in `deploy/settings.md`.
pub fn reference(environment: &Environment, metrics: &[Metric]) -> String {
    let mut text = environment.reference();
    text.push_str("\n| metric | kind | meaning |\n|---|---|---|\n");
    for metric in metrics.iter().chain(&PROCESS_METRICS).chain(&SYSTEM_METRICS) {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Seconds | MetricKind::Delays | MetricKind::Rows => "histogram",
        };
        let _ = writeln!(text, "| `{}` | {kind} | {} |", metric.name, metric.meaning);
    }
    text
}

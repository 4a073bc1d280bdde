//! `fanfare deliveries`.

use clap::Args;
use serde_json::Value;

use super::{Api, DEFAULT_LIMIT, Target, rows};

/// Columns of a delivery.
const DELIVERY: [(&str, usize); 7] = [
    ("/accepted_at", 24),
    ("/id", 30),
    ("/state", 9),
    ("/attempt", 2),
    ("/response_status", 3),
    ("/type", 28),
    ("/url", 1),
];

/// Choice of deliveries.
#[derive(Args)]
pub(super) struct DeliveryFilter {
    /// Only deliveries to this webhook.
    #[arg(long)]
    webhook: Option<String>,
    /// Only deliveries of this event.
    #[arg(long)]
    event: Option<String>,
    /// Only this state, or several separated by commas.
    #[arg(long)]
    state: Option<String>,
    /// Only events of this type, or of types such as `order.*`.
    #[arg(long = "type")]
    event_type: Option<String>,
    /// Only deliveries whose last response has this status, such as `503` or `5xx`.
    #[arg(long)]
    status: Option<String>,
    /// Only deliveries with this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Only events accepted at or after this time, RFC 3339.
    #[arg(long)]
    since: Option<String>,
    /// Only events accepted before this time, RFC 3339.
    #[arg(long)]
    until: Option<String>,
}

impl DeliveryFilter {
    /// Names and values, as in a query and in a body.
    pub(super) fn parameters(self) -> [(&'static str, Option<String>); 8] {
        [
            ("webhook", self.webhook),
            ("event", self.event),
            ("state", self.state),
            ("type", self.event_type),
            ("status", self.status),
            ("reason", self.reason),
            ("since", self.since),
            ("until", self.until),
        ]
    }
}

#[derive(Args)]
pub(crate) struct DeliveriesArguments {
    #[command(flatten)]
    filter: DeliveryFilter,
    /// Maximum number of listed deliveries.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    #[command(flatten)]
    pub(super) target: Target,
}

pub(super) async fn run(api: &Api, arguments: DeliveriesArguments) -> anyhow::Result<()> {
    let show = |delivery: &Value| rows::print(api.prints_json, delivery, &DELIVERY);
    api.list("deliveries", &arguments.filter.parameters(), arguments.limit, show).await
}

//! The list of webhooks.

use askama::Template;
use axum::{extract::State, response::Response};
use fanfare_api::{
    http::parameters::Query,
    routes::webhooks::{
        Filter,
        health::{self, WebhookHealth},
    },
};
use fanfare_domain::access::session::Right;

use crate::{
    Console,
    application::webhooks::{in_words, title},
    frame::{
        Frame, chart,
        fault::Fault,
        form,
        marks::{self, filters},
        place::Place,
        respond::page,
    },
};

/// Statuses of the filter.
const STATUSES: [&str; 3] = ["enabled", "paused", "disabled"];

#[derive(Template)]
#[template(path = "application/webhooks/list/list.html")]
struct Webhooks {
    frame: Frame,
    webhooks: Vec<Row>,
    next: Option<String>,
    /// Filter by status, or an empty text.
    state: String,
    /// Filter by text, or an empty text.
    contains: String,
    /// True for a filtered list, and for a page other than the first.
    is_part: bool,
}

/// A webhook in the list.
struct Row {
    title: String,
    events: String,
    chart: marks::Mark,
    health: WebhookHealth,
}

impl Row {
    fn new(health: WebhookHealth) -> Self {
        let bars: Vec<chart::Bar> =
            health.hours.iter().map(|hour| chart::Bar { taken: hour.taken, failed: hour.failed }).collect();
        let sum = |part: fn(&chart::Bar) -> u64| bars.iter().map(part).sum::<u64>();
        let label = format!("last 24 hours: {} taken, {} failed", sum(|bar| bar.taken), sum(|bar| bar.failed));
        Self {
            title: title(health.name.as_deref(), &health.url),
            events: in_words(&health.events),
            chart: chart::sparkline(&bars, &label),
            health,
        }
    }
}

/// Lists the webhooks, newest first.
pub(crate) async fn list(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let address = &place.visitor.address;
    let filter: Filter = form::query(address)?;
    let (state, contains) = (filter.state.clone().unwrap_or_default(), filter.contains.clone().unwrap_or_default());
    let is_part = filter.state.is_some() || filter.contains.is_some() || filter.before.is_some();
    let found = health::list(State(console.api), place.authorized(), Query(filter)).await?;
    let shown = Webhooks {
        frame: place.frame("Webhooks").live().call(form::call("/webhooks/health", &place.visitor.address)),
        next: found.next.map(|before| form::with_parameter(address, "before", &before)),
        state,
        contains,
        is_part,
        webhooks: found.data.into_iter().map(Row::new).collect(),
    };
    page(&place.visitor, &shown)
}

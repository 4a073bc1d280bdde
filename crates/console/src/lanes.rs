//! `/api/v1/webhooks/{id}/lanes`: how a webhook's deliveries get on in each dispatcher.

use axum::extract::State;
use fanfare_domain::ids::DispatcherId;
use fanfare_store::ShownLane;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    ApiError, Console, Failures,
    answer::Answer,
    request::{Manager, Path},
};

/// What bounds the attempts of a webhook.
#[derive(Serialize, ToSchema)]
pub(crate) struct Lanes {
    /// Attempts in a second, in all dispatchers together: its own rate, or that of its dialect.
    rate_per_second: Option<u32>,
    /// One for each dispatcher that has something to show.
    lanes: Vec<Lane>,
}

/// A webhook's lane in one dispatcher.
#[derive(Serialize, ToSchema)]
pub(crate) struct Lane {
    /// Another one for each start of a process, which tells it in its log.
    #[schema(value_type = String)]
    dispatcher: DispatcherId,
    /// Attempts on their way.
    #[schema(example = 4)]
    in_flight: i32,
    /// How many may be: fewer where attempts are not answered, and more again with each that is.
    #[schema(example = 4)]
    bound: i32,
    /// Deliveries that the dispatcher has taken and that wait for their turn. Where that would not come soon, they are
    /// put off instead: `waiting` for the reason `lane_full`.
    waiting: i32,
    /// `fast`: answered within a second, `slow`: not as soon, or `unknown`.
    #[schema(example = "slow")]
    pace: String,
    /// Failed attempts in a row; while the breaker is open, those that were made in spite of it are among them.
    failures: i32,
    /// `open`: it failed so often in a row that it is left alone, but for a probe now and then; or `closed`.
    #[schema(example = "closed")]
    breaker: &'static str,
    /// When the next probe may be sent. It is sent with the next delivery that is due.
    #[schema(value_type = Option<String>, format = DateTime)]
    breaker_open_until: Option<Timestamp>,
    /// When this was so. It is told every other second, and every ten where nothing has changed.
    #[schema(value_type = String, format = DateTime)]
    seen_at: Timestamp,
}

impl From<ShownLane> for Lane {
    fn from(lane: ShownLane) -> Self {
        Self {
            dispatcher: lane.dispatcher,
            in_flight: lane.in_flight,
            bound: lane.bound,
            waiting: lane.waiting,
            pace: lane.pace,
            failures: lane.failures,
            breaker: if lane.breaker_open_until.is_some() { "open" } else { "closed" },
            breaker_open_until: lane.breaker_open_until,
            seen_at: lane.seen_at,
        }
    }
}

/// Shows a webhook's lanes: how many attempts are on their way to it and how many deliveries wait for their turn, in each
/// dispatcher. There is one only where there is something to see: something waits, attempts fail or are slow, or fewer
/// than before may be on their way. A webhook that is healthy or idle has none.
#[utoipa::path(get, path = "/webhooks/{id}/lanes", operation_id = "show_lanes", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Lanes>), Failures))]
pub(crate) async fn show(
    State(console): State<Console>,
    manager: Manager,
    Path(webhook): Path<String>,
) -> Result<Answer<Lanes>, ApiError> {
    let row = console.endpoint(&manager, &webhook).await?;
    let application = console.directory.application(row.application);
    let in_force = application.and_then(|known| known.endpoint(row.id)?.policy.rate_per_second);
    let lanes = console.store.lanes(row.id).await?.into_iter().map(Lane::from).collect();
    Ok(Answer::of(Lanes { rate_per_second: row.rate.or(in_force), lanes }))
}

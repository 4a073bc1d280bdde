//! Matching: the endpoints of an event, by types and filters.

use std::sync::Arc;

use fanfare_domain::{
    application::{Application, Endpoint},
    endpoint::filter::FilteredEvent,
    event::EventType,
    expression::Outcome,
};
use fanfare_service::{CHECKED_AT_ONCE, Checks};
use tokio::task::block_in_place;

use crate::metric;

/// Maximum of filters that are evaluated beside other work of the thread.
const MAX_AT_ONCE: usize = 8;

/// True if the match of an event may take long: no other event should wait.
pub(crate) fn may_take_long(application: &Application, data: &str) -> bool {
    application.filters() > MAX_AT_ONCE || application.filters() > 0 && data.len() > CHECKED_AT_ONCE
}

/// Finds the endpoints that get an event, in any status. Returns the body, too.
pub(super) async fn matches<B>(
    checks: &Checks,
    application: &Arc<Application>,
    event_type: &EventType,
    body: B,
) -> (Vec<Arc<Endpoint>>, B)
where
    B: AsRef<[u8]> + Send + 'static,
{
    let subscribers = application.subscribers(event_type);
    if application.filters() == 0 {
        return (subscribers, body);
    }
    let filters = subscribers.iter().filter(|endpoint| endpoint.filter.is_some()).count();
    if filters == 0 {
        return (subscribers, body);
    }
    let id = application.id;
    let is_short = filters <= MAX_AT_ONCE && body.as_ref().len() <= CHECKED_AT_ONCE;
    let (application, event_type) = (Arc::clone(application), event_type.clone());
    let filtering = move || (filtered(subscribers, &application, &event_type, body.as_ref()), body);
    if is_short { filtering() } else { checks.run(id, filtering).await }
}

/// Finds the endpoints that get an event while the caller holds a transaction. Other tasks of the thread go on elsewhere.
pub(crate) fn matches_in_place(application: &Application, event_type: &EventType, body: &str) -> Vec<Arc<Endpoint>> {
    let subscribers = application.subscribers(event_type);
    if !subscribers.iter().any(|endpoint| endpoint.filter.is_some()) {
        return subscribers;
    }
    block_in_place(|| filtered(subscribers, application, event_type, body.as_bytes()))
}

fn filtered(
    mut endpoints: Vec<Arc<Endpoint>>,
    application: &Application,
    event_type: &EventType,
    body: &[u8],
) -> Vec<Arc<Endpoint>> {
    let body = str::from_utf8(body).unwrap_or_default();
    let mut event = FilteredEvent::new(&application.dialect, event_type, body);
    let mut results = [0_u64; 3];
    endpoints.retain(|endpoint| {
        let (outcome, _) = endpoint.wants(&mut event);
        if endpoint.filter.is_some() {
            results[outcome as usize] += 1;
        }
        outcome == Outcome::True
    });
    for (outcome, count) in [Outcome::True, Outcome::False, Outcome::Error].into_iter().zip(results) {
        metrics::counter!(metric::FILTERS, "result" => outcome.as_str()).increment(count);
    }
    endpoints
}

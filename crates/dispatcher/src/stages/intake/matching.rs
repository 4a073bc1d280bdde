//! Matching: the endpoints of an event, by types and filters.

use std::{convert::Infallible, sync::Arc};

use fanfare_domain::{
    application::Application,
    endpoint::{
        Endpoint,
        filter::{Filter, FilteredEvent, MAX_STEPS_AT_ONCE},
    },
    event::EventType,
    expression::Outcome,
};
use fanfare_service::{CHECKED_AT_ONCE, Checks};
use tokio::task::block_in_place;

use crate::metric;

/// Maximum of deliveries persisted with an event. A fan-out writes the deliveries to more endpoints in chunks, after
/// the event. An event with an ordering key is persisted with all its deliveries.
pub(crate) const MAX_DIRECT: usize = 100;

/// Maximum of filters that are evaluated beside other work of the thread: the first use of a filter parses the text.
const MAX_AT_ONCE: usize = 8;

/// True if filters and templates may take long for an event: no other event should wait.
pub(crate) fn may_take_long(application: &Application, data: &str) -> bool {
    let expressions = application.filters() + application.templates();
    expressions > MAX_AT_ONCE || expressions > 0 && data.len() > CHECKED_AT_ONCE
}

/// The endpoints that get an event of Fanfare's own work lists, without an ordering key.
pub(crate) struct Reach {
    endpoints: Vec<Arc<Endpoint>>,
    /// True if a fan-out writes the deliveries: the endpoints are many, or their filters take long.
    pub(crate) is_wide: bool,
}

impl Reach {
    /// Matches an event in place. Other tasks of the thread go on elsewhere.
    pub(crate) fn of(application: &Application, event_type: &EventType, body: &[u8]) -> Self {
        let (endpoints, is_slow) = match block_in_place(|| at_once(application, event_type, body)) {
            Some(endpoints) => (endpoints, false),
            None => (application.subscribers(event_type), true),
        };
        let is_wide = is_slow || endpoints.len() > MAX_DIRECT;
        Self { endpoints, is_wide }
    }

    /// Number of endpoints; before the filters, if a fan-out asks the filters.
    pub(crate) fn count(&self) -> usize {
        self.endpoints.len()
    }

    /// Endpoints whose deliveries are written with the event.
    pub(crate) fn direct(&self) -> &[Arc<Endpoint>] {
        if self.is_wide { &[] } else { &self.endpoints }
    }
}

/// Finds the endpoints that get an event, in any status; `None` if the filters take long.
pub(crate) fn at_once(application: &Application, event_type: &EventType, body: &[u8]) -> Option<Vec<Arc<Endpoint>>> {
    let subscribers = application.subscribers(event_type);
    let filters = match application.filters() {
        0 => 0,
        _ => subscribers.iter().filter(|endpoint| endpoint.filter.is_some()).count(),
    };
    if filters == 0 {
        return Some(subscribers);
    }
    if filters > MAX_AT_ONCE || body.len() > CHECKED_AT_ONCE {
        return None;
    }
    let mut left = MAX_STEPS_AT_ONCE;
    let outcome = |event: &mut FilteredEvent<'_>, filter: &Filter| event.outcome_within(filter, &mut left);
    filtered(subscribers, application, event_type, body, outcome).ok()
}

/// Like [`at_once`], in a thread if the filters take long. Returns the body, too.
pub(crate) async fn matches<B>(
    checks: &Checks,
    application: &Arc<Application>,
    event_type: &EventType,
    body: B,
) -> (Vec<Arc<Endpoint>>, B)
where
    B: AsRef<[u8]> + Send + 'static,
{
    match at_once(application, event_type, body.as_ref()) {
        Some(endpoints) => (endpoints, body),
        None => in_thread(checks, application, event_type, body).await,
    }
}

/// Finds the endpoints that get an event in a thread, in the turn of the application. Returns the body, too.
pub(crate) async fn in_thread<B>(
    checks: &Checks,
    application: &Arc<Application>,
    event_type: &EventType,
    body: B,
) -> (Vec<Arc<Endpoint>>, B)
where
    B: AsRef<[u8]> + Send + 'static,
{
    let id = application.id;
    let (application, event_type) = (Arc::clone(application), event_type.clone());
    let filtering = move || {
        let outcome = |event: &mut FilteredEvent<'_>, filter: &Filter| Ok::<_, Infallible>(event.outcome(filter).0);
        let subscribers = application.subscribers(&event_type);
        let Ok(endpoints) = filtered(subscribers, &application, &event_type, body.as_ref(), outcome);
        (endpoints, body)
    };
    checks.run(id, filtering).await
}

/// Keeps the endpoints without a filter, and those whose filter is met. Ends with the first fault of `outcome`.
fn filtered<F>(
    endpoints: Vec<Arc<Endpoint>>,
    application: &Application,
    event_type: &EventType,
    body: &[u8],
    mut outcome: impl FnMut(&mut FilteredEvent<'_>, &Filter) -> Result<Outcome, F>,
) -> Result<Vec<Arc<Endpoint>>, F> {
    let body = str::from_utf8(body).unwrap_or_default();
    let mut event = FilteredEvent::new(&application.dialect, event_type, body);
    let mut results = [0_u64; 3];
    let mut kept = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        if let Some(filter) = &endpoint.filter {
            let outcome = outcome(&mut event, filter)?;
            results[outcome as usize] += 1;
            if outcome != Outcome::True {
                continue;
            }
        }
        kept.push(endpoint);
    }
    for (outcome, count) in [Outcome::True, Outcome::False, Outcome::Error].into_iter().zip(results) {
        metrics::counter!(metric::FILTERS, "result" => outcome.as_str()).increment(count);
    }
    Ok(kept)
}

//! `/api/v1/replays`: past events, sent again by a job.

use std::sync::Arc;

use axum::extract::State;
use fanfare_domain::{
    delivery::{
        State as DeliveryState,
        replay::{RATES, ReplayState, Replayed},
    },
    event::subscription::Subscription,
    ids::{EndpointId, ReplayId},
};
use fanfare_store::{NewReplay, Replay, Wanted};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{
        answer::{Answer, Created, Page},
        authentication::AuthorizedApplication,
        body::JsonBody,
        error::{ApiError, ErrorCode, Failures},
        paging::Paging,
        parameters::{Path, Query, id, timestamp},
    },
    state::{ApiState, beside_others},
};

/// The default rate, in deliveries per second.
const USUAL_RATE: u32 = 50;

/// The maximum number of running and paused replays of an application.
const MOST: i64 = 10;

/// The maximum number of event types in a replay.
const MOST_TYPES: usize = 100;

/// The maximum number of events in a dry run, read in chunks.
const COUNTED: usize = 20_000;
const CHUNK: usize = 1000;

/// The same, if filters need the bodies of the events.
const COUNTED_BODIES: usize = 1000;
const CHUNK_OF_BODIES: usize = 25;

/// The maximum of the filters' steps in a dry run: about a second. The last event may exceed the maximum.
const COUNTED_STEPS: u64 = 20_000_000;

/// Selects past events and deliveries to send again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewReplay)]
pub struct New {
    /// Only deliveries to this webhook. Default: all webhooks with a subscription to the event's type.
    pub webhook: Option<String>,
    /// Only events of these types or wildcards, at most 100. Default: all types.
    pub types: Option<Vec<String>>,
    /// Only deliveries in these states: `failed`, `skipped`, `delivered` or `unmatched`. An `unmatched` delivery was
    /// never created: the webhook is newer, or had other subscriptions. Default: `failed`, `skipped` and `unmatched`.
    pub states: Option<Vec<String>>,
    /// Only events accepted at or after this time.
    #[schema(format = DateTime)]
    pub since: String,
    /// Only events accepted before this time. Default: now.
    #[schema(format = DateTime)]
    pub until: Option<String>,
    /// Deliveries per second, 1 to 1000. Default: 50.
    pub rate_per_second: Option<u32>,
    /// The id of the replay, given by a form of the web pages: the form sent twice is one replay.
    #[serde(skip)]
    pub id: Option<ReplayId>,
}

/// A replay with progress.
#[derive(Serialize, ToSchema)]
#[schema(as = Replay)]
pub struct Shown {
    #[schema(value_type = String, example = "rpl_01h455vb4pex5vsknk084sn02q")]
    pub id: ReplayId,
    /// `running`, `paused`, `cancelled` or `done`.
    #[schema(example = "running")]
    pub state: &'static str,
    #[schema(value_type = Option<String>)]
    pub webhook: Option<EndpointId>,
    pub types: Vec<String>,
    pub states: Vec<&'static str>,
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    pub rate_per_second: u32,
    /// The acceptance time of the last event read by the replay.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reached: Option<Timestamp>,
    /// The number of events read.
    pub events: i64,
    /// The number of deliveries sent again or created.
    pub deliveries: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

impl From<Replay> for Shown {
    fn from(replay: Replay) -> Self {
        let Replay { of, state, reached, events, deliveries, created_at, finished_at } = replay;
        Self {
            id: of.id,
            state: state.as_str(),
            webhook: of.endpoint,
            types: of.event_types,
            states: of.states.iter().map(|state| state.as_str()).collect(),
            since: of.since,
            until: of.until,
            rate_per_second: of.rate_per_second,
            reached: reached.map(|(accepted_at, _)| accepted_at),
            events,
            deliveries,
            created_at,
            finished_at,
        }
    }
}

/// The result of a dry run.
#[derive(Serialize, ToSchema)]
#[schema(as = ReplayCount)]
pub struct Counted {
    /// The number of events read.
    pub events: usize,
    /// The number of deliveries to send.
    pub deliveries: usize,
    /// True if more events may match: a dry run reads at most 20,000 events, with filters 1,000, and fewer with costly
    /// filters.
    pub has_more: bool,
}

/// Starts a replay: a job sends past events again at the replay's rate, after all other deliveries. A replay survives
/// restarts. Attempts of the replay have the header `fanfare-replay`, and the `webhook-id` of the original event.
#[utoipa::path(post, path = "/replays", operation_id = "create_replay", tag = "replays",
    request_body = New, responses((status = 201, body = Answer<Shown>), Failures))]
pub async fn create(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    JsonBody(new): JsonBody<New>,
) -> Result<Created<Shown>, ApiError> {
    let new = new.parse(&api, &authorized).await?;
    let replay = api.store.create_replay(&new, MOST).await?.ok_or_else(|| {
        let message = format!("the application has {MOST} unfinished replays: wait, or cancel a replay");
        ApiError::new(ErrorCode::TooManyReplays, message).retry_after(60)
    })?;
    Ok(Created(Shown::from(replay)))
}

/// Counts the deliveries of a replay, without sending.
#[utoipa::path(post, path = "/replays/dry-run", operation_id = "count_replay", tag = "replays",
    request_body = New, responses((status = 200, body = Answer<Counted>), Failures))]
pub async fn count(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    JsonBody(new): JsonBody<New>,
) -> Result<Answer<Counted>, ApiError> {
    let new = new.parse(&api, &authorized).await?;
    let application = api
        .directory
        .application(authorized.application)
        .ok_or_else(|| ApiError::not_found("application", "no application has this id"))?;
    let selection = new.selection()?;
    let mut counted = Counted { events: 0, deliveries: 0, has_more: true };
    let mut reached = None;
    let has_filters = selection.has_filters(&application);
    let (chunk, most) = if has_filters { (CHUNK_OF_BODIES, COUNTED_BODIES) } else { (CHUNK, COUNTED) };
    let mut steps = 0;
    while counted.has_more && counted.events < most && steps < COUNTED_STEPS {
        let events = api.store.past_events(&new, reached, chunk, has_filters).await?;
        let (selection, application) = (selection.clone(), Arc::clone(&application));
        let (now, expiry) = (api.store.now(), api.expiry);
        let listing = move || {
            let mut wanted = Vec::new();
            let listed = events.iter().take_while(|event| {
                let is_listed = steps < COUNTED_STEPS;
                if is_listed {
                    let (of_event, taken) = Wanted::of_event(&selection, &application, event, now, expiry);
                    wanted.extend(of_event);
                    steps += taken;
                }
                is_listed
            });
            let listed = listed.count();
            (events, listed, wanted, steps)
        };
        // Filters may take long.
        let (events, listed, wanted, taken) = if has_filters { beside_others(listing).await? } else { listing() };
        steps = taken;
        counted.deliveries += api.store.still_wanted(&new, &wanted).await?.len();
        counted.events += listed;
        counted.has_more = listed < events.len() || events.len() == chunk;
        reached = events.last().map(|event| (event.accepted_at, event.id));
    }
    Ok(Answer::of(counted))
}

/// Lists the replays, newest first.
#[utoipa::path(get, path = "/replays", operation_id = "list_replays", tag = "replays",
    params(Paging), responses((status = 200, body = Page<Shown>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(paging): Query<Paging>,
) -> Result<Page<Shown>, ApiError> {
    let (before, size) = paging.parse()?;
    let replays = api.store.replays(authorized.application, before, size.rows()).await?;
    Ok(Page::of(replays.into_iter().map(Shown::from).collect(), size, |replay| replay.id.to_string()))
}

/// Shows a replay.
#[utoipa::path(get, path = "/replays/{id}", operation_id = "show_replay", tag = "replays",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Shown>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(replay): Path<String>,
) -> Result<Answer<Shown>, ApiError> {
    let found = api.store.replay(authorized.application, id("id", &replay)?).await?.ok_or_else(no_such_replay)?;
    Ok(Answer::of(found.into()))
}

/// Pauses a replay. Deliveries already queued by the replay are still sent.
#[utoipa::path(post, path = "/replays/{id}/pause", operation_id = "pause_replay", tag = "replays",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Shown>), Failures))]
pub async fn pause(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(replay): Path<String>,
) -> Result<Answer<Shown>, ApiError> {
    api.set_replay_state(&authorized, &replay, ReplayState::Paused).await
}

/// Resumes a paused replay.
#[utoipa::path(post, path = "/replays/{id}/resume", operation_id = "resume_replay", tag = "replays",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Shown>), Failures))]
pub async fn resume(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(replay): Path<String>,
) -> Result<Answer<Shown>, ApiError> {
    api.set_replay_state(&authorized, &replay, ReplayState::Running).await
}

/// Cancels a replay for good. Deliveries already queued by the replay are still sent.
#[utoipa::path(post, path = "/replays/{id}/cancel", operation_id = "cancel_replay", tag = "replays",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Shown>), Failures))]
pub async fn cancel(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(replay): Path<String>,
) -> Result<Answer<Shown>, ApiError> {
    api.set_replay_state(&authorized, &replay, ReplayState::Cancelled).await
}

impl ApiState {
    async fn set_replay_state(
        &self,
        authorized: &AuthorizedApplication,
        text: &str,
        to: ReplayState,
    ) -> Result<Answer<Shown>, ApiError> {
        let replay: ReplayId = id("id", text)?;
        if let Some(changed) = self.store.turn_replay(authorized.application, replay, to).await? {
            return Ok(Answer::of(changed.into()));
        }
        let ended = self.store.replay(authorized.application, replay).await?.ok_or_else(no_such_replay)?;
        let message = format!("the replay is {}: create a new replay", ended.state.as_str());
        Err(ApiError::new(ErrorCode::ReplayEnded, message))
    }
}

impl New {
    async fn parse(self, api: &ApiState, authorized: &AuthorizedApplication) -> Result<NewReplay, ApiError> {
        let now = api.store.now();
        let endpoint: Option<EndpointId> = self.webhook.as_deref().map(|text| id("webhook", text)).transpose()?;
        if let Some(endpoint) = endpoint
            && api.store.endpoint(authorized.application, endpoint).await?.is_none()
        {
            return Err(ApiError::invalid("webhook", "is not the id of a webhook of the application"));
        }
        let event_types = self.types.unwrap_or_default();
        if event_types.len() > MOST_TYPES {
            return Err(ApiError::invalid("types", format!("has more than {MOST_TYPES} entries")));
        }
        for event_type in &event_types {
            Subscription::parse(event_type).map_err(|fault| ApiError::invalid("types", fault.message))?;
        }
        let usual =
            || vec![Replayed::In(DeliveryState::Failed), Replayed::In(DeliveryState::Skipped), Replayed::Unmatched];
        let states = match self.states {
            None => usual(),
            Some(texts) => texts.iter().map(|text| replayed(text)).collect::<Result<_, _>>()?,
        };
        if states.is_empty() {
            return Err(ApiError::invalid("states", "must have at least one state"));
        }
        let since = timestamp("since", &self.since)?;
        let until = self.until.as_deref().map(|text| timestamp("until", text)).transpose()?.unwrap_or(now).min(now);
        if since >= until {
            return Err(ApiError::invalid("since", "must be before `until`, and in the past"));
        }
        let rate_per_second = self.rate_per_second.unwrap_or(USUAL_RATE);
        if !RATES.contains(&rate_per_second) {
            let (least, most) = RATES.into_inner();
            return Err(ApiError::invalid("rate_per_second", format!("must be between {least} and {most}")));
        }
        Ok(NewReplay {
            id: self.id.unwrap_or_else(|| ReplayId::new(now, rand::random())),
            application: authorized.application,
            endpoint,
            event_types,
            states,
            since,
            until,
            rate_per_second,
        })
    }
}

fn replayed(text: &str) -> Result<Replayed, ApiError> {
    Replayed::parse(text).ok_or_else(|| {
        let known = Replayed::ALL.map(Replayed::as_str).join(", ");
        let named: String = text.chars().take(32).collect();
        ApiError::invalid("states", format!("holds {named:?}, but must hold only {known}"))
    })
}

fn no_such_replay() -> ApiError {
    ApiError::not_found("id", "the application has no replay with this id")
}

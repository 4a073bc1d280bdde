//! `/api/v1/search`: finds an object by an id, by the publisher's id of an event, or by a name, URL or `message_id`.

pub mod names;

use std::str::FromStr;

use axum::extract::State;
use fanfare_domain::{
    event::MAX_KEY_LENGTH,
    ids::{ApplicationId, DeliveryId, EventId, InvalidId},
};
use fanfare_store::{Hit, MAX_APPLICATIONS, MAX_ATTEMPTS, MAX_WALKED, Searched};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::Answer,
        authentication::{KeyApplication, Scope},
        error::{ApiError, Failures},
        parameters::Query,
    },
    state::ApiState,
};

/// The text of a search.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// An id of Fanfare, also with a dialect's own prefix; the publisher's id of an event; a part of a webhook's URL or
    /// name. For administrators also a part of an application's name, or the `message_id` of a parked message. 1 to 255
    /// bytes.
    pub q: String,
}

/// The kind of a found object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HitKind {
    Event,
    Delivery,
    Attempt,
    Webhook,
    Application,
    Replay,
    ParkedMessage,
    Key,
}

/// A found object.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SearchHit {
    pub kind: HitKind,
    /// The id, such as `evt_…` or `wh_…`.
    pub id: String,
    /// The application of the object; `null` for a parked message or an admin key.
    #[schema(value_type = Option<String>)]
    pub application: Option<ApplicationId>,
    /// The delivery of an attempt; else `null`.
    #[schema(value_type = Option<String>)]
    pub delivery: Option<DeliveryId>,
    /// The name of the object for people, such as an event's type or a webhook's URL.
    pub title: String,
    /// A second line for people, such as the time of acceptance.
    pub detail: String,
}

/// The result of a search.
#[derive(Debug, Serialize, ToSchema)]
pub struct Found {
    /// At most 10 objects of each kind.
    pub hits: Vec<SearchHit>,
    /// The look-ups of the search, in words.
    pub tried: Vec<String>,
    /// Events, deliveries and attempts are deleted after this time.
    pub retention_seconds: u64,
}

/// Searches by an id, by the publisher's id of an event, by name, URL or `message_id`. An administrator without an
/// application searches all applications; events, deliveries and attempts in the newest 1,000 applications.
#[utoipa::path(get, path = "/search", operation_id = "search", tag = "search",
    params(SearchQuery), responses((status = 200, body = Answer<Found>), Failures))]
pub async fn search(
    State(api): State<ApiState>,
    Scope(application): Scope,
    KeyApplication(application_of_key): KeyApplication,
    Query(query): Query<SearchQuery>,
) -> Result<Answer<Found>, ApiError> {
    let text = query.q.trim();
    if text.is_empty() || text.len() > MAX_KEY_LENGTH || text.chars().any(char::is_control) {
        let message = format!("must have 1 to {MAX_KEY_LENGTH} bytes, without control characters");
        return Err(ApiError::invalid("q", message));
    }
    let searched = api.store.searched(application).await?;
    let mut search =
        Search { api, of: searched, is_of_all: application.is_none(), is_admin: application_of_key.is_none() };
    let (mut hits, mut tried) = (Vec::new(), Vec::new());
    search.by_id(text, &mut hits, &mut tried).await?;
    if hits.is_empty() {
        search.by_text(text, &mut hits, &mut tried).await?;
    }
    let retention_seconds = search.api.retention.as_secs();
    Ok(Answer::of(Found { hits: hits.into_iter().map(SearchHit::from).collect(), tried, retention_seconds }))
}

/// A search of a caller.
struct Search {
    api: ApiState,
    of: Searched,
    /// True for a search in all applications.
    is_of_all: bool,
    is_admin: bool,
}

impl Search {
    /// Looks up the object of an id.
    async fn by_id(&mut self, text: &str, hits: &mut Vec<Hit>, tried: &mut Vec<String>) -> Result<(), ApiError> {
        let (store, of) = (&self.api.store, &self.of);
        let newest =
            if self.is_of_all { format!(", in the newest {MAX_APPLICATIONS} applications") } else { String::new() };
        let found = if let Some(event) = self.event(text) {
            tried.push(format!("the id of an event{newest}"));
            store.find_event(of, event).await?
        } else if let Some(delivery) = parsed(text) {
            tried.push(format!("the id of a delivery{newest}"));
            store.find_delivery(of, delivery).await?
        } else if let Some(attempt) = parsed(text) {
            tried.push(format!(
                "the id of an attempt{newest}: compared with at most {MAX_ATTEMPTS} attempts of the same millisecond"
            ));
            store.find_attempt(of, attempt).await?
        } else if let Some(endpoint) = parsed(text) {
            tried.push("the id of a webhook".to_owned());
            store.find_endpoint(of, endpoint).await?
        } else if let Some(application) = parsed(text) {
            tried.push("the id of an application".to_owned());
            store.find_application(of, application).await?
        } else if let Some(replay) = parsed(text) {
            tried.push("the id of a replay".to_owned());
            store.find_replay(of, replay).await?
        } else if let Some(parked) = parsed(text).filter(|_| self.is_admin) {
            tried.push("the id of a parked message".to_owned());
            store.find_parked(parked).await?
        } else if let Some(key) = parsed(text).filter(|_| self.is_admin) {
            tried.push("the id of an API key".to_owned());
            store.find_api_key(of, key).await?
        } else {
            Vec::new()
        };
        hits.extend(found);
        Ok(())
    }

    /// Parses the id of an event, with the prefix of any dialect.
    fn event(&self, text: &str) -> Option<EventId> {
        let of_dialects = || self.api.dialects.all().into_iter().find_map(|dialect| dialect.parse_event_id(text));
        parsed(text).or_else(of_dialects)
    }

    /// Looks for the publisher's id of an event, and for texts.
    async fn by_text(&mut self, text: &str, hits: &mut Vec<Hit>, tried: &mut Vec<String>) -> Result<(), ApiError> {
        let (store, of) = (&self.api.store, &self.of);
        let newest =
            if self.is_of_all { format!(", in the newest {MAX_APPLICATIONS} applications") } else { String::new() };
        tried.push(format!("the publisher's id of an event{newest}"));
        hits.extend(store.find_key(of, text).await?);
        tried.push(format!("a part of the URL or name of a webhook, among the newest {MAX_WALKED}"));
        hits.extend(store.find_endpoints(of, text).await?);
        if self.is_of_all {
            tried.push(format!("a part of the name of an application, among the newest {MAX_WALKED}"));
            hits.extend(store.find_applications(text).await?);
        }
        if self.is_admin {
            tried.push("the message_id of a parked message".to_owned());
            hits.extend(store.find_parked_by_message_id(text).await?);
        }
        Ok(())
    }
}

fn parsed<T: FromStr<Err = InvalidId>>(text: &str) -> Option<T> {
    text.parse().ok()
}

impl From<Hit> for SearchHit {
    fn from(hit: Hit) -> Self {
        let of = |kind, id: String, application, title: String, detail: String| Self {
            kind,
            id,
            application,
            delivery: None,
            title,
            detail,
        };
        match hit {
            Hit::Event { id, application, event_type, accepted_at } => {
                of(HitKind::Event, id.to_string(), Some(application), event_type, format!("accepted {accepted_at}"))
            }
            Hit::Delivery { id, application, url, state } => {
                of(HitKind::Delivery, id.to_string(), Some(application), url, state.as_str().to_owned())
            }
            Hit::Attempt { id, application, delivery, attempt } => Self {
                delivery: Some(delivery),
                ..of(
                    HitKind::Attempt,
                    id.to_string(),
                    Some(application),
                    format!("attempt {attempt}"),
                    format!("of the delivery {delivery}"),
                )
            },
            Hit::Endpoint { id, application, name, url, is_deleted } => {
                let detail = if is_deleted { "deleted".to_owned() } else { name.unwrap_or_default() };
                of(HitKind::Webhook, id.to_string(), Some(application), url, detail)
            }
            Hit::Application { id, name } => of(HitKind::Application, id.to_string(), Some(id), name, String::new()),
            Hit::Replay { id, application, state, created_at } => {
                let title = format!("replay, {state}");
                of(HitKind::Replay, id.to_string(), Some(application), title, format!("created {created_at}"))
            }
            Hit::Parked { id, reason, parked_at } => {
                of(HitKind::ParkedMessage, id.to_string(), None, reason, format!("parked {parked_at}"))
            }
            Hit::Key { id, application, role, is_revoked } => {
                let title = format!("{} key", role.as_str());
                let detail = if is_revoked { "revoked".to_owned() } else { String::new() };
                of(HitKind::Key, id.to_string(), application, title, detail)
            }
        }
    }
}

//! `/api/v1/parked`: messages that could not be read. They are the operators': what cannot be read belongs to no
//! application for certain.

use axum::extract::State;
use base64::{Engine, prelude::BASE64_STANDARD};
use fanfare_broker::{PublishError, PutBack, Unreadable, encode_put_back};
use fanfare_domain::{ids::ParkedId, parked::Edit};
use fanfare_service::crash_point;
use fanfare_store::{ParkedFilter, ParkedRow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    ApiError, Console, ErrorCode, Failures,
    answer::{Answer, Page},
    body::{Fields, OptionalFields},
    request::{Administrator, Path, Query, check_label, id, page_size},
};

/// Messages that one request puts back or discards.
const MAX_AT_ONCE: usize = 100;

/// A message that could not be read.
#[derive(Serialize, ToSchema)]
pub(crate) struct Parked {
    #[schema(value_type = String, example = "prk_01h455vb4pex5vsknk084sn02q")]
    id: ParkedId,
    #[schema(value_type = String, format = DateTime)]
    parked_at: Timestamp,
    /// The code of what is wrong with it.
    #[schema(example = "missing_message_id")]
    reason: String,
    /// What is wrong with it, for people.
    message: String,
    /// The exchange that it came from, and is put back to: `events` or `deliveries`.
    #[schema(example = "events")]
    origin: &'static str,
    routing_key: Option<String>,
    message_id: Option<String>,
    /// How long its body is.
    bytes: i32,
}

impl From<ParkedRow> for Parked {
    fn from(row: ParkedRow) -> Self {
        let ParkedRow { id, parked_at, reason, message, origin, routing_key, message_id, bytes } = row;
        Self { id, parked_at, reason, message, origin: origin.as_str(), routing_key, message_id, bytes }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ParkedDetail {
    #[serde(flatten)]
    parked: Parked,
    /// The headers that it was published with.
    #[schema(value_type = Object)]
    headers: Option<Box<RawValue>>,
    /// Its body, where that is UTF-8.
    body: Option<String>,
    /// Its body, where that is not UTF-8.
    body_base64: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Those with this reason.
    reason: Option<String>,
    /// The `next` of the page before.
    before: Option<String>,
    /// 1 to 100, 50 where it is left out.
    limit: Option<usize>,
}

/// Lists the parked messages, newest first. Takes an admin key.
#[utoipa::path(get, path = "/parked", operation_id = "list_parked", tag = "parked messages",
    params(Filter), responses((status = 200, body = Page<Parked>), Failures))]
pub(crate) async fn list(
    State(console): State<Console>,
    _: Administrator,
    Query(filter): Query<Filter>,
) -> Result<Page<Parked>, ApiError> {
    let size = page_size(filter.limit)?;
    filter.reason.as_deref().map(|reason| check_label("reason", reason)).transpose()?;
    let filter = ParkedFilter {
        ids: None,
        reason: filter.reason,
        before: filter.before.as_deref().map(|text| id("before", text)).transpose()?,
        limit: size.rows(),
    };
    let rows = console.store.parked(&filter).await?;
    Ok(Page::of(rows.into_iter().map(Parked::from).collect(), size, |parked| parked.id.to_string()))
}

/// Shows a parked message with its headers and its body. Takes an admin key.
#[utoipa::path(get, path = "/parked/{id}", operation_id = "show_parked", tag = "parked messages",
    params(("id" = String, Path)), responses((status = 200, body = Answer<ParkedDetail>), Failures))]
pub(crate) async fn show(
    State(console): State<Console>,
    _: Administrator,
    Path(parked): Path<String>,
) -> Result<Answer<ParkedDetail>, ApiError> {
    let (row, headers, body) = console.store.parked_message(id("id", &parked)?).await?.ok_or_else(no_such_parked)?;
    let (body, body_base64) = match String::from_utf8(body) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    };
    Ok(Answer::of(ParkedDetail { parked: row.into(), headers: RawValue::from_string(headers).ok(), body, body_base64 }))
}

/// What of a message is changed before it is put back; what is left out stays.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ParkedEdit)]
pub(crate) struct NewEdit {
    /// `<application>.<event type>`.
    routing_key: Option<String>,
    message_id: Option<String>,
    /// The whole body, as text.
    body: Option<String>,
}

/// What was done with parked messages.
#[derive(Serialize, ToSchema)]
pub(crate) struct Handled {
    #[schema(value_type = Vec<String>)]
    handled: Vec<ParkedId>,
    /// Whether there may be more: as many were handled as one request may.
    has_more: bool,
}

/// Puts a message back to where it came from, as it is or edited. It is parked again, under another id, where it
/// still cannot be read. Refused where its routing key or its `message_id` is not UTF-8 and is not edited. Takes an
/// admin key.
#[utoipa::path(post, path = "/parked/{id}/put-back", operation_id = "put_back_parked", tag = "parked messages",
    params(("id" = String, Path)), request_body = Option<NewEdit>,
    responses((status = 200, body = Answer<Handled>), Failures))]
pub(crate) async fn put_back(
    State(console): State<Console>,
    _: Administrator,
    Path(parked): Path<String>,
    OptionalFields(edit): OptionalFields<NewEdit>,
) -> Result<Answer<Handled>, ApiError> {
    let parked = id("id", &parked)?;
    let edit = Edit::from(edit);
    edit.check()?;
    console.put_back(parked, &edit).await?;
    Ok(Answer::of(Handled { handled: vec![parked], has_more: false }))
}

/// Forgets a parked message. Takes an admin key.
#[utoipa::path(delete, path = "/parked/{id}", operation_id = "discard_parked", tag = "parked messages",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Handled>), Failures))]
pub(crate) async fn discard(
    State(console): State<Console>,
    _: Administrator,
    Path(parked): Path<String>,
) -> Result<Answer<Handled>, ApiError> {
    let parked = id("id", &parked)?;
    if !console.store.discard_parked(parked).await? {
        return Err(no_such_parked());
    }
    Ok(Answer::of(Handled { handled: vec![parked], has_more: false }))
}

/// Which messages: these, or all with a reason, the newest first.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ParkedChoice)]
pub(crate) struct Choice {
    /// At most 100 ids.
    ids: Option<Vec<String>>,
    reason: Option<String>,
}

/// Puts many messages back as they are, at most 100 at once. Takes an admin key.
#[utoipa::path(post, path = "/parked/put-back", operation_id = "put_back_many_parked", tag = "parked messages",
    request_body = Choice, responses((status = 200, body = Answer<Handled>), Failures))]
pub(crate) async fn put_back_many(
    State(console): State<Console>,
    _: Administrator,
    Fields(choice): Fields<Choice>,
) -> Result<Answer<Handled>, ApiError> {
    let chosen = console.chosen(choice).await?;
    for parked in &chosen {
        match console.put_back(*parked, &Edit::default()).await {
            // Somebody else was faster.
            Err(error) if error.is_not_found() => {}
            done => done?,
        }
    }
    Ok(Answer::of(Handled { has_more: chosen.len() == MAX_AT_ONCE, handled: chosen }))
}

/// Forgets many parked messages, at most 100 at once. Takes an admin key.
#[utoipa::path(post, path = "/parked/discard", operation_id = "discard_many_parked", tag = "parked messages",
    request_body = Choice, responses((status = 200, body = Answer<Handled>), Failures))]
pub(crate) async fn discard_many(
    State(console): State<Console>,
    _: Administrator,
    Fields(choice): Fields<Choice>,
) -> Result<Answer<Handled>, ApiError> {
    let chosen = console.chosen(choice).await?;
    for parked in &chosen {
        console.store.discard_parked(*parked).await?;
    }
    Ok(Answer::of(Handled { has_more: chosen.len() == MAX_AT_ONCE, handled: chosen }))
}

impl From<NewEdit> for Edit {
    fn from(edit: NewEdit) -> Self {
        let NewEdit { routing_key, message_id, body } = edit;
        Self { routing_key, message_id, body: body.map(String::into_bytes) }
    }
}

impl Console {
    async fn chosen(&self, choice: Choice) -> Result<Vec<ParkedId>, ApiError> {
        choice.reason.as_deref().map(|reason| check_label("reason", reason)).transpose()?;
        let ids = match (choice.ids, &choice.reason) {
            (None, None) => return Err(ApiError::new(ErrorCode::MissingField, "give `ids` or a `reason`").at("ids")),
            (Some(ids), _) if ids.is_empty() || ids.len() > MAX_AT_ONCE => {
                return Err(ApiError::invalid("ids", format!("must have 1 to {MAX_AT_ONCE} ids")));
            }
            (ids, _) => ids,
        };
        let ids = ids.map(|ids| ids.iter().map(|text| id("ids", text)).collect::<Result<Vec<_>, _>>()).transpose()?;
        let filter = ParkedFilter { ids, reason: choice.reason, before: None, limit: MAX_AT_ONCE };
        Ok(self.store.parked(&filter).await?.iter().map(|row| row.id).collect())
    }

    /// Publishes a parked message, and then forgets it: a crash between the two can only put it back twice, and
    /// what is published twice is one event.
    async fn put_back(&self, parked: ParkedId, edit: &Edit) -> Result<(), ApiError> {
        let (row, headers, body) = self.store.parked_message(parked).await?.ok_or_else(no_such_parked)?;
        let put_back = PutBack {
            origin: row.origin,
            reason: &row.reason,
            routing_key: row.routing_key.as_deref(),
            message_id: row.message_id.as_deref(),
            headers: &headers,
            body: &body,
        };
        let message = encode_put_back(&self.topology, &put_back, edit);
        let message = message.map_err(|unreadable| not_to_put_back(parked, &unreadable))?;
        let published = self.publisher.publish(message).await;
        published.map_err(not_put_back)?;
        crash_point("put_back.confirmed");
        self.store.discard_parked(parked).await?;
        Ok(())
    }
}

fn not_to_put_back(parked: ParkedId, unreadable: &Unreadable) -> ApiError {
    let message = format!("{parked} stays parked: {unreadable}; put it back with another");
    ApiError::new(ErrorCode::InvalidField, message)
}

fn not_put_back(error: PublishError) -> ApiError {
    let code = match error {
        PublishError::Unavailable => ErrorCode::BrokerUnavailable,
        PublishError::Refused => ErrorCode::BrokerRefused,
        PublishError::Unknown => ErrorCode::OutcomeUnknown,
    };
    ApiError::new(code, format!("{error}; the message stays parked: put it back again")).retry_after(5)
}

fn no_such_parked() -> ApiError {
    ApiError::not_found("id", "there is no such parked message; it may have been put back or discarded")
}

//! `/api/v1/parked`: messages that Fanfare could not process. Only administrators have access: the application of such
//! a message is uncertain.

use axum::extract::State;
use base64::{Engine, prelude::BASE64_STANDARD};
use fanfare_broker::{PublishError, PutBack, Unreadable, encode_put_back};
use fanfare_domain::{event::parked::Edit, ids::ParkedId};
use fanfare_service::crash_point;
use fanfare_store::{ParkedFilter, ParkedRow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::{Answer, Page},
        authentication::Administrator,
        body::{JsonBody, OptionalJsonBody},
        error::{ApiError, ErrorCode, Failures},
        paging::Paging,
        parameters::{Path, Query, check_display_name, id, timestamp},
    },
    state::ApiState,
};

/// The maximum number of messages in a request to put back or discard.
const MAX_AT_ONCE: usize = 100;

/// The longest routing key in bytes: of AMQP 255, each replaced by a character of three bytes if invalid.
const MAX_ROUTING_KEY: usize = 765;

/// A message that Fanfare could not process.
#[derive(Serialize, ToSchema)]
pub struct Parked {
    #[schema(value_type = String, example = "prk_01h455vb4pex5vsknk084sn02q")]
    pub id: ParkedId,
    #[schema(value_type = String, format = DateTime)]
    pub parked_at: Timestamp,
    /// The code of the fault.
    #[schema(example = "missing_message_id")]
    pub reason: String,
    /// The fault, for people.
    pub message: String,
    /// The exchange that received the message, also used by a put-back: `events` or `deliveries`.
    #[schema(example = "events")]
    pub origin: &'static str,
    pub routing_key: Option<String>,
    pub message_id: Option<String>,
    /// The length of the whole body, in bytes. Of a body of more than 1 MiB that is too long for an event, the first 64
    /// KiB are kept.
    pub bytes: i32,
}

impl From<ParkedRow> for Parked {
    fn from(row: ParkedRow) -> Self {
        let ParkedRow { id, parked_at, reason, message, origin, routing_key, message_id, bytes } = row;
        Self { id, parked_at, reason, message, origin: origin.as_str(), routing_key, message_id, bytes }
    }
}

/// A parked message with headers and body.
#[derive(Serialize, ToSchema)]
pub struct ParkedDetail {
    #[serde(flatten)]
    pub parked: Parked,
    /// The AMQP headers of the message.
    #[schema(value_type = Object)]
    pub headers: Option<Box<RawValue>>,
    /// The body, if valid UTF-8.
    pub body: Option<String>,
    /// The body in Base64, if not valid UTF-8.
    pub body_base64: Option<String>,
}

/// Selects the parked messages of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only messages with this reason.
    pub reason: Option<String>,
    /// Only messages with this routing key.
    pub routing_key: Option<String>,
    /// `true`: only messages without a routing key.
    pub without_routing_key: Option<bool>,
    /// Only messages parked at or after this time.
    pub since: Option<String>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

/// Lists the parked messages, newest first. Requires an admin key.
#[utoipa::path(get, path = "/parked", operation_id = "list_parked", tag = "parked messages",
    params(Filter), responses((status = 200, body = Page<Parked>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    _: Administrator,
    Query(filter): Query<Filter>,
) -> Result<Page<Parked>, ApiError> {
    let (before, size) = Paging { before: filter.before, limit: filter.limit }.parse()?;
    check_choice(filter.reason.as_deref(), filter.routing_key.as_deref())?;
    let filter = ParkedFilter {
        ids: None,
        reason: filter.reason,
        routing_key: chosen_key(filter.without_routing_key, filter.routing_key)?,
        since: filter.since.as_deref().map(|text| timestamp("since", text)).transpose()?,
        before,
        limit: size.rows(),
    };
    let rows = api.store.parked(&filter).await?;
    Ok(Page::of(rows.into_iter().map(Parked::from).collect(), size, |parked| parked.id.to_string()))
}

/// Parked messages with the same reason and routing key.
#[derive(Serialize, ToSchema)]
pub struct ParkedGroup {
    #[schema(example = "missing_message_id")]
    pub reason: String,
    /// `null` for messages without a routing key.
    pub routing_key: Option<String>,
    /// The number of messages.
    pub messages: i64,
    #[schema(value_type = String, format = DateTime)]
    pub oldest_parked_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub newest_parked_at: Timestamp,
}

/// Parked messages by reason and routing key.
#[derive(Serialize, ToSchema)]
pub struct ParkedGroups {
    /// At most 100 groups, the largest first.
    pub groups: Vec<ParkedGroup>,
    /// True if there are more groups.
    pub has_more: bool,
    /// The time back to which messages were counted; `null` if all messages were counted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub searched_until: Option<Timestamp>,
}

/// Counts the parked messages by reason and routing key, among the newest 20,000. Requires an admin key.
#[utoipa::path(get, path = "/parked/groups", operation_id = "group_parked", tag = "parked messages",
    responses((status = 200, body = Answer<ParkedGroups>), Failures))]
pub async fn groups(State(api): State<ApiState>, _: Administrator) -> Result<Answer<ParkedGroups>, ApiError> {
    let found = api.store.parked_groups().await?;
    let group = |group: fanfare_store::ParkedGroup| ParkedGroup {
        reason: group.reason,
        routing_key: group.routing_key,
        messages: group.messages,
        oldest_parked_at: group.oldest,
        newest_parked_at: group.newest,
    };
    let groups = found.groups.into_iter().map(group).collect();
    Ok(Answer::of(ParkedGroups { groups, has_more: found.has_more, searched_until: found.searched_until }))
}

/// Shows a parked message with headers and body. Requires an admin key.
#[utoipa::path(get, path = "/parked/{id}", operation_id = "show_parked", tag = "parked messages",
    params(("id" = String, Path)), responses((status = 200, body = Answer<ParkedDetail>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    _: Administrator,
    Path(parked): Path<String>,
) -> Result<Answer<ParkedDetail>, ApiError> {
    let (row, headers, body) = api.store.parked_message(id("id", &parked)?).await?.ok_or_else(no_such_parked)?;
    let is_cut = usize::try_from(row.bytes).is_ok_and(|bytes| bytes > body.len());
    let (body, body_base64) = match String::from_utf8(body) {
        Ok(text) => (Some(text), None),
        // The cut may be within a character.
        Err(error) if is_cut && error.utf8_error().error_len().is_none() => {
            let text = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            (Some(String::from_utf8_lossy(text).into_owned()), None)
        }
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    };
    Ok(Answer::of(ParkedDetail { parked: row.into(), headers: RawValue::from_string(headers).ok(), body, body_base64 }))
}

/// Changes to a message before the put-back. Omitted fields keep their value.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ParkedEdit)]
pub struct NewEdit {
    /// `<application>.<event type>`.
    pub routing_key: Option<String>,
    /// Refused for a CloudEvent, whose key is its source and id.
    #[schema(write_only)]
    pub message_id: Option<String>,
    /// The complete new body, as text. Replaces the attributes of a CloudEvent in headers, too.
    #[schema(write_only)]
    pub body: Option<String>,
}

/// The messages put back or discarded by a request.
#[derive(Serialize, ToSchema)]
pub struct Handled {
    #[schema(value_type = Vec<String>)]
    pub handled: Vec<ParkedId>,
    /// Messages that stay parked, with the reason: Fanfare could not process these messages unchanged.
    pub refused: Vec<Refused>,
    /// True if more messages may match: the request reached the limit of 100.
    pub has_more: bool,
}

/// A message that stays parked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RefusedPutBack)]
pub struct Refused {
    #[schema(value_type = String)]
    pub id: ParkedId,
    pub message: String,
}

/// Puts a message back into its exchange, unchanged or edited. If Fanfare still cannot process the message, the message
/// is parked again under another id. A routing key or `message_id` with invalid UTF-8 must be edited. Requires an admin
/// key.
#[utoipa::path(post, path = "/parked/{id}/put-back", operation_id = "put_back_parked", tag = "parked messages",
    params(("id" = String, Path)), request_body = Option<NewEdit>,
    responses((status = 200, body = Answer<Handled>), Failures))]
pub async fn put_back(
    State(api): State<ApiState>,
    _: Administrator,
    Path(parked): Path<String>,
    OptionalJsonBody(edit): OptionalJsonBody<NewEdit>,
) -> Result<Answer<Handled>, ApiError> {
    let parked = id("id", &parked)?;
    let edit = Edit::from(edit);
    edit.check()?;
    api.put_back(parked, &edit).await?;
    Ok(Answer::of(Handled { handled: vec![parked], refused: Vec::new(), has_more: false }))
}

/// Discards a parked message for good. Requires an admin key.
#[utoipa::path(delete, path = "/parked/{id}", operation_id = "discard_parked", tag = "parked messages",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Handled>), Failures))]
pub async fn discard(
    State(api): State<ApiState>,
    _: Administrator,
    Path(parked): Path<String>,
) -> Result<Answer<Handled>, ApiError> {
    let parked = id("id", &parked)?;
    if !api.store.discard_parked(parked).await? {
        return Err(no_such_parked());
    }
    Ok(Answer::of(Handled { handled: vec![parked], refused: Vec::new(), has_more: false }))
}

/// Selects messages, newest first, by at least one condition. A message must meet all conditions.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ParkedChoice)]
pub struct Choice {
    /// At most 100 ids.
    pub ids: Option<Vec<String>>,
    pub reason: Option<String>,
    pub routing_key: Option<String>,
    /// `true`: only messages without a routing key.
    pub without_routing_key: Option<bool>,
}

/// Puts many messages back unchanged, at most 100 per request. A message that Fanfare could not process unchanged stays
/// parked. Requires an admin key.
#[utoipa::path(post, path = "/parked/put-back", operation_id = "put_back_many_parked", tag = "parked messages",
    request_body = Choice, responses((status = 200, body = Answer<Handled>), Failures))]
pub async fn put_back_many(
    State(api): State<ApiState>,
    _: Administrator,
    JsonBody(choice): JsonBody<Choice>,
) -> Result<Answer<Handled>, ApiError> {
    let chosen = api.chosen(choice).await?;
    let (mut handled, mut refused) = (Vec::new(), Vec::new());
    for parked in &chosen {
        match api.put_back(*parked, &Edit::default()).await {
            Err(error) if error.code == ErrorCode::InvalidField => {
                refused.push(Refused { id: *parked, message: error.message });
                continue;
            }
            // Another request has put back or discarded this message.
            Err(error) if error.is_not_found() => {}
            done => done?,
        }
        handled.push(*parked);
    }
    Ok(Answer::of(Handled { handled, refused, has_more: chosen.len() == MAX_AT_ONCE }))
}

/// Discards many parked messages for good, at most 100 per request. Requires an admin key.
#[utoipa::path(post, path = "/parked/discard", operation_id = "discard_many_parked", tag = "parked messages",
    request_body = Choice, responses((status = 200, body = Answer<Handled>), Failures))]
pub async fn discard_many(
    State(api): State<ApiState>,
    _: Administrator,
    JsonBody(choice): JsonBody<Choice>,
) -> Result<Answer<Handled>, ApiError> {
    let chosen = api.chosen(choice).await?;
    for parked in &chosen {
        api.store.discard_parked(*parked).await?;
    }
    let has_more = chosen.len() == MAX_AT_ONCE;
    Ok(Answer::of(Handled { handled: chosen, refused: Vec::new(), has_more }))
}

impl From<NewEdit> for Edit {
    fn from(edit: NewEdit) -> Self {
        let NewEdit { routing_key, message_id, body } = edit;
        Self { routing_key, message_id, body: body.map(String::into_bytes) }
    }
}

impl ApiState {
    async fn chosen(&self, choice: Choice) -> Result<Vec<ParkedId>, ApiError> {
        check_choice(choice.reason.as_deref(), choice.routing_key.as_deref())?;
        let key = chosen_key(choice.without_routing_key, choice.routing_key)?;
        let ids = match (choice.ids, choice.reason.is_some() || key.is_some()) {
            (None, false) => {
                let message = "give `ids`, a `reason` or a `routing_key`";
                return Err(ApiError::new(ErrorCode::MissingField, message).at("ids"));
            }
            (Some(ids), _) if ids.is_empty() || ids.len() > MAX_AT_ONCE => {
                return Err(ApiError::invalid("ids", format!("must have 1 to {MAX_AT_ONCE} ids")));
            }
            (ids, _) => ids,
        };
        let ids = ids.map(|ids| ids.iter().map(|text| id("ids", text)).collect::<Result<Vec<_>, _>>()).transpose()?;
        let filter = ParkedFilter {
            ids,
            reason: choice.reason,
            routing_key: key,
            limit: MAX_AT_ONCE,
            ..ParkedFilter::default()
        };
        Ok(self.store.parked(&filter).await?.iter().map(|row| row.id).collect())
    }

    /// Publishes a parked message, then deletes the row. After a crash between the two steps, the message can be put
    /// back again. Both copies become a single event.
    async fn put_back(&self, parked: ParkedId, edit: &Edit) -> Result<(), ApiError> {
        let (row, headers, body) = self.store.parked_message(parked).await?.ok_or_else(no_such_parked)?;
        let put_back = PutBack {
            origin: row.origin,
            reason: &row.reason,
            routing_key: row.routing_key.as_deref(),
            message_id: row.message_id.as_deref(),
            headers: &headers,
            body: &body,
            size: usize::try_from(row.bytes).unwrap_or_default(),
        };
        let message = encode_put_back(&self.publishing.topology, &put_back, edit);
        let message = message.map_err(|unreadable| invalid_put_back(parked, &unreadable))?;
        let published = self.publishing.publisher.publish(message).await;
        published.map_err(not_published)?;
        crash_point("put_back.confirmed");
        self.store.discard_parked(parked).await?;
        Ok(())
    }
}

/// The routing key of a choice; empty for messages without a routing key.
fn chosen_key(without: Option<bool>, routing_key: Option<String>) -> Result<Option<String>, ApiError> {
    match (without.unwrap_or_default(), routing_key) {
        (true, Some(_)) => Err(ApiError::invalid("without_routing_key", "excludes `routing_key`: give one of both")),
        (true, None) => Ok(Some(String::new())),
        (false, key) => Ok(key),
    }
}

/// Checks a reason and a routing key.
fn check_choice(reason: Option<&str>, routing_key: Option<&str>) -> Result<(), ApiError> {
    reason.map(|reason| check_display_name("reason", reason)).transpose()?;
    let is_sound = |key: &str| (1..=MAX_ROUTING_KEY).contains(&key.len()) && !key.chars().any(char::is_control);
    match routing_key {
        Some(key) if !is_sound(key) => Err(ApiError::invalid(
            "routing_key",
            format!("must have 1 to {MAX_ROUTING_KEY} bytes, without control characters"),
        )),
        _ => Ok(()),
    }
}

fn invalid_put_back(parked: ParkedId, unreadable: &Unreadable) -> ApiError {
    let message = format!("{parked} stays parked: {unreadable}; put the message back with another value");
    ApiError::new(ErrorCode::InvalidField, message)
}

fn not_published(error: PublishError) -> ApiError {
    let code = match error {
        PublishError::Unavailable => ErrorCode::BrokerUnavailable,
        PublishError::Refused => ErrorCode::BrokerRefused,
        PublishError::Unknown => ErrorCode::OutcomeUnknown,
    };
    ApiError::new(code, format!("{error}; the message stays parked: put the message back again later")).retry_after(5)
}

fn no_such_parked() -> ApiError {
    ApiError::not_found("id", "no parked message has this id: the message may have been put back or discarded")
}

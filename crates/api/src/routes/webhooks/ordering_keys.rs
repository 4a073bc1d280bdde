//! `/api/v1/webhooks/{id}/ordering-keys`: the ordering keys that wait at a webhook with FIFO.

use axum::extract::State;
use fanfare_domain::{event::ordering::OrderingKey, ids::DeliveryId};
use fanfare_store::WaitingKey as Row;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{
        answer::{Answer, Page},
        authentication::AuthorizedApplication,
        body::JsonBody,
        error::{ApiError, Failures},
        paging::{PageQuery, page_size},
        parameters::{Path, Query},
    },
    state::ApiState,
};

/// The highest count of open deliveries of a key.
const MAX_COUNTED: usize = 10_000;

/// An ordering key with open deliveries, or a parked key.
#[derive(Serialize, ToSchema)]
pub struct WaitingKey {
    #[schema(example = "order-1001")]
    pub key: String,
    /// `open`, or `parked`: a delivery was given up, and the others wait until the key is resumed.
    #[schema(example = "parked")]
    pub state: &'static str,
    /// The first open delivery. The others wait until it has ended.
    #[schema(value_type = Option<String>)]
    pub first: Option<DeliveryId>,
    /// The number of the first open delivery.
    pub sequence: Option<u64>,
    /// The number of open deliveries, counted up to 10,000.
    pub open: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub parked_at: Option<Timestamp>,
    /// The given-up delivery.
    #[schema(value_type = Option<String>)]
    pub parked_by: Option<DeliveryId>,
}

impl From<Row> for WaitingKey {
    fn from(row: Row) -> Self {
        let (first, sequence) = row.first.unzip();
        Self {
            key: row.key,
            state: if row.parked_at.is_some() { "parked" } else { "open" },
            first,
            sequence,
            open: row.open,
            parked_at: row.parked_at,
            parked_by: row.parked_by,
        }
    }
}

/// Lists the ordering keys of a webhook with `fifo` that have open deliveries or are parked, in the order of keys.
#[utoipa::path(get, path = "/webhooks/{id}/ordering-keys", operation_id = "list_ordering_keys", tag = "webhooks",
    params(("id" = String, Path), PageQuery), responses((status = 200, body = Page<WaitingKey>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Page<WaitingKey>, ApiError> {
    let size = page_size(page.limit.or(Some(100)))?;
    let before = page.before.map(|before| OrderingKey::parse("before", &before)).transpose()?;
    let row = api.endpoint(&authorized, &webhook).await?;
    let keys =
        api.store.waiting_keys(row.id, before.as_ref().map(OrderingKey::as_str), size.rows(), MAX_COUNTED).await?;
    let keys = keys.into_iter().map(WaitingKey::from).collect();
    Ok(Page::of(keys, size, |key| key.key.clone()))
}

/// The key to resume.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyToResume)]
pub struct Resume {
    /// Default: all parked keys of the webhook.
    #[schema(example = "order-1001", write_only)]
    pub key: Option<String>,
}

/// Number of resumed keys.
#[derive(Serialize, ToSchema)]
pub struct ResumedKeys {
    #[schema(example = 1)]
    pub resumed: u64,
}

/// Resumes a parked ordering key, or all: the next deliveries are sent. Resend a given-up delivery first, if its
/// receiver needs it: the resend of an ended delivery stands outside the order.
#[utoipa::path(post, path = "/webhooks/{id}/ordering-keys/resume", operation_id = "resume_ordering_keys",
    tag = "webhooks", params(("id" = String, Path)), request_body = Resume,
    responses((status = 200, body = Answer<ResumedKeys>), Failures))]
pub async fn resume(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
    JsonBody(Resume { key }): JsonBody<Resume>,
) -> Result<Answer<ResumedKeys>, ApiError> {
    let row = api.endpoint(&authorized, &webhook).await?;
    let key = key.map(|key| OrderingKey::parse("key", &key)).transpose()?;
    let resumed = api.store.resume_keys(authorized.application, row.id, key.as_ref()).await?;
    if resumed == 0 && key.is_some() {
        return Err(ApiError::not_found("key", "the webhook has no parked ordering key with this name"));
    }
    Ok(Answer::of(ResumedKeys { resumed }))
}

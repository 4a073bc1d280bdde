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

/// Lists the ordering keys with open deliveries, and the parked keys, of a webhook with `fifo`, in the order of keys.
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
    #[schema(example = "order-1001", write_only)]
    pub key: String,
}

/// A resumed key.
#[derive(Serialize, ToSchema)]
pub struct ResumedKey {
    pub key: String,
    #[schema(example = true)]
    pub resumed: bool,
}

/// Resumes a parked ordering key: its next delivery is sent. Resend the given-up delivery first, if its receiver needs
/// it: a resend stands outside the order.
#[utoipa::path(post, path = "/webhooks/{id}/ordering-keys/resume", operation_id = "resume_ordering_key",
    tag = "webhooks", params(("id" = String, Path)), request_body = Resume,
    responses((status = 200, body = Answer<ResumedKey>), Failures))]
pub async fn resume(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
    JsonBody(Resume { key }): JsonBody<Resume>,
) -> Result<Answer<ResumedKey>, ApiError> {
    let row = api.endpoint(&authorized, &webhook).await?;
    let parsed = OrderingKey::parse("key", &key)?;
    if !api.store.resume_key(authorized.application, row.id, &parsed).await? {
        return Err(ApiError::not_found("key", "the webhook has no parked ordering key with this name"));
    }
    Ok(Answer::of(ResumedKey { key, resumed: true }))
}

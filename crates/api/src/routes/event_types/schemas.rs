//! `/api/v1/event-types/{name}/schemas`: versions of a type's schema.

use axum::extract::State;
use fanfare_domain::event::EventType;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        error::{ApiError, Failures},
        parameters::Path,
    },
    state::ApiState,
};

/// A version of an event type's schema.
#[derive(Serialize, ToSchema)]
pub struct SchemaVersion {
    #[schema(example = "invoice.paid")]
    pub name: String,
    #[schema(example = 1)]
    pub version: u32,
    /// JSON Schema, draft 2020-12.
    #[schema(value_type = serde_json::Value)]
    pub schema: Option<Box<RawValue>>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// Shows a version of an event type's schema. A version never changes.
#[utoipa::path(get, path = "/event-types/{name}/schemas/{version}", operation_id = "show_event_schema",
    tag = "event types", params(("name" = String, Path), ("version" = u32, Path)),
    responses((status = 200, body = Answer<SchemaVersion>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path((name, version)): Path<(String, u32)>,
) -> Result<Answer<SchemaVersion>, ApiError> {
    let missing = || ApiError::not_found("version", "the application's event type has no such version of a schema");
    let event_type = EventType::parse(&name).map_err(|_| missing())?;
    let row = api.store.event_schema(authorized.application, &event_type, Some(version)).await?.ok_or_else(missing)?;
    let schema = RawValue::from_string(row.schema).ok();
    Ok(Answer::of(SchemaVersion { name, version: row.version, schema, created_at: row.created_at }))
}

//! `/api/v1/applications`

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use fanfare_domain::{access::Role, ids::ApplicationId};
use fanfare_store::ApplicationRow;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ApiError, Console,
    request::{Fields, Query, authenticate, id, page_size},
    success,
};

#[derive(Serialize)]
struct Application {
    id: ApplicationId,
    name: String,
    created_at: Timestamp,
}

impl From<ApplicationRow> for Application {
    fn from(row: ApplicationRow) -> Self {
        Self { id: row.id, name: row.name, created_at: row.created_at }
    }
}

pub(crate) async fn create(
    State(console): State<Console>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    authenticate(&headers, &console.directory, &[Role::Admin])?;
    let mut fields = Fields::read(&headers, body).await?;
    let name = fields.required_text("name")?;
    fields.finish()?;
    if name.trim().is_empty() || name.len() > 200 || name.contains('\0') {
        return Err(ApiError::invalid("name", "must have 1 to 200 bytes that are not all blank"));
    }
    let id = ApplicationId::new(Timestamp::now(), rand::random());
    let created = console.store.create_application(id, &name).await?;
    Ok((StatusCode::CREATED, success(Application::from(created))).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Page {
    before: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn list(
    State(console): State<Console>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authenticate(&headers, &console.directory, &[Role::Admin])?;
    let before = page.before.as_deref().map(|text| id("before", text)).transpose()?;
    let rows = console.store.applications(before, page_size(page.limit)?).await?;
    Ok(success(rows.into_iter().map(Application::from).collect::<Vec<_>>()))
}

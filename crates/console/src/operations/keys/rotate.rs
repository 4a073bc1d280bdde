//! The rotation of a key.

use axum::{body::Bytes, extract::State, http::StatusCode, response::Response};
use fanfare_api::{
    http::{
        body::from_value,
        error::ApiError,
        parameters::{Path, id},
    },
    routes::keys::{self, Key},
};
use fanfare_domain::{access::session::Right, ids::KeyId};
use serde_json::json;

use crate::{
    Console,
    frame::{fault::Fault, form::Fields, respond::page_with},
    operations::keys::{create::Created, show::key_page},
    session::visitor::Visitor,
};

/// Rotates a key, and shows the text of the new key.
pub(super) async fn rotate(
    State(console): State<Console>,
    visitor: Visitor,
    Path(key): Path<String>,
    body: Bytes,
) -> Result<Response, Fault> {
    visitor.administrator()?;
    let fields = Fields::of_body(&body);
    match rotated(&console, &visitor, &key, &fields).await {
        Ok(next) => page_with(StatusCode::CREATED, &visitor, &Created::of(&visitor, next, Some(key))),
        Err(error) => {
            let status = error.status();
            let shown = key_page(&console, &visitor, key, fields.refused(error)).await?;
            page_with(status, &visitor, &shown)
        }
    }
}

async fn rotated(console: &Console, visitor: &Visitor, key: &str, fields: &Fields) -> Result<Key, ApiError> {
    let asked = json!({ "overlap_seconds": fields.number("overlap_seconds")? });
    let new: keys::NewRotation = from_value(&asked)?;
    let old: KeyId = id("id", key)?;
    let next: KeyId = fields.value("id").parse().map_err(|error| ApiError::invalid("id", error))?;
    let api = console.api.clone();
    let work = async move { keys::rotate_as(&api, old, next, new).await };
    visitor.change(console, Right::Operate, ("rotate_key", asked), None, work).await
}

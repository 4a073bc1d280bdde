//! A key, and its revocation.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    http::{
        error::{ApiError, ErrorCode},
        parameters::Path,
    },
    routes::{
        keys::{self, Shown},
        search::names::names,
    },
};
use fanfare_domain::{access::session::Right, ids::KeyId};
use serde_json::Value;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        respond::{back_to, page, page_with},
    },
    operations::keys::state,
    session::visitor::Visitor,
};

/// Times in seconds for which both keys of a rotation are valid.
const OVERLAPS: [(&str, &str); 4] =
    [("3600", "an hour"), ("86400", "a day"), ("604800", "7 days"), ("2592000", "30 days")];

#[derive(Template)]
#[template(path = "operations/keys/show.html")]
pub(super) struct KeyPage {
    frame: Frame,
    key: Shown,
    name: Option<String>,
    fields: Fields,
    overlaps: [(&'static str, &'static str); 4],
}

impl KeyPage {
    fn state(&self) -> &'static str {
        state(&self.key, self.frame.now)
    }

    fn is_steered(&self) -> bool {
        self.state() == "valid" && self.frame.may(&Right::Operate)
    }
}

/// Finds a key for its page.
pub(super) async fn key_page(
    console: &Console,
    visitor: &Visitor,
    key: String,
    fields: Fields,
) -> Result<KeyPage, ApiError> {
    let call = format!("/keys/{key}");
    let found = keys::show(State(console.api.clone()), visitor.administrator()?, Path(key)).await?.data;
    let of_application = found.application.map(|id| id.to_string());
    let mut known = names(&console.api, None, of_application.clone()).await?;
    let frame = Frame::new(visitor, "Key").call(call);
    let name = of_application.and_then(|id| known.remove(&id));
    Ok(KeyPage { frame, key: found, name, fields, overlaps: OVERLAPS })
}

/// Shows a key.
pub(super) async fn show(
    State(console): State<Console>,
    visitor: Visitor,
    Path(key): Path<String>,
) -> Result<Response, Fault> {
    let next = KeyId::new(console.api.store.now(), rand::random());
    let fields = Fields::default().with("id", next.to_string()).with("overlap_seconds", "86400");
    page(&visitor, &key_page(&console, &visitor, key, fields).await?)
}

#[derive(Template)]
#[template(path = "operations/keys/revoke.html")]
struct Revoke {
    of: KeyPage,
    frame: Frame,
    fields: Fields,
    /// The last letters of the key, to be typed.
    end: String,
    /// True if the visitor's own session ends with the key.
    is_own: bool,
}

async fn revoke_page(console: &Console, visitor: &Visitor, key: String, fields: Fields) -> Result<Revoke, ApiError> {
    let of = key_page(console, visitor, key, Fields::default()).await?;
    let end = end_of(&of.key.id);
    let is_own = visitor.session.key == Some(of.key.id);
    Ok(Revoke { of, frame: Frame::new(visitor, "Revoke a key"), fields, end, is_own })
}

/// The last four letters of a key's id.
fn end_of(key: &KeyId) -> String {
    let text = key.to_string();
    text[text.len() - 4..].to_owned()
}

/// Tells what a revocation does, and asks.
pub(super) async fn ask_revoke(
    State(console): State<Console>,
    visitor: Visitor,
    Path(key): Path<String>,
) -> Result<Response, Fault> {
    visitor.require(Right::Operate)?;
    page(&visitor, &revoke_page(&console, &visitor, key, Fields::default()).await?)
}

/// Revokes a key.
pub(super) async fn revoke(
    State(console): State<Console>,
    visitor: Visitor,
    Path(key): Path<String>,
    body: Bytes,
) -> Result<Response, Fault> {
    let administrator = visitor.administrator()?;
    let fields = Fields::of_body(&body);
    let shown = revoke_page(&console, &visitor, key.clone(), fields.clone()).await?;
    if fields.value("end").trim() != shown.end {
        let message = format!("type {}, the last four letters of the key", shown.end);
        let error = ApiError::new(ErrorCode::InvalidField, message).at("end");
        let refused = Revoke { fields: fields.refused(error), ..shown };
        return page_with(refused.fields.status(), &visitor, &refused);
    }
    let (api, id) = (console.api.clone(), key.clone());
    let work = async move { keys::revoke(State(api), administrator, Path(id)).await.map(|answer| answer.data) };
    let application = shown.of.key.application;
    visitor.change(&console, Right::Operate, ("revoke_key", Value::Null), application, work).await?;
    Ok(back_to(format!("/console/keys/{key}?done=revoked")))
}

//! The Ed25519 keys of an application: address of the key set, keys in force, and rotation.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    http::{
        authentication::KeyApplication,
        body::{OptionalJsonBody, from_value},
        error::ApiError,
        parameters::Path,
    },
    routes::applications::signing_keys::{self, SigningKeys},
};
use fanfare_domain::access::session::Right;
use serde_json::{Value, json};

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        place::Place,
        respond::{back_to, page, page_with},
    },
};

const HOUR: u64 = 3600;

/// Overlaps to choose from, in seconds.
const OVERLAPS: [(u64, &str); 5] = [
    (2 * HOUR, "2 hours"),
    (24 * HOUR, "1 day"),
    (7 * 24 * HOUR, "7 days"),
    (30 * 24 * HOUR, "30 days"),
    (0, "no time: the key has leaked"),
];

#[derive(Template)]
#[template(path = "application/signing_keys/signing_keys.html")]
struct Shown {
    frame: Frame,
    /// URL of the key set, at the console's own address.
    key_set: String,
    listed: SigningKeys,
    fields: Fields,
}

/// The question before all earlier keys end at once.
#[derive(Template)]
#[template(path = "application/signing_keys/confirmation.html")]
struct Confirmation {
    frame: Frame,
}

impl Shown {
    /// True while a rotation runs: an earlier key still signs.
    fn is_rotating(&self) -> bool {
        self.listed.keys.iter().any(|key| key.expires_at.is_some())
    }
}

/// Shows the keys, and the form to rotate.
pub(super) async fn show(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    answer(&console, &place, Fields::default().with("overlap_seconds", (24 * HOUR).to_string())).await
}

/// Rotates the key. A rotation without an overlap is confirmed first.
pub(super) async fn rotate(State(console): State<Console>, place: Place, body: Bytes) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    if fields.has("overlap_seconds", "0") && !fields.has("confirmed", "yes") {
        place.visitor.require(Right::Operate)?;
        return page(&place.visitor, &Confirmation { frame: place.frame("End all earlier keys") });
    }
    match begin(&console, &place, &fields).await {
        Ok(_) => Ok(back_to(format!("{}/signing-keys?done=key-rotated", place.base))),
        Err(error) => answer(&console, &place, fields.refused(error)).await,
    }
}

/// Ends the overlap of a rotation at once.
pub(super) async fn end(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let (api, path) = (State(console.api.clone()), Path(place.application.to_string()));
    let of_session = KeyApplication(place.visitor.session.application);
    let work = async move { signing_keys::end(api, path, of_session).await.map(|answer| answer.data) };
    place.change(&console, Right::Operate, ("end_signing_key_rotation", Value::Null), work).await?;
    Ok(back_to(format!("{}/signing-keys?done=key-ended", place.base)))
}

async fn begin(console: &Console, place: &Place, fields: &Fields) -> Result<SigningKeys, ApiError> {
    let overlap = fields.number("overlap_seconds")?;
    if !OVERLAPS.iter().any(|(seconds, _)| overlap == *seconds) {
        return Err(ApiError::invalid("overlap_seconds", "must be a choice of the form"));
    }
    let asked = json!({ "overlap_seconds": overlap });
    let body = OptionalJsonBody(from_value(&asked)?);
    let (api, path) = (State(console.api.clone()), Path(place.application.to_string()));
    let of_session = KeyApplication(place.visitor.session.application);
    let work = async move { signing_keys::rotate(api, path, of_session, body).await.map(|answer| answer.data) };
    place.change(console, Right::Operate, ("rotate_signing_key", asked), work).await
}

async fn answer(console: &Console, place: &Place, fields: Fields) -> Result<Response, Fault> {
    let (api, path) = (State(console.api.clone()), Path(place.application.to_string()));
    let of_session = KeyApplication(place.visitor.session.application);
    let listed = signing_keys::list(api, path, of_session).await?.data;
    let shown = Shown {
        frame: place.frame("Signing keys").call(format!("/applications/{}/signing-keys", place.application)),
        key_set: format!("{}{}", console.settings.origin(), listed.jwks_path),
        listed,
        fields,
    };
    page_with(shown.fields.status(), &place.visitor, &shown)
}

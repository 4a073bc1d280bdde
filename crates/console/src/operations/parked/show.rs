//! A parked message.

use askama::Template;
use axum::{extract::State, response::Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use fanfare_api::{
    ApiError,
    http::parameters::Path,
    routes::parked::{self, ParkedDetail},
};
use fanfare_domain::access::session::Right;

use crate::{
    Console,
    frame::{
        Frame,
        body::{BodyView, indented},
        fault::Fault,
        marks::{self, filters},
        respond::page,
    },
    operations::parked::hex,
    session::visitor::Visitor,
};

#[derive(Template)]
#[template(path = "operations/parked/show.html")]
struct Message {
    frame: Frame,
    of: ParkedDetail,
    headers: Option<String>,
    body: Option<BodyView>,
    /// The first bytes of a body that is no text.
    dump: Option<String>,
    /// True if the dump leaves out bytes.
    is_cut: bool,
}

/// Finds a parked message.
pub(super) async fn detail(console: &Console, visitor: &Visitor, parked: &str) -> Result<ParkedDetail, ApiError> {
    let path = Path(parked.to_owned());
    let found = parked::show(State(console.api.clone()), visitor.administrator()?, path).await?;
    Ok(found.data)
}

/// Shows a parked message.
pub(super) async fn show(
    State(console): State<Console>,
    visitor: Visitor,
    Path(parked): Path<String>,
) -> Result<Response, Fault> {
    let of = detail(&console, &visitor, &parked).await?;
    let address = &visitor.address;
    let bytes = of.body_base64.as_ref().map(|text| BASE64_STANDARD.decode(text).unwrap_or_default());
    let shown = Message {
        frame: Frame::new(&visitor, "Parked message").call(format!("/parked/{parked}")),
        headers: of.headers.as_ref().map(|headers| indented(headers.get())).filter(|headers| headers != "{}"),
        body: of.body.as_ref().map(|body| BodyView::new(body, address)),
        is_cut: bytes.as_ref().is_some_and(|bytes| bytes.len() > hex::MAX_SHOWN),
        dump: bytes.map(|bytes| hex::dump(&bytes)),
        of,
    };
    page(&visitor, &shown)
}

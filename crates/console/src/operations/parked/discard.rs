//! The discard of a parked message.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    ApiError,
    http::parameters::Path,
    routes::parked::{self, ParkedDetail},
};
use fanfare_domain::access::session::Right;
use serde_json::Value;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        respond::{back_to, page_with},
    },
    operations::parked::show::detail,
    session::visitor::Visitor,
};

#[derive(Template)]
#[template(path = "operations/parked/discard.html")]
struct Ask {
    frame: Frame,
    of: ParkedDetail,
    fields: Fields,
}

/// Tells what a discard does, and asks.
pub(super) async fn ask(
    State(console): State<Console>,
    visitor: Visitor,
    Path(parked): Path<String>,
) -> Result<Response, Fault> {
    visitor.require(Right::Operate)?;
    question(&console, &visitor, &parked, Fields::default()).await
}

async fn question(console: &Console, visitor: &Visitor, parked: &str, fields: Fields) -> Result<Response, Fault> {
    let of = detail(console, visitor, parked).await?;
    let shown = Ask { frame: Frame::new(visitor, "Discard a message"), of, fields };
    page_with(shown.fields.status(), visitor, &shown)
}

/// Discards a message.
pub(super) async fn discard(
    State(console): State<Console>,
    visitor: Visitor,
    Path(parked): Path<String>,
    body: Bytes,
) -> Result<Response, Fault> {
    let administrator = visitor.administrator()?;
    let fields = Fields::of_body(&body);
    if fields.value("word").trim() != "discard" {
        let error = ApiError::invalid("word", "must be: discard");
        return question(&console, &visitor, &parked, fields.refused(error)).await;
    }
    let api = console.api.clone();
    let work = async move { parked::discard(State(api), administrator, Path(parked)).await.map(|answer| answer.data) };
    visitor.change(&console, Right::Operate, ("discard_parked", Value::Null), None, work).await?;
    Ok(back_to("/console/parked?done=discarded&n=1"))
}

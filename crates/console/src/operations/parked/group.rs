//! The put-back or discard of all chosen messages, in steps.
//!
//! A step acts on the next messages older than a cursor. So a message that is parked again under a new id, or a message
//! that came after the question, is never touched. The page of a step sends the next step by itself; without
//! JavaScript, its button does. Only the answer to a form shows such a page: a link of another site cannot begin the
//! steps.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    ApiError,
    http::{
        body::{JsonBody, from_value},
        parameters::Query,
    },
    routes::parked::{self, Handled, Refused},
};
use fanfare_domain::{access::session::Right, ids::ParkedId};
use serde_json::{Value, json};

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::{self, Fields},
        marks::{self, filters},
        respond::{back_to, page, page_with},
    },
    operations::parked::{Chosen, counted},
    session::visitor::Visitor,
};

/// Messages of a step: the API's bound.
const STEP: i64 = 100;

/// The action on all chosen messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    PutBack,
    Discard,
}

impl Action {
    /// Name in paths, and of the message afterwards.
    fn name(self) -> &'static str {
        if self == Self::PutBack { "put-back" } else { "discard" }
    }

    fn operation(self) -> &'static str {
        if self == Self::PutBack { "put_back_many_parked" } else { "discard_many_parked" }
    }
}

#[derive(Template)]
#[template(path = "operations/parked/group.html")]
struct Ask {
    frame: Frame,
    is_discard: bool,
    action: &'static str,
    chosen: Chosen,
    count: i64,
    /// The first step begins here: at the time of the question.
    cursor: String,
    fields: Fields,
}

#[derive(Template)]
#[template(path = "operations/parked/progress.html")]
struct Progress {
    frame: Frame,
    is_discard: bool,
    action: &'static str,
    chosen: Chosen,
    of: i64,
    done: i64,
    /// Messages of all steps that stay parked, and those of this step.
    kept: i64,
    refused: Vec<Refused>,
    /// Place of the next step; `None` after the last.
    cursor: Option<String>,
    error: Option<ApiError>,
}

/// Tells how many messages are put back, and asks.
pub(super) async fn ask_put_back(console: State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    ask(console, visitor, Action::PutBack).await
}

/// Tells how many messages are discarded, and asks.
pub(super) async fn ask_discard(console: State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    ask(console, visitor, Action::Discard).await
}

/// Puts the next messages back.
pub(super) async fn put_back(console: State<Console>, visitor: Visitor, body: Bytes) -> Result<Response, Fault> {
    step(console, visitor, Action::PutBack, &body).await
}

/// Discards the next messages.
pub(super) async fn discard(console: State<Console>, visitor: Visitor, body: Bytes) -> Result<Response, Fault> {
    step(console, visitor, Action::Discard, &body).await
}

async fn ask(State(console): State<Console>, visitor: Visitor, action: Action) -> Result<Response, Fault> {
    let chosen: Chosen = form::query(&visitor.address)?;
    question(&console, &visitor, action, chosen, Fields::default()).await
}

async fn question(
    console: &Console,
    visitor: &Visitor,
    action: Action,
    chosen: Chosen,
    fields: Fields,
) -> Result<Response, Fault> {
    visitor.require(Right::Operate)?;
    let count = counted(console, visitor, &chosen).await?;
    let title = if action == Action::PutBack { "Put messages back" } else { "Discard messages" };
    let shown = Ask {
        frame: Frame::new(visitor, title),
        is_discard: action == Action::Discard,
        action: action.name(),
        count,
        cursor: ParkedId::new(console.api.store.now(), [u8::MAX; 10]).to_string(),
        chosen,
        fields,
    };
    page_with(shown.fields.status(), visitor, &shown)
}

async fn step(
    State(console): State<Console>,
    visitor: Visitor,
    action: Action,
    body: &[u8],
) -> Result<Response, Fault> {
    let fields = Fields::of_body(body);
    let given = |name: &str| fields.given(name).map(str::to_owned);
    let chosen = Chosen {
        reason: given("reason"),
        routing_key: given("routing_key"),
        without_key: given("without_key"),
        ..Chosen::default()
    };
    let number = |name: &str| fields.given(name).and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
    let (of, done, kept) = (number("of"), number("done"), number("kept"));
    if of <= 0 || number("number") != of {
        let error = ApiError::invalid("number", format!("must be {of}, the number of messages"));
        return question(&console, &visitor, action, chosen, fields.refused(error)).await;
    }
    let before = fields.value("cursor").to_owned();
    let made = advance(&console, &visitor, action, &chosen, (before.clone(), of - done - kept)).await;
    let mut shown = Progress {
        frame: Frame::new(&visitor, "Progress"),
        is_discard: action == Action::Discard,
        action: action.name(),
        chosen,
        of,
        done,
        kept,
        refused: Vec::new(),
        cursor: None,
        error: None,
    };
    match made {
        Ok(Made { handled, refused, cursor }) => {
            shown.done += handled;
            shown.kept += i64::try_from(refused.len()).unwrap_or(i64::MAX);
            (shown.refused, shown.cursor) = (refused, cursor);
        }
        Err(error) => (shown.error, shown.cursor) = (Some(error), Some(before)),
    }
    if shown.cursor.is_none() && shown.kept == 0 {
        let word = if action == Action::PutBack { "put-back" } else { "discarded" };
        return Ok(back_to(format!("/console/parked?done={word}&n={}", shown.done)));
    }
    let status = shown.error.as_ref().map_or(http::StatusCode::OK, ApiError::status);
    if shown.error.is_none() { page(&visitor, &shown) } else { page_with(status, &visitor, &shown) }
}

/// The result of a step.
struct Made {
    handled: i64,
    refused: Vec<Refused>,
    cursor: Option<String>,
}

/// Acts on the next messages: at most a step, and at most as many as are left of the shown number.
async fn advance(
    console: &Console,
    visitor: &Visitor,
    action: Action,
    chosen: &Chosen,
    (before, left): (String, i64),
) -> Result<Made, ApiError> {
    let limit = usize::try_from(left.clamp(0, STEP)).unwrap_or_default();
    if limit == 0 {
        return Ok(Made { handled: 0, refused: Vec::new(), cursor: None });
    }
    let next = Chosen { before: Some(before), limit: Some(limit), ..chosen.clone() };
    let found = parked::list(State(console.api.clone()), visitor.administrator()?, Query(next.filter())).await?;
    let ids: Vec<ParkedId> = found.data.iter().map(|message| message.id).collect();
    if ids.is_empty() {
        return Ok(Made { handled: 0, refused: Vec::new(), cursor: None });
    }
    let asked = request(chosen, &ids);
    let choice = JsonBody(from_value::<parked::Choice>(&asked)?);
    let (api, administrator) = (State(console.api.clone()), visitor.administrator()?);
    let work = async move {
        match action {
            Action::PutBack => parked::put_back_many(api, administrator, choice).await,
            Action::Discard => parked::discard_many(api, administrator, choice).await,
        }
        .map(|answer| answer.data)
    };
    let Handled { handled, refused, .. } =
        visitor.change(console, Right::Operate, (action.operation(), asked), None, work).await?;
    let is_last = found.next.is_none() || left <= STEP;
    let cursor = found.data.last().filter(|_| !is_last).map(|message| message.id.to_string());
    Ok(Made { handled: i64::try_from(handled.len()).unwrap_or(i64::MAX), refused, cursor })
}

/// The API's request for exactly these messages, if the conditions still hold.
fn request(chosen: &Chosen, ids: &[ParkedId]) -> Value {
    let mut asked = json!({ "ids": ids });
    if let Some(reason) = &chosen.reason {
        asked["reason"] = Value::from(reason.as_str());
    }
    match (&chosen.without_key, &chosen.routing_key) {
        (Some(_), _) => asked["without_routing_key"] = Value::from(true),
        (None, Some(key)) => asked["routing_key"] = Value::from(key.as_str()),
        (None, None) => {}
    }
    asked
}

//! Replays: the list, a new replay with a dry run, progress, pause, resume and cancel.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    http::{
        body::{JsonBody, from_value},
        error::ApiError,
        parameters::{Path, Query},
    },
    routes::replays::{self, Counted, Shown},
};
use fanfare_domain::{
    access::session::{Face, Right},
    delivery::replay::Replayed,
    ids::ReplayId,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::{Fields, call, query, with_parameter},
        marks::{self, filters},
        place::Place,
        respond::{back_to, page, page_with},
    },
};

#[derive(Template)]
#[template(path = "application/replays/list.html")]
struct List {
    frame: Frame,
    replays: Vec<Shown>,
    next: Option<String>,
}

/// Checks the right of a portal's visitor. In the console, a session that may only look sees replays, too.
fn require_in_portal(place: &Place) -> Result<(), ApiError> {
    match place.visitor.session.face {
        Face::Portal => place.visitor.require(Right::Replay),
        Face::Console => Ok(()),
    }
}

/// Lists the replays.
pub(crate) async fn list(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    require_in_portal(&place)?;
    let address = &place.visitor.address;
    let found = replays::list(State(console.api), place.authorized(), Query(query(address)?)).await?;
    let shown = List {
        frame: place.frame("Replays").live().call(call("/replays", &place.visitor.address)),
        next: found.next.map(|before| with_parameter(address, "before", &before)),
        replays: found.data,
    };
    page(&place.visitor, &shown)
}

#[derive(Template)]
#[template(path = "application/replays/new.html")]
struct New {
    frame: Frame,
    fields: Fields,
    /// The result of the dry run.
    counted: Option<Counted>,
}

impl New {
    /// True for a chosen state. Without a choice, the API's default.
    fn is_chosen(&self, state: &Replayed) -> bool {
        let usual = self.fields.values("states").is_empty() && state.as_str() != "delivered";
        usual || self.fields.has("states", state.as_str())
    }

    /// The time that the replay takes at its rate.
    fn takes(&self, counted: &Counted) -> String {
        let rate = self.fields.given("rate_per_second").and_then(|text| text.parse().ok()).unwrap_or(50_u64).max(1);
        marks::took(u64::try_from(counted.deliveries).unwrap_or_default() * 1000 / rate)
    }
}

/// Shows the form.
pub(crate) async fn ask(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    place.visitor.require(Right::Replay)?;
    let fields = Fields::of_address(&place.visitor.address);
    // The delivery log names its filter differently.
    let types = fields.given("type").map(str::to_owned);
    let states = fields.given("state").map(str::to_owned);
    let id = ReplayId::new(console.api.store.now(), rand::random()).to_string();
    let mut fields = fields.with("id", id);
    if let Some(types) = types {
        fields = fields.with("types", types);
    }
    for state in states.iter().flat_map(|states| states.split(',')) {
        fields = fields.with("states", state);
    }
    form(&place, fields, None)
}

fn form(place: &Place, fields: Fields, counted: Option<Counted>) -> Result<Response, Fault> {
    let shown = New { frame: place.frame("New replay"), fields, counted };
    page_with(shown.fields.status(), &place.visitor, &shown)
}

/// Counts the deliveries of the form, or starts the replay.
pub(crate) async fn start(State(console): State<Console>, place: Place, body: Bytes) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    if fields.given("start").is_none() {
        place.visitor.require(Right::Replay)?;
        return match count(&console, &place, &fields).await {
            Ok(counted) => form(&place, fields, Some(counted)),
            Err(error) => form(&place, fields.refused(error), None),
        };
    }
    let known = async || {
        let id = Path(fields.value("id").to_owned());
        replays::show(State(console.api.clone()), place.authorized(), id).await.ok()
    };
    let to = |id: &str| back_to(format!("{}/replays/{id}?done=created", place.base));
    // The same form sent twice is one replay.
    if known().await.is_some() {
        return Ok(to(fields.value("id")));
    }
    match create(&console, &place, &fields).await {
        Ok(id) => Ok(to(&id)),
        Err(_) if known().await.is_some() => Ok(to(fields.value("id"))),
        Err(error) => form(&place, fields.refused(error), None),
    }
}

async fn count(console: &Console, place: &Place, fields: &Fields) -> Result<Counted, ApiError> {
    let new = from_value(&request(fields)?)?;
    Ok(replays::count(State(console.api.clone()), place.authorized(), JsonBody(new)).await?.data)
}

async fn create(console: &Console, place: &Place, fields: &Fields) -> Result<String, ApiError> {
    let asked = request(fields)?;
    let mut new: replays::New = from_value(&asked)?;
    new.id = fields.value("id").parse().ok();
    let (api, authorized) = (console.api.clone(), place.authorized());
    let work = async move { replays::create(State(api), authorized, JsonBody(new)).await.map(|made| made.0) };
    let made = place.change(console, Right::Replay, ("create_replay", asked), work).await?;
    Ok(made.id.to_string())
}

/// The API's request of the form.
fn request(fields: &Fields) -> Result<Value, ApiError> {
    let mut asked = json!({ "since": fields.value("since").trim() });
    for name in ["until", "webhook"] {
        if let Some(text) = fields.given(name) {
            asked[name] = Value::from(text);
        }
    }
    let types = fields.list("types");
    if !types.is_empty() {
        asked["types"] = Value::from(types);
    }
    let states = fields.values("states");
    if !states.is_empty() {
        asked["states"] = Value::from(states);
    }
    if fields.given("rate_per_second").is_some() {
        asked["rate_per_second"] = fields.number("rate_per_second")?;
    }
    Ok(asked)
}

#[derive(Deserialize)]
pub(crate) struct Named {
    replay: String,
}

#[derive(Template)]
#[template(path = "application/replays/replay.html")]
struct One {
    frame: Frame,
    replay: Shown,
}

impl One {
    /// Share of the time range that the replay has walked, in percent.
    fn progress(&self) -> i64 {
        let (since, until) = (self.replay.since.as_second(), self.replay.until.as_second());
        match self.replay.reached {
            _ if self.replay.state == "done" => 100,
            Some(reached) => (reached.as_second() - since).max(0) * 100 / (until - since).max(1),
            None => 0,
        }
    }
}

/// Shows a replay.
pub(crate) async fn show(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    require_in_portal(&place)?;
    let frame = place.frame("Replay").live().call(format!("/replays/{}", named.replay));
    let replay = replays::show(State(console.api), place.authorized(), Path(named.replay)).await?.data;
    page(&place.visitor, &One { frame, replay })
}

#[derive(Deserialize)]
pub(crate) struct Steered {
    replay: String,
    action: String,
}

/// Pauses, resumes or cancels a replay.
pub(crate) async fn steer(
    State(console): State<Console>,
    place: Place,
    Path(Steered { replay, action }): Path<Steered>,
) -> Result<Response, Fault> {
    let (operation, done) = match action.as_str() {
        "pause" => ("pause_replay", "replay-paused"),
        "resume" => ("resume_replay", "replay-resumed"),
        "cancel" => ("cancel_replay", "replay-cancelled"),
        _ => return Err(ApiError::not_found("action", "no such action").into()),
    };
    let to = format!("{}/replays/{replay}?done={done}", place.base);
    let (api, authorized) = (State(console.api.clone()), place.authorized());
    let work = async move {
        let replay = Path(replay);
        let answer = match operation {
            "pause_replay" => replays::pause(api, authorized, replay).await,
            "resume_replay" => replays::resume(api, authorized, replay).await,
            _ => replays::cancel(api, authorized, replay).await,
        };
        answer.map(|answer| answer.data)
    };
    place.change(&console, Right::Replay, (operation, Value::Null), work).await?;
    Ok(back_to(to))
}

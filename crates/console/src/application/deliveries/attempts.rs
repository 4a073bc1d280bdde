//! The delivery log by attempt: each request to a webhook.

use askama::Template;
use axum::{extract::State, response::Response};
use fanfare_api::{
    http::parameters::Query,
    routes::deliveries::attempts::{self, AttemptLog, LogFilter},
};
use fanfare_domain::access::session::Right;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::{self, Fields, with_parameter},
        marks::{self, filters, words},
        place::Place,
        respond::page,
    },
};

#[derive(Template)]
#[template(path = "application/deliveries/attempts.html")]
struct Attempts {
    frame: Frame,
    attempts: Vec<AttemptLog>,
    filter: Fields,
    next: Option<String>,
}

impl Attempts {
    fn is_filtered(&self) -> bool {
        self.filter.gives_any(&["webhook", "event", "since", "until", "tests"])
    }
}

/// Lists attempts, newest first.
pub(crate) async fn list(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let address = &place.visitor.address;
    let filter: LogFilter = form::query(address)?;
    let found = attempts::log(State(console.api), place.authorized(), Query(filter)).await?;
    let shown = Attempts {
        frame: place.frame("Attempts").live().call(form::call("/attempts", address)),
        filter: Fields::of_address(address),
        next: found.next.map(|before| with_parameter(address, "before", &before)),
        attempts: found.data,
    };
    page(&place.visitor, &shown)
}

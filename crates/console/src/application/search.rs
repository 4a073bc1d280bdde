//! The search of an application.

use axum::{extract::State, response::Response};

use crate::{
    Console,
    frame::{fault::Fault, place::Place, search},
};

/// Searches, and leads on to a single hit.
pub(crate) async fn show(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    search::search(&console, &place.visitor, Some(place.application), place.frame("Search")).await
}

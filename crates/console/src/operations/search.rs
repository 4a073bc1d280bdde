//! The search of all applications of the visitor.

use axum::{extract::State, response::Response};

use crate::{
    Console,
    frame::{Frame, fault::Fault, search},
    session::visitor::Visitor,
};

/// Searches, and leads on to a single hit.
pub(crate) async fn show(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    search::search(&console, &visitor, None, Frame::new(&visitor, "Search")).await
}

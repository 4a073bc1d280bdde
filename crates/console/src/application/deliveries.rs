//! The delivery log, a delivery with its timeline, and the resend of one or many.

pub(crate) mod attempts;
mod request;
mod resend;
mod timeline;

use askama::Template;
use axum::{extract::State, response::Response};
use fanfare_api::{
    http::{
        error::ApiError,
        parameters::{Path, Query},
    },
    routes::{
        deliveries::{self, Delivery, DeliveryDetail, filter::Filter},
        events,
    },
};
use fanfare_domain::{access::session::Right, delivery::outcome::Outcome};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    Console,
    frame::{
        Frame,
        body::BodyView,
        fault::Fault,
        form::{self, Fields, with_parameter},
        marks::{self, filters, words},
        place::Place,
        respond::page,
    },
};

pub(crate) use request::{download, signed};
pub(crate) use resend::{ask_many, resend, resend_many};
use timeline::Point;

/// The choices of the log's filter by state.
const STATES: [&str; 7] = ["failed", "scheduled", "queued", "held", "skipped", "delivered", "sending"];

/// Parameters of the log's filter.
const FILTERS: [&str; 10] =
    ["state", "type", "webhook", "event", "status", "outcome", "reason", "contains", "since", "until"];

/// Parameters without an index.
const SEARCHED: [&str; 5] = ["type", "status", "outcome", "reason", "contains"];

#[derive(Template)]
#[template(path = "application/deliveries/log.html")]
struct Log {
    frame: Frame,
    deliveries: Vec<Delivery>,
    filter: Fields,
    searched_until: Option<Timestamp>,
    next: Option<String>,
    /// Address of the page that resends the deliveries of this filter.
    resend: String,
    /// The query of the list, percent-encoded: the page of a delivery finds the neighbours in the list.
    list: String,
}

impl Log {
    fn is_filtered(&self) -> bool {
        self.filter.gives_any(&FILTERS)
    }

    /// True if a resend of exactly the shown set makes sense.
    fn is_resendable(&self) -> bool {
        self.is_filtered()
            && !self.deliveries.is_empty()
            && !self.filter.has("state", "sending")
            && self.frame.may(&Right::Resend)
    }

    /// The word of the button, with the number if the page shows all deliveries of the filter.
    fn resend_all(&self) -> String {
        let is_whole = self.next.is_none() && !self.filter.names("before");
        if is_whole { format!("Resend these {}", self.deliveries.len()) } else { "Resend these".to_owned() }
    }

    /// The set in words: "failed deliveries of order.*".
    fn set(&self) -> String {
        let mut words = match self.filter.given("state") {
            Some(state) => format!("{} deliveries", state.replace(',', " or ")),
            None => "deliveries".to_owned(),
        };
        for (name, before) in [("type", "of type"), ("status", "answered"), ("reason", "with the reason")] {
            if let Some(value) = self.filter.given(name) {
                words.push_str(&format!(" {before} {value}"));
            }
        }
        words
    }
}

/// Refuses a search of payloads to a session that may not see payloads: the hits would tell the payloads.
fn check_contains(place: &Place, contains: Option<&str>) -> Result<(), ApiError> {
    if contains.is_some() { place.visitor.require(Right::Payloads) } else { Ok(()) }
}

/// Lists deliveries.
pub(crate) async fn list(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let address = &place.visitor.address;
    let filter: Filter = form::query(address)?;
    check_contains(&place, filter.contains.as_deref())?;
    let found = deliveries::list(State(console.api), place.authorized(), Query(filter)).await?;
    let fields = Fields::of_address(address);
    let mut frame = place.frame("Delivery log").call(form::call("/deliveries", address));
    // A search looks through thousands of deliveries: it is repeated when asked for only.
    if !fields.gives_any(&SEARCHED) {
        frame = frame.live();
    }
    let query = address.split_once('?').map_or("", |(_, query)| query);
    let shown = Log {
        frame,
        filter: fields,
        searched_until: found.searched_until,
        next: found.next.map(|before| with_parameter(address, "before", &before)),
        list: url::form_urlencoded::byte_serialize(query.as_bytes()).collect(),
        resend: with_parameter(&form::call(&format!("{}/deliveries/resend", place.base), address), "before", ""),
        deliveries: found.data,
    };
    page(&place.visitor, &shown)
}

/// The path with the list from which the visitor came. The list without a filter has an empty query.
fn with_list(path: &str, address: &str) -> String {
    let fields = Fields::of_address(address);
    if !fields.names("list") {
        return path.to_owned();
    }
    let list: String = url::form_urlencoded::byte_serialize(fields.value("list").as_bytes()).collect();
    format!("{path}?list={list}")
}

#[derive(Deserialize)]
pub(crate) struct Named {
    pub(super) delivery: String,
}

#[derive(Template)]
#[template(path = "application/deliveries/delivery.html")]
struct Shown {
    frame: Frame,
    delivery: Delivery,
    key: Option<String>,
    is_erased: bool,
    /// Why the webhook's template had no body for the event.
    template_error: Option<String>,
    points: Vec<Point>,
    body: Option<BodyView>,
    /// Address of the resend, with the list from which the visitor came.
    resend: String,
}

impl Shown {
    /// True if the delivery can be sent again.
    fn is_resendable(&self) -> bool {
        self.delivery.state != "sending" && !self.is_erased && self.frame.may(&Right::Resend)
    }

    /// The word of the button: a delivery that waits is sent before its time.
    fn resend_word(&self) -> &'static str {
        match self.delivery.state {
            "scheduled" | "queued" | "held" => "Send now",
            _ => "Resend",
        }
    }
}

/// Shows a delivery.
pub(crate) async fn show(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    let call = format!("/deliveries/{}", named.delivery);
    let found = deliveries::show(State(console.api.clone()), place.authorized(), Path(named.delivery)).await?.data;
    let DeliveryDetail { delivery, mailed_to, body, template_error, attempts } = found;
    let event =
        events::show(State(console.api), place.authorized(), Path(delivery.event.to_string())).await?.data.event;
    let address = &place.visitor.address;
    let shows_bodies = place.visitor.may(Right::Payloads);
    let is_erased = event.erased_at.is_some();
    let path = format!("{}/deliveries/{}", place.base, delivery.id);
    // Without rebuilt headers, the request cannot be signed: an event with hidden members, for example.
    let may_sign = place.visitor.may(Right::Test) && attempts.iter().any(|attempt| attempt.request_headers.is_some());
    // The address may be the application's own, which customers do not read.
    let address_of_mail = mailed_to.filter(|_| !place.visitor.is_of_portal());
    let shown = Shown {
        frame: place.frame("Delivery").live().call(call),
        key: event.key.filter(|_| place.visitor.may(Right::Keys)),
        points: timeline::points(&delivery, address_of_mail.as_deref(), attempts, shows_bodies),
        body: (shows_bodies && !is_erased && template_error.is_none())
            .then(|| BodyView::new(&body, address).of_delivery(&path, may_sign)),
        is_erased,
        // The sentence may name values of the payload.
        template_error: template_error
            .map(|error| if shows_bodies { error } else { "readers of payloads see the reason".to_owned() }),
        delivery,
        resend: with_list(&format!("{path}/resend"), address),
    };
    page(&place.visitor, &shown)
}

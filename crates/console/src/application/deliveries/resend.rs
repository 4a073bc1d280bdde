//! Resends: of a delivery, and of exactly the deliveries of a filter.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    http::{
        body::{JsonBody, from_value},
        error::ApiError,
        parameters::Path,
    },
    routes::deliveries::resend::{self, ManyResent},
};
use fanfare_domain::access::session::Right;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{FILTERS, Named, check_contains, with_list};
use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::{Fields, call},
        marks::{self, filters},
        place::Place,
        respond::{back_to, page_with},
    },
};

/// Conditions of the log that a replay lacks.
const NOT_REPLAYED: [&str; 5] = ["event", "status", "outcome", "reason", "contains"];

/// Resends a delivery.
pub(crate) async fn resend(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    let to = with_list(&format!("{}/deliveries/{}", place.base, named.delivery), &place.visitor.address);
    let to = format!("{to}{}done=resent", if to.contains('?') { '&' } else { '?' });
    let (api, authorized) = (console.api.clone(), place.authorized());
    let work =
        async move { resend::delivery(State(api), authorized, Path(named.delivery)).await.map(|done| done.data) };
    place.change(&console, Right::Resend, ("resend_delivery", Value::Null), work).await?;
    Ok(back_to(to))
}

#[derive(Template)]
#[template(path = "application/deliveries/resend.html")]
struct Ask {
    frame: Frame,
    counted: usize,
    has_more: bool,
    searched_until: Option<Timestamp>,
    fields: Fields,
    conditions: Vec<(&'static str, String)>,
    /// The ids of the counted deliveries, separated by commas.
    ids: String,
    log: String,
    /// Address of a replay of the same deliveries, if a replay has all conditions of the filter.
    replay: Option<String>,
}

/// Shows how many deliveries of the filter would be sent.
pub(crate) async fn ask_many(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let fields = Fields::of_address(&place.visitor.address);
    question(&console, &place, fields).await
}

async fn question(console: &Console, place: &Place, fields: Fields) -> Result<Response, Fault> {
    place.visitor.require(Right::Resend)?;
    check_contains(place, fields.given("contains"))?;
    let filter = from_value(&Value::Object(filter(&fields)))?;
    let counted = resend::deliveries(State(console.api.clone()), place.authorized(), JsonBody(filter)).await?.data;
    let ids: Vec<String> = counted.deliveries.iter().map(|delivery| delivery.id.to_string()).collect();
    let conditions = FILTERS.iter().filter_map(|name| Some((*name, fields.given(name)?.to_owned()))).collect();
    let parameters = parameters(&fields);
    let is_replayable = !fields.gives_any(&NOT_REPLAYED);
    let shown = Ask {
        frame: place.frame("Resend deliveries"),
        counted: counted.resent,
        has_more: counted.has_more,
        searched_until: counted.searched_until,
        conditions,
        ids: ids.join(","),
        log: call(&format!("{}/deliveries", place.base), &format!("?{parameters}")),
        replay: is_replayable.then(|| call(&format!("{}/replays/new", place.base), &format!("?{parameters}"))),
        fields,
    };
    page_with(shown.fields.status(), &place.visitor, &shown)
}

/// Resends the deliveries that the question counted, and no others. A delivery that has left the state of the filter
/// meanwhile is left out.
pub(crate) async fn resend_many(State(console): State<Console>, place: Place, body: Bytes) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let ids: Vec<&str> = fields.value("deliveries").split(',').collect();
    if fields.given("confirm") != Some(ids.len().to_string().as_str()) {
        let error = ApiError::invalid("confirm", format!("must be {}, the number of deliveries", ids.len()));
        return question(&console, &place, fields.refused(error)).await;
    }
    let mut asked = Map::from_iter([("deliveries".to_owned(), Value::from(ids))]);
    if let Some(state) = fields.given("state") {
        asked.insert("state".to_owned(), Value::from(state));
    }
    let asked = Value::Object(asked);
    let filter = from_value(&asked)?;
    let (api, authorized) = (console.api.clone(), place.authorized());
    let work =
        async move { resend::deliveries(State(api), authorized, JsonBody(filter)).await.map(|done| Done(done.data)) };
    let Done(done) = place.change(&console, Right::Resend, ("resend_deliveries", asked), work).await?;
    let parameters = parameters(&fields);
    Ok(back_to(format!("{}/deliveries?{parameters}&done=resent&n={}", place.base, done.resent)))
}

/// The result of a resend. The audit log keeps the ids of the deliveries.
struct Done(ManyResent);

impl serde::Serialize for Done {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.deliveries.serialize(serializer)
    }
}

/// The API's filter of the question. Without a state, the log shows all states, and a resend all but `sending`.
fn filter(fields: &Fields) -> Map<String, Value> {
    let given = |name: &str| Some((name.to_owned(), Value::from(fields.given(name)?)));
    let mut filter: Map<String, Value> = FILTERS.into_iter().filter_map(given).collect();
    filter.entry("state").or_insert(Value::from("failed,skipped,delivered,scheduled,queued,held"));
    filter.insert("count_only".to_owned(), Value::from(true));
    filter
}

/// The filter as parameters of an address.
fn parameters(fields: &Fields) -> String {
    let mut kept = url::form_urlencoded::Serializer::new(String::new());
    for name in FILTERS {
        if let Some(value) = fields.given(name) {
            kept.append_pair(name, value);
        }
    }
    kept.finish()
}

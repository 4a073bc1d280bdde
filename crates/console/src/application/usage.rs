//! The usage of an application by UTC day, and its quotas, in the console and in the portal.

use askama::Template;
use axum::{extract::State, response::Response};
use fanfare_api::{
    http::{
        authentication::KeyApplication,
        parameters::{Path, Query},
    },
    routes::usage::{self, Days, Quota, QuotaState, UsageReport},
};

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::{self, Fields},
        marks::{self, filters},
        place::Place,
        respond::page,
    },
};

#[derive(Template)]
#[template(path = "application/usage.html")]
struct Usage {
    frame: Frame,
    report: UsageReport,
    fields: Fields,
}

impl Usage {
    fn quota(&self, quota: &Quota) -> String {
        let limit = i64::try_from(quota.limit).unwrap_or(i64::MAX);
        let used = i64::try_from(quota.used).unwrap_or(i64::MAX);
        let things = if quota.name == "events_per_day" { "events today" } else { "bytes stored" };
        format!("{} of {} {things}: {} %", marks::number(&used), marks::number(&limit), quota.percent)
    }

    /// The effect of the quota, from 80 % on.
    fn warning(&self, quota: &Quota) -> Option<&'static str> {
        match quota.state {
            QuotaState::Ok => None,
            QuotaState::Near => Some("Nearly used up. At 100 %, events over HTTP are refused."),
            QuotaState::Full => Some("Used up: events over HTTP are refused. Accepted events are delivered."),
        }
    }
}

/// Shows the usage of this month, or of the days in the address.
pub(crate) async fn show(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let address = &place.visitor.address;
    let days: Days = form::query(address)?;
    let of_session = KeyApplication(place.visitor.session.application);
    let path = Path(place.application.to_string());
    let report = usage::of_application(State(console.api.clone()), path, of_session, Query(days)).await?.data;
    let shown = Usage {
        frame: place.frame("Usage").call(form::call(&format!("/applications/{}/usage", place.application), address)),
        fields: Fields::default().with("from", report.from.to_string()).with("to", report.to.to_string()),
        report,
    };
    page(&place.visitor, &shown)
}

//! The results of a search, for the pages of one application and of all applications.

use askama::Template;
use axum::{extract::State, response::Response};
use fanfare_api::{
    ApiError,
    http::{
        authentication::{KeyApplication, Scope},
        parameters::Query,
    },
    routes::search::{
        self, Found, HitKind, SearchHit, SearchQuery,
        names::{Names, names},
    },
};
use fanfare_domain::{access::session::Face, ids::ApplicationId};
use serde::Deserialize;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form,
        marks::{self, filters},
        respond::{back_to, page_with},
    },
    session::visitor::Visitor,
};

/// The address of the page.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    q: Option<String>,
}

#[derive(Template)]
#[template(path = "frame/search/search.html")]
struct Results {
    frame: Frame,
    /// The searched text; `None` for the empty form.
    text: Option<String>,
    hits: Vec<Row>,
    tried: Vec<String>,
    retention: String,
    error: Option<ApiError>,
    /// The search of all applications, for an administrator within an application.
    wider: Option<String>,
}

/// A found object.
struct Row {
    kind: &'static str,
    href: String,
    hit: SearchHit,
    application: Option<String>,
}

/// Searches, and leads on to a single hit. `application` is the application of the page.
pub(crate) async fn search(
    console: &Console,
    visitor: &Visitor,
    application: Option<ApplicationId>,
    frame: Frame,
) -> Result<Response, Fault> {
    let asked: Asked = form::query(&visitor.address)?;
    let mut shown = Results {
        frame,
        text: asked.q.clone(),
        hits: Vec::new(),
        tried: Vec::new(),
        retention: String::new(),
        error: None,
        wider: None,
    };
    if let Some(text) = asked.q {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("q", &text).finish();
        let is_wider = application.is_some() && visitor.is_administrator();
        shown.wider = is_wider.then(|| format!("/console/search?{query}"));
        shown.frame = shown.frame.call(format!("/search?{query}"));
        shown.frame.search.clone_from(&text);
        let scope = application.map_or_else(|| visitor.scope(), |application| Scope(Some(application)));
        let of_key =
            KeyApplication(application.filter(|_| !visitor.is_administrator()).or(visitor.session.application));
        match search::search(State(console.api.clone()), scope, of_key, Query(SearchQuery { q: text })).await {
            Ok(found) => {
                let Found { hits, tried, retention_seconds } = found.data;
                let named = hits.iter().filter_map(|hit| hit.application).map(|id| id.to_string());
                let names = names(&console.api, visitor.session.application, named).await?;
                shown.hits = hits.into_iter().map(|hit| row(visitor.session.face, &names, hit)).collect();
                (shown.tried, shown.retention) = (tried, days(retention_seconds));
            }
            Err(error) if error.field.is_some() => shown.error = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match shown.hits.as_slice() {
        [only] => Ok(back_to(&only.href)),
        _ => {
            let status = shown.error.as_ref().map_or(http::StatusCode::OK, ApiError::status);
            page_with(status, visitor, &shown)
        }
    }
}

fn row(face: Face, names: &Names, hit: SearchHit) -> Row {
    let application = hit.application.map(|id| id.to_string());
    let application = application.filter(|_| face == Face::Console && hit.kind != HitKind::Application);
    let name = application.map(|id| names.get(&id).cloned().unwrap_or(id));
    Row { kind: kind(hit.kind), href: href(face, &hit), application: name, hit }
}

fn kind(kind: HitKind) -> &'static str {
    match kind {
        HitKind::Event => "event",
        HitKind::Delivery => "delivery",
        HitKind::Attempt => "attempt",
        HitKind::Webhook => "webhook",
        HitKind::Application => "application",
        HitKind::Replay => "replay",
        HitKind::ParkedMessage => "parked message",
        HitKind::Key => "key",
    }
}

/// The page of a hit.
fn href(face: Face, hit: &SearchHit) -> String {
    let base = match hit.application {
        Some(application) => format!("{}/{application}", face.root()),
        None => face.root().to_owned(),
    };
    let id = &hit.id;
    match (hit.kind, hit.delivery) {
        (HitKind::Event, _) => format!("{base}/events/{id}"),
        (HitKind::Attempt, Some(delivery)) => format!("{base}/deliveries/{delivery}"),
        (HitKind::Delivery | HitKind::Attempt, _) => format!("{base}/deliveries/{id}"),
        (HitKind::Webhook, _) => format!("{base}/webhooks/{id}"),
        (HitKind::Application, _) => format!("{base}/"),
        (HitKind::Replay, _) => format!("{base}/replays/{id}"),
        (HitKind::ParkedMessage, _) => format!("/console/parked/{id}"),
        (HitKind::Key, _) => format!("/console/keys/{id}"),
    }
}

/// A retention in days, or in hours below two days.
fn days(seconds: u64) -> String {
    match seconds / 3600 {
        hours @ 0..48 => format!("{hours} hours"),
        hours => format!("{} days", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_hit_leads_to_its_page() {
        let application = ApplicationId::new(Timestamp::UNIX_EPOCH, [1; 10]);
        let delivery = fanfare_domain::ids::DeliveryId(application.0);
        let hit = |kind, application, delivery| SearchHit {
            kind,
            id: "x_1".to_owned(),
            application,
            delivery,
            title: String::new(),
            detail: String::new(),
        };
        for (kind, path) in [
            (HitKind::Event, "/events/x_1"),
            (HitKind::Delivery, "/deliveries/x_1"),
            (HitKind::Webhook, "/webhooks/x_1"),
            (HitKind::Application, "/"),
            (HitKind::Replay, "/replays/x_1"),
        ] {
            let found = hit(kind, Some(application), None);
            assert_eq!(href(Face::Console, &found), format!("/console/{application}{path}"));
            assert_eq!(href(Face::Portal, &found), format!("/portal/{application}{path}"));
        }
        let attempt = hit(HitKind::Attempt, Some(application), Some(delivery));
        assert_eq!(href(Face::Portal, &attempt), format!("/portal/{application}/deliveries/{delivery}"));
        assert_eq!(href(Face::Console, &hit(HitKind::ParkedMessage, None, None)), "/console/parked/x_1");
        assert_eq!(href(Face::Console, &hit(HitKind::Key, None, None)), "/console/keys/x_1");
        assert_eq!([days(86_400), days(30 * 86_400)], ["24 hours", "30 days"]);
    }
}

//! Why an event did, or did not, arrive: each step with evidence, and the button of its remedy.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    http::{
        body::{JsonBody, from_value},
        parameters::Path,
    },
    routes::events::{
        send,
        why::{Asked, AskedByKey, Asking, Remedy, Step, WebhookWay, Why},
    },
};
use fanfare_domain::{
    access::session::{Face, Right},
    diagnosis::why::Reader,
    ids::EventId,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::{Fields, query},
        marks::{self, filters},
        place::Place,
        respond::{back_to, page},
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// Id or key of the event.
    event: String,
    webhook: Option<String>,
}

/// The remedy of a step on the page.
enum Action {
    /// A form that makes the change at once.
    Change { to: String, label: &'static str, field: Option<(&'static str, String)> },
    /// A page for the change.
    Open { to: String, label: &'static str },
    /// The end of a wait.
    Wait(Option<Timestamp>),
}

struct ShownStep {
    class: &'static str,
    sentence: String,
    whose: &'static str,
    evidence: Vec<(String, String)>,
    action: Option<Action>,
}

struct Way {
    id: String,
    label: String,
    state: Option<&'static str>,
    delivery: Option<String>,
    steps: Vec<ShownStep>,
}

#[derive(Template)]
#[template(path = "application/why/why.html")]
struct WhyPage {
    frame: Frame,
    asked: String,
    event: Option<String>,
    steps: Vec<ShownStep>,
    ways: Vec<Way>,
    has_more: bool,
}

#[derive(Template)]
#[template(path = "application/why/ask.html")]
struct AskPage {
    frame: Frame,
}

/// Explains an event's way.
pub(crate) async fn show(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let address = &place.visitor.address;
    if Fields::of_address(address).given("event").is_none() {
        return page(&place.visitor, &AskPage { frame: place.frame("Why did it not arrive?") });
    }
    let call = why_call(address);
    let Parameters { event, webhook } = query(address)?;
    // An administrator also reads of parked messages.
    let reader = if place.visitor.is_administrator() { Reader::Administrator } else { Reader::Customer };
    let asking = Asking { reader, may_see_payloads: place.visitor.may(Right::Payloads) };
    let (api, authorized) = (console.api, place.authorized());
    let is_id = event.parse::<EventId>().is_ok();
    let found = match is_id {
        true => api.why_of_id(&authorized, asking, &event, &Asked { webhook }).await?,
        false => api.why_of_key(&authorized, asking, AskedByKey { key: event.clone(), webhook }).await?,
    };
    page(&place.visitor, &WhyPage::new(&place, found, event, call))
}

/// The request to the API with the parameters of the page's address.
fn why_call(address: &str) -> String {
    let fields = Fields::of_address(address);
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let event = fields.value("event");
    let path = if event.parse::<EventId>().is_ok() {
        format!("/events/{event}/why")
    } else {
        query.append_pair("key", event);
        "/events/why".to_owned()
    };
    if let Some(webhook) = fields.given("webhook") {
        query.append_pair("webhook", webhook);
    }
    let query = query.finish();
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

impl WhyPage {
    fn new(place: &Place, why: Why, asked: String, call: String) -> Self {
        let shown = |steps: Vec<Step>| steps.into_iter().map(|step| ShownStep::new(step, place)).collect();
        let way = |way: WebhookWay| Way {
            id: way.webhook.to_string(),
            label: marks::webhook(&way.name, &way.url),
            state: way.state,
            delivery: way.delivery.map(|id| id.to_string()),
            steps: shown(way.steps),
        };
        Self {
            frame: place.frame("Why did it not arrive?").live().call(call),
            asked,
            event: why.event.map(|id| id.to_string()),
            steps: shown(why.steps),
            ways: why.webhooks.into_iter().map(way).collect(),
            has_more: why.has_more,
        }
    }
}

impl ShownStep {
    fn new(step: Step, place: &Place) -> Self {
        let class = match step.state {
            "done" => "good",
            "problem" => "bad",
            "pending" => "wait",
            _ => "",
        };
        let whose = match step.fault {
            Some("ours") => "The fault is ours.",
            Some("theirs") => "The fault is at the receiver or in the webhook's settings.",
            Some("publisher") => "The fault is at the publisher.",
            _ => "",
        };
        // The error of an attempt may quote the answer.
        let is_shown = |name: &str| !["error", "fault", "value"].contains(&name) || place.visitor.may(Right::Payloads);
        let evidence = step.evidence.into_iter().filter(|fact| is_shown(&fact.name));
        let evidence = evidence.map(|fact| (fact.name.replace('_', " "), fact.value)).collect();
        let action = step.remedy.and_then(|remedy| Action::new(remedy, place));
        Self { class, sentence: step.sentence, whose, evidence, action }
    }
}

impl Action {
    /// The remedy as the session may use it; `None` without the right.
    fn new(remedy: Remedy, place: &Place) -> Option<Self> {
        let (base, visitor) = (&place.base, &place.visitor);
        let text = |id: Option<String>| id.unwrap_or_default();
        let webhook = text(remedy.webhook.map(|id| id.to_string()));
        let page_of = |page: &str| format!("{base}/webhooks/{webhook}{page}");
        let change = |right, to, label, field| visitor.may(right).then_some(Self::Change { to, label, field });
        let open = |right, to, label| visitor.may(right).then_some(Self::Open { to, label });
        match remedy.action {
            "resume" | "enable" => {
                let field = Some(("status", "enabled".to_owned()));
                change(Right::Endpoints, page_of("/status"), "Enable the webhook", field)
            }
            "resend" => {
                let delivery = text(remedy.delivery.map(|id| id.to_string()));
                change(Right::Resend, format!("{base}/deliveries/{delivery}/resend"), "Resend", None)
            }
            "send" => {
                let event = text(remedy.event.map(|id| id.to_string()));
                change(
                    Right::Resend,
                    format!("{base}/events/{event}/send"),
                    "Send it there",
                    Some(("webhook", webhook)),
                )
            }
            "wait" => Some(Self::Wait(remedy.until)),
            "change_subscriptions" => open(Right::Endpoints, page_of("/edit"), "Change the subscriptions"),
            "change_filter" => open(Right::Endpoints, page_of("/edit"), "Change the filter"),
            "change_authentication" => open(Right::Endpoints, page_of("/edit"), "Change the authentication"),
            "resume_key" => open(Right::Endpoints, page_of("/ordering-keys"), "Resume the key"),
            "change_url" => open(Right::Endpoints, page_of("/edit"), "Change the URL"),
            "repair_certificate" | "test" => open(Right::Test, page_of("/test"), "Test the webhook"),
            "check_signature" => open(Right::Test, page_of("/signature"), "Check the signature"),
            "put_back" if visitor.session.face == Face::Console => {
                let parked = text(remedy.parked.map(|id| id.to_string()));
                open(Right::Operate, format!("/console/parked/{parked}"), "Mend and put back")
            }
            _ => None,
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Named {
    event: String,
}

/// Sends an event to a webhook that did not get the event.
pub(crate) async fn send_there(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
    body: Bytes,
) -> Result<Response, Fault> {
    let asked = json!({ "webhook": Fields::of_body(&body).value("webhook") });
    let new: send::New = from_value(&asked)?;
    let (api, authorized) = (console.api.clone(), place.authorized());
    let work =
        async move { send::send(State(api), authorized, Path(named.event), JsonBody(new)).await.map(|a| a.data) };
    let sent = place.change(&console, Right::Resend, ("send_event", asked), work).await?;
    Ok(back_to(format!("{}/deliveries/{}?done=sent", place.base, sent.id)))
}

//! The settings of an application, for staff: a form, and a review of the changes before they are made.

use std::collections::BTreeMap;

use askama::Template;
use axum::{body::Bytes, extract::State, http::StatusCode, response::Response};
use fanfare_api::{
    http::{authentication::KeyApplication, body::from_value, error::ApiError, parameters::Path},
    routes::{
        applications::{self, Application, Change},
        plans,
    },
};
use fanfare_domain::{
    access::session::{Face, Right},
    application::label::parse_label,
};
use serde_json::{Map, Value, json};

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::filters,
        place::Place,
        respond::{back_to, page, page_with},
    },
};

/// The members of the settings, with their labels.
const MEMBERS: [(&str, &str); 11] = [
    ("name", "Name"),
    ("dialect", "Dialect"),
    ("strict", "Refuse undescribed event types"),
    ("email", "E-mail address"),
    ("plan", "Plan"),
    ("publish_rate_per_second", "Events per second"),
    ("events_per_day", "Events per day"),
    ("stored_bytes", "Stored bytes"),
    ("max_webhooks", "Webhooks"),
    ("labels", "Labels"),
    ("redacted", "Hidden members"),
];

/// The limits among the members.
const LIMITS: [&str; 4] = ["publish_rate_per_second", "events_per_day", "stored_bytes", "max_webhooks"];

#[derive(Template)]
#[template(path = "application/settings.html")]
struct Settings {
    frame: Frame,
    fields: Fields,
    dialects: Vec<(String, String)>,
    /// Names of the plans, after an empty name for no plan.
    plans: Vec<(String, String)>,
    may_limit: bool,
}

/// A changed member, before and after.
struct Changed {
    label: &'static str,
    before: String,
    after: String,
}

#[derive(Template)]
#[template(path = "application/settings/review.html")]
struct Review {
    frame: Frame,
    changes: Vec<Changed>,
    /// The form's fields, sent again by the confirmation.
    sent: Vec<(String, String)>,
    changes_dialect: bool,
}

/// Shows the form.
pub(crate) async fn form(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let now = application(&console, &place).await?;
    page(&place.visitor, &settings(&console, &place, fields_of(&now)).await?)
}

/// Shows the changes before and after, or makes the confirmed changes.
pub(crate) async fn save(State(console): State<Console>, place: Place, body: Bytes) -> Result<Response, Fault> {
    let before = application(&console, &place).await?;
    place.visitor.require(Right::Operate)?;
    let fields = Fields::of_body(&body);
    let done = match changes(&before, &fields, may_limit(&place)) {
        Ok(asked) if asked.is_empty() => return Ok(back_to(format!("{}/settings", place.base))),
        Ok(asked) if fields.has("confirmed", "yes") => changed(&console, &place, Value::Object(asked)).await,
        Ok(asked) => match applications::check(&console.api, &from_value(&Value::Object(asked.clone()))?) {
            Ok(()) => return page(&place.visitor, &review(&place, &before, &asked, &fields)),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    match done {
        Ok(_) => Ok(back_to(format!("{}/settings?done=saved", place.base))),
        Err(error) => {
            let status: StatusCode = error.status();
            page_with(status, &place.visitor, &settings(&console, &place, fields.refused(error)).await?)
        }
    }
}

async fn changed(console: &Console, place: &Place, asked: Value) -> Result<Application, ApiError> {
    let change: Change = from_value(&asked)?;
    let (api, id) = (console.api.clone(), place.application.to_string());
    let of_session = KeyApplication(place.visitor.session.application);
    let work = async move {
        let body = fanfare_api::http::body::JsonBody(change);
        applications::change(State(api), Path(id), of_session, body).await.map(|answer| answer.data)
    };
    place.change(console, Right::Operate, ("change_application", asked), work).await
}

/// The application as the API shows it. The portal has no settings: it shows neither dialects nor hidden members.
async fn application(console: &Console, place: &Place) -> Result<Application, ApiError> {
    if place.visitor.session.face == Face::Portal {
        return Err(ApiError::not_found("path", "no page has this address"));
    }
    let of_session = KeyApplication(place.visitor.session.application);
    let path = Path(place.application.to_string());
    applications::show(State(console.api.clone()), path, of_session).await.map(|answer| answer.data)
}

async fn settings(console: &Console, place: &Place, fields: Fields) -> Result<Settings, ApiError> {
    let of_session = KeyApplication(place.visitor.session.application);
    let listed = applications::dialects(State(console.api.clone()), of_session).await.data;
    let plans = match place.visitor.administrator() {
        Ok(administrator) => plans::list(State(console.api.clone()), administrator).await?.data,
        Err(_) => Vec::new(),
    };
    let none = [(String::new(), "none".to_owned())];
    Ok(Settings {
        plans: none.into_iter().chain(plans.into_iter().map(|plan| (plan.name.clone(), plan.name))).collect(),
        frame: place.frame("Settings").call(format!("/applications/{}", place.application)),
        fields,
        dialects: listed.into_iter().map(|dialect| (dialect.name, dialect.title)).collect(),
        may_limit: may_limit(place),
    })
}

/// Only a session of all applications may change the publish rate, as in the API.
fn may_limit(place: &Place) -> bool {
    place.visitor.is_administrator()
}

fn fields_of(application: &Application) -> Fields {
    let strict = if application.strict { "yes" } else { "" };
    let fields = Fields::default()
        .with("name", application.name.clone())
        .with("dialect", application.dialect.clone())
        .with("strict", strict)
        .with("email", application.email.clone().unwrap_or_default())
        .with("plan", application.plan.clone().unwrap_or_default())
        .with("labels", lines(&application.labels.clone().unwrap_or_default()))
        .with("redacted", application.redacted.join("\n"));
    let known = serde_json::to_value(application.limits).unwrap_or_default();
    let limit = |name: &str| known[name].as_u64().map(|limit| limit.to_string()).unwrap_or_default();
    LIMITS.iter().fold(fields, |fields, name| fields.with(name, limit(name)))
}

/// Labels, each in a line.
fn lines(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>().join("\n")
}

/// The labels of the form. A comma is a part of a value.
fn labels_of(fields: &Fields) -> Result<Value, ApiError> {
    let lines = fields.value("labels").lines().map(str::trim).filter(|line| !line.is_empty());
    let pair = |line: &str| {
        let (key, value) = parse_label(line).map_err(|fault| ApiError::invalid("labels", fault))?;
        Ok((key.to_owned(), Value::from(value)))
    };
    lines.map(pair).collect::<Result<Map<String, Value>, ApiError>>().map(Value::Object)
}

/// The members that the form changes, as the body of the same request to the API.
fn changes(before: &Application, fields: &Fields, may_limit: bool) -> Result<Map<String, Value>, ApiError> {
    let mut asked = json!({
        "name": fields.value("name").trim(),
        "dialect": fields.value("dialect"),
        "strict": fields.has("strict", "yes"),
        "email": fields.given("email"),
        "redacted": fields.list("redacted"),
    });
    if may_limit {
        for limit in LIMITS {
            asked[limit] = fields.number(limit)?;
        }
        asked["plan"] = json!(fields.given("plan"));
        asked["labels"] = labels_of(fields)?;
    }
    let known = as_json(before);
    let Value::Object(mut asked) = asked else { return Ok(Map::new()) };
    asked.retain(|member, value| known[member.as_str()] != *value);
    Ok(asked)
}

fn as_json(application: &Application) -> Value {
    serde_json::to_value(application).unwrap_or_default()
}

fn review(place: &Place, before: &Application, asked: &Map<String, Value>, fields: &Fields) -> Review {
    let known = as_json(before);
    let changed = |(member, label): &(&str, &'static str)| {
        let after = asked.get(*member)?;
        Some(Changed { label, before: told(&known[*member]), after: told(after) })
    };
    let sent = MEMBERS.iter().map(|(member, _)| ((*member).to_owned(), fields.value(member).to_owned()));
    Review {
        frame: place.frame("Review the changes"),
        changes: MEMBERS.iter().filter_map(changed).collect(),
        sent: sent.collect(),
        changes_dialect: asked.contains_key("dialect"),
    }
}

/// A value for people.
fn told(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(is_set) => if *is_set { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(labels) if labels.is_empty() => "none".to_owned(),
        Value::Object(labels) => {
            labels.iter().map(|(key, value)| format!("{key}:{}", told(value))).collect::<Vec<_>>().join("\n")
        }
        Value::Array(entries) if entries.is_empty() => "none".to_owned(),
        Value::Array(entries) => entries.iter().map(told).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use fanfare_api::routes::plans::Limits;
    use fanfare_domain::ids::ApplicationId;
    use jiff::Timestamp;

    use super::*;

    fn application() -> Application {
        Application {
            id: ApplicationId::new(Timestamp::UNIX_EPOCH, [1; 10]),
            name: "shop".to_owned(),
            dialect: "incenta".to_owned(),
            strict: true,
            email: None,
            plan: Some("free".to_owned()),
            limits: Limits { publish_rate_per_second: Some(5), ..Limits::default() },
            labels: Some(BTreeMap::from([("region".to_owned(), "eu, west".to_owned())])),
            redacted: vec!["password".to_owned(), "card.number".to_owned()],
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_unchanged_form_changes_nothing() {
        let before = application();
        for may_limit in [true, false] {
            assert!(changes(&before, &fields_of(&before), may_limit).expect("a form").is_empty());
        }
    }

    #[test]
    fn only_changed_members_are_asked_for() {
        let body = b"name=shop&dialect=incenta&email=a%40b.example&plan=free&publish_rate_per_second=&labels=region%3Aeu&redacted=password%0D%0Acard.number";
        let asked = changes(&application(), &Fields::of_body(body), true).expect("a form");
        let expected = json!({ "strict": false, "email": "a@b.example", "publish_rate_per_second": null, "labels": { "region": "eu" } });
        assert_eq!(Value::Object(asked), expected);
        let refused = changes(&application(), &Fields::of_body(b"publish_rate_per_second=x"), true);
        assert_eq!(refused.expect_err("no number").field.as_deref(), Some("publish_rate_per_second"));
    }
}

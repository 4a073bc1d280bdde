//! The timeline of a delivery: acceptance, attempts, and the next attempt.

use fanfare_api::routes::deliveries::{Attempt, Delivery};
use jiff::Timestamp;
use serde_json::Value;

use crate::frame::marks::{self, words};

/// A point of the timeline.
pub(crate) struct Point {
    /// Class of the point: `good`, `bad`, `wait` or empty.
    pub(crate) class: &'static str,
    pub(crate) at: Timestamp,
    pub(crate) sentence: String,
    pub(crate) detail: Option<Detail>,
}

/// Request and answer of an attempt.
pub(crate) struct Detail {
    pub(crate) url: Option<String>,
    pub(crate) request: Vec<(String, String)>,
    pub(crate) answer: Vec<(String, String)>,
    pub(crate) body: Option<String>,
    pub(crate) error: Option<String>,
}

/// The points, in order.
pub(crate) fn points(delivery: &Delivery, attempts: Vec<Attempt>, shows_bodies: bool) -> Vec<Point> {
    let accepted =
        Point { class: "", at: delivery.accepted_at, sentence: "The event was accepted.".into(), detail: None };
    let mut points = vec![accepted];
    let mut before: Option<(String, Option<i32>, Option<String>)> = None;
    for attempt in attempts {
        let answer = (attempt.outcome.clone(), attempt.status, attempt.response_body.clone());
        let is_repeated = before.as_ref() == Some(&answer);
        points.push(point(attempt, is_repeated, shows_bodies));
        before = Some(answer);
    }
    if let Some(at) = delivery.next_attempt_at {
        let sentence = format!("Attempt {} is due.", delivery.attempt);
        points.push(Point { class: "wait", at, sentence, detail: None });
    }
    if let Some(at) = delivery.finished_at {
        points.push(end(delivery, at));
    }
    points
}

fn point(attempt: Attempt, is_repeated: bool, shows_bodies: bool) -> Point {
    let is_taken = attempt.status.is_some_and(|status| (200..300).contains(&status));
    let took = attempt.duration_ms.map(|ms| format!(" after {}", marks::took(u64::from(ms.unsigned_abs()))));
    let again = if is_repeated { ", as before" } else { "" };
    let outcome = words::outcome(&attempt.outcome, attempt.status);
    let sentence = format!("Attempt {}: {outcome}{}{again}.", attempt.attempt, took.unwrap_or_default());
    let answer = attempt.response_headers.as_ref().and_then(|headers| serde_json::from_str(headers.get()).ok());
    let detail = Detail {
        url: attempt.url,
        request: attempt.request_headers.unwrap_or_default(),
        answer: answer.map(headers).unwrap_or_default(),
        body: attempt.response_body.filter(|body| shows_bodies && !is_repeated && !body.is_empty()),
        error: attempt.error,
    };
    Point { class: if is_taken { "good" } else { "bad" }, at: attempt.started_at, sentence, detail: Some(detail) }
}

fn end(delivery: &Delivery, at: Timestamp) -> Point {
    let reason = delivery.reason.as_deref().map(words::reason);
    let (class, sentence) = match (delivery.state, reason) {
        ("delivered", _) => ("good", "The webhook has the event.".to_owned()),
        ("skipped", _) => ("", "Not sent: the webhook was disabled.".to_owned()),
        ("failed", Some(reason)) => ("bad", format!("Given up: {reason}.")),
        ("failed", None) => ("bad", "Given up.".to_owned()),
        // An earlier end: the delivery was requested again.
        _ => ("", "An earlier request of the delivery ended.".to_owned()),
    };
    Point { class, at, sentence, detail: None }
}

/// Names and values of a JSON object. A value may be a text or a list of texts.
fn headers(object: Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let Value::Object(members) = object else { return Vec::new() };
    members
        .into_iter()
        .map(|(name, value)| match value {
            Value::Array(values) => (name, values.iter().map(text).collect::<Vec<_>>().join(", ")),
            value => (name, text(&value)),
        })
        .collect()
}

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

/// The most characters of an answer, and of all answers of a page. The API has the whole answers.
const MAX_ANSWER: usize = 4 * 1024;
const MAX_ANSWERS: usize = 32 * 1024;

/// Request and answer of an attempt.
pub(crate) struct Detail {
    pub(crate) url: Option<String>,
    pub(crate) request: Vec<(String, String)>,
    pub(crate) answer: Vec<(String, String)>,
    pub(crate) body: Option<String>,
    /// Size of an answer of which the page shows the beginning only.
    pub(crate) cut: Option<String>,
    pub(crate) error: Option<String>,
}

/// The points, in order. `shows_details` is false for a session that may not see requests and answers.
pub(crate) fn points(delivery: &Delivery, attempts: Vec<Attempt>, shows_details: bool, is_portal: bool) -> Vec<Point> {
    let mut left = MAX_ANSWERS;
    let accepted =
        Point { class: "", at: delivery.accepted_at, sentence: "The event was accepted.".into(), detail: None };
    let mut points = vec![accepted];
    let mut before: Option<(String, Option<i32>, Option<String>)> = None;
    for attempt in attempts {
        let answer = (attempt.outcome.clone(), attempt.status, attempt.response_body.clone());
        let is_repeated = before.as_ref() == Some(&answer);
        let mut point = point(&attempt, is_repeated);
        if shows_details {
            point.detail = Some(detail(attempt, is_repeated, &mut left));
        }
        points.push(point);
        before = Some(answer);
    }
    if let Some(at) = delivery.next_attempt_at {
        let sentence = format!("Attempt {} is due.", delivery.attempt);
        points.push(Point { class: "wait", at, sentence, detail: None });
    }
    if let Some(at) = delivery.finished_at {
        points.push(end(delivery, at));
    }
    if let Some(at) = delivery.mailed_at {
        // The address may be the application's own, which customers do not read.
        let address = delivery.mailed_to.as_deref().filter(|_| !is_portal);
        let sentence = match address {
            Some(address) => format!("A mail to {address} reported the failure."),
            None => "A mail reported the failure.".to_owned(),
        };
        points.push(Point { class: "", at, sentence, detail: None });
    }
    points
}

fn point(attempt: &Attempt, is_repeated: bool) -> Point {
    let is_taken = attempt.status.is_some_and(|status| (200..300).contains(&status));
    let took = attempt.duration_ms.map(|ms| format!(" after {}", marks::took(u64::from(ms.unsigned_abs()))));
    let again = if is_repeated { ", as before" } else { "" };
    let outcome = words::outcome(&attempt.outcome, attempt.status);
    let sentence = format!("Attempt {}: {outcome}{}{again}.", attempt.attempt, took.unwrap_or_default());
    Point { class: if is_taken { "good" } else { "bad" }, at: attempt.started_at, sentence, detail: None }
}

/// The details of an attempt. `left` is the number of characters that answers may still have.
fn detail(attempt: Attempt, is_repeated: bool, left: &mut usize) -> Detail {
    let answer = attempt.response_headers.as_ref().and_then(|headers| serde_json::from_str(headers.get()).ok());
    let body = attempt.response_body.filter(|body| !is_repeated && !body.is_empty());
    let shown: Option<String> = body.as_ref().map(|body| body.chars().take(MAX_ANSWER.min(*left)).collect());
    *left -= shown.as_ref().map_or(0, |shown| shown.chars().count());
    Detail {
        url: attempt.url,
        request: attempt.request_headers.unwrap_or_default(),
        answer: answer.map(headers).unwrap_or_default(),
        cut: body.filter(|body| Some(body) != shown.as_ref()).map(|body| marks::size(body.len())),
        body: shown,
        error: attempt.error,
    }
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

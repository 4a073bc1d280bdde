//! The timeline of a delivery: acceptance, attempts, and the next attempt.

use fanfare_api::routes::deliveries::{Attempt, Delivery};
use fanfare_domain::delivery::READ_BY_FEED;
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

/// The points, in order. `address` is the address of the mail, if the visitor may see the address. `shows_details` is
/// false for a session that may not see requests and answers.
pub(crate) fn points(
    delivery: &Delivery,
    address: Option<&str>,
    attempts: Vec<Attempt>,
    shows_details: bool,
) -> Vec<Point> {
    let mut left = MAX_ANSWERS;
    let accepted =
        Point { class: "", at: delivery.accepted_at, sentence: "The event was accepted.".into(), detail: None };
    let mut points = vec![accepted];
    let begun = attempts.iter().map(|attempt| attempt.started_at).max();
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
        // The process's estimate of the database's clock may be ahead.
        points.push(end(delivery, begun.map_or(at, |begun| at.max(begun))));
    }
    if let Some(at) = delivery.mailed_at {
        let sentence = match address {
            Some(address) => format!("A mail to {address} reported the failure."),
            None => "A mail reported the failure.".to_owned(),
        };
        points.push(Point { class: "", at, sentence, detail: None });
    }
    // A delivery may be sent again after its end and after the mail. Nothing comes before the acceptance.
    points[1..].sort_by_key(|point| point.at);
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
        ("skipped", _) if delivery.reason.as_deref() == Some(READ_BY_FEED) => {
            ("good", "Not sent: the receiver reads the feed, which lists the delivery.".to_owned())
        }
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

#[cfg(test)]
mod tests {
    use fanfare_domain::ids::{ApplicationId, AttemptId, DeliveryId, EndpointId, EventId};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).expect("a moment")
    }

    fn attempt(delivery: DeliveryId, number: u32, second: i64) -> Attempt {
        Attempt {
            id: AttemptId::derive(delivery, number),
            attempt: number,
            url: None,
            started_at: at(second),
            duration_ms: Some(5),
            outcome: "answered".to_owned(),
            status: Some(500),
            error: None,
            request_headers: None,
            response_headers: None,
            response_body: None,
            next_attempt_at: None,
        }
    }

    #[test]
    fn points_are_in_the_order_of_time_after_a_resend() {
        let event = EventId::new(ApplicationId::new(at(0), [1; 10]), at(0), [2; 10]);
        let endpoint = EndpointId::new(at(0), [3; 10]);
        let id = DeliveryId::derive(at(1), event, endpoint);
        let delivery = Delivery {
            sequence: None,
            id,
            event,
            event_type: "a".to_owned(),
            webhook: endpoint,
            webhook_name: None,
            url: String::new(),
            state: "failed",
            reason: None,
            attempt: 2,
            retry_count: 1,
            response_status: Some(500),
            next_attempt_at: None,
            accepted_at: at(1),
            // The database's clock is behind the clock of the last attempt's process.
            finished_at: Some(at(29)),
            mailed_at: Some(at(20)),
        };
        // The clock of the first attempt's process is behind.
        let attempts = vec![attempt(id, 1, 0), attempt(id, 2, 30)];
        let points = points(&delivery, Some("ops@a.example"), attempts, false);
        let sentences: Vec<&str> = points.iter().map(|point| point.sentence.as_str()).collect();
        let begin = ["The event was accepted.", "Attempt 1:", "A mail to ops@a.example", "Attempt 2:", "Given up."];
        assert_eq!(sentences.len(), begin.len(), "{sentences:?}");
        assert!(sentences.iter().zip(begin).all(|(sentence, begin)| sentence.starts_with(begin)), "{sentences:?}");
    }
}

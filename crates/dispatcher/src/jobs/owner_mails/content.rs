//! Text of a mail: changed conditions of endpoints, the failed deliveries, the endpoints' answers, and the steps to
//! take.

use fanfare_domain::operational::{Change, Condition};
use fanfare_store::{ChangedCondition, ConditionNotice, FailedDelivery, FailedEndpoint, NoticeBounds, Notices};
use url::Url;

/// Bounds of a mail. The next mail reports the failures beyond a hundred thousand.
pub(super) const BOUNDS: NoticeBounds =
    NoticeBounds { deliveries: 100_000, in_detail: 20, endpoints: 20, body_bytes: 600, conditions: 100 };

/// Maximum of lines of a response's body, and of characters in any line.
const BODY_LINES: usize = 5;
const LINE_CHARACTERS: usize = 200;

/// Maximum of characters of a name in the subject.
const SUBJECT_NAME_CHARACTERS: usize = 60;

/// Descriptions of failure reasons.
const REASONS: [(&str, &str); 10] = [
    ("attempts_exhausted", "every attempt of the schedule failed"),
    ("expired", "the delivery was unfinished long after the end of the schedule"),
    ("aborted", "we could not finish an attempt four times in a row"),
    ("endpoint_deleted", "the endpoint was deleted"),
    ("rejected", "the endpoint answered that it will never accept the delivery"),
    ("endpoint_gone", "the endpoint answered that it accepts no more deliveries, and was disabled"),
    ("stopped_by_receiver", "the endpoint answered webhook-action: stop"),
    ("disabled_by_receiver", "the endpoint answered webhook-action: disable, and was disabled"),
    ("held_too_long", "the endpoint was paused for longer than a delivery may wait"),
    ("too_many_held", "the endpoint was paused, and too many deliveries waited for it"),
];

const STEPS: &str = "\
What to do
  1. Make sure that the endpoint answers with a 2xx status, in time.
  2. Read the request and the response of a delivery:
       GET /api/v1/deliveries/<id of the delivery>
  3. Send a delivery again:
       POST /api/v1/deliveries/<id of the delivery>/resend
     or send all failed deliveries of an endpoint again:
       POST /api/v1/deliveries/resend  {\"webhook\": \"<id of the endpoint>\"}
";

/// Subject and text of a mail.
pub(super) struct Content {
    pub(super) subject: String,
    pub(super) text: String,
}

impl Content {
    /// Foreign text is bounded, and free of control characters.
    pub(super) fn new(notices: &Notices) -> Self {
        let mut sections = Vec::new();
        if !notices.conditions.is_empty() {
            sections.push(notices.conditions.iter().map(condition).collect());
        }
        if !notices.notified.is_empty() {
            let failures = notices.failures.iter().map(failure).collect::<Vec<_>>().join("\n");
            sections.extend([summary(notices), STEPS.to_owned(), heading(notices), failures]);
        }
        Self { subject: subject(notices), text: sections.join("\n") }
    }
}

fn subject(notices: &Notices) -> String {
    match (notices.notified.len(), notices.endpoints.as_slice()) {
        (0, _) => subject_of(&notices.conditions),
        (count, [endpoint]) => {
            let name = plain(&display_name(endpoint.name.as_deref(), &endpoint.url), SUBJECT_NAME_CHARACTERS);
            match count {
                1 => format!("A delivery to {name} failed"),
                count => format!("{count} deliveries to {name} failed"),
            }
        }
        (count, _) => format!("{count} deliveries failed"),
    }
}

/// Subject of a mail without failed deliveries.
fn subject_of(conditions: &[ChangedCondition]) -> String {
    match conditions {
        [single] => {
            let name = plain(&display_name(single.name.as_deref(), &single.url), SUBJECT_NAME_CHARACTERS);
            format!("{name} {}", condition_words(&single.notice))
        }
        several => format!("{} changes of your endpoints", several.len()),
    }
}

/// The condition after a change, behind the name of the endpoint.
fn condition_words(notice: &ConditionNotice) -> &'static str {
    match (notice.condition, notice.change) {
        (Condition::Disabled, Change::Begins) => "is disabled",
        (Condition::Disabled, Change::Ends) if notice.reason.as_deref() == Some("paused") => "is paused",
        (Condition::Disabled, Change::Ends) => "is enabled",
        (Condition::Failing, Change::Begins) => "has failed for an hour",
        (Condition::Failing, Change::Ends) => "has recovered",
        (Condition::BreakerOpen, Change::Begins) => "failed often, and gets single attempts until it is back",
        (Condition::BreakerOpen, Change::Ends) => "gets more than single attempts again",
        (Condition::BacklogNearLimit, Change::Begins) => "has deliveries that expire within an hour",
        (Condition::BacklogNearLimit, Change::Ends) => "has no more deliveries that expire within an hour",
        (Condition::HeldNearLimit, Change::Begins) => "is paused, and its held deliveries are near the limit",
        (Condition::HeldNearLimit, Change::Ends) => "has no more held deliveries near the limit",
        // The job notes no other condition.
        (Condition::GivingUp | Condition::MessagesParked | Condition::ReplayFinished, _) => "has changed",
    }
}

fn condition(changed: &ChangedCondition) -> String {
    let since = changed.notice.since.strftime("%Y-%m-%d %H:%M:%S UTC");
    let reason = changed.notice.reason.as_deref().filter(|_| changed.notice.change == Change::Begins);
    let why = reason.map_or_else(String::new, |reason| format!(": {}", reason_words(reason)));
    let endpoint = named(changed.name.as_deref(), &changed.url, changed.notice.endpoint);
    format!("Since {since}: {endpoint}\n  {}{why}.\n", condition_words(&changed.notice))
}

fn summary(notices: &Notices) -> String {
    let deliveries = number(notices.notified.len(), "delivery", "deliveries");
    let endpoints = number(notices.endpoint_count, "endpoint", "endpoints");
    let mut text = format!("{deliveries} to {endpoints} failed. We make no further attempt without a request.\n\n");
    for endpoint in &notices.endpoints {
        text += &format!("{:>8}  {}\n", endpoint.failures, endpoint_line(endpoint));
    }
    let unnamed = notices.endpoint_count.saturating_sub(notices.endpoints.len());
    if unnamed > 0 {
        text += &format!("          and {}\n", number(unnamed, "other endpoint", "other endpoints"));
    }
    text
}

fn endpoint_line(endpoint: &FailedEndpoint) -> String {
    named(endpoint.name.as_deref(), &endpoint.url, endpoint.id)
}

fn heading(notices: &Notices) -> String {
    match (notices.failures.len(), notices.notified.len()) {
        (shown, all) if shown < all => format!("The first {shown} of them:\n"),
        _ => "In detail:\n".to_owned(),
    }
}

fn failure(failure: &FailedDelivery) -> String {
    let attempts = number(failure.attempts as usize, "attempt", "attempts");
    let why = failure.reason.as_deref().map_or_else(String::new, |reason| format!(": {}", reason_words(reason)));
    let failed_at = failure.failed_at.strftime("%Y-%m-%d %H:%M:%S UTC");
    let mut text = format!(
        "  Endpoint   {}\n  Event      {}  {}\n  Delivery   {}\n  Failed     {failed_at}, after {attempts}{why}\n",
        named(failure.endpoint_name.as_deref(), &failure.url, failure.endpoint),
        plain(&failure.event_type, LINE_CHARACTERS),
        failure.event,
        failure.delivery,
    );
    if let Some(result) = last_result(failure) {
        text += &format!("  Response   {result}\n");
    }
    for line in body_lines(&failure.response_body) {
        text += &format!("           | {line}\n");
    }
    text
}

/// `None` without an attempt.
fn last_result(failure: &FailedDelivery) -> Option<String> {
    match (failure.status, &failure.error, &failure.outcome) {
        (Some(status), ..) => Some(format!("HTTP status {status}")),
        (None, Some(error), _) => Some(format!("no answer: {}", plain(error, LINE_CHARACTERS))),
        (None, None, Some(outcome)) => Some(format!("no answer: {}", outcome.replace('_', " "))),
        (None, None, None) => None,
    }
}

fn body_lines(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    let lines = text.lines().map(|line| plain(line, LINE_CHARACTERS)).filter(|line| !line.is_empty());
    lines.take(BODY_LINES).collect()
}

fn reason_words(reason: &str) -> String {
    let words = REASONS.iter().find(|(code, _)| *code == reason).map(|(_, words)| *words);
    words.map_or_else(|| reason.replace('_', " "), str::to_owned)
}

fn named(name: Option<&str>, url: &str, id: impl std::fmt::Display) -> String {
    let url = plain(url, LINE_CHARACTERS);
    match name {
        Some(name) => format!("{} ({url})  {id}", plain(name, LINE_CHARACTERS)),
        None => format!("{url}  {id}"),
    }
}

/// The host stands for a missing name.
fn display_name(name: Option<&str>, url: &str) -> String {
    let host = || Url::parse(url).ok()?.host_str().map(str::to_owned);
    name.map(str::to_owned).or_else(host).unwrap_or_else(|| "an endpoint".to_owned())
}

fn number(count: usize, singular: &str, plural: &str) -> String {
    format!("{count} {}", if count == 1 { singular } else { plural })
}

/// Puts foreign text on a single line: at most `most` characters, with a space for each invisible character.
fn plain(text: &str, most: usize) -> String {
    let visible = |character| if is_invisible(character) { ' ' } else { character };
    let mut kept: String = text.chars().take(most).map(visible).collect();
    if text.chars().nth(most).is_some() {
        kept.push('…');
    }
    kept.trim().to_owned()
}

/// True for control characters, line and paragraph separators, invisible characters, and marks that change the
/// direction of the text.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use fanfare_domain::ids::{ApplicationId, DeliveryId, EndpointId, EventId};
    use fanfare_store::Notice;
    use jiff::Timestamp;

    use super::*;

    fn failed_at() -> Timestamp {
        "2026-11-21T10:00:00.5Z".parse().expect("timestamp")
    }

    fn endpoint(number: u8) -> EndpointId {
        EndpointId::new(failed_at(), [number; 10])
    }

    fn failed(number: u8) -> FailedDelivery {
        let application = ApplicationId::new(failed_at(), [0; 10]);
        let event = EventId::new(application, failed_at(), [number; 10]);
        FailedDelivery {
            delivery: DeliveryId::derive(failed_at(), event, endpoint(number)),
            event,
            event_type: "points.awarded".to_owned(),
            endpoint: endpoint(number),
            endpoint_name: Some("Orders".to_owned()),
            url: "https://shop.example/hooks".to_owned(),
            reason: Some("attempts_exhausted".to_owned()),
            failed_at: failed_at(),
            attempts: 5,
            outcome: Some("answered".to_owned()),
            status: Some(503),
            error: None,
            response_body: b"down for maintenance".to_vec(),
        }
    }

    /// Notices of deliveries to as many endpoints.
    fn notices(failures: Vec<FailedDelivery>) -> Notices {
        let application = ApplicationId::new(failed_at(), [0; 10]);
        let notice = |failure: &FailedDelivery| Notice {
            delivery: failure.delivery,
            application,
            endpoint: failure.endpoint,
            failed_at: failure.failed_at,
        };
        let endpoint = |failure: &FailedDelivery| FailedEndpoint {
            id: failure.endpoint,
            name: failure.endpoint_name.clone(),
            url: failure.url.clone(),
            failures: 1,
        };
        Notices {
            notified: failures.iter().map(notice).collect(),
            endpoints: failures.iter().map(endpoint).collect(),
            endpoint_count: failures.len(),
            failures,
            conditions: Vec::new(),
        }
    }

    fn changed(condition: Condition, change: Change, reason: Option<&str>) -> ChangedCondition {
        let endpoint = EndpointId::new(failed_at(), [1; 10]);
        let (since, reason) = (failed_at(), reason.map(str::to_owned));
        ChangedCondition {
            notice: ConditionNotice { endpoint, condition, change, since, reason },
            application: ApplicationId::new(failed_at(), [0; 10]),
            name: Some("Orders".to_owned()),
            url: "https://shop.example/hooks".to_owned(),
            told_at: failed_at(),
        }
    }

    #[test]
    fn changed_conditions_come_first_and_alone_name_the_endpoint() {
        let disabled = changed(Condition::Disabled, Change::Begins, Some("disabled_by_receiver"));
        let recovered = changed(Condition::Failing, Change::Ends, Some("recovered"));
        let endpoint = disabled.notice.endpoint;
        let alone = Notices { conditions: vec![disabled.clone()], ..Notices::default() };
        let Content { subject, text } = Content::new(&alone);
        assert_eq!(subject, "Orders is disabled");
        let since = failed_at().strftime("%Y-%m-%d %H:%M:%S UTC");
        let expected = format!(
            "Since {since}: Orders (https://shop.example/hooks)  {endpoint}\n  is disabled: the endpoint answered \
             webhook-action: disable, and was disabled.\n"
        );
        assert_eq!(text, expected);
        let both = Notices { conditions: vec![disabled, recovered], ..notices(vec![failed(1)]) };
        let Content { subject, text } = Content::new(&both);
        assert_eq!(subject, "A delivery to Orders failed");
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} in {text}"));
        assert!(
            place("  is disabled") < place("  has recovered.") && place("  has recovered.") < place("1 delivery to 1")
        );
        let several = Notices { conditions: both.conditions, ..Notices::default() };
        assert_eq!(Content::new(&several).subject, "2 changes of your endpoints");
    }

    #[test]
    fn names_endpoint_event_response_and_next_steps() {
        let delivery = failed(1);
        let Content { subject, text } = Content::new(&notices(vec![delivery.clone()]));
        assert_eq!(subject, "A delivery to Orders failed");
        let expected = format!(
            "1 delivery to 1 endpoint failed. We make no further attempt without a request.\n\n\
             \x20      1  Orders (https://shop.example/hooks)  {endpoint}\n\n\
             {STEPS}\n\
             In detail:\n\n\
             \x20 Endpoint   Orders (https://shop.example/hooks)  {endpoint}\n\
             \x20 Event      points.awarded  {event}\n\
             \x20 Delivery   {delivery}\n\
             \x20 Failed     2026-11-21 10:00:00 UTC, after 5 attempts: every attempt of the schedule failed\n\
             \x20 Response   HTTP status 503\n\
             \x20          | down for maintenance\n",
            endpoint = delivery.endpoint,
            event = delivery.event,
            delivery = delivery.delivery,
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_digest_counts_all_deliveries_and_details_the_first() {
        let mut notices = notices((0..60).map(failed).collect());
        notices.failures.truncate(20);
        notices.endpoints.truncate(20);
        let Content { subject, text } = Content::new(&notices);
        assert_eq!(subject, "60 deliveries failed");
        assert!(text.starts_with("60 deliveries to 60 endpoints failed."), "{text}");
        assert!(text.contains("and 40 other endpoints\n"), "{text}");
        assert!(text.contains("The first 20 of them:\n"), "{text}");
        assert_eq!(text.matches("Response ").count(), 20);
    }

    #[test]
    fn an_endpoint_without_a_name_is_called_by_its_host() {
        let mut delivery = failed(1);
        delivery.endpoint_name = None;
        assert_eq!(Content::new(&notices(vec![delivery])).subject, "A delivery to shop.example failed");
    }

    #[test]
    fn a_missing_answer_has_a_reason_in_words() {
        let mut delivery = failed(1);
        (delivery.status, delivery.response_body) = (None, Vec::new());
        delivery.outcome = Some("timed_out".to_owned());
        assert_eq!(last_result(&delivery).as_deref(), Some("no answer: timed out"));
        delivery.error = Some("no answer within 10s".to_owned());
        assert_eq!(last_result(&delivery).as_deref(), Some("no answer: no answer within 10s"));
        (delivery.outcome, delivery.error) = (None, None);
        assert!(!failure(&delivery).contains("Response "));
    }

    #[test]
    fn foreign_text_is_bounded_and_on_a_separate_line() {
        let mut delivery = failed(1);
        delivery.endpoint_name = Some(format!("a\r\nBcc: b{}", "x".repeat(1000)));
        delivery.response_body =
            [b"\x1b[31m\xff\0\r\n\n  \nsecond\xe2\x80\xaethird\n".as_slice(), &[b'y'; 5000]].concat();
        delivery.response_body.extend_from_slice(&b"\nline".repeat(100));
        let Content { subject, text } = Content::new(&notices(vec![delivery.clone()]));
        assert!(subject.chars().count() < 100 && !subject.contains(['\r', '\n']), "{subject}");
        assert!(text.chars().all(|character| character == '\n' || !is_invisible(character)));
        let lines = body_lines(&delivery.response_body);
        assert_eq!(lines[..2], ["[31m\u{fffd}".to_owned(), "second third".to_owned()]);
        assert_eq!((lines.len(), lines[2].chars().count()), (BODY_LINES, LINE_CHARACTERS + 1));
    }
}

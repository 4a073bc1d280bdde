//! Entries of the audit log as sentences. Pure.

pub(crate) mod list;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The words of an operation.
struct Words {
    /// Operation id in the API's document.
    operation: &'static str,
    /// The verb in the past.
    done: &'static str,
    /// The verb after "tried to".
    tried: &'static str,
    /// The object of the verb.
    object: &'static str,
    /// Prefix of the object's id; empty for an object without an id in the entry.
    prefix: &'static str,
}

const fn words(
    operation: &'static str,
    (done, tried): (&'static str, &'static str),
    object: &'static str,
    prefix: &'static str,
) -> Words {
    Words { operation, done, tried, object, prefix }
}

const CREATE: (&str, &str) = ("created", "create");
const CHANGE: (&str, &str) = ("changed", "change");
const DISCARD: (&str, &str) = ("discarded", "discard");
const PUT_BACK: (&str, &str) = ("put back", "put back");
const RESEND: (&str, &str) = ("resent", "resend");
const END: (&str, &str) = ("ended", "end");

/// The words of all operations that may change something.
const ALL: &[Words] = &[
    words("create_application", CREATE, "the application", "app"),
    words("change_application", CHANGE, "the application", "app"),
    words("put_plan", ("set", "set"), "a plan", ""),
    words("delete_plan", ("removed", "remove"), "a plan", ""),
    words("rotate_signing_key", ("rotated", "rotate"), "the signing key of the application", "app"),
    words("end_signing_key_rotation", END, "the previous signing key of the application", "app"),
    words("create_key", CREATE, "the key", "key"),
    words("rotate_key", ("rotated", "rotate"), "the key", "key"),
    words("revoke_key", ("revoked", "revoke"), "the key", "key"),
    words("describe_event_type", ("described", "describe"), "the event type", ""),
    words("import_event_types", ("imported", "import"), "event types", ""),
    words("remove_event_type", ("removed", "remove"), "the description of the event type", ""),
    words("publish_sample", ("published", "publish"), "the sample of the event type", "evt"),
    words("publish_event", ("published", "publish"), "an event", "evt"),
    words("publish_events", ("published", "publish"), "events", "evt"),
    words("erase_event", ("erased", "erase"), "the content of the event", "evt"),
    words("cancel_event", ("cancelled", "cancel"), "the delayed event", "evt"),
    words("cancel_event_by_key", ("cancelled", "cancel"), "the delayed event", "evt"),
    words("create_webhook", CREATE, "the webhook", "wh"),
    words("change_webhook", CHANGE, "the webhook", "wh"),
    words("put_webhook", ("set", "set"), "the webhook", "wh"),
    words("delete_webhook", ("deleted", "delete"), "the webhook", "wh"),
    words("enable_webhook", ("enabled", "enable"), "the webhook", "wh"),
    words("disable_webhook", ("disabled", "disable"), "the webhook", "wh"),
    words("pause_webhook", ("paused", "pause"), "the webhook", "wh"),
    words("resume_ordering_keys", ("resumed", "resume"), "ordering keys of the webhook", "wh"),
    words("rotate_secret", ("rotated", "rotate"), "the secret of the webhook", "wh"),
    words("end_rotation", END, "the previous secret of the webhook", "wh"),
    words("test_webhook", ("sent", "send"), "a test event to the webhook", "wh"),
    words("preview_webhook", ("counted", "count"), "the events of a webhook to add", ""),
    words("test_filter", ("tried", "try"), "a filter on the last events", ""),
    words("test_template", ("tried", "try"), "a template on the last events", ""),
    words("verify_signature", ("checked", "check"), "a signature of the webhook", "wh"),
    words("put_webhook_configs", ("set", "set"), "the webhooks over Nudj's API", "wh"),
    words("resend_delivery", RESEND, "the delivery", "dlv"),
    words("resend_deliveries", RESEND, "deliveries", ""),
    words("send_event", ("sent", "send"), "the event to another webhook", "evt"),
    words("create_replay", ("started", "start"), "the replay", "rpl"),
    words("count_replay", ("counted", "count"), "the events of a replay", ""),
    words("pause_replay", ("paused", "pause"), "the replay", "rpl"),
    words("resume_replay", ("resumed", "resume"), "the replay", "rpl"),
    words("cancel_replay", ("cancelled", "cancel"), "the replay", "rpl"),
    words("put_back_parked", PUT_BACK, "the parked message", "prk"),
    words("put_back_many_parked", PUT_BACK, "parked messages", ""),
    words("discard_parked", DISCARD, "the parked message", "prk"),
    words("discard_many_parked", DISCARD, "parked messages", ""),
    words("create_portal_link", CREATE, "a link to the portal", "ses"),
    words("end_session", END, "the session", "ses"),
    words("sign_in", ("began", "begin"), "the session", "ses"),
    words("open_link", ("opened", "open"), "the link of the session", "ses"),
    words("sign_out", ("signed out of", "sign out of"), "the session", "ses"),
];

/// Ids that a sentence names.
const MAX_NAMED: usize = 3;

/// The parts of an entry that a sentence tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// Operation id, or the command.
    pub(crate) action: &'a str,
    pub(crate) path: Option<&'a str>,
    pub(crate) subject: &'a [String],
    pub(crate) request: Option<&'a str>,
    pub(crate) outcome: Option<&'a str>,
}

/// A sentence without its author: words, the ids of the objects, more words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentence {
    pub(crate) words: String,
    pub(crate) ids: Vec<String>,
    pub(crate) end: String,
}

/// Tells a change, such as "changed url, events of the webhook", `wh_…`.
pub(crate) fn sentence(entry: &Entry<'_>) -> Sentence {
    if entry.action.starts_with("fanfare ") {
        let words = joined(entry.outcome, "ran", "run", &format!("`{}`", entry.action));
        return Sentence { words, ids: named(entry.subject), end: ending(entry.subject.len(), entry.outcome) };
    }
    let request = entry.request.and_then(|text| serde_json::from_str::<Value>(text).ok()).unwrap_or_default();
    let Some(known) = ALL.iter().find(|known| known.operation == entry.action) else {
        let words = joined(entry.outcome, "asked for", "ask for", &format!("`{}`", entry.action));
        return Sentence { words, ids: named(entry.subject), end: ending(entry.subject.len(), entry.outcome) };
    };
    let ids = ids(known.prefix, entry);
    let object = match known.operation {
        "change_application" | "change_webhook" => changed(&request, known.object),
        "describe_event_type" => with_text(known.object, request["name"].as_str()),
        "remove_event_type" | "publish_sample" => with_text(known.object, after(entry.path, "event-types").as_deref()),
        "create_key" => with_text(&article(request["role"].as_str(), "key"), None),
        "put_back_many_parked" | "discard_many_parked" => group(&request, known.object),
        _ => known.object.to_owned(),
    };
    let words = joined(entry.outcome, known.done, known.tried, &object);
    Sentence { words, end: ending(ids.len(), entry.outcome), ids: named(&ids) }
}

/// Verb and object, by the outcome.
fn joined(outcome: Option<&str>, done: &str, tried: &str, object: &str) -> String {
    match outcome {
        Some("done") => format!("{done} {object}"),
        _ => format!("tried to {tried} {object}"),
    }
}

/// The end of a sentence: objects that are not named, and an outcome other than success.
fn ending(ids: usize, outcome: Option<&str>) -> String {
    let more = if ids > MAX_NAMED { format!(" and {} more", ids - MAX_NAMED) } else { String::new() };
    match outcome {
        Some("done") => more,
        Some(outcome) => format!("{more}: {outcome}"),
        None => format!("{more}: no outcome is known"),
    }
}

fn named(ids: &[String]) -> Vec<String> {
    ids.iter().take(MAX_NAMED).cloned().collect()
}

/// The ids of the objects. The path names the object of a refused request; the answer the created object.
fn ids(prefix: &str, entry: &Entry<'_>) -> Vec<String> {
    let is_wanted = |id: &str| !prefix.is_empty() && id.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'));
    let of_path: Vec<String> =
        entry.path.unwrap_or_default().split('/').filter(|id| is_wanted(id)).map(str::to_owned).collect();
    if of_path.is_empty() { entry.subject.iter().filter(|id| is_wanted(id)).cloned().collect() } else { of_path }
}

/// "url, events of the webhook", by the members of the request.
fn changed(request: &Value, object: &str) -> String {
    let members: Vec<&str> = request.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    if members.is_empty() { object.to_owned() } else { format!("{} of {object}", members.join(", ").replace('_', " ")) }
}

fn with_text(object: &str, text: Option<&str>) -> String {
    text.map_or_else(|| object.to_owned(), |text| format!("{object} {text}"))
}

fn article(kind: Option<&str>, thing: &str) -> String {
    kind.map_or_else(|| format!("the {thing}"), |kind| format!("the {kind} {thing}"))
}

/// "3 parked messages", or "parked messages with the reason missing_message_id and the routing key …".
fn group(request: &Value, object: &str) -> String {
    let text = |member: &str| request[member].as_str();
    let number = request["ids"].as_array().map(|ids| format!("{} {object}", ids.len()));
    let mut words = number.unwrap_or_else(|| object.to_owned());
    let conditions: Vec<String> = [("reason", text("reason")), ("routing key", text("routing_key"))]
        .into_iter()
        .filter_map(|(name, value)| Some(format!("the {name} {}", value?)))
        .collect();
    if !conditions.is_empty() {
        words += &format!(" with {}", conditions.join(" and "));
    }
    words
}

/// The segment of a path after another segment, decoded.
fn after(path: Option<&str>, segment: &str) -> Option<String> {
    let found = path?.split('/').skip_while(|known| *known != segment).nth(1)?;
    percent_decode_str(found).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// An id in short: its kind and its last three letters.
pub(crate) fn short(id: &str) -> String {
    let Some((kind, rest)) = id.split_once('_') else { return id.to_owned() };
    match rest.char_indices().rev().nth(2) {
        Some((index, _)) if index > 0 => format!("{kind}_…{}", &rest[index..]),
        _ => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../../proto/openapi.json");

    fn told(action: &str, path: &str, subject: &[&str], request: Value, outcome: Option<&str>) -> String {
        let subject: Vec<String> = subject.iter().map(|id| (*id).to_owned()).collect();
        let request = request.to_string();
        let entry = Entry { action, path: Some(path), subject: &subject, request: Some(&request), outcome };
        let Sentence { words, ids, end } = sentence(&entry);
        format!("{words} {}{end}", ids.join(", ")).trim().to_owned()
    }

    #[test]
    fn every_operation_of_the_api_has_a_sentence() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("the document");
        let mut operations = 0;
        for (path, item) in document["paths"].as_object().expect("paths") {
            for method in ["post", "put", "patch", "delete"] {
                let Some(operation) = item[method]["operationId"].as_str() else { continue };
                let known = ALL.iter().filter(|known| known.operation == operation).count();
                assert_eq!(known, 1, "{method} {path}: {operation} needs one entry in ALL");
                operations += 1;
            }
        }
        assert!(operations > 30, "{operations} operations were found");
    }

    #[test]
    fn a_sentence_names_the_object_of_path_or_answer() {
        let done = |action, path, subject: &[&str]| told(action, path, subject, Value::Null, Some("done"));
        assert_eq!(
            done("rotate_secret", "/api/v1/webhooks/wh_1/rotate-secret", &[]),
            "rotated the secret of the webhook wh_1"
        );
        assert_eq!(done("create_webhook", "/api/v1/webhooks", &["wh_1"]), "created the webhook wh_1");
        let five = ["evt_1", "evt_2", "evt_3", "evt_4", "evt_5"];
        assert_eq!(done("publish_events", "", &five), "published events evt_1, evt_2, evt_3 and 2 more");
        assert_eq!(done("fanfare key create", "", &["key_1"]), "ran `fanfare key create` key_1");
    }

    #[test]
    fn a_sentence_tells_the_request() {
        let done = |action, path, subject: &[&str], request| told(action, path, subject, request, Some("done"));
        let edit = json!({ "url": "…", "rate_limit": 1 });
        let path = "/console/app_1/webhooks/wh_1/edit";
        assert_eq!(done("change_webhook", path, &["wh_1"], edit), "changed rate limit, url of the webhook wh_1");
        let group = done("put_back_many_parked", "", &[], json!({ "reason": "unreadable" }));
        assert_eq!(group, "put back parked messages with the reason unreadable");
        let key = done("create_key", "/api/v1/keys", &["key_1"], json!({ "role": "publish" }));
        assert_eq!(key, "created the publish key key_1");
    }

    #[test]
    fn a_sentence_tells_an_outcome_other_than_success() {
        let path = "/api/v1/event-types/order.%C3%A4";
        let refused = told("remove_event_type", path, &[], Value::Null, Some("refused"));
        assert_eq!(refused, "tried to remove the description of the event type order.ä : refused");
        let unknown = told("pause_webhook", "/api/v1/webhooks/wh_1/pause", &[], Value::Null, None);
        assert_eq!(unknown, "tried to pause the webhook wh_1: no outcome is known");
    }

    proptest! {
        #[test]
        fn no_request_breaks_a_sentence(index in 0..ALL.len(), request: String, path: String, subject: Vec<String>) {
            let entry = Entry { action: ALL[index].operation, path: Some(&path), subject: &subject, request: Some(&request), outcome: Some("done") };
            prop_assert!(sentence(&entry).words.starts_with(ALL[index].done));
        }

        #[test]
        fn short_ids_are_not_longer(id: String) {
            prop_assert!(short(&id).chars().count() <= id.chars().count());
        }
    }

    #[test]
    fn short_ids_keep_kind_and_end() {
        assert_eq!(short("key_01h455vb4pex5vsknk084sn02q"), "key_…02q");
        assert_eq!(short("ops@host"), "ops@host");
    }
}

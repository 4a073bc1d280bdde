//! An archived event, for people and as JSON.

use std::fmt::Write;

use anyhow::{Context, anyhow};
use fanfare_archive::Found;
use fanfare_domain::ids::{ApplicationId, DeliveryId, EndpointId, EventId, ReplayId};
use fanfare_store::Keyring;
use jiff::civil::Date;
use serde_json::{Map, Value, json};
use uuid::Uuid;

type Columns = Map<String, Value>;

/// An event with readable ids and answers.
pub(crate) struct Shown {
    day: Date,
    event: Columns,
    deliveries: Vec<Columns>,
    attempts: Vec<Columns>,
}

impl Shown {
    /// Converts ids and answers. The body is decrypted with a keyring, and otherwise the key's name is shown.
    ///
    /// # Errors
    /// If the keyring does not decrypt the body.
    pub(crate) fn of(found: Found, day: Date, keyring: Option<&Keyring>) -> anyhow::Result<Self> {
        let Found { mut event, mut deliveries, mut attempts } = found;
        if let (Some(keyring), Some(key_name)) = (keyring, text(&event, "body_key_name")) {
            let id = id(&event, "id").map(EventId).context("the event's row has no id")?;
            let ciphertext = bytes(&event["body_ciphertext"]).context("the event's row has no ciphertext")?;
            let body = keyring.open_body(id, key_name, &ciphertext)?;
            event.insert("body".to_owned(), body.into());
        }
        event.remove("body_ciphertext");
        event.remove("content");
        readable(&mut event, |id| EventId(id).to_string());
        for delivery in &mut deliveries {
            readable(delivery, |id| DeliveryId(id).to_string());
        }
        for attempt in &mut attempts {
            readable(attempt, |id| id.to_string());
        }
        Ok(Self { day, event, deliveries, attempts })
    }

    /// All rows as a JSON object.
    pub(crate) fn json(&self) -> Value {
        let Self { day, event, deliveries, attempts } = self;
        json!({ "day": day, "event": event, "deliveries": deliveries, "attempts": attempts })
    }

    /// The rows for people.
    pub(crate) fn text(&self) -> String {
        let mut shown = String::new();
        let event = &self.event;
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(shown, "{name:<12}{value}");
        };
        line("event", word(event, "id"));
        line("application", word(event, "application_id"));
        line("type", word(event, "type"));
        line("key", word(event, "key"));
        line("accepted", word(event, "accepted_at"));
        line("archived in", &self.day.to_string());
        if let Some(erased_at) = text(event, "erased_at") {
            line("erased", erased_at);
        }
        if let Some(key_name) = text(event, "body_key_name") {
            line("encrypted", &format!("with the key {key_name}"));
        }
        line("body", word(event, "body"));
        for delivery in &self.deliveries {
            let id = word(delivery, "id");
            let reason = text(delivery, "reason").map(|reason| format!(" ({reason})")).unwrap_or_default();
            line("delivery", &format!("{id} to {}", word(delivery, "endpoint_id")));
            line("", &format!("{}{reason} at {}", word(delivery, "state"), word(delivery, "finished_at")));
            if text(delivery, "started_at").is_some() {
                line("  attempt 1", &attempt(delivery, "answered"));
            }
            for row in self.attempts.iter().filter(|row| text(row, "delivery_id") == Some(id)) {
                line(&format!("  attempt {}", row["attempt"]), &attempt(row, word(row, "outcome")));
            }
        }
        shown
    }
}

/// An attempt in a line: time, outcome, status, duration and URL.
fn attempt(row: &Columns, outcome: &str) -> String {
    let number = |column: &str| row.get(column).filter(|value| !value.is_null()).map(Value::to_string);
    let status = number("status").map(|status| format!(" {status}")).unwrap_or_default();
    let duration = number("duration_ms").map(|duration| format!(" in {duration} ms")).unwrap_or_default();
    format!("{} {outcome}{status}{duration} {}", word(row, "started_at"), word(row, "url"))
}

/// Replaces ids by the ids of the API, and answers by texts where they are texts.
fn readable(row: &mut Columns, own: impl Fn(Uuid) -> String) {
    let named: [(&str, &dyn Fn(Uuid) -> String); 6] = [
        ("id", &own),
        ("event_id", &|id| EventId(id).to_string()),
        ("delivery_id", &|id| DeliveryId(id).to_string()),
        ("application_id", &|id| ApplicationId(id).to_string()),
        ("endpoint_id", &|id| EndpointId(id).to_string()),
        ("replay_id", &|id| ReplayId(id).to_string()),
    ];
    for (column, name) in named {
        if let Some(id) = id(row, column) {
            row.insert(column.to_owned(), name(id).into());
        }
    }
    if let Some(answer) = row.get_mut("response_body") {
        let readable = bytes(answer).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(readable) = readable {
            *answer = readable.into();
        }
    }
}

/// Bytes in PostgreSQL's form, `\x` and hexadecimal digits.
fn bytes(value: &Value) -> anyhow::Result<Vec<u8>> {
    let digits = value.as_str().and_then(|text| text.strip_prefix("\\x")).context("expected \\x and digits")?;
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)?;
        u8::from_str_radix(pair, 16).map_err(|error| anyhow!("{pair:?}: {error}"))
    });
    pairs.collect()
}

fn id(row: &Columns, column: &str) -> Option<Uuid> {
    text(row, column)?.parse().ok()
}

fn text<'a>(row: &'a Columns, column: &str) -> Option<&'a str> {
    row.get(column)?.as_str()
}

/// The text of a column, `-` without a value.
fn word<'a>(row: &'a Columns, column: &str) -> &'a str {
    text(row, column).unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Value) -> Columns {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn an_event_is_shown_with_ids_of_the_api_and_without_its_ciphertext() {
        let id = |number| Uuid::from_u128(number).to_string();
        let found = Found {
            event: row(json!({
                "id": id(1), "application_id": id(2), "type": "order.created", "key": null,
                "accepted_at": "2026-10-26T12:00:00+00:00", "body": r#"{"card":"[redacted]"}"#,
                "body_key_name": "k1", "body_ciphertext": "\\x00ff", "content": "\\x01", "erased_at": null,
            })),
            deliveries: vec![row(json!({
                "id": id(3), "event_id": id(1), "endpoint_id": id(4), "state": "failed", "reason": "expired",
                "finished_at": "2026-10-26T13:00:00+00:00", "started_at": null, "response_body": null,
            }))],
            attempts: vec![row(json!({
                "delivery_id": id(3), "event_id": id(1), "attempt": 1, "started_at": "2026-10-26T12:00:01+00:00",
                "outcome": "answered", "status": 500, "duration_ms": 7, "url": "https://a.example/",
                "response_body": "\\x6e6f",
            }))],
        };
        let shown = Shown::of(found.clone(), jiff::civil::date(2026, 10, 26), None).expect("an event");
        let text = shown.text();
        for line in [
            "event       evt_00000000000000000000000001",
            "encrypted   with the key k1",
            r#"body        {"card":"[redacted]"}"#,
            "delivery    dlv_00000000000000000000000003 to wh_00000000000000000000000004",
            "            failed (expired) at 2026-10-26T13:00:00+00:00",
            "  attempt 1 2026-10-26T12:00:01+00:00 answered 500 in 7 ms https://a.example/",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
        let json = shown.json();
        assert_eq!(
            (&json["attempts"][0]["response_body"], &json["event"]["body_ciphertext"]),
            (&json!("no"), &Value::Null)
        );
        let error = Shown::of(found, jiff::civil::date(2026, 10, 26), Some(&Keyring::empty())).err().expect("no key");
        assert!(error.to_string().contains("\"k1\""), "{error}");
    }
}

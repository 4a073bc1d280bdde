//! The filter of a webhook's form: conditions made of a member, a comparison and a value, and the trial on the last
//! events.

use fanfare_api::{
    http::{body::from_value, error::ApiError},
    routes::{
        event_types::DescribedType,
        webhooks::filter_test::{FilterResult, FilterTest},
    },
};
use fanfare_domain::access::session::Right;
use jiff::{Timestamp, civil::Date};
use serde_json::{Value, json};

use crate::{
    Console,
    application::webhooks::form::picker::subscriptions,
    frame::{form::Fields, place::Place},
};

/// The comparisons of a condition: the value of the choice, and its label.
pub(crate) const COMPARISONS: [(&str, &str); 10] = [
    ("==", "is"),
    ("!=", "is not"),
    (">", "is greater than"),
    (">=", "is at least"),
    ("<", "is less than"),
    ("<=", "is at most"),
    ("in", "is one of (separated by commas)"),
    ("contains", "contains"),
    ("startsWith", "starts with"),
    ("has", "is present"),
];

/// Maximum of members that the form suggests.
const MAX_MEMBERS: usize = 100;

/// Adds the condition of the fields `member`, `comparison` and `value` to the filter, and empties the fields.
///
/// # Errors
/// For a member that is no name.
pub(crate) fn with_condition(fields: &Fields) -> Result<Fields, ApiError> {
    let condition = condition(fields.value("member"), fields.value("comparison"), fields.value("value"))?;
    let filter = match fields.given("filter") {
        None => condition,
        // A comment ends with its line.
        Some(present) if present.contains("//") => format!("({present}\n) && {condition}"),
        Some(present) if present.contains("||") || present.contains('?') => format!("({present}) && {condition}"),
        Some(present) => format!("{present} && {condition}"),
    };
    let others = fields.others(&["filter", "member", "comparison", "value"]);
    let others = others.into_iter().fold(Fields::default(), |fields, (name, value)| fields.with(name, value));
    Ok(others.with("filter", filter))
}

/// Text of a condition. A value is a number, `true`, `false`, `null`, or else a text.
fn condition(member: &str, comparison: &str, value: &str) -> Result<String, ApiError> {
    let member = member.trim();
    let member = member.strip_prefix("data.").unwrap_or(member);
    let is_name = |word: &str| {
        !["in", "true", "false", "null"].contains(&word)
            && word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && word.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
    };
    let words: Vec<&str> = member.split('.').collect();
    if member.len() > 500 || words.iter().any(|word| word.is_empty()) {
        return Err(ApiError::invalid("member", "must be the name of a member, such as amount or customer.email"));
    }
    let path = words.iter().fold("data".to_owned(), |path, word| {
        if is_name(word) { format!("{path}.{word}") } else { format!("{path}[{}]", literal_text(word)) }
    });
    let value = value.trim();
    Ok(match comparison {
        "has" => match path.rsplit_once('.') {
            Some(_) if is_name(words.last().unwrap_or(&"")) => format!("has({path})"),
            _ => format!("{} in {}", literal_text(words.last().unwrap_or(&"")), parent(&path)),
        },
        "in" => {
            let values: Vec<String> = value.split(',').map(|value| literal(value.trim())).collect();
            format!("{path} in [{}]", values.join(", "))
        }
        "contains" | "startsWith" => format!("{path}.{comparison}({})", literal_text(value)),
        ">" | ">=" | "<" | "<=" if !has_order(value) => {
            return Err(ApiError::invalid("value", "must be a number, such as 100, or a time, such as 2026-11-28"));
        }
        "==" | "!=" | ">" | ">=" | "<" | "<=" => format!("{path} {comparison} {}", literal(value)),
        _ => return Err(ApiError::invalid("comparison", "must be one of the comparisons of the form")),
    })
}

/// True for a number, a date or a time: other texts are rarely meant to be compared as more or less.
fn has_order(value: &str) -> bool {
    is_number(value) || value.parse::<Date>().is_ok() || value.parse::<Timestamp>().is_ok()
}

fn is_number(value: &str) -> bool {
    serde_json::from_str::<serde_json::Number>(value).is_ok()
}

/// The path without its last index.
fn parent(path: &str) -> &str {
    path.rsplit_once('[').map_or(path, |(parent, _)| parent)
}

fn literal(value: &str) -> String {
    if is_number(value) || matches!(value, "true" | "false" | "null") { value.to_owned() } else { literal_text(value) }
}

fn literal_text(value: &str) -> String {
    // JSON's escapes are a part of the language's.
    Value::from(value).to_string()
}

/// Members of the samples of the chosen types, else of all types.
pub(crate) fn members(described: &[DescribedType], fields: &Fields) -> Vec<String> {
    let chosen: Vec<&DescribedType> = described.iter().filter(|kind| fields.has("events", &kind.name)).collect();
    let types = if chosen.is_empty() { described.iter().collect() } else { chosen };
    let mut members = Vec::new();
    for kind in types {
        let sample = kind.sample.as_ref().and_then(|sample| serde_json::from_str(sample.get()).ok());
        collect(&sample.unwrap_or_default(), "", &mut members);
        if members.len() >= MAX_MEMBERS {
            break;
        }
    }
    members
}

fn collect(value: &Value, path: &str, members: &mut Vec<String>) {
    let Value::Object(object) = value else { return };
    for (name, value) in object {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if members.len() >= MAX_MEMBERS {
            return;
        }
        if value.is_object() {
            collect(value, &path, members);
        } else if !members.contains(&path) {
            members.push(path);
        }
    }
}

/// Tries the filter of the form on the last events of the chosen types.
pub(crate) async fn try_out(
    console: &Console,
    place: &Place,
    fields: &Fields,
    described: &[DescribedType],
) -> Result<FilterTest, ApiError> {
    place.visitor.require(Right::Payloads)?;
    let events = subscriptions(described, fields);
    let events = if events.is_empty() { Value::Null } else { Value::from(events) };
    let asked = from_value(&json!({ "filter": fields.value("filter"), "events": events }))?;
    console.api.test_filter(&place.authorized(), asked).await
}

/// The number of passed events, as a sentence.
pub(crate) fn passed_in_words(test: &FilterTest) -> String {
    let of = if test.tried_on == "samples" { "samples of the event types" } else { "last events" };
    match test.results.len() {
        0 => "There is no event of these types, and no sample to try the filter on.".to_owned(),
        number => format!("{} of the {number} {of} pass.", test.passed),
    }
}

/// The reason of a result.
pub(crate) fn reason(result: &FilterResult) -> String {
    let values: Vec<String> = result.values.iter().map(|value| format!("{} = {}", value.name, value.value)).collect();
    let parts = [result.part.clone(), result.error.clone(), Some(values.join(", "))];
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use fanfare_domain::endpoint::filter::Filter;

    use super::*;

    #[test]
    fn a_condition_is_an_accepted_filter() {
        for (member, comparison, value, expected) in [
            ("amount", ">", "100", "data.amount > 100"),
            ("day", "<=", "2026-11-28", r#"data.day <= "2026-11-28""#),
            ("at", ">", "2026-11-28T10:00:00Z", r#"data.at > "2026-11-28T10:00:00Z""#),
            ("data.customer.email", "==", "a@b", r#"data.customer.email == "a@b""#),
            ("first name", "!=", "null", r#"data["first name"] != null"#),
            ("country", "in", "DE, AT,1", r#"data.country in ["DE", "AT", 1]"#),
            ("note", "contains", "5", r#"data.note.contains("5")"#),
            ("a.b", "has", "", "has(data.a.b)"),
            ("a.in", "<", "5", r#"data.a["in"] < 5"#),
            ("a.b-c", "has", "", r#""b-c" in data.a"#),
            ("quote\"", "==", "\\\"\u{1}é", r#"data["quote\""] == "\\\"\u0001é""#),
        ] {
            let text = condition(member, comparison, value).unwrap_or_default();
            assert_eq!(text, expected);
            assert!(Filter::parse(&text).is_ok(), "{text}");
        }
        for (member, comparison, value) in [("", ">", "1"), ("a..b", ">", "1"), ("a", "like", "1"), ("a", ">", "DE")] {
            assert!(condition(member, comparison, value).is_err(), "{member} {comparison} {value}");
        }
    }

    #[test]
    fn conditions_are_joined() {
        let fields = |filter: &str| {
            let fields = Fields::default().with("url", "u").with("filter", filter).with("member", "a");
            fields.with("comparison", "==").with("value", "1")
        };
        let joined = |filter: &str| with_condition(&fields(filter)).map(|fields| fields.value("filter").to_owned());
        assert_eq!(joined("").ok().as_deref(), Some("data.a == 1"));
        assert_eq!(joined("data.b").ok().as_deref(), Some("data.b && data.a == 1"));
        assert_eq!(joined("data.b || data.c").ok().as_deref(), Some("(data.b || data.c) && data.a == 1"));
        let emptied = with_condition(&fields("")).unwrap_or_default();
        assert_eq!((emptied.value("member"), emptied.value("url")), ("", "u"));
    }
}

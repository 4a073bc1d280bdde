//! Values during an evaluation.

use std::{borrow::Cow, cmp::Ordering, rc::Rc};

use serde_json::Value as Json;

/// Longest shown value, in characters.
const MAX_SHOWN: usize = 100;

/// A value. Values of the event are borrowed.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    /// Array of the event.
    Array(&'a [Json]),
    /// Object of the event.
    Object(&'a serde_json::Map<String, Json>),
    /// List made by the expression.
    List(Rc<[Value<'a>]>),
    /// Value of an optional member.
    Optional(Option<Rc<Value<'a>>>),
}

impl<'a> Value<'a> {
    /// A value of the event. Integers beyond 64 bits are doubles.
    pub(super) fn of_json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(integer) => Self::Int(integer),
                None => Self::Double(number.as_f64().unwrap_or(f64::MAX)),
            },
            Json::String(text) => Self::Text(Cow::Borrowed(text)),
            Json::Array(items) => Self::Array(items),
            Json::Object(members) => Self::Object(members),
        }
    }

    /// Kind in messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Double(_) => "a number",
            Self::Text(_) => "a text",
            Self::Array(_) | Self::List(_) => "a list",
            Self::Object(_) => "an object",
            Self::Optional(_) => "an optional value",
        }
    }

    /// Order of two numbers, texts or booleans. `None` for other values.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => Some(left.cmp(right)),
            (Self::Double(left), Self::Double(right)) => left.partial_cmp(right),
            (Self::Int(left), Self::Double(right)) => order(*left, *right),
            (Self::Double(left), Self::Int(right)) => order(*right, *left).map(Ordering::reverse),
            (Self::Text(left), Self::Text(right)) => Some(left.cmp(right)),
            (Self::Bool(left), Self::Bool(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }

    /// Start of the value as JSON.
    pub(super) fn shown(&self) -> String {
        let text = match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Double(value) => value.to_string(),
            Self::Text(text) => Json::from(cut(text, MAX_SHOWN)).to_string(),
            Self::Array(items) => format!("a list of {}: {}", items.len(), start(items.first())),
            Self::Object(members) => {
                let names: Vec<&str> = members.keys().take(10).map(String::as_str).collect();
                format!("an object of {}: {}", members.len(), names.join(", "))
            }
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Optional(None) => "missing".to_owned(),
            Self::Optional(Some(value)) => value.shown(),
        };
        cut(&text, MAX_SHOWN)
    }
}

/// First value of a list, without the content of lists and objects: these may be long.
fn start(first: Option<&Json>) -> String {
    match first {
        None => "empty".to_owned(),
        Some(Json::Array(_)) => "[…], …".to_owned(),
        Some(Json::Object(_)) => "{…}, …".to_owned(),
        Some(simple) => format!("{}, …", Value::of_json(simple).shown()),
    }
}

fn cut(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Exact order of an integer and a double; `None` for NaN.
fn order(left: i64, right: f64) -> Option<Ordering> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if right.is_nan() {
        return None;
    }
    if right >= LIMIT {
        return Some(Ordering::Less);
    }
    if right < -LIMIT {
        return Some(Ordering::Greater);
    }
    #[expect(clippy::cast_possible_truncation, reason = "within the range of i64, and without a fraction")]
    let whole = right.trunc() as i64;
    Some(left.cmp(&whole).then_with(|| 0.0.partial_cmp(&right.fract()).unwrap_or(Ordering::Equal)))
}

//! Bodies of requests and answers: the exact bytes, or indented JSON.

use crate::frame::{form::with_parameter, marks::size};

/// The longest part of a body that a page shows without being asked, in bytes.
const SHOWN: usize = 64 * 1024;

/// The longest part of a body that a page shows, in bytes.
const MOST: usize = 1024 * 1024;

/// A body on a page.
pub(crate) struct BodyView {
    pub(crate) text: String,
    /// Size of the whole body.
    pub(crate) size: String,
    /// True if the page shows only the beginning.
    pub(crate) is_cut: bool,
    pub(crate) is_json: bool,
    pub(crate) is_indented: bool,
    /// Addresses of the same page: exact bytes, indented, and whole.
    pub(crate) exact: String,
    pub(crate) indented: String,
    pub(crate) whole: String,
    /// Address of the body as a file.
    pub(crate) download: Option<String>,
    /// Address of the signed request.
    pub(crate) request: Option<String>,
}

impl BodyView {
    /// Prepares a body for the address's `body=whole` and `form=indented`.
    pub(crate) fn new(body: &str, address: &str) -> Self {
        let has = |wanted: &str| {
            address.split_once('?').is_some_and(|(_, query)| query.split('&').any(|pair| pair == wanted))
        };
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
        let is_indented = is_json && has("form=indented");
        let text = if is_indented { indented(body) } else { body.to_owned() };
        let limit = if has("body=whole") { MOST } else { SHOWN };
        let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        Self {
            is_cut: end < text.len(),
            text: text[..end].to_owned(),
            size: size(body.len()),
            is_json,
            is_indented,
            exact: with_parameter(address, "form", ""),
            indented: with_parameter(address, "form", "indented"),
            whole: with_parameter(address, "body", "whole"),
            download: None,
            request: None,
        }
    }

    /// The body of a delivery, whose page has this path.
    pub(crate) fn of_delivery(self, path: &str, may_sign: bool) -> Self {
        Self { download: Some(format!("{path}/body")), request: may_sign.then(|| format!("{path}/request")), ..self }
    }
}

/// Indents JSON by two spaces. Changes neither the order of members nor any digit.
pub(crate) fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut characters = json.trim().chars().peekable();
    let mut is_text = false;
    while let Some(character) = characters.next() {
        if is_text {
            text.push(character);
            if character == '\\' {
                text.extend(characters.next());
            }
            is_text = character != '"';
            continue;
        }
        match character {
            ' ' | '\t' | '\r' | '\n' => {}
            '{' | '[' => {
                text.push(character);
                while characters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                // An empty object or list stays on its line.
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                } else {
                    depth += 1;
                    new_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(character);
            }
            ',' => {
                text.push(character);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            '"' => {
                is_text = true;
                text.push(character);
            }
            other => text.push(other),
        }
    }
    text
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn indenting_changes_no_value(value in any_json()) {
            let text = indented(&value.to_string());
            prop_assert_eq!(&serde_json::from_str::<Value>(&text).expect("JSON"), &value);
            prop_assert_eq!(indented(&text), text);
        }

        #[test]
        fn no_text_panics(text: String) {
            indented(&text);
            BodyView::new(&text, "/x?form=indented");
        }
    }

    #[test]
    fn keeps_order_and_digits() {
        let text = indented(r#"{"b":1.50,"a":[1e3,{}],"c":"x: {\"y\"}"}"#);
        assert_eq!(text, "{\n  \"b\": 1.50,\n  \"a\": [\n    1e3,\n    {}\n  ],\n  \"c\": \"x: {\\\"y\\\"}\"\n}");
    }

    #[test]
    fn cuts_long_bodies_at_a_character() {
        let long = json!("é".repeat(100_000)).to_string();
        let view = BodyView::new(&long, "/x");
        assert!(view.is_cut && view.text.len() <= SHOWN && view.size == "195.3 KiB");
        assert!(!BodyView::new(&long, "/x?body=whole").is_cut);
    }
}

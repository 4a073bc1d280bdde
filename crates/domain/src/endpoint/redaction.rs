//! Redaction: hides configured JSON members wherever payloads and responses are shown.
//!
//! The last words of a path name a member: `password` is every member of that name, at any depth, and `card.number`
//! every `number` in a `card`. Arrays are not part of a path. ASCII letters match in both cases.

use serde_json::value::RawValue;

use crate::json::MAX_DEPTH;

/// Maximum redacted members of an application.
pub const MAX_REDACTED: usize = 100;

/// Maximum length of a name, in characters.
const MAX_LENGTH: usize = 128;

/// Replacement for a value, as a text.
pub const HIDDEN: &str = "[redacted]";

/// Replacement for a value, as JSON.
const REDACTED: &str = r#""[redacted]""#;

/// Replacement for a response that cannot be searched for members.
const UNREADABLE: &str = "[not kept: it is not whole JSON, in which members can be redacted]";

/// Paths of the members with hidden values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redaction(Vec<Vec<String>>);

/// The reason why a list of members is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedactionFault {
    /// More than [`MAX_REDACTED`] names.
    #[error("must have at most {MAX_REDACTED} names")]
    TooMany,
    /// Not the name of a member.
    #[error("holds {0:?}, which is not a member's name or names separated by dots, of 1 to {MAX_LENGTH} characters")]
    NoName(String),
}

/// The text is not JSON, or is nested too deep.
struct Unreadable;

impl Redaction {
    /// Parses the names of members.
    ///
    /// # Errors
    /// The first invalid name.
    pub fn parse(names: &[impl AsRef<str>]) -> Result<Self, RedactionFault> {
        if names.len() > MAX_REDACTED {
            return Err(RedactionFault::TooMany);
        }
        let path = |name: &str| {
            let is_sound = name.chars().count() <= MAX_LENGTH
                && name.split('.').all(|word| !word.is_empty() && word.trim() == word)
                && !name.chars().any(char::is_control);
            let shown = || RedactionFault::NoName(name.chars().take(MAX_LENGTH).collect());
            is_sound.then(|| name.split('.').map(str::to_owned).collect()).ok_or_else(shown)
        };
        names.iter().map(|name| path(name.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// True if no member is hidden.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hides values in a JSON text, and otherwise keeps the text. `None` if the text has no such member.
    pub fn redact(&self, text: &str) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        self.without(text).unwrap_or_else(|Unreadable| Some(REDACTED.to_owned()))
    }

    /// Hides values in a response. A response that is not JSON, or was cut, is replaced completely: error responses
    /// often repeat the request.
    pub fn redact_response(&self, body: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() || body.is_empty() {
            return None;
        }
        let redacted = str::from_utf8(body).map_err(|_| Unreadable).and_then(|text| self.without(text));
        redacted.unwrap_or_else(|Unreadable| Some(UNREADABLE.to_owned())).map(String::into_bytes)
    }

    fn without(&self, text: &str) -> Result<Option<String>, Unreadable> {
        // Valid JSON from here on, so that each character has a single meaning.
        let _: &RawValue = serde_json::from_str(text).map_err(|_| Unreadable)?;
        Scan { redaction: self, text, at: 0, path: Vec::new(), is_object: Vec::new(), out: String::new(), copied: 0 }
            .run()
    }

    fn names(&self, path: &[String]) -> bool {
        let alike = |(word, member): (&String, &String)| word.eq_ignore_ascii_case(member);
        self.0.iter().any(|name| name.len() <= path.len() && name.iter().rev().zip(path.iter().rev()).all(alike))
    }
}

/// State of a single pass over a text.
struct Scan<'a> {
    redaction: &'a Redaction,
    text: &'a str,
    /// Offset of the next byte.
    at: usize,
    /// Name of the current member in each open object.
    path: Vec<String>,
    /// For each open object and array: true for an object.
    is_object: Vec<bool>,
    out: String,
    /// Length of the text that is in `out` or left out.
    copied: usize,
}

impl Scan<'_> {
    fn run(mut self) -> Result<Option<String>, Unreadable> {
        let mut begins_member = false;
        while let Some(&byte) = self.text.as_bytes().get(self.at) {
            match byte {
                b'"' if begins_member => {
                    begins_member = false;
                    self.member()?;
                    continue;
                }
                b'"' => self.at = self.end_of_string(self.at),
                b'{' | b'[' => {
                    begins_member = byte == b'{';
                    self.open(begins_member)?;
                    self.at += 1;
                }
                b'}' | b']' => {
                    if self.is_object.pop() == Some(true) {
                        self.path.pop();
                    }
                    begins_member = false;
                    self.at += 1;
                }
                b',' => {
                    begins_member = self.is_object.last() == Some(&true);
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
        if self.copied == 0 {
            return Ok(None);
        }
        self.out.push_str(&self.text[self.copied..]);
        Ok(Some(self.out))
    }

    fn open(&mut self, is_object: bool) -> Result<(), Unreadable> {
        if self.is_object.len() >= MAX_DEPTH {
            return Err(Unreadable);
        }
        self.is_object.push(is_object);
        if is_object {
            self.path.push(String::new());
        }
        Ok(())
    }

    /// Reads a member's name, and skips a hidden value.
    fn member(&mut self) -> Result<(), Unreadable> {
        let end = self.end_of_string(self.at);
        let name = serde_json::from_str(&self.text[self.at..end]).map_err(|_| Unreadable)?;
        if let Some(open) = self.path.last_mut() {
            *open = name;
        }
        self.at = end;
        if self.redaction.names(&self.path) {
            let value = end + self.text[end..].find(':').ok_or(Unreadable)? + 1;
            self.out.push_str(&self.text[self.copied..value]);
            self.out.push_str(REDACTED);
            self.at = self.end_of_value(value);
            self.copied = self.at;
        }
        Ok(())
    }

    /// Offset behind the closing quote of the string at `start`.
    fn end_of_string(&self, start: usize) -> usize {
        let mut is_escaped = false;
        let end = self.text.bytes().enumerate().skip(start + 1).find(|&(_, byte)| {
            let ends = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            ends
        });
        end.map_or(self.text.len(), |(position, _)| position + 1)
    }

    /// Offset behind the value at `start`, or behind the white space before the value.
    fn end_of_value(&self, start: usize) -> usize {
        let (mut at, mut depth) = (start, 0_usize);
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'"' => {
                    at = self.end_of_string(at);
                    if depth == 0 {
                        return at;
                    }
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => return at,
                b'}' | b']' if depth == 1 => return at + 1,
                b'}' | b']' => depth -= 1,
                b',' if depth == 0 => return at,
                _ => {}
            }
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn of(names: &[impl AsRef<str>]) -> Redaction {
        Redaction::parse(names).expect("names")
    }

    #[test]
    fn a_member_is_named_by_the_end_of_its_path() {
        let redaction = of(&["password", "card.number"]);
        let text =
            r#"{"Password":"x","card":{"number":[4,2],"name":"A","more":[{"card":{"number":1}}]},"number":7,"z":1.50}"#;
        let expected = r#"{"Password":"[redacted]","card":{"number":"[redacted]","name":"A","more":[{"card":{"number":"[redacted]"}}]},"number":7,"z":1.50}"#;
        assert_eq!(redaction.redact(text).as_deref(), Some(expected));
        assert_eq!(redaction.redact(r#"{"number":1}"#), None);
        assert_eq!(Redaction::default().redact(text), None);
        assert_eq!(of(&["a"]).redact(r#"[[{"b":[{"a":{}}]}]]"#).as_deref(), Some(r#"[[{"b":[{"a":"[redacted]"}]}]]"#));
        assert_eq!(of(&["é\""]).redact(r#"{"\u00e9\"":1}"#).as_deref(), Some(r#"{"\u00e9\"":"[redacted]"}"#));
    }

    #[test]
    fn an_unreadable_response_is_replaced() {
        let redaction = of(&["password"]);
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        for body in ["password=x", r#"{"password":"#, "{\"a\":\"\u{1}\"}", r#"{"\ud800":1}"#, &deep] {
            let kept = redaction.redact_response(body.as_bytes()).expect("something else");
            assert_eq!(kept, UNREADABLE.as_bytes());
        }
        assert!(redaction.redact_response(b"\xff").is_some());
        assert_eq!(redaction.redact_response(b""), None);
        assert_eq!(redaction.redact_response(b"{\"ok\": true}"), None);
        assert_eq!(Redaction::default().redact_response(b"password=x"), None);
        assert_eq!(redaction.redact(r#"{"\ud800":1}"#).as_deref(), Some(REDACTED));
    }

    #[test]
    fn depth_and_length_change_nothing() {
        let (open, close) = (r#"{"b":[["#.repeat(33), "]]}".repeat(33));
        let text = |name: &str| format!("{open}{}{{\"{name}\":1}}{close}", "{\"b\":0},".repeat(25_000));
        let redaction = of(&(0..MAX_REDACTED).map(|number| format!("x.a{number}")).collect::<Vec<_>>());
        assert_eq!(redaction.redact(&text("a")), None);
        let expected = text("a").replace(r#"{"a":1}"#, r#"{"a":"[redacted]"}"#);
        assert_eq!(of(&["b.a"]).redact(&text("a")), Some(expected));
    }

    #[test]
    fn names_are_checked() {
        for name in ["", " ", "a ", "a. b", ".", "a.", ".a", "a..b", "a\n", &"a".repeat(129)] {
            assert!(Redaction::parse(&[name]).is_err(), "{name:?}");
        }
        assert!(Redaction::parse(&vec!["a"; 101]).is_err());
        assert!(Redaction::parse(&["a b", "ü.ö", &"a".repeat(128)]).is_ok());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(json!(null)), any::<i32>().prop_map(Value::from), "[a-c]{0,3}".prop_map(Value::from)];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::hash_map("[a-c]", inner, 0..5).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    /// Reference implementation over the tree instead of the text.
    fn expected(value: &Value, name: &str) -> Value {
        match value {
            Value::Object(members) => members
                .iter()
                .map(|(key, value)| {
                    (key.clone(), if key == name { json!("[redacted]") } else { expected(value, name) })
                })
                .collect(),
            Value::Array(items) => items.iter().map(|item| expected(item, name)).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn nothing_of_the_name_is_left(value in any_json(), name in "[a-c]") {
            let redaction = of(&[&name]);
            let text = value.to_string();
            let redacted = redaction.redact(&text);
            let expected = expected(&value, &name);
            prop_assert_eq!(redacted.is_some(), text.contains(&format!("\"{name}\":")));
            let read: Value = serde_json::from_str(redacted.as_deref().unwrap_or(&text)).expect("JSON");
            prop_assert_eq!(read, expected);
            prop_assert_eq!(redaction.redact_response(text.as_bytes()), redacted.map(String::into_bytes));
        }

        #[test]
        fn never_panics(text in "\\PC{0,80}") {
            of(&["a"]).redact(&text);
            of(&["a"]).redact_response(text.as_bytes());
        }
    }
}

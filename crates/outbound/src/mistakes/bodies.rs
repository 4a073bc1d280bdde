//! Other forms of a body: the usual results of a receiver's framework.

use std::fmt::Write;

use fanfare_domain::json;

use crate::mistakes::Mistake;

/// A change of a body on its way to the check of the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// The bytes as given.
    Exact,
    /// White space removed at both ends.
    Trimmed,
    /// A line end added.
    WithNewline,
    /// Parsed, and printed again.
    Printed,
}

impl BodyForm {
    /// The mistake of taking this form.
    pub(super) fn mistake(self) -> Option<Mistake> {
        match self {
            Self::Exact => None,
            Self::Trimmed => Some(Mistake::BodyTrimmed),
            Self::WithNewline => Some(Mistake::BodyWithNewline),
            Self::Printed => Some(Mistake::BodyPrinted),
        }
    }
}

/// The body in each form, the exact bytes first. A body that is no JSON is not printed again.
pub(super) fn forms(body: &[u8]) -> Vec<(BodyForm, Vec<u8>)> {
    let mut forms = vec![
        (BodyForm::Exact, body.to_vec()),
        (BodyForm::Trimmed, body.trim_ascii().to_vec()),
        (BodyForm::WithNewline, [body, b"\n"].concat()),
        (BodyForm::WithNewline, [body, b"\r\n"].concat()),
    ];
    let text = str::from_utf8(body).ok().map(|text| text.trim_start_matches('\u{feff}'));
    if let Some(text) = text.filter(|text| json::check(text).is_ok()) {
        forms.extend(printed(text).into_iter().map(|text| (BodyForm::Printed, text.into_bytes())));
    }
    let mut seen: Vec<Vec<u8>> = Vec::new();
    forms.retain(|(_, bytes)| {
        let is_new = !seen.contains(bytes);
        seen.push(bytes.clone());
        is_new
    });
    forms
}

/// The text as JSON libraries print it: Node, Python, PHP, Go, and with line breaks.
fn printed(text: &str) -> Vec<String> {
    let compact = json::compact(text);
    let node = json::print_as_node(text).unwrap_or_else(|_| compact.clone());
    let spaced = spaced(&node, None);
    let sorted = serde_json::from_str::<serde_json::Value>(text).map(|value| value.to_string()).unwrap_or_default();
    let in_html = |text: &str| text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    vec![
        self::spaced(&node, Some(2)),
        self::spaced(&node, Some(4)),
        escaped(&spaced),
        escaped(&node).replace('/', "\\/"),
        node.replace('/', "\\/"),
        escaped(&node),
        in_html(&sorted),
        spaced,
        sorted,
        compact,
        node,
    ]
}

/// Adds white space to compact JSON: in a line, or in lines with this indentation.
fn spaced(compact: &str, indent: Option<usize>) -> String {
    let (mut out, mut depth, mut is_string, mut is_escaped) = (String::new(), 0usize, false, false);
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent * depth));
        }
    };
    let mut characters = compact.chars().peekable();
    while let Some(character) = characters.next() {
        if is_string {
            out.push(character);
            is_string = is_escaped || character != '"';
            is_escaped = !is_escaped && character == '\\';
            continue;
        }
        match character {
            '{' | '[' => {
                out.push(character);
                if !matches!(characters.peek(), Some('}' | ']')) {
                    depth += 1;
                    line(&mut out, depth);
                } else if let Some(end) = characters.next() {
                    out.push(end);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(character);
            }
            ',' if indent.is_some() => {
                out.push(',');
                line(&mut out, depth);
            }
            ',' | ':' => {
                out.push(character);
                out.push(' ');
            }
            _ => {
                is_string = character == '"';
                out.push(character);
            }
        }
    }
    out
}

/// Escapes all characters beyond ASCII, as Python and PHP do.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected texts come from Node (`JSON.stringify(value, null, 2)`) and Python (`json.dumps(value)`).
    #[test]
    fn prints_as_libraries_do() {
        let text = r#"{"a":[1,"x,:\"{é"],"b":{},"c":[],"d":null}"#;
        let lines = "{\n  \"a\": [\n    1,\n    \"x,:\\\"{é\"\n  ],\n  \"b\": {},\n  \"c\": [],\n  \"d\": null\n}";
        assert_eq!(spaced(text, Some(2)), lines);
        let python = r#"{"a": [1, "x,:\"{\u00e9"], "b": {}, "c": [], "d": null}"#;
        assert_eq!(escaped(&spaced(text, None)), python);
        assert_eq!(escaped("😀"), "\\ud83d\\ude00");
    }

    #[test]
    fn each_form_is_new_and_the_first_is_exact() {
        for body in [&b"{\"a\":1}"[..], b" {\"a\": 1}\n", b"[object Object]", b"\xff", b""] {
            let forms = forms(body);
            assert_eq!(forms[0], (BodyForm::Exact, body.to_vec()));
            let mut bytes: Vec<_> = forms.iter().map(|(_, bytes)| bytes).collect();
            bytes.sort_unstable();
            bytes.dedup();
            assert_eq!(bytes.len(), forms.len());
        }
    }
}

//! JSON for people, and for stricter parsers than the publisher's.

use std::borrow::Cow;

use super::code_unit;

/// Replaces each unpaired surrogate escape, which encodes no character, by U+FFFD: strict parsers then accept the text.
/// For display only; deliveries keep the original.
pub fn readable(text: &str) -> Cow<'_, str> {
    let mut readable = String::new();
    let mut copied = 0;
    let mut at = 0;
    // Backslashes occur only inside strings.
    while let Some(offset) = text.get(at..).and_then(|rest| rest.find('\\')) {
        let escape = at + offset;
        let pair = (code_unit(text, escape), code_unit(text, escape + 6));
        at = match pair {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => escape + 12,
            (Some(0xd800..=0xdfff), _) => {
                readable.push_str(&text[copied..escape]);
                readable.push_str("\\ufffd");
                copied = escape + 6;
                copied
            }
            (Some(_), _) => escape + 6,
            (None, _) => escape + 2,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    readable.push_str(&text[copied..]);
    Cow::Owned(readable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn half_a_pair_is_replaced_and_nothing_else() {
        for (text, shown) in [
            (r#""\ud800""#, r#""\ufffd""#),
            (r#""\udc00\ud83d\ude00\uD83D""#, r#""\ufffd\ud83d\ude00\ufffd""#),
            (r#""\ud800\ud800\udc00x""#, r#""\ufffd\ud800\udc00x""#),
            (r#"{"\\ud800":"\u00e9é😀\n\"\\"}"#, r#"{"\\ud800":"\u00e9é😀\n\"\\"}"#),
            ("[1,null]", "[1,null]"),
        ] {
            assert_eq!(readable(text), shown);
        }
    }

    proptest! {
        #[test]
        fn strict_parsers_read_it(pieces in proptest::collection::vec(
            prop_oneof![Just(r"\ud800"), Just(r"\udfff"), Just(r"\ud83d\ude00"), Just(r"\\"), Just(r"\u0041"), Just("é"), Just("ud800")],
            0..12,
        )) {
            let text = format!("\"{}\"", pieces.concat());
            prop_assert!(serde_json::from_str::<Value>(&readable(&text)).is_ok(), "{}", text);
        }
    }
}

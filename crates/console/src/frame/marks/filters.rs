//! Filters of the templates.

#![expect(unreachable_pub, reason = "the macro of a filter makes a public item")]

use std::fmt::{self, Write};

use askama::Values;

/// Shows a text that others wrote: control and bidirectional characters as their code.
#[askama::filter_fn]
pub(crate) fn plain(text: impl fmt::Display, _: &dyn Values) -> askama::Result<String> {
    Ok(visible(&text.to_string()))
}

/// Replaces characters that a browser does not show, or that change the order of others.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            // Writing to a text cannot fail.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// True for control characters without tab and line feed, and for marks and overrides of direction, invisible
/// separators and tags (Unicode TR 36).
fn is_hidden(character: char) -> bool {
    let is_layout = matches!(character, '\t' | '\n');
    character.is_control() && !is_layout
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_hidden_remains(text: String) {
            prop_assert!(!visible(&text).chars().any(is_hidden));
        }

        #[test]
        fn letters_of_all_scripts_stay(text in "[a-zA-Z0-9 \\p{Arabic}\\p{Han}\\p{Hebrew}\t\n]*") {
            let expected: String = text.chars().map(|character| match is_hidden(character) {
                true => format!("\\u{{{:x}}}", u32::from(character)),
                false => character.to_string(),
            }).collect();
            prop_assert_eq!(visible(&text), expected);
        }
    }

    #[test]
    fn an_override_of_direction_is_shown_as_its_code() {
        assert_eq!(visible("https://a.example/\u{202e}gpj.exe\r\n"), "https://a.example/\\u{202e}gpj.exe\\u{d}\n");
    }
}

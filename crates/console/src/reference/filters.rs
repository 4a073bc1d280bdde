//! Filters of the template.

#![expect(unreachable_pub, reason = "the macro of a filter makes a public item")]

use std::fmt;

use askama::{Values, filters::Safe};

/// Escapes a text outside of attributes. Quotes stay: each escape takes four bytes more.
#[askama::filter_fn]
pub(super) fn bare(text: impl fmt::Display, _: &dyn Values) -> askama::Result<Safe<String>> {
    Ok(Safe(escaped(&text.to_string())))
}

/// Like `bare`, of a description. `null`, `true` and `false` need no marks of code.
#[askama::filter_fn]
pub(super) fn prose(text: impl fmt::Display, _: &dyn Values) -> askama::Result<Safe<String>> {
    let text =
        ["null", "true", "false"].iter().fold(text.to_string(), |text, word| text.replace(&format!("`{word}`"), word));
    Ok(Safe(escaped(&text)))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A name for an address within the page.
#[askama::filter_fn]
pub(super) fn slug(title: impl fmt::Display, _: &dyn Values) -> askama::Result<String> {
    Ok(title.to_string().replace(' ', "-"))
}

/// Begins with a capital letter.
#[askama::filter_fn]
pub(super) fn capital(title: impl fmt::Display, _: &dyn Values) -> askama::Result<String> {
    let title = title.to_string();
    let mut letters = title.chars();
    Ok(letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default())
}

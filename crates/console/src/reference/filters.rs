//! Filters of the template.

#![expect(unreachable_pub, reason = "the macro of a filter makes a public item")]

use std::fmt;

use askama::{Values, filters::Safe};

/// Escapes a text outside of attributes. Quotes stay: each escape takes four bytes more.
#[askama::filter_fn]
pub(super) fn bare(text: impl fmt::Display, _: &dyn Values) -> askama::Result<Safe<String>> {
    Ok(Safe(escaped(&text.to_string())))
}

/// Like `bare`, with marks for `code` between backticks. `b` is shorter than `code`, and plain words need no mark.
#[askama::filter_fn]
pub(super) fn marked(text: impl fmt::Display, _: &dyn Values) -> askama::Result<Safe<String>> {
    let text = text.to_string();
    let parts = text.split('`').enumerate();
    let is_code = |index: usize, part: &str| index % 2 == 1 && !["null", "true", "false"].contains(&part);
    let mark = |(index, part)| if is_code(index, part) { format!("<b>{}</b>", escaped(part)) } else { escaped(part) };
    Ok(Safe(parts.map(mark).collect()))
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

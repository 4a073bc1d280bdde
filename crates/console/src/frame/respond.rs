//! The forms of an answer: a whole page, its content for the script, or plain text.

use askama::Template;
use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use sha2::{Digest, Sha256};

use crate::{
    frame::{fault::Fault, form::Fields, text},
    session::visitor::{Visitor, Wanted},
};

/// Seconds until the script asks for the first time, and after each change.
pub(crate) const FIRST_PACE: u32 = 2;

/// Marks of the page's content in the frame's template.
const BEGIN: &str = "<!--content-->";
const END: &str = "<!--/content-->";

/// Header with the digest of a page's content.
const DIGEST: HeaderName = HeaderName::from_static("x-fanfare-content");

/// Answers with a page, in the form that the request wants.
pub(crate) fn page<T: Template>(visitor: &Visitor, template: &T) -> Result<Response, Fault> {
    page_with(StatusCode::OK, visitor, template)
}

/// Like [`page`], with another status.
pub(crate) fn page_with<T: Template>(status: StatusCode, visitor: &Visitor, template: &T) -> Result<Response, Fault> {
    let whole = template.render().map_err(Fault::of_template)?;
    let content = content_of(&whole);
    let refresh = refresh(&visitor.address).map(|seconds| [(header::REFRESH, HeaderValue::from(seconds))]);
    Ok(match &visitor.wanted {
        Wanted::Page => (status, refresh, Html(whole)).into_response(),
        Wanted::Text => {
            let plain = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))];
            (status, refresh, plain, text::of(content)).into_response()
        }
        Wanted::Live { known } => {
            let digest = digest(content);
            if *known == digest {
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
            (status, [(DIGEST, digest)], Html(content.to_owned())).into_response()
        }
    })
}

/// The seconds until the browser loads the page again, for a screen without the script: `?refresh=10`, 5 to 3,600.
fn refresh(address: &str) -> Option<u32> {
    let fields = Fields::of_address(address);
    fields.given("refresh")?.parse().ok().filter(|seconds| (5..=3600).contains(seconds))
}

/// Leads back to a page after a change.
pub(crate) fn back_to(path: impl AsRef<str>) -> Response {
    Redirect::to(path.as_ref()).into_response()
}

/// The content between the marks of the frame; the whole text of a page without a frame.
fn content_of(whole: &str) -> &str {
    let after = whole.split_once(BEGIN).map_or(whole, |(_, after)| after);
    after.split_once(END).map_or(after, |(content, _)| content)
}

/// Digest of a page's content without the texts of times: "2 min ago" is no change. A passing time is left out.
fn digest(content: &str) -> String {
    let mut digest = Sha256::new();
    let mut rest = content;
    while let Some((before, after)) = rest.split_once("<time") {
        digest.update(before);
        let (head, after) = after.split_once('>').unwrap_or((after, ""));
        if !head.contains("data-passing") {
            digest.update(head);
        }
        rest = after.split_once("</time>").map_or("", |(_, rest)| rest);
    }
    digest.update(rest);
    digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_texts_of_times_are_no_change() {
        let at = |text: &str, moment: &str| format!("<p>a <time datetime=\"{moment}\">{text}</time> b</p>");
        assert_eq!(digest(&at("1 min ago", "x")), digest(&at("2 min ago", "x")));
        assert_ne!(digest(&at("1 min ago", "x")), digest(&at("1 min ago", "y")));
        assert_ne!(digest(&at("1 min ago", "x")), digest(&format!("{}c", at("1 min ago", "x"))));
        assert_eq!(digest("<time"), digest("<time"));
        let passing = |moment: &str| digest(&format!("<p><time data-passing datetime=\"{moment}\">1 s ago</time></p>"));
        assert_eq!(passing("x"), passing("y"));
    }

    #[test]
    fn a_page_is_loaded_again_at_a_sound_pace() {
        assert_eq!(refresh("/console/?a=b&refresh=10"), Some(10));
        for address in
            ["/console/", "/console/?refresh=", "/console/?refresh=4", "/console/?refresh=3601", "/?refresh=-9"]
        {
            assert_eq!(refresh(address), None, "{address}");
        }
    }

    #[test]
    fn the_content_is_between_the_marks() {
        assert_eq!(content_of("<html><!--content--><h1>a</h1><!--/content--></html>"), "<h1>a</h1>");
        assert_eq!(content_of("plain"), "plain");
    }
}

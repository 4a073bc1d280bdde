//! The reference of the API: a page made from the OpenAPI document, without a session. The page is a single file:
//! saved, it works offline.

mod document;
mod examples;
mod filters;

use std::sync::LazyLock;

use askama::Template;
use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    assets::served,
    reference::document::{Group, Member, Type},
};

static STYLE: LazyLock<String> = LazyLock::new(|| served(include_str!("reference/reference.css")));
static SCRIPT: LazyLock<String> =
    LazyLock::new(|| served(concat!(include_str!("reference/examples.js"), include_str!("reference/reference.js"))));

/// Permits the page's own style and script by their digests, and nothing else.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digest(&STYLE),
        digest(&SCRIPT)
    );
    HeaderValue::try_from(policy).expect("visible ASCII")
});

#[derive(Template)]
#[template(path = "reference/reference.html")]
struct Page {
    groups: Vec<Group>,
    types: Vec<Type>,
    codes: Vec<Member>,
    style: &'static str,
    script: &'static str,
}

/// The page for an OpenAPI document.
///
/// # Errors
/// If the document lacks a part that the page needs.
pub fn reference_page(document: &Value) -> Result<String, askama::Error> {
    let (groups, types) = document::read(document);
    let page = Page { groups, types, codes: document::codes(), style: &STYLE, script: &SCRIPT };
    page.render()
}

/// Serves the page at `/docs`, and leads from `/docs/` there.
///
/// # Errors
/// Like [`reference_page`].
pub fn reference_routes(document: &Value) -> Result<Router, askama::Error> {
    let page = Bytes::from(reference_page(document)?);
    let digest: String = Sha256::digest(&page).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let tag = HeaderValue::try_from(format!("\"{digest}\"")).expect("visible ASCII");
    Ok(Router::new()
        .route("/docs", get(async move |headers: HeaderMap| serve(&headers, page, tag)))
        .route("/docs/", get(async || Redirect::permanent("../docs"))))
}

fn serve(asked: &HeaderMap, page: Bytes, tag: HeaderValue) -> Response {
    let is_known = asked.get(header::IF_NONE_MATCH).is_some_and(|known| *known == tag);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, tag),
    ];
    if is_known { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, page).into_response() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document of this release, which a test of the services compares with the code.
    const DOCUMENT: &str = include_str!("../../../proto/openapi.json");

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).expect("JSON")
    }

    /// Addresses within the page.
    fn ids(page: &str) -> impl Iterator<Item = &str> {
        page.split(" id=").skip(1).filter_map(|rest| rest.trim_start_matches('"').split(['"', '>', ' ']).next())
    }

    #[test]
    fn the_page_is_small_and_has_each_operation() {
        let page = reference_page(&document()).expect("a page");
        assert!(page.len() <= 100_000, "{} bytes", page.len());
        let document = document();
        let operations = document::members(&document["paths"]).flat_map(|(_, methods)| document::members(methods));
        for (_, operation) in operations {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(page.contains(&format!("<li id={id}>")), "{id}");
        }
        for id in ids(&page) {
            assert_eq!(ids(&page).filter(|other| *other == id).count(), 1, "{id} twice");
        }
        for (link, _) in page.match_indices("#").filter(|(link, _)| page[..*link].ends_with(['=', '"'])) {
            let name = page[link + 1..].split(['"', '>']).next().unwrap_or_default();
            let is_there = page.contains(&format!("id={name}>")) || page.contains(&format!("id=\"{name}\""));
            assert!(is_there, "nothing has the address #{name}");
        }
    }
}

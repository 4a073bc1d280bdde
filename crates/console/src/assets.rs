//! Stylesheet, script and icon of the pages. The address holds a hash, so that browsers keep an asset for a year.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

/// A file that all pages share.
pub(crate) struct Asset {
    /// Address on the pages.
    pub(crate) address: String,
    name: String,
    kind: &'static str,
    content: String,
}

macro_rules! asset {
    ($name:ident, $file:literal, $kind:literal) => {
        pub(crate) static $name: LazyLock<Asset> =
            LazyLock::new(|| Asset::new($file, $kind, include_str!(concat!("assets/", $file))));
    };
}

asset!(STYLE, "console.css", "text/css; charset=utf-8");
asset!(SCRIPT, "console.js", "text/javascript; charset=utf-8");
asset!(ICON, "icon.svg", "image/svg+xml");

impl Asset {
    fn new(file: &'static str, kind: &'static str, source: &str) -> Self {
        let content = served(source);
        let digest: String = Sha256::digest(&content).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{digest}-{file}");
        Self { address: format!("/assets/{name}"), name, kind, content }
    }
}

/// Serves an asset. An address of another release is unknown.
pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    let known = [&*STYLE, &*SCRIPT, &*ICON].into_iter().find(|asset| asset.name == name);
    let Some(asset) = known else { return StatusCode::NOT_FOUND.into_response() };
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)), (header::CACHE_CONTROL, kept)];
    (headers, asset.content.as_str()).into_response()
}

/// The source without indentation and lines of comment.
pub(crate) fn served(source: &str) -> String {
    let lines = source.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn style_and_script_are_small() {
        let sizes = [&*STYLE, &*SCRIPT, &*ICON].map(|asset| asset.content.len());
        assert!(sizes[0] <= 16_000 && sizes[1] <= 12_000 && sizes[2] <= 2_000, "{sizes:?}");
    }

    #[test]
    fn comments_are_not_served() {
        assert_eq!(
            served("'use strict'\n{\n  // A comment.\n\n  const a = 'b' // c\n}\n"),
            "'use strict'\n{\nconst a = 'b' // c\n}\n"
        );
    }
}

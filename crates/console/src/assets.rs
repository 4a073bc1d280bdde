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
    content: &'static [u8],
}

macro_rules! asset {
    ($name:ident, $file:literal, $kind:literal) => {
        pub(crate) static $name: LazyLock<Asset> =
            LazyLock::new(|| Asset::new($file, $kind, include_bytes!(concat!("assets/", $file))));
    };
}

asset!(STYLE, "console.css", "text/css; charset=utf-8");
asset!(SCRIPT, "console.js", "text/javascript; charset=utf-8");
asset!(ICON, "icon.svg", "image/svg+xml");

impl Asset {
    fn new(file: &'static str, kind: &'static str, content: &'static [u8]) -> Self {
        let digest: String = Sha256::digest(content).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
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
    (headers, asset.content).into_response()
}

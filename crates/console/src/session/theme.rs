//! The stylesheet of a portal's theme. The address holds a hash of the content, so that browsers keep the stylesheet
//! for a year.

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use crate::session::visitor::Visitor;

/// Address of the stylesheet of the visitor's session; `None` without a theme.
pub(crate) fn address(visitor: &Visitor) -> Option<String> {
    let theme = visitor.session.theme?;
    Some(format!("{}/theme/{}", visitor.home.path(), name(&theme.sheet())))
}

/// Serves the stylesheet of the visitor's session. An address of another theme is unknown.
pub(crate) async fn serve(visitor: Visitor, Path((_, asked)): Path<(String, String)>) -> Response {
    let sheet = visitor.session.theme.map(|theme| theme.sheet());
    let Some(sheet) = sheet.filter(|sheet| name(sheet) == asked) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable")),
    ];
    (headers, sheet).into_response()
}

fn name(sheet: &str) -> String {
    let digest: String = Sha256::digest(sheet).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{digest}.css")
}

#[cfg(test)]
mod tests {
    use fanfare_domain::theme::{DARK_GROUNDS, LIGHT_GROUNDS};

    #[test]
    fn contrasts_are_computed_with_the_grounds_of_the_pages() {
        let style = include_str!("../assets/console.css");
        for (property, at) in [("ground", 0), ("ground2", 1), ("ground3", 2), ("send-on", 3)] {
            let line = format!("--{property}: light-dark({}, {});", LIGHT_GROUNDS[at], DARK_GROUNDS[at]);
            assert!(style.contains(&line), "{line}");
        }
    }
}

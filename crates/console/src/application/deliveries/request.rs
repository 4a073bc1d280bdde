//! The request of a delivery: the body as a file, and a command that sends the request, signed now.

use askama::Template;
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use fanfare_api::{
    http::{
        error::{ApiError, ErrorCode},
        parameters::Path,
    },
    routes::deliveries::{
        self,
        request::{self, SignedRequest},
    },
};
use fanfare_domain::access::session::Right;
use jiff::Timestamp;

use super::Named;
use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        marks::{self, filters},
        place::Place,
        respond::page,
    },
};

/// The longest body in a command, in bytes. A longer body is read from the downloaded file.
const MAX_BODY: usize = 8 * 1024;

/// Answers with the bytes of the body, as a file.
pub(crate) async fn download(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    place.visitor.require(Right::Payloads)?;
    let name = file_name(&named.delivery);
    let found = deliveries::show(State(console.api), place.authorized(), Path(named.delivery)).await?.data;
    if found.body.is_empty() {
        return Err(ApiError::new(ErrorCode::EventErased, "the content of the event is erased").into());
    }
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, found.body).into_response())
}

#[derive(Template)]
#[template(path = "application/deliveries/request.html")]
struct Signed {
    frame: Frame,
    delivery: String,
    signed_at: Timestamp,
    command: String,
    /// Name of the file that the command reads; `None` if the command has the body.
    file: Option<String>,
}

/// Shows a command that sends the request, signed now.
pub(crate) async fn signed(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    place.visitor.require(Right::Payloads)?;
    place.visitor.require(Right::Test)?;
    let path = Path(named.delivery.clone());
    let signed = request::sign(State(console.api), place.authorized(), path).await?.data;
    let file = (signed.body.len() > MAX_BODY).then(|| file_name(&named.delivery));
    let shown = Signed {
        frame: place.frame("Signed request").call(format!("/deliveries/{}/request", named.delivery)),
        command: command(&signed, file.as_deref()),
        signed_at: signed.signed_at,
        delivery: named.delivery,
        file,
    };
    page(&place.visitor, &shown)
}

/// The name of the downloaded file. An id in the path has letters, digits and `_` only, else no delivery is found.
fn file_name(delivery: &str) -> String {
    format!("{delivery}.json")
}

/// The command of a shell. `file` has the body, if the body is long.
fn command(signed: &SignedRequest, file: Option<&str>) -> String {
    let mut command = format!("curl {}", quoted(&signed.url));
    for (name, value) in &signed.headers {
        command.push_str(&format!(" \\\n  -H {}", quoted(&format!("{name}: {value}"))));
    }
    let data = file.map_or_else(|| signed.body.clone(), |file| format!("@{file}"));
    command.push_str(&format!(" \\\n  --data-binary {}", quoted(&data)));
    command
}

/// A word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_quotes_every_word() {
        let signed = SignedRequest {
            url: "https://a.example/?b='".to_owned(),
            headers: vec![("webhook-id".to_owned(), "dlv_1".to_owned())],
            body: r#"{"a":"it's $HOME"}"#.to_owned(),
            signed_at: Timestamp::UNIX_EPOCH,
        };
        let expected = [
            r"curl 'https://a.example/?b='\''' \",
            r"  -H 'webhook-id: dlv_1' \",
            r#"  --data-binary '{"a":"it'\''s $HOME"}'"#,
        ];
        assert_eq!(command(&signed, None), expected.join("\n"));
        assert!(command(&signed, Some("dlv_1.json")).ends_with("--data-binary '@dlv_1.json'"));
    }
}

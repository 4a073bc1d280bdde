//! The result of a POST: the recorded part of the response.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use fanfare_domain::delivery::{
    answer::{ACTION, Action, RetryAfter},
    outcome::Outcome,
};
use http::{HeaderMap, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::failure::root_cause;

/// Maximum bytes of a response body that are read. A longer body closes the connection.
pub const MAX_RESPONSE_BODY: usize = 64 * 1024;

/// Recorded response headers, at most [`MAX_KEPT_HEADERS`] bytes in total.
const KEPT_HEADERS: [&str; 5] = ["content-type", "retry-after", "server", ACTION, "x-request-id"];
const MAX_KEPT_HEADERS: usize = 2 * 1024;

/// Shown instead of a hidden value.
pub(crate) const HIDDEN: &str = "…";

/// Result of a POST.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The basis of the next decision.
    pub outcome: Outcome,
    /// `content-type`, `retry-after`, `server`, `webhook-action` and `x-request-id`, together at most 2 KiB.
    pub response_headers: Vec<(String, String)>,
    /// Beginning of the response body as received, at most [`MAX_RESPONSE_BODY`] bytes.
    pub response_body: Bytes,
    /// For people: the reason for a missing response or an incomplete response body. A body cut at the limit is no
    /// error.
    pub error: Option<String>,
    /// Time from the call to the end of the exchange, the response body included.
    pub duration: Duration,
}

impl Exchange {
    /// Recorded response headers as a JSON object.
    pub fn response_headers_as_json(&self) -> String {
        let headers = self.response_headers.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
        serde_json::Value::Object(headers.collect()).to_string()
    }

    /// An exchange without a response.
    pub(crate) fn unanswered(outcome: Outcome, error: String) -> Self {
        Self {
            outcome,
            response_headers: Vec::new(),
            response_body: Bytes::new(),
            error: Some(error),
            duration: Duration::ZERO,
        }
    }

    /// Reads the response. The status decides: a slow or broken body is no reason to send the event again. The part of the
    /// body that arrives by the deadline is kept.
    pub(crate) async fn answered(response: Response<Incoming>, remaining: Duration, answers: Arc<Semaphore>) -> Self {
        let (head, body) = response.into_parts();
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let retry_after = text(header::RETRY_AFTER.as_str()).and_then(RetryAfter::parse);
        let action = text(ACTION).and_then(Action::parse);
        let mut read = ReadBody { bytes: BytesMut::new(), room: None, answers };
        let error = match timeout(remaining, read.read(body)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("the response body broke off: {}", root_cause(&error))),
            Err(_) => Some("the response body was not complete at the deadline".to_owned()),
        };
        Self {
            outcome: Outcome::Answered { status: head.status.as_u16(), retry_after, action },
            response_headers: kept_headers(&head.headers),
            response_body: Bytes::from_owner(read),
            error,
            duration: Duration::ZERO,
        }
    }
}

impl Exchange {
    /// Hides a credential of the request that the receiver has echoed in the body.
    pub(crate) fn hide(&mut self, credential: &[u8]) {
        if credential.is_empty() {
            return;
        }
        let mut rest = &self.response_body[..];
        let mut shown = Vec::new();
        while let Some(at) = rest.windows(credential.len()).position(|window| window == credential) {
            shown.extend_from_slice(&rest[..at]);
            shown.extend_from_slice(HIDDEN.as_bytes());
            rest = &rest[at + credential.len()..];
        }
        if rest.len() < self.response_body.len() {
            shown.extend_from_slice(rest);
            self.response_body = Bytes::from(shown);
        }
    }
}

/// The read part of a response body, with its room in memory.
struct ReadBody {
    bytes: BytesMut,
    room: Option<OwnedSemaphorePermit>,
    answers: Arc<Semaphore>,
}

impl AsRef<[u8]> for ReadBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ReadBody {
    /// Reads until the end, the limit of a body, or the end of the room for all bodies. Dropping an unfinished body closes
    /// the connection, as `hyper` does not drain the body.
    async fn read(&mut self, mut body: Incoming) -> Result<(), hyper::Error> {
        while self.bytes.len() < MAX_RESPONSE_BODY
            && let Some(frame) = body.frame().await
        {
            if let Ok(data) = frame?.into_data() {
                let count = data.len().min(MAX_RESPONSE_BODY - self.bytes.len());
                if !self.take_room(count) {
                    break;
                }
                self.bytes.extend_from_slice(&data[..count]);
            }
        }
        Ok(())
    }

    /// Takes room for `count` more bytes. False without room.
    fn take_room(&mut self, count: usize) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.answers).try_acquire_many_owned(count) else { return false };
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
        true
    }
}

fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut room = MAX_KEPT_HEADERS;
    let mut kept = Vec::new();
    for name in KEPT_HEADERS {
        for value in headers.get_all(name) {
            let value = String::from_utf8_lossy(value.as_bytes());
            let Some(for_value) = room.checked_sub(name.len()) else { return kept };
            let end = value
                .char_indices()
                .map(|(at, character)| at + character.len_utf8())
                .take_while(|&end| end <= for_value)
                .last();
            let value = &value[..end.unwrap_or(0)];
            room = for_value - value.len();
            kept.push((name.to_owned(), value.to_owned()));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_echoed_credential_is_hidden() {
        let hidden = |body: &'static str, credential: &str| {
            let mut exchange = Exchange::unanswered(Outcome::TimedOut, String::new());
            exchange.response_body = Bytes::from_static(body.as_bytes());
            exchange.hide(credential.as_bytes());
            String::from_utf8(exchange.response_body.to_vec()).expect("UTF-8")
        };
        assert_eq!(
            hidden(r#"{"authorization":"Bearer tok1","again":"tok1"}"#, "tok1"),
            r#"{"authorization":"Bearer …","again":"…"}"#
        );
        assert_eq!(hidden("ok", "tok1"), "ok");
        assert_eq!(hidden("ok", ""), "ok");
    }

    #[test]
    fn keeps_few_headers_and_little_of_them() {
        let mut headers = HeaderMap::new();
        headers.insert("set-cookie", HeaderValue::from_static("secret"));
        headers.insert("server", HeaderValue::from_bytes(b"caf\xe9").expect("value"));
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        let kept = kept_headers(&headers);
        let expected = [("content-type", "text/plain"), ("server", "caf\u{fffd}")];
        assert_eq!(kept, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

        let long = HeaderValue::from_bytes("ü".repeat(700).as_bytes()).expect("value");
        for _ in 0..3 {
            headers.append("x-request-id", long.clone());
        }
        let bytes: usize = kept_headers(&headers).iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!((MAX_KEPT_HEADERS - 30..=MAX_KEPT_HEADERS).contains(&bytes), "{bytes}");
    }
}

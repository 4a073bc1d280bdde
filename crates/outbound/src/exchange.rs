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
use memchr::memmem;
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

/// Shortest text that is hidden in answers: a shorter text may be there by chance.
const SHORTEST_CREDENTIAL: usize = 8;

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

    /// Reads the response. The status decides: a slow or broken body is no reason to send the event again. The part of
    /// the body that arrives by the deadline is kept.
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

/// A credential of a request, to be hidden where the receiver echoes it.
pub(crate) struct Credential(Vec<Vec<u8>>);

impl Credential {
    /// Creates a credential with its forms in JSON: with `/`, and with `\/`. `None` for a text too short to be found
    /// safely.
    pub(crate) fn new(text: &[u8]) -> Option<Self> {
        if text.len() < SHORTEST_CREDENTIAL {
            return None;
        }
        let mut forms = vec![text.to_vec()];
        if text.contains(&b'/') {
            forms.push(
                text.iter().flat_map(|byte| if *byte == b'/' { vec![b'\\', b'/'] } else { vec![*byte] }).collect(),
            );
        }
        Some(Self(forms))
    }

    /// The text without the credential, which is no longer than `text`: a credential is longer than [`HIDDEN`]. `None`
    /// if the credential is not in the text. With `is_cut`, a beginning of the credential at the end is hidden, too.
    fn hidden_in(&self, text: &[u8], is_cut: bool) -> Option<Vec<u8>> {
        let mut shown: Option<Vec<u8>> = None;
        for form in &self.0 {
            shown = without(form, shown.as_deref().unwrap_or(text), is_cut).or(shown);
        }
        shown
    }
}

/// `text` with [`HIDDEN`] for each `form`; `None` without a form. Linear in the length of the text.
fn without(form: &[u8], text: &[u8], is_cut: bool) -> Option<Vec<u8>> {
    let mut shown = Vec::new();
    let mut end = 0;
    for at in memmem::find_iter(text, form) {
        shown.extend_from_slice(&text[end..at]);
        shown.extend_from_slice(HIDDEN.as_bytes());
        end = at + form.len();
    }
    let rest = &text[end..];
    let longest = rest.len().min(form.len() - 1);
    let begun = (SHORTEST_CREDENTIAL..=longest).rev().find(|length| rest.ends_with(&form[..*length]));
    match begun.filter(|_| is_cut) {
        Some(length) => {
            shown.extend_from_slice(&rest[..rest.len() - length]);
            shown.extend_from_slice(HIDDEN.as_bytes());
        }
        None if end == 0 => return None,
        None => shown.extend_from_slice(rest),
    }
    Some(shown)
}

impl Exchange {
    /// Hides a credential of the request that the receiver has echoed in the body or in a kept header.
    pub(crate) fn hide(&mut self, credential: &Credential) {
        for (_, value) in &mut self.response_headers {
            if let Some(shown) = credential.hidden_in(value.as_bytes(), true) {
                *value = String::from_utf8_lossy(&shown).into_owned();
            }
        }
        let is_cut = self.error.is_some() || self.response_body.len() >= MAX_RESPONSE_BODY;
        if let Some(shown) = credential.hidden_in(&self.response_body, is_cut) {
            // The owner keeps the room of the read body.
            self.response_body = Bytes::from_owner(HiddenBody { shown, _read: self.response_body.clone() });
        }
    }
}

/// A body without a credential, in the room of the read body.
struct HiddenBody {
    shown: Vec<u8>,
    _read: Bytes,
}

impl AsRef<[u8]> for HiddenBody {
    fn as_ref(&self) -> &[u8] {
        &self.shown
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
    /// Reads until the end, the limit of a body, or the end of the room for all bodies. Dropping an unfinished body
    /// closes the connection, as `hyper` does not drain the body.
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
            exchange.error = None;
            if let Some(credential) = Credential::new(credential.as_bytes()) {
                exchange.hide(&credential);
            }
            String::from_utf8(exchange.response_body.to_vec()).expect("UTF-8")
        };
        assert_eq!(
            hidden(r#"{"authorization":"Bearer token/01","again":"token\/01"}"#, "token/01"),
            r#"{"authorization":"Bearer …","again":"…"}"#
        );
        assert_eq!(hidden("ok", "token/01"), "ok");
        assert_eq!(hidden("a short tok1", "tok1"), "a short tok1");
        assert_eq!(hidden("the end is token-01", "token-012345"), "the end is token-01", "the body is whole");
        assert_eq!(hidden("", "token/01"), "");
    }

    #[test]
    fn a_begun_credential_is_hidden_where_a_body_is_cut_and_in_headers() {
        let mut exchange = Exchange::unanswered(Outcome::TimedOut, "the body broke off".to_owned());
        exchange.response_body = Bytes::from_static(b"Bearer token-0123");
        exchange.response_headers = vec![("x-request-id".to_owned(), "token-012345 ü".to_owned())];
        let credential = Credential::new(b"token-012345").expect("a credential");
        exchange.hide(&credential);
        assert_eq!(exchange.response_body, "Bearer …");
        assert_eq!(exchange.response_headers[0].1, "… ü");
        // Bodies grow by no hidden text.
        exchange.response_body = Bytes::from(b"token-01".repeat(MAX_RESPONSE_BODY / 8));
        exchange.hide(&Credential::new(b"token-01").expect("a credential"));
        assert!(exchange.response_body.len() <= MAX_RESPONSE_BODY);
        assert!(!exchange.response_body.windows(8).any(|window| window == b"token-01"));
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

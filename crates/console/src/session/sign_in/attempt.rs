//! A sign-in at a provider that has begun: kept in a cookie of the browser, for ten minutes.
//!
//! The cookie needs no signature: with the prefix `__Host-` no other host can set the cookie, and the browser's own
//! user gains nothing by another value. The provider compares the verifier, and the ID token holds the nonce.

use axum::http::HeaderMap;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{Settings, session::cookie::cookies};

/// A sign-in that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Repeated by the provider's answer.
    pub(crate) state: String,
    /// Repeated by the ID token.
    pub(crate) nonce: String,
    /// Proof to the provider that the code comes back from the same browser (PKCE).
    pub(crate) verifier: String,
    /// The page after the sign-in.
    pub(crate) to: String,
}

fn name(settings: &Settings) -> &'static str {
    if settings.is_secure() { "__Host-fanfare-attempt" } else { "fanfare-attempt" }
}

fn attributes(settings: &Settings) -> &'static str {
    // The provider leads back from another site: `Strict` would keep the cookie from the answer.
    if settings.is_secure() { "Path=/; HttpOnly; Secure; SameSite=Lax" } else { "Path=/; HttpOnly; SameSite=Lax" }
}

impl Attempt {
    /// Reads the attempt from the request's cookies.
    pub(crate) fn of(settings: &Settings, headers: &HeaderMap) -> Option<Self> {
        let value = cookies(headers, name(settings)).next()?;
        let mut parts = value.split('.').map(|part| percent_decode_str(part).decode_utf8().ok());
        let mut part = || parts.next().flatten().map(|part| part.into_owned());
        Some(Self { state: part()?, nonce: part()?, verifier: part()?, to: part()? })
    }

    /// The header that keeps the attempt.
    pub(crate) fn header(&self, settings: &Settings) -> String {
        let parts = [&self.state, &self.nonce, &self.verifier, &self.to];
        let value = parts.map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string()).join(".");
        format!("{}={value}; Max-Age=600; {}", name(settings), attributes(settings))
    }

    /// The header that takes the attempt away.
    pub(crate) fn end(settings: &Settings) -> String {
        format!("{}=; Max-Age=0; {}", name(settings), attributes(settings))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn attempts_round_trip(state in ".{1,20}", nonce in "[A-Za-z0-9_.-]{1,20}", to in "/console/.{0,20}") {
            let settings = Settings {
                url: "https://fanfare.example.com".parse().expect("a URL"),
                portal_origins: Vec::new(),
                broker_console: None,
                proxy: None,
                provider: None,
            };
            let attempt = Attempt { state, nonce: nonce.clone(), verifier: nonce, to };
            let sent = attempt.header(&settings);
            let mut headers = HeaderMap::new();
            let pair = sent.split(';').next().expect("a pair");
            headers.insert(header::COOKIE, HeaderValue::from_str(pair).expect("a header"));
            prop_assert_eq!(Attempt::of(&settings, &headers), Some(attempt));
        }
    }
}

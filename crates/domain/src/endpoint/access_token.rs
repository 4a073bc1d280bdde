//! Access tokens of OAuth 2.0: the answer of a token server, and the times of a token.
//!
//! A token server is foreign, and may be hostile. No text of an answer is shown, except the registered error codes.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::endpoint::authentication::{HiddenText, check_token};

/// Life of a token whose answer states none.
const USUAL_LIFE: Duration = Duration::from_secs(300);

/// Longest life of a token. A longer life is cut.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Longest part of a life in which a token is no longer sent: a request is under way for a moment.
const LONGEST_MARGIN: Duration = Duration::from_secs(30);

/// Shortest time from a token to the next fetch.
pub const BETWEEN_FETCHES: Duration = Duration::from_secs(1);

/// Shortest time from a token that the receiver refused to the next fetch.
pub const AFTER_REFUSAL: Duration = Duration::from_secs(5);

/// Shortest and longest wait after a failed fetch.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Registered error codes of token servers (RFC 6749, 5.2, and RFC 8707), and two codes of RFC 6749, 4.1.2.1.
const ERROR_CODES: [&str; 10] = [
    "access_denied",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
];

/// A token that a token server granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedToken {
    /// Token, sent as a bearer token.
    pub token: HiddenText,
    /// Life of the token, from the request on.
    pub life: Duration,
}

/// The reason why a fetch brought no token. The texts follow "the token server".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// No answer: the exchange failed.
    #[error("gave no answer: {0}")]
    NoAnswer(String),
    /// No connection, for a reason of ours.
    #[error("could not be asked: Fanfare can make no connections now: {0}")]
    EgressUnavailable(String),
    /// An answer with another status than 200.
    #[error("answers {0}")]
    Status(u16),
    /// An answer with another status than 200, and a registered error code.
    #[error("answers {0} ({1})")]
    Refused(u16, &'static str),
    /// An answer with more bytes than are read.
    #[error("answers with more than 64 KiB")]
    TooLong,
    /// The answer broke off, or took too long.
    #[error("sent no complete answer in time")]
    Incomplete,
    /// Not a JSON object with an access token.
    #[error("answers without a JSON object with `access_token` and `token_type`")]
    Unreadable,
    /// Another type than bearer.
    #[error("answers with a `token_type` other than bearer")]
    WrongType,
    /// A token that no header can carry.
    #[error("answers with an `access_token` that is not 1 to 8192 characters of visible ASCII")]
    UnusableToken,
    /// A life that is no positive number of seconds.
    #[error("answers with an `expires_in` that is no positive number of seconds")]
    UnusableLife,
}

impl TokenFault {
    /// Name in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoAnswer(_) => "no_answer",
            Self::EgressUnavailable(_) => "egress_unavailable",
            Self::Status(_) | Self::Refused(..) => "refused",
            Self::TooLong | Self::Incomplete | Self::Unreadable => "unreadable",
            Self::WrongType | Self::UnusableToken | Self::UnusableLife => "unusable",
        }
    }
}

/// The members of an answer. Other members are ignored.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    #[serde(default)]
    expires_in: Value,
}

/// The member of an answer that refuses.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Reads the answer of a token server.
///
/// # Errors
/// For any answer without a usable token.
pub fn parse_answer(status: u16, body: &[u8]) -> Result<GrantedToken, TokenFault> {
    if status != 200 {
        let refusal = serde_json::from_slice::<Refusal>(body).ok();
        let known = refusal.and_then(|refusal| ERROR_CODES.into_iter().find(|code| *code == refusal.error));
        return Err(known.map_or(TokenFault::Status(status), |code| TokenFault::Refused(status, code)));
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| TokenFault::Unreadable)?;
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err(TokenFault::WrongType);
    }
    check_token("access_token", &answer.access_token).map_err(|_| TokenFault::UnusableToken)?;
    Ok(GrantedToken { token: answer.access_token.into(), life: life(&answer.expires_in)? })
}

/// Life by `expires_in`. Some servers write the number as a text.
fn life(expires_in: &Value) -> Result<Duration, TokenFault> {
    let seconds = match expires_in {
        Value::Null => return Ok(USUAL_LIFE),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let seconds = seconds.filter(|seconds: &f64| seconds.is_finite() && *seconds >= 1.0);
    let seconds = seconds.ok_or(TokenFault::UnusableLife)?;
    Ok(Duration::from_secs_f64(seconds.min(LONGEST_LIFE.as_secs_f64())))
}

/// Time from the fetch of a token until a token in use is renewed: 80 % of the life.
pub fn renew_after(life: Duration) -> Duration {
    life * 4 / 5
}

/// Time from the fetch of a token for which the token is sent: shorter than its life, so that a request on its way
/// arrives in time.
pub fn usable_for(life: Duration) -> Duration {
    life.saturating_sub((life / 10).min(LONGEST_MARGIN))
}

/// Wait after a number of failed fetches in a row: doubled from a second to a minute, and up to a fifth shorter by
/// `random`, from 0 to 255, so that endpoints of the same token server spread.
pub fn wait_after(failures: u32, random: u8) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(6));
    let wait = doubled.min(LONGEST_WAIT);
    wait - wait.mul_f64(f64::from(random) / 255.0 / 5.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(answer: &Value) -> Result<GrantedToken, TokenFault> {
        parse_answer(200, answer.to_string().as_bytes())
    }

    #[test]
    fn usual_answers_are_read() {
        let life = |answer: &Value| parse(answer).map(|granted| granted.life.as_secs());
        let answer =
            json!({ "access_token": "2YotnFZFEjr1zCsicMWpAA", "token_type": "Bearer", "expires_in": 3600, "more": {} });
        assert_eq!(parse(&answer).expect("a token").token.reveal(), "2YotnFZFEjr1zCsicMWpAA");
        assert_eq!(life(&answer), Ok(3600));
        let with = |expires_in: Value| json!({ "access_token": "x", "token_type": "bearer", "expires_in": expires_in });
        assert_eq!(life(&json!({ "access_token": "x", "token_type": "BEARER" })), Ok(300));
        assert_eq!(life(&with(Value::Null)), Ok(300));
        assert_eq!(life(&with(json!("60"))), Ok(60));
        assert_eq!(life(&with(json!(1))), Ok(1));
        assert_eq!(life(&with(json!(1e18))), Ok(86_400));
        for hostile in [json!(-1), json!(0), json!("soon"), json!("NaN"), json!("-inf"), json!([]), json!(true)] {
            assert_eq!(life(&with(hostile.clone())), Err(TokenFault::UnusableLife), "{hostile}");
        }
    }

    #[test]
    fn hostile_answers_show_nothing_of_their_text() {
        let html = b"<html>s3cret</html>".as_slice();
        let with = |token: &str, kind: &str| json!({ "access_token": token, "token_type": kind }).to_string();
        for (status, body, fault) in [
            (200, html.to_vec(), TokenFault::Unreadable),
            (200, b"[]".to_vec(), TokenFault::Unreadable),
            (200, b"".to_vec(), TokenFault::Unreadable),
            (200, br#"{"error":"invalid_client"}"#.to_vec(), TokenFault::Unreadable),
            (200, with("s3cret\nx-injected: 1", "bearer").into_bytes(), TokenFault::UnusableToken),
            (200, with(&"s3cret".repeat(2000), "bearer").into_bytes(), TokenFault::UnusableToken),
            (200, with("x", "s3cret").into_bytes(), TokenFault::WrongType),
            (
                401,
                br#"{"error":"invalid_client","error_description":"s3cret"}"#.to_vec(),
                TokenFault::Refused(401, "invalid_client"),
            ),
            (400, br#"{"error":"s3cret"}"#.to_vec(), TokenFault::Status(400)),
            (503, html.to_vec(), TokenFault::Status(503)),
            (302, html.to_vec(), TokenFault::Status(302)),
        ] {
            let found = parse_answer(status, &body);
            assert_eq!(found, Err(fault.clone()));
            assert!(!fault.to_string().contains("s3cret") && !format!("{found:?}").contains("s3cret"));
        }
    }

    #[test]
    fn waits_grow_to_a_minute() {
        let waits = [0, 1, 2, 3, 6, 7, 8, u32::MAX].map(|failures| wait_after(failures, 0).as_secs());
        assert_eq!(waits, [1, 1, 2, 4, 32, 60, 60, 60]);
        assert_eq!(wait_after(9, 255), Duration::from_secs(48));
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 100u16..600, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_answer(status, &body);
        }

        /// A granted token can be sent in a header, and its life is bounded.
        #[test]
        fn what_is_granted_is_sendable(token in "\\PC{0,12}", kind in "(?i)bearer|mac", life in any::<f64>()) {
            let answer = json!({ "access_token": token, "token_type": kind, "expires_in": life });
            if let Ok(granted) = parse(&answer) {
                prop_assert!(crate::endpoint::authentication::bearer(granted.token.reveal()).is_some());
                prop_assert!((Duration::from_secs(1)..=LONGEST_LIFE).contains(&granted.life));
            }
        }

        /// A token is renewed while it may still be sent, and is sent only while it lives.
        #[test]
        fn a_token_is_renewed_before_it_is_no_longer_sent(milliseconds in 1u64..=86_400_000) {
            let life = Duration::from_millis(milliseconds);
            prop_assert!(renew_after(life) < usable_for(life));
            prop_assert!(usable_for(life) < life);
            prop_assert!(life - usable_for(life) <= LONGEST_MARGIN);
        }

        #[test]
        fn waits_are_bounded(failures in any::<u32>(), random in any::<u8>()) {
            let wait = wait_after(failures, random);
            prop_assert!(wait >= FIRST_WAIT * 4 / 5 && wait <= LONGEST_WAIT);
        }
    }
}

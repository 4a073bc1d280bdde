//! Headers that a customer or a dialect may set on deliveries.

use http::{HeaderName, HeaderValue};

/// Headers of the message or the connection. A stored header must not be able to smuggle a second request behind the
/// first.
pub const OF_THE_MESSAGE: [&str; 15] = [
    "accept-encoding", // a compressed response could not be shown, and may be a bomb
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// The headers of Standard Webhooks.
const OF_STANDARD_WEBHOOKS: [&str; 3] = ["webhook-id", "webhook-signature", "webhook-timestamp"];

/// Headers of an event with an ordering key.
const OF_ORDER: [&str; 2] = ["webhook-ordering-key", "webhook-sequence"];

/// Header with the day whose digest counts the delivery.
pub const DIGEST_DAY: &str = "webhook-digest-day";

/// Header that marks the attempts of a replay.
pub const REPLAY: &str = "fanfare-replay";

/// Maximum length of a header's value, in bytes.
const MAX_VALUE: usize = 4096;

/// The reason why deliveries cannot carry a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Not a header name of HTTP.
    #[error("{0:?} is not a valid header name")]
    InvalidName(String),
    /// A header that customers may not set.
    #[error("the header {0} is set by Fanfare, or by HTTP itself")]
    Reserved(String),
    /// Not a header value of HTTP. The message omits the value, possibly a credential.
    #[error("the value of {0} must be 1 to {MAX_VALUE} visible ASCII characters, spaces between them allowed")]
    InvalidValue(String),
}

/// Checks a header's name.
///
/// # Errors If the name is invalid, in [`OF_THE_MESSAGE`], of Standard Webhooks, of an ordering key, [`DIGEST_DAY`] or
/// [`REPLAY`].
pub fn check_name(name: &str) -> Result<HeaderName, HeaderFault> {
    let parsed: HeaderName =
        name.parse().map_err(|_| HeaderFault::InvalidName(name.chars().take(64).collect::<String>()))?;
    let is_reserved = |reserved: &[&str]| reserved.contains(&parsed.as_str());
    let of_deliveries = [OF_STANDARD_WEBHOOKS.as_slice(), &OF_ORDER, &[DIGEST_DAY, REPLAY]];
    if is_reserved(&OF_THE_MESSAGE) || of_deliveries.into_iter().any(is_reserved) {
        return Err(HeaderFault::Reserved(parsed.to_string()));
    }
    Ok(parsed)
}

/// Checks a header's value: every HTTP implementation must read the value alike.
///
/// # Errors
/// If the value has any other character, such as a line break, or an invalid length.
pub fn check_value(name: &HeaderName, value: &str) -> Result<HeaderValue, HeaderFault> {
    let is_sound = (1..=MAX_VALUE).contains(&value.len())
        && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && value.trim() == value;
    let parsed = if is_sound { HeaderValue::from_str(value).ok() } else { None };
    parsed.ok_or_else(|| HeaderFault::InvalidValue(name.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reserved_and_invalid_headers_are_refused() {
        for name in OF_THE_MESSAGE.into_iter().chain(OF_STANDARD_WEBHOOKS).chain([
            "Host",
            "WEBHOOK-ID",
            "",
            "a b",
            "a:",
            "ü",
            "a\r\nb",
        ]) {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert_eq!(check_name("Authorization").expect("a name"), "authorization");
    }

    #[test]
    fn refuses_values_that_could_end_a_line() {
        let name = check_name("x-token").expect("a name");
        for value in ["", " a", "a ", "a\r\nb: c", "a\nb", "a\0", "\u{e9}", "a\tb", &"a".repeat(4097)] {
            assert!(check_value(&name, value).is_err(), "{value:?}");
        }
        assert_eq!(check_value(&name, "Bearer a b").expect("a value"), "Bearer a b");
    }

    proptest! {
        #[test]
        fn what_is_taken_is_sent_as_it_is(value in "\\PC{0,20}") {
            let name = check_name("x-token").expect("a name");
            if let Ok(sent) = check_value(&name, &value) {
                prop_assert_eq!(sent.as_bytes(), value.as_bytes());
            }
        }
    }
}

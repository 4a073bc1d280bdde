//! Words for the codes of deliveries: outcomes of attempts, and reasons.

/// The result of an attempt in words.
pub(crate) fn outcome(code: &str, status: Option<i32>) -> String {
    let words = match (code, status) {
        ("answered", Some(status)) => {
            return format!("answered {status} {}", status_name(&status)).trim_end().to_owned();
        }
        ("answered", None) => "answered",
        ("timed_out", _) => "no answer in time",
        ("connection_failed", _) => "no connection",
        ("connection_closed", _) => "the connection ended without an answer",
        ("name_not_resolved", _) => "the host has no address",
        ("address_forbidden", _) => "the address is not permitted",
        ("tls_failed", _) => "no TLS session",
        ("not_http", _) => "the answer was no HTTP",
        ("not_sendable", _) => "the settings give no valid request",
        ("unknown", _) => "unknown: the sending process died",
        (other, _) => other,
    };
    words.to_owned()
}

/// The reason of a state in words.
pub(crate) fn reason(code: &str) -> String {
    let words = match code {
        "attempts_exhausted" => "the schedule is used up",
        "expired" => "not finished in time",
        "aborted" => "processes died while sending",
        "endpoint_deleted" => "the webhook was deleted",
        "rejected" => "the answer ends the delivery",
        "endpoint_gone" => "the answer disabled the webhook",
        "held_too_long" => "held for too long",
        "too_many_held" => "too many were held",
        "test_failed" => "the test failed",
        "erased" => "the event was erased",
        "not_rendered" => "the template has no body for the event",
        "stopped_by_receiver" => "the answer stopped the delivery",
        "disabled_by_receiver" => "the answer disabled the webhook, by webhook-action",
        "feed" => "the receiver reads the feed",
        "lane_full" => "the webhook is at its limit of concurrent attempts",
        "application_busy" => "the application uses its share of places",
        "process_busy" => "Fanfare is at its limit of attempts",
        "rate_limited" => "the webhook's rate is used up",
        "breaker_open" => "the webhook failed often: one attempt at a time finds out when it is back",
        "retry_after" => "the webhook asked for a wait, by Retry-After",
        "egress_unavailable" => "Fanfare can make no connections now",
        "token_unavailable" => "the token server of the webhook has given no token",
        "backlog" => "older deliveries go first",
        "in_order" => "the delivery before of the ordering key goes first",
        "paused" => "the webhook is paused",
        "retry" => "the retry is due",
        "resent" => "requested again",
        "replayed" => "requested by a replay",
        "shutting_down" | "lease_expired" | "application_unreadable" | "isolated" => "Fanfare put it off",
        other => return other.replace('_', " "),
    };
    words.to_owned()
}

/// The name of a status (RFC 9110), for statuses that receivers answer.
pub(crate) fn status_name(status: &i32) -> &'static str {
    u16::try_from(*status)
        .ok()
        .and_then(|status| http::StatusCode::from_u16(status).ok())
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use fanfare_domain::delivery::{FailureReason, QueueReason, outcome::Outcome};

    use super::*;

    #[test]
    fn every_code_has_words() {
        let has_words = |code: &str, words: String| assert!(words != code && words.contains(' '), "{code}: {words}");
        for code in Outcome::CODES {
            has_words(code, outcome(code, Some(503)));
        }
        for code in FailureReason::ALL.iter().map(|reason| reason.as_str()) {
            has_words(code, reason(code));
        }
        for code in QueueReason::ALL.iter().map(|reason| reason.as_str()) {
            has_words(code, reason(code));
        }
        assert_eq!(outcome("answered", Some(503)), "answered 503 Service Unavailable");
    }
}

//! The result of a test event in words: the phases, and the failed phase. All is pure.

use fanfare_api::routes::webhooks::test_sends::{Phases, TestResult};

/// A phase of a request.
#[derive(Debug, PartialEq)]
pub(crate) struct Phase {
    pub(crate) label: &'static str,
    /// Duration, or the reason for the absence of a duration.
    pub(crate) took: String,
    /// Word of the phase's state.
    pub(crate) state: &'static str,
}

/// The result of a test event.
pub(crate) struct TestView {
    pub(crate) phases: Vec<Phase>,
    /// The result, as a sentence.
    pub(crate) verdict: String,
    /// The next action after a failure, as a sentence.
    pub(crate) advice: &'static str,
    pub(crate) result: TestResult,
}

impl TestView {
    pub(crate) fn new(result: TestResult) -> Self {
        let is_https = result.request.url.starts_with("https:");
        let failed = failed_phase(&result.timings, is_https).filter(|_| result.response.is_none());
        let status = result.response.as_ref().and_then(|response| response.status);
        let verdict = match status {
            Some(status) if result.delivered => format!("The webhook took the event: it answered {status}."),
            Some(status) => format!("The webhook answered {status}. A delivery with this answer has failed."),
            None => format!("The webhook gave no answer: {}.", in_words(result.outcome)),
        };
        let advice = if result.delivered { "" } else { advice(result.outcome, failed) };
        Self { phases: phases(&result.timings, is_https, failed), verdict, advice, result }
    }
}

/// The phase in which a request without an answer failed: the first phase without an end.
fn failed_phase(timings: &Phases, is_https: bool) -> Option<usize> {
    let ends = [timings.dns_ms, timings.connect_ms, timings.tls_ms, timings.first_byte_ms];
    ends.iter().enumerate().position(|(index, end)| end.is_none() && (index != 2 || is_https))
}

fn phases(timings: &Phases, is_https: bool, failed: Option<usize>) -> Vec<Phase> {
    let measured = [
        ("Name look-up", timings.dns_ms),
        ("Connection", timings.connect_ms),
        ("TLS", timings.tls_ms),
        ("First byte of the answer", timings.first_byte_ms),
    ];
    let phase = |(index, (label, end)): (usize, (&'static str, Option<f64>))| match end {
        Some(end) => Phase { label, took: took(end), state: "well" },
        None if failed == Some(index) => Phase { label, took: "failed here".to_owned(), state: "failed" },
        None if index == 2 && !is_https => Phase { label, took: "not used with http".to_owned(), state: "skipped" },
        None => Phase { label, took: "not reached".to_owned(), state: "skipped" },
    };
    let mut phases: Vec<Phase> = measured.into_iter().enumerate().map(phase).collect();
    let state = if failed.is_some() { "failed" } else { "well" };
    phases.push(Phase { label: "Total", took: took(timings.total_ms), state });
    phases
}

/// A duration from milliseconds, with a tenth below 10 ms.
fn took(milliseconds: f64) -> String {
    if milliseconds < 10.0 {
        return format!("{milliseconds:.1} ms");
    }
    // Durations are far below the limit of the number.
    crate::frame::marks::took(milliseconds as u64)
}

/// An outcome without an answer, in words.
pub(crate) fn in_words(outcome: &str) -> &'static str {
    match outcome {
        "answered" => "answered",
        "timed_out" => "the time was up",
        "connection_failed" => "the connection was refused, or the host cannot be reached",
        "connection_closed" => "the connection ended before an answer",
        "name_not_resolved" => "the host's name has no address",
        "address_forbidden" => "the host's address may not be called",
        "tls_failed" => "TLS failed",
        "not_http" => "the answer was not HTTP",
        "not_sendable" => "the settings give no valid request",
        _ => "the result is unknown",
    }
}

/// The next action after an outcome in a phase.
fn advice(outcome: &str, failed: Option<usize>) -> &'static str {
    match (outcome, failed) {
        ("answered", _) => "The answer and the log of the receiver tell the reason.",
        ("timed_out", Some(0)) => "The name server gave no answer in time. Check the DNS records of the host.",
        ("timed_out", Some(1)) => "The host does not react at this port. Check the port, and open the firewall.",
        ("timed_out", Some(2)) => "The host is connected but does not begin TLS. Check that the port serves https.",
        ("timed_out", _) => "The request was sent. Answer first and work afterwards, or set a longer timeout.",
        ("connection_failed", _) => {
            "Check that the server runs and listens at the port, and that the firewall is open."
        }
        ("connection_closed", _) => "The server or a proxy before the server ended the connection. Look at its log.",
        ("name_not_resolved", _) => "Check the spelling of the host, and the DNS records.",
        ("address_forbidden", _) => "Only public addresses may be called. Check the DNS records of the host.",
        ("tls_failed", _) => {
            "Check the certificate: valid today, issued for the host, with all intermediate certificates."
        }
        ("not_http", _) => "Another program listens at the port. Check the port, and http or https.",
        _ => "Check the URL and the headers of the webhook.",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timings(ends: [Option<f64>; 4]) -> Phases {
        let [dns_ms, connect_ms, tls_ms, first_byte_ms] = ends;
        Phases { dns_ms, connect_ms, tls_ms, first_byte_ms, total_ms: 20.0 }
    }

    #[test]
    fn the_first_phase_without_an_end_failed() {
        let ends = [Some(1.0), Some(2.0), None, None];
        assert_eq!(failed_phase(&timings(ends), true), Some(2));
        assert_eq!(failed_phase(&timings(ends), false), Some(3));
        let states: Vec<&str> = phases(&timings(ends), true, Some(2)).iter().map(|phase| phase.state).collect();
        assert_eq!(states, ["well", "well", "failed", "skipped", "failed"]);
    }

    proptest! {
        #[test]
        fn at_most_one_phase_failed(
            ends in proptest::array::uniform4(proptest::option::of(0.0_f64..90_000.0)),
            is_https: bool,
        ) {
            let timings = timings(ends);
            let failed = failed_phase(&timings, is_https);
            let rows = phases(&timings, is_https, failed);
            let number = rows[..4].iter().filter(|phase| phase.state == "failed").count();
            prop_assert_eq!(number, usize::from(failed.is_some()));
        }
    }

    #[test]
    fn short_durations_have_a_tenth() {
        assert_eq!([0.04, 9.96, 12.0, 1234.0].map(took), ["0.0 ms", "10.0 ms", "12 ms", "1.2 s"]);
    }
}

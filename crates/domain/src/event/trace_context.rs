//! W3C trace context of an event, from publishing to the last attempt.

use std::{fmt, str::FromStr, sync::Arc};

/// Largest kept `tracestate`, in bytes. The recommendation asks for 512 at least.
const MAX_STATE: usize = 512;

/// The trace context of an event: the headers `traceparent` and `tracestate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The span that published the event, or handled the event last.
    pub parent: Traceparent,
    /// State of the publisher's tracing systems, in their form. Passed on unchanged.
    pub state: Option<Arc<str>>,
}

impl TraceContext {
    /// Reads the two headers. `None` without a valid `traceparent`; an unusable `tracestate` is dropped, as the
    /// recommendation permits.
    pub fn of_headers(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let is_usable = |state: &&str| {
            !state.is_empty() && state.len() <= MAX_STATE && state.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        Some(Self { parent: traceparent.parse().ok()?, state: tracestate.filter(is_usable).map(Arc::from) })
    }
}

/// A `traceparent` of version 00: `00-<trace id>-<span id>-<flags>`, lower-case hex
/// (<https://www.w3.org/TR/trace-context/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    /// Trace id: 16 bytes, not all zero.
    pub trace: [u8; 16],
    /// Parent span id: 8 bytes, not all zero.
    pub span: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

/// The text is not a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")]
pub struct InvalidTraceparent;

impl fmt::Display for Traceparent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace = u128::from_be_bytes(self.trace);
        let span = u64::from_be_bytes(self.span);
        write!(formatter, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

impl FromStr for Traceparent {
    type Err = InvalidTraceparent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let parts: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags] = parts[..] else { return Err(InvalidTraceparent) };
        let hex = |part: &str, length: usize| {
            let digits = part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            digits.then(|| u128::from_str_radix(part, 16).ok()).flatten().ok_or(InvalidTraceparent)
        };
        let (version, trace, span, flags) = (hex(version, 2)?, hex(trace, 32)?, hex(span, 16)?, hex(flags, 2)?);
        if version != 0 || trace == 0 || span == 0 {
            return Err(InvalidTraceparent);
        }
        Ok(Self { trace: trace.to_be_bytes(), span: (span as u64).to_be_bytes(), flags: flags as u8 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(trace: [u8; 16], span: [u8; 8], flags: u8) {
            prop_assume!(trace != [0; 16] && span != [0; 8]);
            let traceparent = Traceparent { trace, span, flags };
            prop_assert_eq!(traceparent.to_string().parse(), Ok(traceparent));
        }

        #[test]
        fn never_panics(text in ".{0,60}") {
            let _ = text.parse::<Traceparent>();
        }
    }

    #[test]
    fn a_state_is_kept_with_a_valid_parent() {
        const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let state = |state: Option<&str>| TraceContext::of_headers(PARENT, state).expect("a valid parent").state;
        assert_eq!(state(Some("vendor=1,other=a b")).as_deref(), Some("vendor=1,other=a b"));
        let long = "a".repeat(MAX_STATE + 1);
        for unusable in [None, Some(""), Some("a=\u{e9}"), Some("a=1\r\nx: y"), Some(long.as_str())] {
            assert_eq!(state(unusable), None, "{unusable:?}");
        }
        assert_eq!(TraceContext::of_headers("00-0-0-01", Some("vendor=1")), None);
    }

    #[test]
    fn values_that_the_recommendation_forbids_are_refused() {
        assert!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse::<Traceparent>().is_ok());
        for text in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert_eq!(text.parse::<Traceparent>(), Err(InvalidTraceparent), "{text}");
        }
    }
}

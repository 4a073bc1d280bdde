//! A fuzz target for each parser of untrusted bytes. A target accepts any bytes, must not panic, and asserts the
//! parser's properties.
//!
//! `corpora` holds inputs for each target. `cargo test` replays all inputs; `make fuzz` searches for new inputs.

mod messages;
mod payloads;
mod settings;
mod texts;

/// A parser and its properties.
#[derive(Debug)]
pub struct Target {
    /// The name, and the folder of the inputs in `corpora`.
    pub name: &'static str,
    /// Panics if a property does not hold.
    pub run: fn(&[u8]),
}

/// All fuzz targets.
pub const TARGETS: &[Target] = &[
    Target { name: "amqp_event", run: messages::event },
    Target { name: "amqp_parked", run: messages::parked },
    Target { name: "amqp_retry", run: messages::retry },
    Target { name: "dialect", run: settings::dialect },
    Target { name: "email", run: settings::email },
    Target { name: "event", run: payloads::event },
    Target { name: "filter", run: settings::filter },
    Target { name: "frames", run: messages::frames },
    Target { name: "header", run: settings::header },
    Target { name: "id", run: texts::id },
    Target { name: "json", run: payloads::json },
    Target { name: "put_back", run: messages::put_back },
    Target { name: "redaction", run: payloads::redaction },
    Target { name: "retry_after", run: texts::retry_after },
    Target { name: "schema", run: payloads::schema },
    Target { name: "secret", run: settings::secret },
    Target { name: "subscription", run: settings::subscription },
    Target { name: "token", run: texts::token },
    Target { name: "traceparent", run: texts::traceparent },
    Target { name: "url", run: settings::url },
    Target { name: "wait", run: texts::wait },
];

/// The bytes as text; `None` if the bytes are not UTF-8.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// A fixed time.
fn now() -> jiff::Timestamp {
    jiff::Timestamp::constant(1_781_784_000, 0)
}

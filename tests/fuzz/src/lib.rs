//! A target for each parser of foreign bytes: it is given any bytes, must not panic, and must hold what it promises.
//!
//! The kept inputs of each stand in `corpora`, and are replayed by a test. `make fuzz` looks for new ones.

mod messages;
mod payloads;
mod settings;
mod texts;

/// One parser, and what must be true of it.
#[derive(Debug)]
pub struct Target {
    /// The folder of its inputs.
    pub name: &'static str,
    /// Panics where something is not as it must be.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "amqp_event", run: messages::event },
    Target { name: "amqp_parked", run: messages::parked },
    Target { name: "amqp_retry", run: messages::retry },
    Target { name: "dialect", run: settings::dialect },
    Target { name: "email", run: settings::email },
    Target { name: "event", run: payloads::event },
    Target { name: "frames", run: messages::frames },
    Target { name: "header", run: settings::header },
    Target { name: "id", run: texts::id },
    Target { name: "json", run: payloads::json },
    Target { name: "put_back", run: messages::put_back },
    Target { name: "redaction", run: payloads::redaction },
    Target { name: "retry_after", run: texts::retry_after },
    Target { name: "secret", run: settings::secret },
    Target { name: "subscription", run: settings::subscription },
    Target { name: "token", run: texts::token },
    Target { name: "traceparent", run: texts::traceparent },
    Target { name: "url", run: settings::url },
    Target { name: "wait", run: texts::wait },
];

/// The bytes as text, where they are one.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// A moment at which everything happens.
fn now() -> jiff::Timestamp {
    jiff::Timestamp::constant(1_781_784_000, 0)
}

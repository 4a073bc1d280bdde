//! Settings that more than one process reads, each described once.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use fanfare_domain::policy::Schedule;

use crate::Environment;

impl Environment {
    /// The broker's URL.
    pub fn amqp_url<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        self.required("AMQP_URL", "the broker: `amqp://user:password@host:5672/vhost`")
    }

    /// The prefix of all names in the broker.
    pub fn prefix<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        let meaning = "what all exchanges and queues start with; environments that share a broker differ in it";
        self.with_default("FANFARE_PREFIX", "fanfare", meaning)
    }

    /// The waits between attempts.
    pub fn schedule(&mut self) -> Option<Schedule> {
        let meaning = "the waits after each failed attempt; each has a delay queue of its own";
        self.with_default("FANFARE_SCHEDULE", "60s,5m,15m,60m,120m", meaning)
    }

    /// The largest body of an event, in bytes.
    pub fn max_event_bytes(&mut self) -> Option<usize> {
        self.number("FANFARE_MAX_EVENT_BYTES", "262144", 1024..=15_728_640, "the largest body of an event")
    }

    /// The database's URL.
    pub fn database_url<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        self.required("DATABASE_URL", "the database: `postgres://user:password@host:5432/database`")
    }

    /// How many connections to the database the process may open.
    pub fn database_connections(&mut self) -> Option<usize> {
        let meaning = "database connections of the process, beside four for batches and one that listens";
        self.number("FANFARE_DATABASE_CONNECTIONS", "6", 2..=100, meaning)
    }

    /// The keys that secrets are encrypted with.
    pub fn secret_keys<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        let meaning = "the keys that secrets are encrypted with: `name:base64 of 32 bytes`, several separated by commas, \
                       the current one first";
        self.required("FANFARE_SECRET_KEYS", meaning)
    }

    /// Networks that endpoints may be in although they are not public.
    pub fn allow_addresses<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<Vec<T>> {
        let meaning = "networks (CIDR) that endpoints may be in although they are not public, such as `10.1.0.0/16`";
        self.list("FANFARE_ALLOW_ADDRESSES", meaning)
    }

    /// Whether endpoints must have `https:` URLs.
    pub fn https_only(&mut self) -> Option<bool> {
        self.with_default("FANFARE_HTTPS_ONLY", "true", "`false` lets endpoints have `http:` URLs")
    }

    /// How long the process may take to drain.
    pub fn grace(&mut self) -> Option<Duration> {
        let meaning = "how long the process may take to drain after SIGTERM; stay below the orchestrator's own limit";
        self.duration("FANFARE_GRACE", "25s", meaning)
    }

    /// Where the listener for operators is.
    pub fn operations_address(&mut self) -> Option<SocketAddr> {
        let meaning = "where `/healthz`, `/readyz` and `/metrics` are served";
        self.with_default("FANFARE_OPERATIONS_ADDRESS", "0.0.0.0:9090", meaning)
    }
}

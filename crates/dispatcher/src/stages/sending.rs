//! From an open delivery to the recorded outcome: due retries and leases, attempts, records, and retry messages.

pub(crate) mod attempt;
pub(crate) mod in_flight;
pub(crate) mod leased;
pub(crate) mod record;
pub(crate) mod retries;
pub(crate) mod retry_messages;

//! The bytes of all dialects: real deliveries, verified by receivers in Node and in Python that know only the
//! documents; their schedules and how each gives up; dialects of a deployment's own; secrets that change.

mod again;
mod bytes;
mod giving_up;
mod own;
mod payloads;
mod rotation;
mod schedules;
mod tenants;
mod verifiers;

/// The dialects that are shipped.
const DIALECTS: [&str; 6] = ["incenta", "incentable", "nudj", "reward", "ploints", "standard"];

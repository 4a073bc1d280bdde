//! Deliveries in all dialects. Receivers in Node and Python, written only from the platforms' documentation, verify the
//! bytes. Also: schedules, final failures, custom dialects, and rotation of secrets.

mod again;
mod bytes;
mod giving_up;
mod own;
mod payloads;
mod rotation;
mod samples;
mod schedules;
mod tenants;
mod verifiers;

/// The shipped dialects.
const DIALECTS: [&str; 7] = ["incenta", "incentable", "nudj", "reward", "ploints", "standard", "cloudevents"];

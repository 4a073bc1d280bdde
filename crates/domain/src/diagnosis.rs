//! Diagnosis of a deployment: counts by minute, findings, changes before a failure, and why an event did not arrive.

pub mod changes;
pub mod findings;
pub mod rollup;
pub mod why;

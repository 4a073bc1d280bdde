//! Diagnosis of a deployment: counts by minute, findings, and why an event did not arrive.

pub mod findings;
pub mod rollup;
pub mod why;

//! Bounds of an expression's cost.
//!
//! The static bounds limit the text, the number and depth of its parts, the loops within each other, and the patterns.
//! An evaluation then counts steps: a value or an operator is a step, and so are 16 bytes of a compared text. Beyond
//! [`MAX_STEPS`] an evaluation ends with a fault. So no expression and no event take longer than these steps.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

/// Maximum length of an expression, in bytes.
pub const MAX_TEXT: usize = 2000;

/// Maximum number of values and operators.
pub const MAX_NODES: usize = 250;

/// Maximum depth of values and operators.
pub const MAX_DEPTH: usize = 30;

/// Maximum number of loops within each other.
pub const MAX_LOOPS: usize = 3;

/// Maximum sum of the states of all patterns.
pub const MAX_STATES: u64 = 200;

/// Maximum steps of an evaluation.
pub const MAX_STEPS: u64 = 200_000;

/// Maximum length of a text made by an expression, in bytes.
pub const MAX_MADE_TEXT: usize = 64 * 1024;

/// Bytes of a text that are a step.
const BYTES_PER_STEP: u64 = 16;

/// Bound of a compiled pattern's memory, in bytes.
const PATTERN_MEMORY: usize = 256 * 1024;

/// Steps of a look at a text.
pub(super) fn text(bytes: usize) -> u64 {
    1 + self::bytes(bytes)
}

/// Steps of bytes that are compared or copied beside other work.
pub(super) fn bytes(count: usize) -> u64 {
    count as u64 / BYTES_PER_STEP
}

/// Steps of a match: the linear engine needs up to all states at each character.
pub(super) fn matching(bytes: usize, states: u64) -> u64 {
    1 + bytes as u64 * states / 4
}

/// Compiles a pattern, and counts its states.
///
/// # Errors
/// The reason of a refusal.
pub(super) fn pattern(text: &str) -> Result<(Regex, u64), String> {
    let parsed = regex_syntax::Parser::new().parse(text).map_err(|error| {
        let lines = error.to_string();
        let reason = lines.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("the pattern is no regular expression of RE2: {reason}")
    })?;
    let states = states(&parsed);
    if states > MAX_STATES {
        return Err(format!("the pattern has {states} states, and {MAX_STATES} are allowed: shorten its repetitions"));
    }
    let compiled = RegexBuilder::new(text).size_limit(PATTERN_MEMORY).dfa_size_limit(PATTERN_MEMORY).build();
    Ok((compiled.map_err(|_| "the pattern needs too much memory".to_owned())?, states))
}

/// States of a pattern that may be active at a character.
fn states(pattern: &Hir) -> u64 {
    let sum = |parts: &[Hir]| parts.iter().map(states).fold(1, u64::saturating_add);
    match pattern.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(Class::Unicode(class)) if !class.is_ascii() => 2,
        HirKind::Class(_) => 1,
        HirKind::Repetition(repetition) => {
            let times = u64::from(repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1));
            states(&repetition.sub).saturating_mul(times).saturating_add(1)
        }
        HirKind::Capture(capture) => states(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => sum(parts),
    }
}

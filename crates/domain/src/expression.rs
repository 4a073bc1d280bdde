//! Expressions on the data of an event, in the Common Expression Language (CEL).
//!
//! The crate `cel` reads the text. [`Expression::condition`] accepts a part of the language, and refuses the rest with
//! the place and the reason. The evaluation is ours: the crate's has no bound of cost, and its faults have no place.

mod cost;
mod evaluate;
mod explain;
mod messages;
mod output;
mod syntax;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;

use evaluate::{Evaluation, Fault, Reason};
use serde_json::Value as Json;
use syntax::{Kind, Node, Operator};

pub use cost::{MAX_DEPTH, MAX_LOOPS, MAX_MADE_TEXT, MAX_NODES, MAX_STATES, MAX_STEPS, MAX_TEXT};
pub use explain::Explanation;
pub use output::{Full, Output, WriteFault};

/// The place and the reason of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {reason}")]
pub struct ExpressionFault {
    /// Position of the fault, in characters from 1.
    pub position: usize,
    /// What is wrong, and the remedy.
    pub reason: String,
}

impl ExpressionFault {
    /// `at` counts characters from 0.
    fn new(at: usize, reason: impl Into<String>) -> Self {
        Self { position: at + 1, reason: reason.into() }
    }
}

/// The parts of an event that an expression may read.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Type of the event.
    pub event_type: &'a str,
    /// Id of the event, as delivered. A condition does not read the id.
    pub id: &'a str,
    /// Acceptance of the event, as RFC 3339. A condition does not read the time.
    pub time: &'a str,
    /// Data of the event.
    pub data: &'a Json,
    /// True if hidden members have their replacement as value. An expression that depends on such a member then has no
    /// result: the result would show the value.
    pub hides: bool,
}

/// Result of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The condition is met.
    True,
    /// The condition is not met.
    False,
    /// The condition has no result for the event, such as a comparison of a missing member.
    Error,
}

impl Outcome {
    /// Name in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::False => "false",
            Self::Error => "error",
        }
    }

    fn of(result: &Result<bool, Fault<'_>>) -> Self {
        match result {
            Ok(true) => Self::True,
            Ok(false) => Self::False,
            Err(_) => Self::Error,
        }
    }
}

/// A parsed expression.
pub struct Expression {
    text: String,
    root: Node,
    states: u64,
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Expression {
    /// Parses and checks a condition.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn condition(text: &str) -> Result<Self, ExpressionFault> {
        let expression = Self::read(text, syntax::NAMES_OF_CONDITION)?;
        if let Some(found) = other_kind(&expression.root) {
            let reason = format!("yields {found}, and must yield true or false: compare it by == or another operator");
            return Err(ExpressionFault::new(expression.root.at, reason));
        }
        Ok(expression)
    }

    /// Parses and checks an expression that yields any value, and may read all parts of the event.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn value(text: &str) -> Result<Self, ExpressionFault> {
        let expression = Self::read(text, &syntax::NAMES)?;
        if other_kind(&expression.root) == Some("an optional value") {
            let reason = "yields an optional value: say what stands for a missing member by .orValue(…)";
            return Err(ExpressionFault::new(expression.root.at, reason));
        }
        Ok(expression)
    }

    fn read(text: &str, names: &'static [&'static str]) -> Result<Self, ExpressionFault> {
        if text.len() > MAX_TEXT {
            let reason = format!("the expression has {} bytes, and {MAX_TEXT} are allowed", text.len());
            return Err(ExpressionFault::new(0, reason));
        }
        if text.trim().is_empty() {
            return Err(ExpressionFault::new(0, "the expression is empty"));
        }
        if let Some(at) = text.chars().position(|character| character.is_control() && !"\n\r\t".contains(character)) {
            return Err(ExpressionFault::new(at, "holds a control character"));
        }
        let syntax::Parsed { root, states } = syntax::parse(text, names)?;
        Ok(Self { text: text.to_owned(), root, states })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// States of all patterns.
    pub fn states(&self) -> u64 {
        self.states
    }

    /// Evaluates the condition. Returns the steps, too.
    pub fn evaluate(&self, parts: Parts<'_>) -> (Outcome, u64) {
        self.evaluate_within(MAX_STEPS, parts)
    }

    /// Like [`Self::evaluate`], with a lower bound of steps. With more steps than that, the outcome means nothing.
    pub fn evaluate_within(&self, most: u64, parts: Parts<'_>) -> (Outcome, u64) {
        let mut evaluation = Evaluation::within(most.min(MAX_STEPS), parts);
        let outcome = Outcome::of(&evaluation.condition(&self.root));
        (outcome, evaluation.steps)
    }
}

/// Kind of a result that is certainly no boolean.
fn other_kind(node: &Node) -> Option<&'static str> {
    match &node.kind {
        Kind::Null => Some("null"),
        Kind::Int(_) | Kind::Double(_) | Kind::Negate(_) => Some("a number"),
        Kind::Text(_) | Kind::Part(1) => Some("a text"),
        Kind::List(_) | Kind::Loop { kind: syntax::LoopKind::Map | syntax::LoopKind::Filter, .. } => Some("a list"),
        Kind::Member { is_optional: true, .. } | Kind::Index { is_optional: true, .. } => Some("an optional value"),
        Kind::Binary(
            Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder,
            _,
        ) => Some("a number or text"),
        Kind::Call(function, _) => match function {
            syntax::Function::Size | syntax::Function::Int | syntax::Function::Double => Some("a number"),
            syntax::Function::LowerAscii | syntax::Function::UpperAscii | syntax::Function::Text => Some("a text"),
            _ => None,
        },
        _ => None,
    }
}

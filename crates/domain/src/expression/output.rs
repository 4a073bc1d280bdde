//! Output: a text of bounded length, to which the values of expressions are written.
//!
//! The bounds hold during the write: a value that would make the text too long is not written to its end.

use std::io;

use super::{
    Evaluation, Expression, ExpressionFault, Fault, Parts, Reason,
    cost::{self, MAX_STEPS},
    value::Value,
};

/// A JSON text of bounded length.
#[derive(Debug)]
pub struct Output {
    text: String,
    most_bytes: usize,
    steps_left: u64,
    /// The bound that ended a write.
    full: Option<Full>,
}

/// The bound that does not suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The text would be longer than the bound.
    Bytes,
    /// The text would take more steps than the bound.
    Steps,
}

impl Output {
    /// An empty text of at most `most_bytes`, made in at most `most_steps`.
    pub fn new(most_bytes: usize, most_steps: u64) -> Self {
        Self { text: String::new(), most_bytes, steps_left: most_steps, full: None }
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.text
    }

    /// Steps that are left.
    pub fn steps_left(&self) -> u64 {
        self.steps_left
    }

    /// Appends a text as it is.
    ///
    /// # Errors
    /// If the bound of the bytes, or of the steps, does not suffice.
    pub fn push(&mut self, text: &str) -> Result<(), Full> {
        let length = self.text.len() + text.len();
        if length > self.most_bytes {
            return Err(Full::Bytes);
        }
        // Short texts count together.
        let steps = cost::bytes(length) - cost::bytes(self.text.len());
        self.steps_left = self.steps_left.checked_sub(steps).ok_or(Full::Steps)?;
        self.text.push_str(text);
        Ok(())
    }

    /// Appends the content of a JSON string: a text as it is, any other value as JSON.
    fn inline(&mut self, value: &Value<'_>) -> Result<(), Unwritable> {
        if let Value::Text(text) = value {
            return self.content(text);
        }
        let mut inner = Self::new(self.most_bytes - self.text.len(), self.steps_left);
        let written = inner.value(value);
        self.steps_left = inner.steps_left;
        written?;
        self.content(&inner.text)
    }

    fn content(&mut self, text: &str) -> Result<(), Unwritable> {
        let start = self.text.len();
        self.json(text)?;
        self.text.pop();
        self.text.remove(start);
        Ok(())
    }

    fn value(&mut self, value: &Value<'_>) -> Result<(), Unwritable> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or(Full::Steps)?;
        match value {
            Value::Null => Ok(self.push("null")?),
            Value::Bool(value) => Ok(self.push(if *value { "true" } else { "false" })?),
            Value::Int(value) => Ok(self.push(&value.to_string())?),
            Value::Double(value) => match serde_json::Number::from_f64(*value) {
                Some(number) => Ok(self.push(&number.to_string())?),
                None => Err(Unwritable::NoNumber),
            },
            Value::Text(text) => self.json(text),
            Value::Array(items) => self.json(items),
            Value::Object(members) => self.json(members),
            Value::List(items) => {
                self.push("[")?;
                for (position, item) in items.iter().enumerate() {
                    if position > 0 {
                        self.push(",")?;
                    }
                    self.value(item)?;
                }
                Ok(self.push("]")?)
            }
            Value::Optional(_) => Err(Unwritable::Optional),
        }
    }

    fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        // A value of the event has no other fault than a bound.
        serde_json::to_writer(&mut *self, value).map_err(|_| Unwritable::Full(self.full.unwrap_or(Full::Bytes)))
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = str::from_utf8(bytes).map_err(io::Error::other)?;
        self.push(text).map_err(|full| {
            self.full = Some(full);
            io::Error::from(io::ErrorKind::StorageFull)
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reason why a value is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwritable {
    Full(Full),
    NoNumber,
    Optional,
}

impl From<Full> for Unwritable {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

/// The reason why an expression is not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteFault {
    /// The expression has no result for the event.
    NoResult(ExpressionFault),
    /// A bound does not suffice.
    Full(Full),
}

impl Expression {
    /// Evaluates the expression, and appends the value to `output` as JSON. With `is_inline`, a text is appended
    /// without quotes, to stand within a string.
    ///
    /// # Errors
    /// If the expression has no result, or the output is full.
    pub fn write(&self, parts: Parts<'_>, is_inline: bool, output: &mut Output) -> Result<(), WriteFault> {
        let mut evaluation = Evaluation::within(output.steps_left, parts);
        let evaluated = evaluation.value(&self.root);
        output.steps_left = output.steps_left.saturating_sub(evaluation.steps);
        let value = evaluated.map_err(|fault| match fault {
            Fault { reason: Reason::TooCostly, .. } if evaluation.steps <= MAX_STEPS => WriteFault::Full(Full::Steps),
            fault => WriteFault::NoResult(ExpressionFault::new(fault.at, fault.reason.to_string())),
        })?;
        let written = if is_inline { output.inline(&value) } else { output.value(&value) };
        let of_value = |reason: &str| WriteFault::NoResult(ExpressionFault::new(self.root.at, reason));
        written.map_err(|unwritable| match unwritable {
            Unwritable::Full(full) => WriteFault::Full(full),
            Unwritable::NoNumber => of_value("the number is infinite, or no number"),
            Unwritable::Optional => {
                of_value("yields an optional value: say what stands for a missing member by .orValue(…)")
            }
        })
    }
}

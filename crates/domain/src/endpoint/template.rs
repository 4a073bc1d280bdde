//! Templates: bodies of an endpoint's own form, made from the data of events.
//!
//! A template is a JSON value. Texts in it hold placeholders `{{ expression }}`. So the body is always JSON, whatever
//! the event holds. A body is rendered once, and kept.

mod presets;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use serde_json::Value as Json;

pub use self::presets::{PRESETS, Preset, SAMPLE_DATA, SAMPLE_ID, SAMPLE_TYPE};
use crate::{
    dialect::Dialect,
    endpoint::redaction::Redaction,
    event::EventType,
    expression::{self, Expression, ExpressionFault, Full, Output, Parts, WriteFault},
    ids::EventId,
    json,
};

/// Maximum length of a template, in bytes.
pub const MAX_TEMPLATE: usize = 16 * 1024;

/// Maximum placeholders of a template.
pub const MAX_PLACEHOLDERS: usize = 100;

/// Maximum length of a rendered body, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// Maximum steps of all templates for an event: an application cannot hold a dispatcher for longer, whatever the number
/// of its webhooks. 16 bytes of a body are a step, so that the bound also limits the memory.
pub const MAX_STEPS_OF_EVENT: u64 = 1_000_000;

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// The place and the reason why a template cannot be used, or has no body for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFault {
    /// JSON pointer to the text in the template; empty for the whole template.
    pub pointer: String,
    /// Text of the placeholder at fault, if any.
    pub expression: Option<String>,
    /// Position of the fault in the text, in characters from 1; `None` for a fault of the whole template.
    pub position: Option<usize>,
    /// What is wrong, and the remedy.
    pub reason: String,
}

impl fmt::Display for TemplateFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            let pointer = if self.pointer.is_empty() { "the text" } else { &self.pointer };
            write!(formatter, "{pointer}, character {position}")?;
            if let Some(expression) = &self.expression {
                write!(formatter, ", in {OPEN} {} {CLOSE}", shortened(expression))?;
            }
            formatter.write_str(": ")?;
        }
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for TemplateFault {}

impl TemplateFault {
    fn whole(reason: impl Into<String>) -> Self {
        Self { pointer: String::new(), expression: None, position: None, reason: reason.into() }
    }
}

/// Start of an expression, for messages.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A part of a body.
#[derive(Debug)]
enum Piece {
    /// JSON text, as it is.
    Fixed(String),
    Placeholder(Placeholder),
}

#[derive(Debug)]
struct Placeholder {
    /// JSON pointer to the text with the placeholder.
    pointer: String,
    /// Characters of the text before the expression.
    at: usize,
    expression: Expression,
    /// True if the value stands within a longer text.
    is_inline: bool,
}

impl Placeholder {
    fn fault(&self, fault: &ExpressionFault) -> TemplateFault {
        TemplateFault {
            pointer: self.pointer.clone(),
            expression: Some(self.expression.text().to_owned()),
            position: Some(self.at + fault.position),
            reason: fault.reason.clone(),
        }
    }
}

/// A template, as JSON text. Parsed at the first use.
pub struct Template {
    text: String,
    /// `None` for a text that this release does not accept.
    pieces: OnceLock<Option<Vec<Piece>>>,
}

/// The same text.
impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Template").field(&self.text).finish()
    }
}

impl Template {
    /// Parses and checks a template, given as JSON text.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        let value: Json = serde_json::from_str(text).map_err(|error| {
            TemplateFault::whole(format!(
                "is not JSON, at line {} and column {}: a text with a placeholder stands in double quotes",
                error.line(),
                error.column()
            ))
        })?;
        Self::of(&value)
    }

    /// Checks a template.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn of(value: &Json) -> Result<Self, TemplateFault> {
        let text = value.to_string();
        let pieces = Reader::default().read(value, &text)?;
        Ok(Self { text, pieces: OnceLock::from(Some(pieces)) })
    }

    /// A template that [`Self::of`] accepted before.
    pub fn stored(text: String) -> Self {
        Self { text, pieces: OnceLock::new() }
    }

    /// The JSON text.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn pieces(&self) -> Option<&[Piece]> {
        let read = || {
            let value = serde_json::from_str(&self.text).ok()?;
            Reader::default().read(&value, &self.text).ok()
        };
        self.pieces.get_or_init(read).as_deref()
    }

    /// Renders the body of an event. The bounds hold while the body is made.
    ///
    /// # Errors
    /// If a placeholder has no value for the event, or the body would be too long.
    pub fn render(&self, event: &mut TemplateEvent<'_>) -> Result<String, TemplateFault> {
        let Some(pieces) = self.pieces() else {
            return Err(TemplateFault::whole(
                "this release of Fanfare cannot read the template: save the template again",
            ));
        };
        let mut output = Output::new(MAX_BODY, event.steps_left);
        let written = event
            .parts()
            .ok_or_else(|| TemplateFault::whole("the body of the event has no data in the present dialect"))
            .and_then(|parts| pieces.iter().try_for_each(|piece| piece.write(parts, &mut output)));
        event.steps_left = output.steps_left();
        written.map(|()| output.finish())
    }
}

impl Piece {
    fn write(&self, parts: Parts<'_>, output: &mut Output) -> Result<(), TemplateFault> {
        match self {
            Self::Fixed(text) => output.push(text).map_err(|full| TemplateFault::whole(too_long(full))),
            Self::Placeholder(place) => {
                place.expression.write(parts, place.is_inline, output).map_err(|fault| match fault {
                    WriteFault::NoResult(fault) => place.fault(&fault),
                    WriteFault::Full(full) => place.fault(&ExpressionFault { position: 1, reason: too_long(full) }),
                })
            }
        }
    }
}

fn too_long(full: Full) -> String {
    match full {
        Full::Bytes => format!("the body would be longer than {} KiB", MAX_BODY / 1024),
        Full::Steps => format!("the templates would take more than {MAX_STEPS_OF_EVENT} steps for this event"),
    }
}

/// Reads the placeholders of a template.
#[derive(Default)]
struct Reader {
    pieces: Vec<Piece>,
    fixed: String,
    placeholders: usize,
    /// States of all patterns.
    states: u64,
}

impl Reader {
    fn read(mut self, value: &Json, text: &str) -> Result<Vec<Piece>, TemplateFault> {
        if text.len() > MAX_TEMPLATE {
            let reason = format!("has {} bytes, and {MAX_TEMPLATE} are allowed", text.len());
            return Err(TemplateFault::whole(reason));
        }
        self.value(value, "")?;
        self.flush();
        Ok(self.pieces)
    }

    fn flush(&mut self) {
        if !self.fixed.is_empty() {
            self.pieces.push(Piece::Fixed(std::mem::take(&mut self.fixed)));
        }
    }

    fn value(&mut self, value: &Json, pointer: &str) -> Result<(), TemplateFault> {
        match value {
            Json::String(text) => self.text(text, pointer)?,
            Json::Array(items) => {
                self.fixed.push('[');
                for (position, item) in items.iter().enumerate() {
                    self.separate(position);
                    self.value(item, &format!("{pointer}/{position}"))?;
                }
                self.fixed.push(']');
            }
            Json::Object(members) => {
                self.fixed.push('{');
                for (position, (name, value)) in members.iter().enumerate() {
                    self.separate(position);
                    let below = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                    if name.contains(OPEN) {
                        let reason = "a member's name holds no placeholder: write the name itself".to_owned();
                        return Err(TemplateFault { pointer: below, expression: None, position: Some(1), reason });
                    }
                    self.fixed.push_str(&Json::from(name.as_str()).to_string());
                    self.fixed.push(':');
                    self.value(value, &below)?;
                }
                self.fixed.push('}');
            }
            simple => self.fixed.push_str(&simple.to_string()),
        }
        Ok(())
    }

    fn separate(&mut self, position: usize) {
        if position > 0 {
            self.fixed.push(',');
        }
    }

    /// A text. A text that is one placeholder becomes the value, with its type.
    fn text(&mut self, text: &str, pointer: &str) -> Result<(), TemplateFault> {
        let trimmed = text.trim();
        let is_whole =
            trimmed.strip_prefix(OPEN).is_some_and(|rest| end(rest).is_some_and(|end| rest.len() == end + CLOSE.len()));
        if is_whole {
            let start = text.len() - text.trim_start().len();
            self.placeholder(text, start, pointer, false)?;
            return Ok(());
        }
        self.fixed.push('"');
        let mut at = 0;
        while let Some(found) = text[at..].find(OPEN) {
            self.fixed.push_str(&escaped(&text[at..at + found]));
            at = self.placeholder(text, at + found, pointer, true)?;
        }
        self.fixed.push_str(&escaped(&text[at..]));
        self.fixed.push('"');
        Ok(())
    }

    /// The placeholder at a byte of a text. Returns the place behind it.
    fn placeholder(
        &mut self,
        text: &str,
        start: usize,
        pointer: &str,
        is_inline: bool,
    ) -> Result<usize, TemplateFault> {
        let characters = |bytes: usize| text[..bytes].chars().count();
        let fault = |position: usize, expression: Option<&str>, reason: String| TemplateFault {
            pointer: pointer.to_owned(),
            expression: expression.map(str::to_owned),
            position: Some(position),
            reason,
        };
        let inner = start + OPEN.len();
        let Some(length) = end(&text[inner..]) else {
            let reason = format!(
                "the placeholder has no end: close it by {CLOSE}. For the signs themselves, write {OPEN} \"{OPEN}\" {CLOSE}"
            );
            return Err(fault(characters(start) + 1, None, reason));
        };
        let between = &text[inner..inner + length];
        let source = between.trim();
        let first = inner + between.len() - between.trim_start().len();
        let expression = Expression::value(source)
            .map_err(|found| fault(characters(first) + found.position, Some(source), found.reason))?;
        self.placeholders += 1;
        if self.placeholders > MAX_PLACEHOLDERS {
            let reason = format!("more than {MAX_PLACEHOLDERS} placeholders");
            return Err(fault(characters(start) + 1, None, reason));
        }
        self.states += expression.states();
        if self.states > expression::MAX_STATES {
            let reason = format!("patterns with more than {} states in the template", expression::MAX_STATES);
            return Err(fault(characters(first) + 1, Some(source), reason));
        }
        self.flush();
        let (pointer, at) = (pointer.to_owned(), characters(first));
        self.pieces.push(Piece::Placeholder(Placeholder { pointer, at, expression, is_inline }));
        Ok(inner + length + CLOSE.len())
    }
}

/// The content of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Json::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Bytes before the end of a placeholder: the first `}}` outside of CEL's texts and brackets.
fn end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => at = end_of_text(text, at)?,
            b'{' | b'[' | b'(' => depth += 1,
            b'}' if depth == 0 => return text[at..].starts_with(CLOSE).then_some(at),
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The last byte of CEL's text that begins at `start`.
fn end_of_text(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let quote = &text[start..=start];
    let is_raw = start > 0 && matches!(bytes[start - 1], b'r' | b'R');
    let long = quote.repeat(3);
    let close = if text[start..].starts_with(&long) { long.as_str() } else { quote };
    let mut at = start + close.len();
    while at < bytes.len() {
        if bytes[at] == b'\\' && !is_raw {
            at += 2;
        } else if bytes[at..].starts_with(close.as_bytes()) {
            return Some(at + close.len() - 1);
        } else {
            at += 1;
        }
    }
    None
}

/// An event, for templates. The data is parsed once. All templates of the event share a budget of steps.
pub struct TemplateEvent<'a> {
    event_type: &'a EventType,
    id: String,
    time: String,
    /// The body, or the data of a sample; `None` for a body that is no JSON.
    parsed: Option<Json>,
    /// Place of the data in `parsed`.
    pointer: Option<&'a str>,
    steps_left: u64,
}

impl<'a> TemplateEvent<'a> {
    /// An event with its body in the dialect's form.
    pub fn new(
        dialect: &'a Dialect,
        event_type: &'a EventType,
        (accepted_at, event): (Timestamp, EventId),
        body: &str,
    ) -> Self {
        Self {
            event_type,
            id: dialect.event_id(event),
            time: format!("{accepted_at:.3}"),
            parsed: serde_json::from_str(&json::readable(body)).ok(),
            pointer: dialect.data_pointer(),
            steps_left: MAX_STEPS_OF_EVENT,
        }
    }

    /// A sample of a type.
    pub fn of_sample(
        dialect: &Dialect,
        event_type: &'a EventType,
        (accepted_at, event): (Timestamp, EventId),
        data: Json,
    ) -> Self {
        Self {
            event_type,
            id: dialect.event_id(event),
            time: format!("{accepted_at:.3}"),
            parsed: Some(data),
            pointer: Some(""),
            steps_left: MAX_STEPS_OF_EVENT,
        }
    }

    fn parts(&self) -> Option<Parts<'_>> {
        let data = self.parsed.as_ref()?.pointer(self.pointer?)?;
        Some(Parts { event_type: self.event_type.as_str(), id: &self.id, time: &self.time, data, hides: false })
    }
}

/// A delivery's own body, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shaped {
    /// The body.
    Body {
        /// Body as sent.
        body: String,
        /// The body without the values of redacted members, if the event has any.
        shown: Option<String>,
    },
    /// The template has no body for the event: the sentence of the fault.
    Failed(String),
}

impl Shaped {
    /// No body. Control characters of the event or of the template become spaces: no text of PostgreSQL has a NUL.
    fn failed(fault: &TemplateFault) -> Self {
        Self::Failed(fault.to_string().replace(char::is_control, " "))
    }

    /// The body of an event that was stored encrypted. Members that were hidden then stay hidden, although the present
    /// rules may hide others.
    #[must_use]
    pub fn of_sealed_event(self) -> Self {
        match self {
            Self::Body { body, shown: None } => Self::Body { body, shown: Some(HIDDEN_BODY.to_owned()) },
            other => other,
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Body { body, shown } => body.len() + shown.as_ref().map_or(0, String::len),
            Self::Failed(sentence) => sentence.len(),
        }
    }
}

/// Renders the templates of an event's endpoints. Renders each text once.
pub struct Shaper<'a> {
    event: TemplateEvent<'a>,
    /// The event without the values of redacted members, if the event has any.
    shown: Option<TemplateEvent<'a>>,
    redaction: &'a Redaction,
    known: HashMap<String, Arc<Shaped>>,
}

impl<'a> Shaper<'a> {
    /// A shaper for an event with its complete body.
    pub fn new(
        dialect: &'a Dialect,
        redaction: &'a Redaction,
        event_type: &'a EventType,
        id: (Timestamp, EventId),
        body: &str,
    ) -> Self {
        let of = |body: &str| TemplateEvent::new(dialect, event_type, id, body);
        Self {
            event: of(body),
            shown: redaction.redact(body).map(|shown| of(&shown)),
            redaction,
            known: HashMap::new(),
        }
    }

    /// The body by a template.
    pub fn shape(&mut self, template: &Template) -> Arc<Shaped> {
        if let Some(known) = self.known.get(template.text()) {
            return Arc::clone(known);
        }
        let shaped = Arc::new(match (template.render(&mut self.event), &mut self.shown) {
            // The template itself may have redacted members, such as the key of a receiver.
            (Ok(body), None) => Shaped::Body { shown: self.redaction.redact(&body), body },
            // A template may have no body for the replacements, such as a text where a number was.
            (Ok(body), Some(event)) => {
                let shown = template.render(event).unwrap_or_else(|_| HIDDEN_BODY.to_owned());
                Shaped::Body { body, shown: Some(self.redaction.redact(&shown).unwrap_or(shown)) }
            }
            (Err(fault), None) => Shaped::failed(&fault),
            // The fault may name a hidden value.
            (Err(_), Some(event)) => {
                let fault = template.render(event).err();
                let hidden = || "a placeholder has no value, which depends on a hidden member of the event".to_owned();
                fault.map_or_else(|| Shaped::Failed(hidden()), |fault| Shaped::failed(&fault))
            }
        });
        self.known.insert(template.text().to_owned(), Arc::clone(&shaped));
        shaped
    }
}

/// Shown instead of a body that cannot be rendered without hidden values.
const HIDDEN_BODY: &str = "\"[redacted]\"";

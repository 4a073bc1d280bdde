//! JSON Schemas of event types: draft 2020-12, checked when a schema is saved, and applied to the data of events.
//!
//! A check needs bounded time for any accepted schema and any event. `format` describes and is not checked, as the
//! draft has it by default.

mod cost;
mod explain;
mod graph;
pub mod import;
mod sample;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::{
    event::{EventFault, EventType, FaultCode},
    json,
};

/// Maximum length of a schema as compact JSON, in bytes.
pub const MAX_SCHEMA: usize = 64 * 1024;

/// Maximum number of an event type's versions.
pub const MAX_VERSIONS: u32 = 20;

/// Maximum sum of [`Schema::size`] of an application's schemas, all versions of all types.
pub const MAX_APPLICATION: usize = 4 * 1024 * 1024;

/// Maximum number of subschemas.
const MAX_SUBSCHEMAS: usize = 10_000;

/// Maximum length of a sample, in bytes.
pub const MAX_SAMPLE: usize = 32 * 1024;

/// The fault of a refused schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaFault(String);

impl SchemaFault {
    fn new(message: String) -> Self {
        Self(message)
    }
}

/// A schema. The checks are compiled, and the sample is made, at the first use.
pub struct Schema {
    text: String,
    /// Memory of the patterns, in bytes.
    patterns: OnceLock<usize>,
    compiled: OnceLock<Option<Compiled>>,
    sample: OnceLock<String>,
}

struct Compiled {
    root: Value,
    validator: Validator,
    /// Finds the place of a fault. Compiled at the first fault.
    explaining: OnceLock<Option<Validator>>,
}

/// The first fault of data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// JSON pointer into the data; empty for the data as a whole.
    pub pointer: String,
    /// The broken rule, with the start of the value.
    pub reason: String,
}

/// The same text.
impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Schema").field("text", &self.text).finish_non_exhaustive()
    }
}

impl Schema {
    /// Checks and compiles a schema. The text is kept as compact JSON.
    ///
    /// # Errors
    /// If the text is not a schema of draft 2020-12, refers to anything outside of itself, or may cost too much.
    pub fn parse(text: &str) -> Result<Self, SchemaFault> {
        let schema = Self::stored(json::compact(text));
        if schema.text.len() > MAX_SCHEMA {
            return Err(SchemaFault::new(format!("has {} bytes, and {MAX_SCHEMA} are allowed", schema.text.len())));
        }
        json::check(&schema.text).map_err(|fault| SchemaFault::new(format!("cannot be read: {fault}")))?;
        let root = schema.value();
        if !root.is_object() {
            return Err(SchemaFault::new("must be a JSON object".to_owned()));
        }
        if let Err(error) = jsonschema::draft202012::meta::validate(&root) {
            return Err(SchemaFault::new(format!(
                "is no JSON Schema of draft 2020-12: at {}, {}",
                place(error.instance_path().as_str()),
                cut(&error.masked_with("the value").to_string(), 200)
            )));
        }
        let patterns = cost::check(&graph::Graph::read(&root)?)?;
        let compiled = compile(root).map_err(|reason| SchemaFault::new(format!("cannot be used: {reason}")))?;
        let (patterns, compiled) = (OnceLock::from(patterns), OnceLock::from(Some(compiled)));
        Ok(Self { text: schema.text, patterns, compiled, sample: OnceLock::new() })
    }

    /// A schema that [`Self::parse`] accepted before.
    pub fn stored(text: String) -> Self {
        Self { text, patterns: OnceLock::new(), compiled: OnceLock::new(), sample: OnceLock::new() }
    }

    /// Compact JSON.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Share of the application's sum of schemas, in bytes: the text, and the memory of the compiled patterns.
    pub fn size(&self) -> usize {
        let patterns = || {
            let root = self.value();
            graph::Graph::read(&root).and_then(|graph| cost::check(&graph)).unwrap_or_default()
        };
        self.text.len() + self.patterns.get_or_init(patterns)
    }

    /// True for the same JSON value.
    pub fn is_same(&self, other: &Self) -> bool {
        self.value() == other.value()
    }

    /// A value that fits the schema, at most [`MAX_SAMPLE`] bytes of JSON. Contradictory rules have no fitting value.
    pub fn sample(&self) -> &str {
        self.sample.get_or_init(|| sample::of(&self.value(), |sample| self.check_value(sample, true).is_ok()))
    }

    /// Checks data, which [`json::check`] accepts. With `shows_values`, the reason may show a short value.
    ///
    /// # Errors
    /// With the first fault.
    pub fn check(&self, data: &str, shows_values: bool) -> Result<(), Mismatch> {
        match serde_json::from_str(data) {
            Ok(value) => self.check_value(&value, shows_values),
            // Half of a surrogate pair is JSON, but no text that a rule could look at.
            Err(error) => Err(Mismatch { pointer: String::new(), reason: format!("cannot be checked: {error}") }),
        }
    }

    /// True if the data fits.
    fn accepts(&self, data: &str) -> bool {
        let value = serde_json::from_str::<Value>(data);
        value.is_ok_and(|value| self.compiled().is_some_and(|compiled| compiled.validator.is_valid(&value)))
    }

    fn compiled(&self) -> Option<&Compiled> {
        self.compiled.get_or_init(|| compile(self.value()).ok()).as_ref()
    }

    fn check_value(&self, data: &Value, shows_values: bool) -> Result<(), Mismatch> {
        let Some(compiled) = self.compiled() else {
            let reason = "this release of Fanfare cannot use the schema: write the schema again".to_owned();
            return Err(Mismatch { pointer: String::new(), reason });
        };
        if compiled.validator.is_valid(data) {
            return Ok(());
        }
        Err(explain::first_fault(compiled, data, shows_values))
    }

    fn value(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

/// Compiles a schema, without access to files or the network.
fn compile(root: Value) -> Result<Compiled, String> {
    Ok(Compiled { validator: validator(&root)?, root, explaining: OnceLock::new() })
}

fn validator(root: &Value) -> Result<Validator, String> {
    // A larger lazy automaton would be kept for each pattern and thread.
    let patterns = PatternOptions::regex().size_limit(4 * 1024 * 1024).dfa_size_limit(64 * 1024);
    let options = jsonschema::draft202012::options().with_pattern_options(patterns).should_validate_formats(false);
    let built = options.offline().build(root);
    built.map_err(|error| format!("at {}, {}", place(error.schema_path().as_str()), cut(&error.to_string(), 200)))
}

/// A JSON pointer for people.
fn place(pointer: &str) -> String {
    if pointer.is_empty() { "the top".to_owned() } else { cut(pointer, 200) }
}

/// The start of a text, at most `most` characters.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The schemas of an application's event types, by type and version.
#[derive(Debug, Clone, Default)]
pub struct Schemas(BTreeMap<EventType, BTreeMap<u32, Arc<Schema>>>);

impl Schemas {
    /// Adds a version of a type.
    pub fn add(&mut self, event_type: EventType, version: u32, schema: Arc<Schema>) {
        self.0.entry(event_type).or_default().insert(version, schema);
    }

    /// Takes each unchanged schema from `known`, which may be compiled already.
    #[must_use]
    pub fn sharing(mut self, known: &Self) -> Self {
        for (event_type, versions) in &mut self.0 {
            let Some(known) = known.0.get(event_type) else { continue };
            for (version, schema) in versions {
                match known.get(version) {
                    Some(same) if same.text == schema.text => *schema = Arc::clone(same),
                    _ => {}
                }
            }
        }
        self
    }

    /// The named version of a type's schema, or the newest.
    fn find(&self, event_type: &EventType, version: Option<u32>) -> Option<(&u32, &Arc<Schema>)> {
        let versions = self.0.get(event_type)?;
        match version {
            None => versions.last_key_value(),
            Some(wanted) => versions.get_key_value(&wanted),
        }
    }

    /// True if [`Self::check`] finds no fault.
    pub fn accepts(&self, event_type: &EventType, version: Option<u32>, data: &str) -> bool {
        self.find(event_type, version).map_or(version.is_none(), |(_, schema)| schema.accepts(data))
    }

    /// Checks the data of an event against the version that the event names, or the newest version. Data of a type
    /// without a schema fits. With `shows_values`, the fault may show a short value.
    ///
    /// # Errors
    /// If the type has no such version, or the data does not fit.
    pub fn check(
        &self,
        event_type: &EventType,
        version: Option<u32>,
        data: &str,
        shows_values: bool,
    ) -> Result<(), EventFault> {
        let (number, schema) = match (self.find(event_type, version), version) {
            (Some(found), _) => found,
            (None, None) => return Ok(()),
            (None, Some(wanted)) => {
                let newest = self.find(event_type, None);
                let has =
                    newest.map_or_else(|| "no schema".to_owned(), |(newest, _)| format!("versions 1 to {newest}"));
                let message = format!("is {wanted}, and {event_type} has {has}");
                return Err(EventFault::new(FaultCode::InvalidField, "version", &message));
            }
        };
        schema.check(data, shows_values).map_err(|mismatch| {
            let Mismatch { pointer, reason } = mismatch;
            let message = format!("does not fit version {number} of the schema, at {}: {reason}", place(&pointer));
            EventFault::new(FaultCode::DataMismatch, "data", &message)
        })
    }
}

#[cfg(test)]
mod tests;

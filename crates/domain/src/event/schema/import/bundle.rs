//! Bundling: a schema of a document becomes a schema of its own, with all referenced parts in `$defs`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{cut, last_part, resolved, target};
use crate::event::schema::{MAX_APPLICATION, MAX_SCHEMA};

/// Keywords whose value is data, not a schema.
const LITERALS: [&str; 5] = ["const", "enum", "default", "example", "examples"];

/// Keywords whose value is an object of schemas by name.
const NAMED: [&str; 5] = ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"];

/// Number of values that may still be copied for all schemas of a document.
pub(super) struct Budget(usize);

impl Budget {
    /// The sum of an application's schemas bounds what can be imported.
    pub(super) fn new() -> Self {
        Self(MAX_APPLICATION)
    }
}

/// Copies a schema. With `only_data`, the schema of the member `data`.
///
/// # Errors
/// If the schema refers to another document, or to nothing, or is too large.
pub(super) fn bundle(document: &Value, schema: &Value, only_data: bool, budget: &mut Budget) -> Result<Value, String> {
    let schema = if only_data { &resolved(document, schema)["properties"]["data"] } else { schema };
    let mut bundling = Bundling {
        names: HashMap::new(),
        taken: HashSet::new(),
        numbers: HashMap::new(),
        waiting: Vec::new(),
        left: MAX_SCHEMA,
        budget,
    };
    let mut bundled = bundling.copy(schema)?;
    let mut definitions = Map::new();
    while let Some((name, reference)) = bundling.waiting.pop() {
        let shown = cut(&reference, 100);
        let found = target(document, &reference).filter(|found| found.is_object() || found.is_boolean());
        let found = found.ok_or_else(|| format!("its schema refers to {shown}, and there is no schema"))?;
        definitions.insert(name, bundling.copy(found)?);
    }
    if !definitions.is_empty() {
        let keywords = bundled.as_object_mut().ok_or("its schema is no JSON object")?;
        // References into definitions of the schema itself were references into the document.
        keywords.insert("$defs".to_owned(), Value::Object(definitions));
    }
    Ok(bundled)
}

struct Bundling<'a> {
    /// Names of the referenced parts in `$defs`.
    names: HashMap<String, String>,
    taken: HashSet<String>,
    /// The next number of a name that is wanted again.
    numbers: HashMap<String, u32>,
    /// Referenced parts that are not copied yet: name and reference.
    waiting: Vec<(String, String)>,
    /// Number of values that may still be copied. A longer schema is refused anyway.
    left: usize,
    budget: &'a mut Budget,
}

impl Bundling<'_> {
    /// Copies a schema, with its references led to `$defs`.
    fn copy(&mut self, schema: &Value) -> Result<Value, String> {
        let Some(keywords) = schema.as_object() else { return self.literal(schema) };
        self.count(1)?;
        let mut copied = Map::new();
        for (keyword, value) in keywords {
            let value = match value {
                Value::String(reference) if keyword == "$ref" => Value::from(self.reference(reference)?),
                // The definitions that are needed are copied by their references.
                _ if keyword == "$defs" || keyword == "definitions" => continue,
                _ if LITERALS.contains(&keyword.as_str()) => self.literal(value)?,
                Value::Object(schemas) if NAMED.contains(&keyword.as_str()) => {
                    let copies = schemas.iter().map(|(name, schema)| Ok((name.clone(), self.copy(schema)?)));
                    Value::Object(copies.collect::<Result<_, String>>()?)
                }
                Value::Array(items) => {
                    Value::Array(items.iter().map(|item| self.copy(item)).collect::<Result<_, _>>()?)
                }
                value => self.copy(value)?,
            };
            copied.insert(keyword.clone(), value);
        }
        Ok(Value::Object(copied))
    }

    fn literal(&mut self, value: &Value) -> Result<Value, String> {
        self.count(crate::event::schema::cost::values(value))?;
        Ok(value.clone())
    }

    fn count(&mut self, values: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(values).ok_or_else(|| {
            format!("its schema has more than {MAX_SCHEMA} bytes with all parts that the schema refers to")
        })?;
        self.budget.0 =
            self.budget.0.checked_sub(values).ok_or_else(|| {
                format!("the schemas of the document have more than {MAX_APPLICATION} bytes together")
            })?;
        Ok(())
    }

    /// The reference to a part in `$defs`.
    fn reference(&mut self, reference: &str) -> Result<String, String> {
        if !reference.starts_with("#/") {
            return Err(format!(
                "its schema refers to {}: refer only to parts of the same document, such as #/components/schemas/order",
                cut(reference, 100)
            ));
        }
        if let Some(name) = self.names.get(reference) {
            return Ok(format!("#/$defs/{name}"));
        }
        let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || "._-".contains(*letter);
        let base: String = last_part(reference).chars().filter(is_plain).collect();
        let mut name = base.clone();
        while name.is_empty() || !self.taken.insert(name.clone()) {
            let number = self.numbers.entry(base.clone()).or_insert(2);
            name = format!("{base}_{number}");
            *number += 1;
        }
        self.names.insert(reference.to_owned(), name.clone());
        self.waiting.push((name.clone(), reference.to_owned()));
        Ok(format!("#/$defs/{name}"))
    }
}

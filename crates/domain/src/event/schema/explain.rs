//! The place and the reason of a fault.

use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value};

use super::{
    Compiled, Mismatch, cut,
    graph::{Graph, Position},
    validator,
};

/// Longest start of a value in a reason, in characters.
const MAX_VALUE: usize = 50;

/// Longest reason, in characters.
const MAX_REASON: usize = 200;

/// The first fault of data that does not fit. The message shows a value only with `shows_values`.
pub(super) fn first_fault(compiled: &Compiled, data: &Value, shows_values: bool) -> Mismatch {
    let explaining = compiled.explaining.get_or_init(|| validator(&explained(&compiled.root)).ok());
    let Some(Err(error)) = explaining.as_ref().map(|explaining| explaining.validate(data)) else {
        let reason = "a member or an entry is not allowed by unevaluatedProperties or unevaluatedItems".to_owned();
        return Mismatch { pointer: String::new(), reason };
    };
    let value = if shows_values { cut(&error.instance().to_string(), MAX_VALUE) } else { "the value".to_owned() };
    let reason = match error.kind() {
        // The explaining schema has its alternatives within two negations.
        ValidationErrorKind::Not { .. } => format!("{value} fits no alternative, or is excluded by `not`"),
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            format!("the member {} is not allowed", unexpected.first().map(String::as_str).unwrap_or_default())
        }
        ValidationErrorKind::FalseSchema => "no value is allowed here".to_owned(),
        _ => error.masked_with(value).to_string(),
    };
    Mismatch { pointer: error.instance_path().as_str().to_owned(), reason: cut(&reason, MAX_REASON) }
}

/// The same schema in a form whose faults have bounded size. A fault of `anyOf` or `oneOf` lists the faults of all
/// alternatives, at all values below; a fault of `not` lists none. Rules for unevaluated members are left out, because
/// a negation forgets the evaluated members.
pub(super) fn explained(root: &Value) -> Value {
    let Ok(graph) = Graph::read(root) else { return Value::Bool(true) };
    let reference = |number: usize| serde_json::json!({ "$ref": format!("#/$defs/{number}") });
    let mut definitions = Map::new();
    for (number, node) in graph.nodes.iter().enumerate() {
        let Value::Object(keywords) = node.schema else {
            definitions.insert(number.to_string(), node.schema.clone());
            continue;
        };
        let mut made = keywords.clone();
        for name in ["$defs", "definitions", "$id", "$schema", "unevaluatedProperties", "unevaluatedItems"] {
            made.remove(name);
        }
        for edge in &node.edges {
            // A reference to `false` would hide the rule that has `false`.
            if !made.contains_key(edge.keyword) || graph.nodes[edge.target].schema.is_boolean() {
                continue;
            }
            let target = reference(edge.target);
            match edge.position {
                Position::Only if edge.keyword == "$ref" => made["$ref"] = target["$ref"].clone(),
                Position::Only => made[edge.keyword] = target,
                Position::Name(name) => made[edge.keyword][name] = target,
                Position::Index(index) => made[edge.keyword][index] = target,
            }
        }
        for name in ["anyOf", "oneOf"] {
            if let Some(alternatives) = made.remove(name) {
                let negated = serde_json::json!({ "not": { "not": { name: alternatives } } });
                match made.get_mut("allOf").and_then(Value::as_array_mut) {
                    Some(all) => all.push(negated),
                    None => {
                        made.insert("allOf".to_owned(), serde_json::json!([negated]));
                    }
                }
            }
        }
        definitions.insert(number.to_string(), Value::Object(made));
    }
    serde_json::json!({ "$ref": "#/$defs/0", "$defs": definitions })
}

//! The subschemas of a schema, and the ways between them.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{MAX_SUBSCHEMAS, SchemaFault};

/// The only accepted value of `$schema`.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Keywords that name places for references, or that another draft has. A reference is a JSON pointer instead.
const REFUSED: [(&str, &str); 7] = [
    ("$anchor", "refer to a subschema by its path, such as #/$defs/address"),
    ("$dynamicAnchor", "refer to a subschema by its path, such as #/$defs/address"),
    ("$dynamicRef", "use $ref"),
    ("$recursiveRef", "use $ref"),
    ("$recursiveAnchor", "use $ref"),
    ("dependencies", "use dependentRequired or dependentSchemas"),
    ("additionalItems", "use prefixItems and items"),
];

/// Keywords with a subschema.
const SINGLE: [&str; 12] = [
    "not",
    "if",
    "then",
    "else",
    "items",
    "contains",
    "unevaluatedItems",
    "additionalProperties",
    "propertyNames",
    "unevaluatedProperties",
    "contentSchema",
    "$ref",
];

/// Keywords with subschemas by name.
const NAMED: [&str; 5] = ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"];

/// Keywords with a list of subschemas.
const LISTED: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];

/// Position of a subschema below its keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position<'a> {
    Only,
    Name(&'a str),
    Index(usize),
}

/// A way from a subschema to another. For `$ref`, the target is the referenced subschema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge<'a> {
    pub(super) keyword: &'static str,
    pub(super) position: Position<'a>,
    pub(super) target: usize,
}

impl Edge<'_> {
    /// True if the target applies to the same value.
    pub(super) fn is_in_place(&self) -> bool {
        let in_place = ["$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"];
        in_place.contains(&self.keyword)
    }

    /// True if the target applies to no value by this way.
    pub(super) fn is_definition(&self) -> bool {
        matches!(self.keyword, "$defs" | "definitions" | "contentSchema")
    }
}

/// A subschema.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// An object or a boolean.
    pub(super) schema: &'a Value,
    pub(super) edges: Vec<Edge<'a>>,
}

impl<'a> Node<'a> {
    /// A keyword's value.
    pub(super) fn keyword(&self, name: &str) -> Option<&'a Value> {
        self.schema.get(name)
    }
}

/// All subschemas of a schema. The first is the schema itself.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<Node<'a>>,
}

impl<'a> Graph<'a> {
    /// Reads a schema that the metaschema accepts.
    ///
    /// # Errors
    /// With a keyword that is refused, a reference without a subschema, or too many subschemas.
    pub(super) fn read(root: &'a Value) -> Result<Self, SchemaFault> {
        let mut reading = Reading { root, nodes: Vec::new(), known: HashMap::new() };
        reading.node(root)?;
        let mut next = 0;
        while next < reading.nodes.len() {
            let schema = reading.nodes[next].schema;
            if let Value::Object(keywords) = schema {
                reading.nodes[next].edges = reading.edges(keywords, next == 0)?;
            }
            next += 1;
        }
        Ok(Self { nodes: reading.nodes })
    }
}

struct Reading<'a> {
    root: &'a Value,
    nodes: Vec<Node<'a>>,
    /// Numbers of the nodes, by the address of the value in the schema.
    known: HashMap<*const Value, usize>,
}

impl<'a> Reading<'a> {
    /// The number of a subschema.
    fn node(&mut self, schema: &'a Value) -> Result<usize, SchemaFault> {
        if let Some(&number) = self.known.get(&std::ptr::from_ref(schema)) {
            return Ok(number);
        }
        if self.nodes.len() == MAX_SUBSCHEMAS {
            return Err(SchemaFault::new(format!("has more than {MAX_SUBSCHEMAS} subschemas")));
        }
        self.known.insert(std::ptr::from_ref(schema), self.nodes.len());
        self.nodes.push(Node { schema, edges: Vec::new() });
        Ok(self.nodes.len() - 1)
    }

    fn edges(&mut self, keywords: &'a Map<String, Value>, is_root: bool) -> Result<Vec<Edge<'a>>, SchemaFault> {
        check_keywords(keywords, is_root)?;
        let mut edges = Vec::new();
        let mut add = |edge: Edge<'a>| edges.push(edge);
        for keyword in SINGLE {
            let Some(value) = keywords.get(keyword) else { continue };
            let value = if keyword == "$ref" { self.referenced(value)? } else { value };
            add(Edge { keyword, position: Position::Only, target: self.node(value)? });
        }
        for keyword in NAMED {
            for (name, value) in keywords.get(keyword).and_then(Value::as_object).into_iter().flatten() {
                add(Edge { keyword, position: Position::Name(name), target: self.node(value)? });
            }
        }
        for keyword in LISTED {
            for (index, value) in keywords.get(keyword).and_then(Value::as_array).into_iter().flatten().enumerate() {
                add(Edge { keyword, position: Position::Index(index), target: self.node(value)? });
            }
        }
        Ok(edges)
    }

    fn referenced(&self, reference: &Value) -> Result<&'a Value, SchemaFault> {
        let text = reference.as_str().unwrap_or_default();
        let shown: String = text.chars().take(100).collect();
        let Some(pointer) = text.strip_prefix('#').filter(|pointer| !pointer.contains('%')) else {
            return Err(SchemaFault::new(format!(
                "has the $ref {shown:?}: refer only to parts of the same schema, by a path such as #/$defs/address"
            )));
        };
        let target = self.root.pointer(pointer).filter(|target| target.is_object() || target.is_boolean());
        target.ok_or_else(|| SchemaFault::new(format!("has the $ref {shown:?}, and no subschema there")))
    }
}

fn check_keywords(keywords: &Map<String, Value>, is_root: bool) -> Result<(), SchemaFault> {
    for (keyword, advice) in REFUSED {
        if keywords.contains_key(keyword) {
            return Err(SchemaFault::new(format!("has the keyword {keyword}, which is refused: {advice}")));
        }
    }
    if keywords.contains_key("$id") && !is_root {
        return Err(SchemaFault::new("has $id in a subschema: leave $id out".to_owned()));
    }
    match keywords.get("$schema") {
        Some(dialect) if dialect != DIALECT && dialect.as_str() != Some(&format!("{DIALECT}#")) => {
            Err(SchemaFault::new(format!("has another $schema than {DIALECT}: write the schema in draft 2020-12")))
        }
        _ => Ok(()),
    }
}

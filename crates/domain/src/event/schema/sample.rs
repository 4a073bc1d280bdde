//! Samples: a value that fits a schema, always the same.

use serde_json::{Map, Number, Value};

use super::{MAX_SAMPLE, cost::values};

/// Depth below which optional members and optional entries are left out.
const MAX_OPTIONAL_DEPTH: usize = 5;

/// Depth of a sample at most: recursive schemas can ask for more than any data has.
const MAX_SAMPLE_DEPTH: usize = 30;

/// Entries of a list, and characters of a text, that a schema may ask for.
const MAX_ENTRIES: u64 = 100;
const MAX_TEXT: u64 = 4000;

/// Greatest number of values in a sample.
const MAX_VALUES: usize = 2000;

/// Number of alternatives of `anyOf` and `oneOf` to try.
const ALTERNATIVES: usize = 4;

/// The JSON of the first sample that fits, otherwise of the first sample.
pub(super) fn of(root: &Value, fits: impl Fn(&Value) -> bool) -> String {
    let mut first = None;
    // Examples and defaults may contradict the schema.
    for uses_examples in [true, false] {
        for alternative in 0..ALTERNATIVES {
            let mut making = Making { root, uses_examples, alternative, values: 0 };
            let sample = making.value(root, 0, 0);
            let text = sample.to_string();
            let text = if text.len() > MAX_SAMPLE { "{}".to_owned() } else { text };
            if fits(&sample) {
                return text;
            }
            first.get_or_insert(text);
        }
    }
    first.unwrap_or_else(|| "{}".to_owned())
}

struct Making<'a> {
    root: &'a Value,
    uses_examples: bool,
    /// Number of the alternative to take, if there are as many.
    alternative: usize,
    /// Values made so far.
    values: usize,
}

impl Making<'_> {
    /// A value for a schema. `nth` distinguishes the entries of a list.
    fn value(&mut self, schema: &Value, depth: usize, nth: u64) -> Value {
        self.values += 1;
        let mut rules = Map::new();
        self.collect(schema, &mut rules);
        if let Some(value) = self.given(&rules, nth) {
            self.values += values(value);
            return value.clone();
        }
        if depth > MAX_SAMPLE_DEPTH || self.values > MAX_VALUES {
            return Value::Null;
        }
        match kind(&rules) {
            "array" => self.array(&rules, depth),
            "string" => Value::String(text(&rules, nth)),
            "integer" => number(&rules, nth, true),
            "number" => number(&rules, nth, false),
            "boolean" => Value::Bool(true),
            "null" => Value::Null,
            _ => self.object(&rules, depth),
        }
    }

    /// Gathers the rules for a value: of the schema, its reference, all of `allOf`, and an alternative.
    fn collect(&self, schema: &Value, rules: &mut Map<String, Value>) {
        let Some(keywords) = schema.as_object() else { return };
        for (keyword, value) in keywords {
            merge(rules, keyword, value);
        }
        let referenced = keywords.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
        if let Some(target) = referenced.and_then(|pointer| self.root.pointer(pointer)) {
            self.collect(target, rules);
        }
        for part in keywords.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.collect(part, rules);
        }
        for name in ["anyOf", "oneOf"] {
            let alternatives = keywords.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            if let Some(last) = alternatives.len().checked_sub(1) {
                self.collect(&alternatives[self.alternative.min(last)], rules);
            }
        }
    }

    /// A value that the schema names.
    fn given<'r>(&self, rules: &'r Map<String, Value>, nth: u64) -> Option<&'r Value> {
        let entry = |name: &str| {
            let entries = rules.get(name)?.as_array().filter(|entries| !entries.is_empty())?;
            entries.get(usize::try_from(nth).ok()? % entries.len())
        };
        let example = || entry("examples").or_else(|| rules.get("example")).or_else(|| rules.get("default"));
        rules.get("const").or_else(|| self.uses_examples.then(example).flatten()).or_else(|| entry("enum"))
    }

    fn object(&mut self, rules: &Map<String, Value>, depth: usize) -> Value {
        let empty = Map::new();
        let properties = rules.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let required: Vec<&str> =
            rules.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut made = Map::new();
        for (name, schema) in properties {
            let is_wanted = depth < MAX_OPTIONAL_DEPTH && *schema != Value::Bool(false);
            if is_wanted || required.contains(&name.as_str()) {
                made.insert(name.clone(), self.value(schema, depth + 1, 0));
            }
        }
        let others = rules.get("additionalProperties").unwrap_or(&Value::Bool(true));
        for name in required {
            if !made.contains_key(name) {
                made.insert(name.to_owned(), self.value(others, depth + 1, 0));
            }
        }
        let least = rules.get("minProperties").and_then(Value::as_u64).unwrap_or(0).min(MAX_ENTRIES);
        for nth in 1.. {
            if made.len() as u64 >= least {
                break;
            }
            made.insert(format!("member_{nth}"), self.value(others, depth + 1, nth));
        }
        Value::Object(made)
    }

    fn array(&mut self, rules: &Map<String, Value>, depth: usize) -> Value {
        let count = |name: &str| rules.get(name).and_then(Value::as_u64);
        let prefix = rules.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let contained = rules.get("contains");
        let items = rules.get("items").or(contained).unwrap_or(&Value::Bool(true));
        let wants_one = depth < MAX_OPTIONAL_DEPTH && rules.contains_key("items") && *items != Value::Bool(false);
        let contained = contained.map_or(0, |_| count("minContains").unwrap_or(1));
        let wanted = if depth < MAX_OPTIONAL_DEPTH { prefix.len() as u64 } else { 0 };
        let wanted = wanted.max(u64::from(wants_one)).max(contained).max(count("minItems").unwrap_or(0));
        let wanted = wanted.min(count("maxItems").unwrap_or(MAX_ENTRIES)).min(MAX_ENTRIES);
        let entry = |nth: u64| usize::try_from(nth).ok().and_then(|nth| prefix.get(nth)).unwrap_or(items);
        (0..wanted).map(|nth| self.value(entry(nth), depth + 1, nth)).collect()
    }
}

/// Adds a rule for the same value: both hold.
fn merge(rules: &mut Map<String, Value>, keyword: &str, value: &Value) {
    let Some(known) = rules.get_mut(keyword) else {
        rules.insert(keyword.to_owned(), value.clone());
        return;
    };
    match (keyword, known, value) {
        ("properties", Value::Object(known), Value::Object(more)) => {
            for (name, schema) in more {
                match known.get_mut(name) {
                    Some(both) => join(both, schema),
                    None => {
                        known.insert(name.clone(), schema.clone());
                    }
                }
            }
        }
        ("required", Value::Array(known), Value::Array(more)) => known.extend(more.iter().cloned()),
        ("enum", Value::Array(known), Value::Array(more)) => known.retain(|entry| more.contains(entry)),
        ("type", known, more) => {
            let both: Vec<Value> = kinds(known).filter(|kind| kinds(more).any(|other| is_kind(kind, other))).collect();
            let narrow: Vec<Value> =
                kinds(more).filter(|kind| kinds(known).any(|other| is_kind(kind, other))).collect();
            *known = Value::from(if both.is_empty() { narrow } else { both });
        }
        ("minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties", known, more)
            if more.as_f64() > known.as_f64() =>
        {
            *known = more.clone();
        }
        ("maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties", known, more)
            if more.as_f64() < known.as_f64() =>
        {
            *known = more.clone();
        }
        _ => {}
    }
}

/// Makes a schema of two that both hold. Extends a list of such schemas: a nest would grow with each repetition.
fn join(both: &mut Value, schema: &Value) {
    let is_list = both.as_object().is_some_and(|keywords| keywords.len() == 1 && keywords.contains_key("allOf"));
    match both.get_mut("allOf").and_then(Value::as_array_mut).filter(|_| is_list) {
        Some(list) => list.push(schema.clone()),
        None => {
            let list = Value::Array(vec![both.take(), schema.clone()]);
            *both = Value::Object(Map::from_iter([("allOf".to_owned(), list)]));
        }
    }
}

fn kinds(value: &Value) -> impl Iterator<Item = Value> + '_ {
    let listed = value.as_array().into_iter().flatten();
    listed.chain(value.is_string().then_some(value)).cloned()
}

/// True if each value of type `kind` is of type `other`.
fn is_kind(kind: &Value, other: Value) -> bool {
    *kind == other || *kind == "integer" && other == "number"
}

/// The type of the sample.
fn kind(rules: &Map<String, Value>) -> &str {
    let named = match rules.get("type") {
        Some(Value::Array(kinds)) => {
            let kinds = || kinds.iter().filter_map(Value::as_str);
            kinds().find(|kind| *kind != "null").or_else(|| kinds().next())
        }
        Some(kind) => kind.as_str(),
        None => None,
    };
    let hints = [
        ("object", ["properties", "required", "additionalProperties", "minProperties"]),
        ("array", ["items", "prefixItems", "minItems", "contains"]),
        ("string", ["pattern", "format", "minLength", "maxLength"]),
        ("number", ["minimum", "maximum", "exclusiveMinimum", "multipleOf"]),
    ];
    let hinted = || hints.iter().find(|(_, words)| words.iter().any(|word| rules.contains_key(*word)));
    named.unwrap_or_else(|| hinted().map_or("object", |(kind, _)| kind))
}

/// A text of the wanted format, pattern or length.
fn text(rules: &Map<String, Value>, nth: u64) -> String {
    let pattern = rules.get("pattern").and_then(Value::as_str);
    let format = rules.get("format").and_then(Value::as_str).and_then(of_format);
    let made = match (pattern.and_then(jsonschema_regex::pattern_witness), format) {
        (Some(text), _) => text,
        (None, Some(text)) if nth == 0 => text.to_owned(),
        (None, Some(text)) => format!("{text}{nth}"),
        (None, None) if nth == 0 => "text".to_owned(),
        (None, None) => format!("text {nth}"),
    };
    let length = |name: &str| rules.get(name).and_then(Value::as_u64);
    let least = length("minLength").unwrap_or(0).min(MAX_TEXT);
    let most = length("maxLength").unwrap_or(MAX_TEXT).min(MAX_TEXT);
    let filler = made.chars().last().unwrap_or('x');
    let count = usize::try_from(least.max(made.chars().count() as u64).min(most)).unwrap_or(0);
    made.chars().chain(std::iter::repeat(filler)).take(count).collect()
}

/// A text of a format of JSON Schema or OpenAPI.
fn of_format(format: &str) -> Option<&'static str> {
    Some(match format {
        "date-time" => "2026-06-18T12:00:00Z",
        "date" => "2026-06-18",
        "time" => "12:00:00Z",
        "duration" => "PT1H",
        "email" | "idn-email" => "name@example.com",
        "hostname" | "idn-hostname" => "example.com",
        "ipv4" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "uri" | "url" | "iri" => "https://example.com/",
        "uri-reference" | "iri-reference" => "/path",
        "uuid" => "01890a5d-ac96-774b-bcce-b302099a8057",
        "json-pointer" => "/member",
        _ => return None,
    })
}

/// A number within the bounds, and a multiple of `multipleOf`.
fn number(rules: &Map<String, Value>, nth: u64, is_integer: bool) -> Value {
    let bound = |name: &str| rules.get(name).and_then(Value::as_f64);
    let step = bound("multipleOf").filter(|step| *step > 0.0);
    let step = if is_integer { step.map(|step| if step.fract() == 0.0 { step } else { 1.0 }) } else { step };
    let (least, above) = (bound("minimum"), bound("exclusiveMinimum"));
    let (most, below) = (bound("maximum"), bound("exclusiveMaximum"));
    let unit = step.unwrap_or(1.0);
    let is_allowed = |value: &f64| {
        least.is_none_or(|least| *value >= least)
            && above.is_none_or(|above| *value > above)
            && most.is_none_or(|most| *value <= most)
            && below.is_none_or(|below| *value < below)
    };
    let low = above.into_iter().chain(least).reduce(f64::max);
    let high = below.into_iter().chain(most).reduce(f64::min);
    let offset = unit * (nth as f64);
    let mut candidates = vec![unit + offset, 0.0];
    if let Some(low) = low {
        let first = (low / unit).ceil() * unit;
        candidates.extend([first + offset, first + unit + offset, first, first + unit]);
    }
    if let Some(high) = high {
        let last = (high / unit).floor() * unit;
        candidates.extend([last - offset, last - unit - offset, last]);
    }
    if let (Some(low), Some(high), None, false) = (low, high, step, is_integer) {
        candidates.push(f64::midpoint(low, high));
    }
    let chosen = candidates.iter().copied().find(is_allowed).unwrap_or(candidates[0]);
    let is_whole = chosen.fract() == 0.0 && chosen.abs() < 9e15;
    let whole = is_whole.then(|| format!("{chosen:.0}").parse::<i64>().ok()).flatten();
    whole.map(Number::from).or_else(|| Number::from_f64(chosen)).map_or(Value::Null, Value::Number)
}

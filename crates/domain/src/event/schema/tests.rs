use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema(value: &Value) -> Schema {
    Schema::parse(&value.to_string()).unwrap_or_else(|fault| panic!("{value}: {fault}"))
}

fn fault(value: &Value) -> String {
    match Schema::parse(&value.to_string()) {
        Ok(_) => panic!("{} is accepted", cut(&value.to_string(), 500)),
        Err(fault) => fault.to_string(),
    }
}

fn mismatch(of: &Value, data: &Value) -> (String, String) {
    let mismatch = schema(of).check(&data.to_string(), true).expect_err("data that does not fit");
    (mismatch.pointer, mismatch.reason)
}

#[test]
fn a_fault_names_the_place_and_the_start_of_the_value() {
    let order = json!({
        "type": "object", "required": ["items"], "additionalProperties": false,
        "properties": { "items": { "type": "array", "items": { "$ref": "#/$defs/item" } }, "note": { "type": "string" } },
        "$defs": { "item": { "properties": { "price": { "type": "number", "minimum": 0 }, "a/b": { "maxLength": 3 } } } },
    });
    assert!(schema(&order).check(r#"{"items":[{"price":1}]}"#, true).is_ok());
    let found = |data: Value| mismatch(&order, &data);
    let at = |pointer: &str, reason: &str| (pointer.to_owned(), reason.to_owned());
    assert_eq!(found(json!({ "items": [{ "price": "x" }] })), at("/items/0/price", r#""x" is not of type "number""#));
    assert_eq!(found(json!({})), at("", r#""items" is a required property"#));
    assert_eq!(found(json!({ "items": [], "x": 1 })), at("", "the member x is not allowed"));
    assert_eq!(found(json!({ "items": [{ "a/b": "long" }] })).0, "/items/0/a~1b");
    let (pointer, reason) = found(json!({ "items": [], "note": vec![7; 1000] }));
    assert_eq!((pointer.as_str(), reason.chars().count()), ("/note", 51 + r#" is not of type "string""#.len()));
    let hidden = schema(&order).check(r#"{"items":[{"price":"secret"}]}"#, false).expect_err("a text");
    assert_eq!(hidden.reason, r#"the value is not of type "number""#);
}

#[test]
fn a_fault_of_alternatives_or_unevaluated_members_has_a_place() {
    let alternatives = json!({ "properties": { "a": {
        "allOf": [{ "minimum": 1 }], "oneOf": [{ "type": "string" }, { "type": "number", "maximum": 5 }] } } });
    assert!(schema(&alternatives).check(r#"{"a":5}"#, true).is_ok());
    let (pointer, reason) = mismatch(&alternatives, &json!({ "a": 6 }));
    assert_eq!((pointer.as_str(), reason.as_str()), ("/a", "6 fits no alternative, or is excluded by `not`"));
    let unevaluated = json!({ "allOf": [{ "properties": { "a": true } }], "unevaluatedProperties": false });
    assert!(schema(&unevaluated).check(r#"{"a":5}"#, true).is_ok());
    assert!(mismatch(&unevaluated, &json!({ "b": 6 })).1.contains("unevaluatedProperties"));
}

#[test]
fn what_is_no_schema_or_refers_outside_is_refused_with_its_place() {
    for (value, part) in [
        (json!(true), "JSON object"),
        (json!({ "type": "text" }), "/type"),
        (json!({ "properties": { "a": { "minLength": -1 } } }), "/properties/a/minLength"),
        (json!({ "items": [{}] }), "/items"),
        (json!({ "pattern": "(" }), "the pattern"),
        (json!({ "pattern": "(a)\\1" }), "the pattern"),
        (json!({ "pattern": "(?=a)b" }), "the pattern"),
        (json!({ "patternProperties": { "(?<!a)b": {} } }), "the pattern"),
        (json!({ "$ref": "https://example.com/schema.json" }), "$ref"),
        (json!({ "$ref": "file:///etc/passwd" }), "$ref"),
        (json!({ "$ref": "other.json#/a" }), "$ref"),
        (json!({ "$ref": "#/$defs/missing" }), "no subschema"),
        (json!({ "$ref": "#/const", "const": 1 }), "no subschema"),
        (json!({ "$schema": "http://json-schema.org/draft-07/schema#" }), "2020-12"),
        (json!({ "$defs": { "a": { "$id": "https://example.com/a" } } }), "$id"),
        (json!({ "$defs": { "a": { "$anchor": "a" } } }), "$anchor"),
        (json!({ "$dynamicRef": "#a" }), "$dynamicRef"),
        (json!({ "dependencies": { "a": ["b"] } }), "dependentRequired"),
        (json!({ "description": "x".repeat(MAX_SCHEMA) }), "bytes"),
        (json!({ "maximum": 1, "$defs": { "a": { "$schema": "x:y" } } }), "2020-12"),
    ] {
        let found = fault(&value);
        assert!(found.contains(part), "{value}: {found}");
    }
    let deep = "{\"not\":".repeat(101) + "{}" + &"}".repeat(101);
    assert!(Schema::parse(&deep).expect_err("deep").to_string().contains("nested"));
    assert!(Schema::parse("{").is_err());
    let named = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/order",
        "properties": { "$id": { "type": "string" }, "$ref": { "$ref": "#/$defs/a~1b" } }, "$defs": { "a/b": { "type": "null" } } });
    assert!(schema(&named).check(r#"{"$id":"x","$ref":null}"#, true).is_ok());
}

/// A chain of definitions, each of which refers to the next twice.
fn doubling(length: usize, refer: impl Fn(Value) -> Value) -> Value {
    let mut definitions = serde_json::Map::new();
    for number in 0..length {
        let next = json!({ "$ref": format!("#/$defs/{}", number + 1) });
        definitions.insert(number.to_string(), refer(next));
    }
    definitions.insert(length.to_string(), json!({ "type": "integer" }));
    json!({ "$ref": "#/$defs/0", "$defs": definitions })
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures time")]
fn a_schema_that_could_be_slow_is_refused() {
    let own = || json!({ "$ref": "#" });
    let binary: Vec<String> = (0..24).map(|nth| format!("[01]*1[01]{{{}}}$", 300 + nth)).collect();
    let patterns: Vec<Value> = binary.iter().map(|pattern| json!({ "pattern": pattern })).collect();
    for (what, value) in [
        ("doubling at one value", doubling(20, |next| json!({ "allOf": [next, next] }))),
        ("doubling at the members", doubling(20, |next| json!({ "properties": { "a": { "allOf": [next, next] } } }))),
        ("doubling by patterns", doubling(20, |next| json!({ "patternProperties": { "a": next, "^a": next } }))),
        ("doubling at the entries", doubling(20, |next| json!({ "items": next, "contains": next }))),
        ("doubling by recursion", json!({ "anyOf": [{ "items": own() }, { "items": own(), "minItems": 2 }] })),
        ("recursion by two names", json!({ "properties": { "a": own() }, "patternProperties": { "a": own() } })),
        ("recursion through names", json!({ "additionalProperties": own(), "unevaluatedProperties": own() })),
        ("a loop", own()),
        ("a loop of two", json!({ "allOf": [{ "$ref": "#/$defs/a" }], "$defs": { "a": { "not": own() } } })),
        ("a long chain", doubling(100, |next| json!({ "not": next }))),
        (
            "looking again",
            (0..12).fold(
                json!({ "type": "object" }),
                |inner, _| json!({ "anyOf": [inner, { "type": "null" }], "unevaluatedProperties": false }),
            ),
        ),
        ("a large pattern", json!({ "pattern": "(\\p{L}{1,100}){1,100}" })),
        ("nested repetitions", json!({ "pattern": "((((a{100}){100}){100}){100}){100}" })),
        ("many patterns at one value", json!({ "allOf": patterns })),
        (
            "many rules at each entry",
            json!({ "items": { "required": (0..1000).map(|nth| format!("a{nth}")).collect::<Vec<_>>() } }),
        ),
        ("a long enum at each entry", json!({ "items": { "enum": (0..1000).collect::<Vec<_>>() } })),
    ] {
        let started = Instant::now();
        let found = fault(&value);
        assert!(started.elapsed() < Duration::from_secs(5), "{what}: {:?}", started.elapsed());
        assert!(
            ["costs too much", "back to itself", "chain", "states"].iter().any(|part| found.contains(part)),
            "{what}: {found}"
        );
    }
}

#[test]
fn usual_schemas_are_within_the_bounds() {
    let reference = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    let members = |count: usize| -> Value {
        let members =
            (0..count).map(|nth| (format!("member_{nth}"), json!({ "type": ["string", "null"], "maxLength": 200 })));
        json!({ "type": "object", "properties": members.collect::<serde_json::Map<_, _>>(), "required": ["member_0"] })
    };
    for value in [
        json!({ "type": "object", "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" } } }),
        json!({ "properties": { "children": { "items": { "$ref": "#" } }, "name": { "pattern": "^[\\w .'-]{1,100}$" } } }),
        json!({ "anyOf": [{ "items": { "$ref": "#" } }, { "additionalProperties": { "$ref": "#" } }, { "type": "string" }] }),
        json!({ "oneOf": (0..30).map(|nth| json!({ "properties": { "kind": { "const": nth }, "of": reference("row") } })).collect::<Vec<_>>(),
            "$defs": { "row": members(50) } }),
        json!({ "items": members(100) }),
        json!({ "properties": { "country": { "enum": (0..250).map(|nth| format!("C{nth}")).collect::<Vec<_>>() } } }),
        json!({ "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" }),
        json!({ "pattern": "^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\\.[A-Za-z]{2,}$" }),
        json!({ "allOf": [members(20), { "if": { "required": ["member_1"] }, "then": { "required": ["member_2"] } }], "unevaluatedProperties": false }),
    ] {
        schema(&value);
    }
}

/// Longest data of an event, in bytes, without the names of the event's members.
const MAX_DATA: usize = 256 * 1024;

/// Accepted schemas near the bounds, each with the data that takes longest.
fn slowest() -> Vec<(&'static str, Value, String)> {
    // Without a period, so that the states of a pattern do not recur.
    let random = (0..MAX_DATA - 100).scan(1_u64, |state, _| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(if *state >> 63 == 0 { '0' } else { '1' })
    });
    let random = format!("\"{}\"", random.collect::<String>());
    let list = |part: &str| format!("[{part}{}]", format!(",{part}").repeat(MAX_DATA / (part.len() + 1) - 4));
    let names: Vec<String> = (0..390).map(|nth| format!("a{nth}")).collect();
    let optional: serde_json::Map<_, _> = names.iter().map(|name| (name.clone(), json!(true))).collect();
    let dependent: serde_json::Map<_, _> = (0..190).map(|nth| (format!("a{nth}"), json!(["b"]))).collect();
    let nested =
        |part: &str, end: &str| part.repeat(95) + &list("{\"a\":1}")[..MAX_DATA - 4000] + "}]" + &end.repeat(95);
    let recursive = json!({ "anyOf": [{ "type": "integer" }, { "items": { "$ref": "#" } },
        { "additionalProperties": { "$ref": "#" }, "required": names[..350] }] });
    let thrashing: Vec<Value> =
        (0..1).map(|nth| json!({ "not": { "pattern": format!("(0|1)*1[01]{{{}}}[^01]", 280 + nth) } })).collect();
    let alternatives: Vec<Value> = (0..120).map(|nth| json!({ "const": nth })).collect();
    let keyed: serde_json::Map<_, _> = (0..20).map(|nth| (format!("[01]*1[01]{{4}}[^0]{nth}"), json!(true))).collect();
    let keys: Vec<String> = (0..MAX_DATA / 21).map(|nth| format!("\"{nth:016b}\":1")).collect();
    vec![
        ("members of small objects", json!({ "items": { "properties": optional } }), list("{}")),
        ("required members", json!({ "items": { "not": { "required": names } } }), list("{}")),
        ("dependent members", json!({ "items": { "dependentRequired": dependent } }), list("{}")),
        ("an enum of numbers", json!({ "items": { "not": { "enum": (0..380).collect::<Vec<_>>() } } }), list("1.5")),
        ("an enum of texts", json!({ "items": { "not": { "enum": names } } }), list("\"a\"")),
        ("alternatives", json!({ "items": { "not": { "anyOf": alternatives } } }), list("7.5")),
        (
            "faulty alternatives",
            json!({ "items": { "anyOf": [{ "items": { "anyOf": alternatives } }] } }),
            format!("[{}]", list("7.5")),
        ),
        ("patterns on a long text", json!({ "allOf": thrashing }), random),
        ("patterns on names", json!({ "patternProperties": keyed }), format!("{{{}}}", keys.join(","))),
        (
            "unique entries",
            json!({ "uniqueItems": true }),
            format!("[{}]", (0..40_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",")),
        ),
        ("a recursive value", recursive, nested("[", "]")),
        ("multiples", json!({ "items": { "multipleOf": 1e-300 } }), list("1.7e308")),
    ]
}

/// The figures are in decision 0043. With `--nocapture`, the test prints them.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures time")]
fn the_slowest_accepted_schema_checks_the_worst_event_in_bounded_time() {
    for (what, value, data) in slowest() {
        assert!(data.len() <= MAX_DATA, "{what}: {}", data.len());
        let schema = schema(&value);
        let started = Instant::now();
        let fits = schema.check(&data, true).is_ok();
        let took = started.elapsed();
        println!("{what}: {took:?}, {} bytes, fits: {fits}", data.len());
        assert!(took < Duration::from_secs(20), "{what}: {took:?}");
    }
}

/// A check calls itself for each subschema at each level of the data.
#[test]
fn the_longest_chain_at_the_deepest_data_needs_little_stack() {
    let mut chain = json!({ "items": { "$ref": "#" } });
    for _ in 0..19 {
        chain = json!({ "anyOf": [chain] });
    }
    let schema = schema(&chain);
    let data = "[".repeat(json::MAX_DEPTH) + &"]".repeat(json::MAX_DEPTH);
    let check = move || schema.check(&data, true).is_ok();
    let checking = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(check);
    assert!(checking.expect("a thread").join().expect("no overflow"));
}

#[test]
fn an_event_is_checked_against_the_named_or_the_newest_version() {
    let event_type = EventType::parse("order.created").expect("a type");
    let other = EventType::parse("order.paid").expect("a type");
    let mut schemas = Schemas::default();
    for (version, kind) in [(1, "string"), (2, "number")] {
        schemas.add(event_type.clone(), version, Arc::new(schema(&json!({ "type": kind }))));
    }
    let check = |version, data| schemas.check(&event_type, version, data, true);
    assert_eq!((check(None, "1"), check(Some(2), "1"), check(Some(1), "\"a\"")), (Ok(()), Ok(()), Ok(())));
    let refused = check(None, "\"a\"").expect_err("a text");
    assert_eq!((refused.code, refused.field.as_deref()), (FaultCode::DataMismatch, Some("data")));
    assert_eq!(
        refused.to_string(),
        "`data` does not fit version 2 of the schema, at the top: \"a\" is not of type \"number\""
    );
    let unknown = check(Some(3), "1").expect_err("no such version");
    assert_eq!(unknown.to_string(), "`version` is 3, and order.created has versions 1 to 2");
    assert_eq!(schemas.check(&other, None, "1", true), Ok(()));
    let unknown = schemas.check(&other, Some(1), "1", true).expect_err("no schema");
    assert_eq!(unknown.to_string(), "`version` is 1, and order.paid has no schema");
}

#[test]
fn an_unchanged_schema_is_compiled_once() {
    let event_type = EventType::parse("a").expect("a type");
    let with = |texts: [&str; 2]| {
        let mut schemas = Schemas::default();
        for (text, version) in texts.iter().zip(1..) {
            schemas.add(event_type.clone(), version, Arc::new(Schema::stored((*text).to_owned())));
        }
        schemas
    };
    let known = with(["{}", "{\"type\":\"null\"}"]);
    let shared = with(["{}", "{\"type\":\"string\"}"]).sharing(&known);
    let is_shared = |version| Arc::ptr_eq(&known.0[&event_type][&version], &shared.0[&event_type][&version]);
    assert!(is_shared(1) && !is_shared(2));
    assert!(
        schema(&json!({ "type": "null", "title": "a" })).is_same(&schema(&json!({ "title": "a", "type": "null" })))
    );
}

/// Schemas without contradictions.
fn consistent() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({ "type": "boolean" })),
        Just(json!({ "type": ["null", "string"] })),
        Just(json!({ "const": { "a": [1] } })),
        Just(json!({ "enum": ["open", "closed"] })),
        Just(json!({ "type": "string", "format": "date-time" })),
        Just(json!({ "type": "string", "examples": ["fits"], "default": 1 })),
        Just(json!({ "type": "integer", "examples": ["contradicts"] })),
        Just(json!({ "$ref": "#/$defs/shared" })),
        ("[a-z]{1,3}", 0_u64..5, 0_u64..9)
            .prop_map(|(text, least, more)| json!({ "type": "string", "minLength": least,
            "maxLength": least + more, "description": text })),
        ("[A-Z]{2,4}(-[0-9]{3})?").prop_map(|text| json!({ "pattern": format!("^{text}$"), "type": "string" })),
        Just(json!({ "type": "string", "pattern": "^[a-z]{2,5}[0-9]+$" })),
        (-1000_i32..1000, 1_i32..50, 1_i32..7)
            .prop_map(|(least, span, step)| json!({ "type": "integer", "minimum": least,
            "maximum": least + span * step, "multipleOf": step })),
        (-10.0_f64..10.0, 0.5_f64..3.0).prop_map(|(low, span)| json!({ "type": "number", "exclusiveMinimum": low,
            "exclusiveMaximum": low + span })),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let members = proptest::collection::btree_map("[a-e]", inner.clone(), 0..5);
        prop_oneof![
            (members, any::<bool>(), 0_usize..4).prop_map(|(members, is_closed, least)| {
                let names: Vec<String> = members.keys().take(2).cloned().collect();
                let least = least.min(if is_closed { members.len() } else { 4 });
                json!({ "type": "object", "properties": members, "required": names, "minProperties": least,
                    "additionalProperties": !is_closed })
            }),
            (inner.clone(), 0_u64..3, 0_u64..3)
                .prop_map(|(items, least, more)| json!({ "type": "array", "items": items,
                "minItems": least, "maxItems": least + more })),
            (inner.clone(), inner.clone()).prop_map(|(first, second)| json!({ "type": "array",
                "prefixItems": [first, second], "items": false })),
            proptest::collection::vec(inner.clone(), 1..3).prop_map(|any| json!({ "anyOf": any })),
            inner.prop_map(|one| json!({ "allOf": [one, { "description": "both" }] })),
        ]
    })
}

proptest! {
    #[test]
    fn a_sample_fits_its_schema(mut value in consistent()) {
        value["$defs"] = json!({ "shared": { "type": "integer", "minimum": 3 } });
        let schema = schema(&value);
        let sample = schema.sample();
        prop_assert!(schema.check(sample, true).is_ok(), "{} for {}", sample, value);
        let again = Schema::stored(schema.text().to_owned());
        prop_assert_eq!(sample, again.sample());
        // The form that explains faults accepts the same data.
        let explaining = validator(&explain::explained(&value)).expect("a schema");
        for data in [sample, "null", "1", "\"open\"", "{}", "[]", "[1]", "{\"a\":1}"] {
            let data: Value = serde_json::from_str(data).expect("JSON");
            prop_assert_eq!(explaining.is_valid(&data), schema.check_value(&data, true).is_ok(), "{} for {}", data, value);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[{}\\[\\]\":,a-z$#/0-9]{0,60}") {
        let _ = Schema::parse(&text);
    }
}

#[test]
fn a_sample_of_a_recursive_or_demanding_schema_is_bounded() {
    for value in [
        json!({ "properties": { "a": { "$ref": "#" }, "b": { "$ref": "#" }, "c": { "$ref": "#" } } }),
        json!({ "required": ["a"], "properties": { "a": { "$ref": "#" } } }),
        json!({ "minItems": 1_000_000, "items": { "minLength": 1_000_000 } }),
        json!({ "minProperties": 1_000_000 }),
        json!({ "minLength": 1_000_000 }),
        // Merged one after the other, the rules for `a` must not become a deep nest.
        json!({ "allOf": vec![json!({ "properties": { "a": {} } }); 1_900] }),
    ] {
        assert!(schema(&value).sample().len() <= MAX_SAMPLE, "{value}");
    }
}

#[test]
fn the_size_counts_the_memory_of_patterns() {
    let beyond_text = |pattern: &str| {
        let schema = schema(&json!({ "pattern": pattern }));
        assert_eq!(schema.size(), Schema::stored(schema.text().to_owned()).size(), "also of a stored schema");
        schema.size() - schema.text().len()
    };
    assert_eq!(schema(&json!({ "type": "null" })).size(), r#"{"type":"null"}"#.len());
    assert!((2048..4096).contains(&beyond_text("^[A-Z]{2}$")));
    let (once, seven) = (beyond_text("^\\p{L}+$"), beyond_text("^\\p{L}{7}$"));
    assert!((100_000..300_000).contains(&once) && seven > 6 * once, "{once} {seven}");
}

/// The check of a long chain looks again for the evaluated members at each alternative.
#[test]
fn unevaluated_members_below_a_long_chain_cost_more() {
    let chain = |length: usize, looks: usize| {
        let names: Vec<String> = (0..looks).map(|nth| format!("a{nth}")).collect();
        let end = json!({ "required": names });
        let chain = (0..length).fold(end, |end, _| json!({ "anyOf": [end] }));
        json!({ "allOf": [chain], "unevaluatedProperties": false })
    };
    schema(&chain(2, 300));
    schema(&chain(20, 100));
    assert!(fault(&chain(20, 300)).contains("costs too much"));
}

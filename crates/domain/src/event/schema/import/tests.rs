use proptest::prelude::*;
use serde_json::json;

use super::{
    bundle::{Budget, bundle},
    *,
};

/// Name, category, description, sample, and the schema or the reason.
type Row = (String, Option<String>, Option<String>, Option<String>, Result<Value, String>);

fn rows(document: &Value) -> Vec<Row> {
    let row = |imported: ImportedType| {
        let schema = imported.schema.map(|schema| serde_json::from_str(schema.text()).expect("JSON"));
        (imported.name, imported.category, imported.description, imported.sample, schema)
    };
    read(document).expect("event types").into_iter().map(row).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn webhooks_of_openapi_3_1_are_read_with_their_parts() {
    let document = json!({
        "openapi": "3.1.0",
        "webhooks": {
            "order.created": { "post": { "tags": ["Orders"], "summary": "An order\n was made", "requestBody": { "content": {
                "application/json": { "schema": { "$ref": "#/components/schemas/Order" }, "example": { "id": 1 } } } } } },
            "order.paid": { "$ref": "#/components/pathItems/paid" },
            "order.lost": { "post": {} },
            "order created": { "post": { "requestBody": { "content": { "application/json": { "schema": {} } } } } },
            "order.odd": { "post": { "requestBody": { "content": { "application/json": {
                "schema": { "$ref": "other.yaml#/Order" } } } } } },
        },
        "components": {
            "schemas": {
                "Order": { "type": "object", "properties": { "id": { "type": "integer" },
                    "parent": { "$ref": "#/components/schemas/Order" }, "sum": { "$ref": "#/components/schemas/Money" } } },
                "Money": { "type": "string", "examples": [{ "$ref": "#/kept" }] },
                "Unused": { "type": "null" },
            },
            "pathItems": { "paid": { "post": { "requestBody": { "content": { "application/json": { "schema": {
                "properties": { "type": { "const": "order.paid" }, "data": { "$ref": "#/components/schemas/Money" } } },
                "examples": { "one": { "value": { "type": "order.paid", "data": "1 EUR" } } } } } } } } },
        },
    });
    let rows = rows(&document);
    let found = |name: &str| rows.iter().find(|row| row.0 == name).expect("the type").clone();
    let order = json!({ "type": "object", "properties": { "id": { "type": "integer" },
        "parent": { "$ref": "#/$defs/Order" }, "sum": { "$ref": "#/$defs/Money" } } });
    let money = json!({ "type": "string", "examples": [{ "$ref": "#/kept" }] });
    let whole = json!({ "$ref": "#/$defs/Order", "$defs": { "Order": order, "Money": money } });
    let expected = (some("Orders"), some("An order was made"), some("{\"id\":1}"), Ok(whole));
    let (_, category, description, sample, schema) = found("order.created");
    assert_eq!((category, description, sample, schema), expected);
    let (.., sample, schema) = found("order.paid");
    let data = json!({ "$ref": "#/$defs/Money", "$defs": { "Money": money } });
    assert_eq!((sample, schema), (some("\"1 EUR\""), Ok(data)), "the schema of `data` in a whole delivery");
    for (name, part) in [("order.lost", "requestBody"), ("order created", "its name"), ("order.odd", "other.yaml")] {
        let reason = found(name).4.expect_err(name);
        assert!(reason.contains(part), "{name}: {reason}");
    }
}

#[test]
fn schemas_of_openapi_3_0_are_translated() {
    let schema = json!({ "type": "object", "properties": {
        "nullable": { "type": "string", "nullable": true, "enum": ["a"] },
        "amount": { "type": "number", "minimum": 0, "exclusiveMinimum": true, "exclusiveMaximum": false, "default": { "nullable": true } } } });
    let content = json!({ "application/json; charset=utf-8": { "schema": schema } });
    let document =
        json!({ "openapi": "3.0.3", "x-webhooks": { "a": { "post": { "requestBody": { "content": content } } } } });
    let expected = json!({ "type": "object", "properties": {
        "nullable": { "type": ["string", "null"], "enum": ["a", null] },
        "amount": { "type": "number", "exclusiveMinimum": 0, "default": { "nullable": true } } } });
    assert_eq!(rows(&document)[0].4, Ok(expected));
}

#[test]
fn messages_of_asyncapi_2_and_3_are_read() {
    let number = json!({ "type": "number" });
    let of_2 = json!({
        "asyncapi": "2.6.0",
        "channels": {
            "user/signedup": { "subscribe": { "message": { "payload": number } } },
            "orders": { "description": "All orders", "publish": { "message": { "oneOf": [
                { "$ref": "#/components/messages/order.created" }, { "name": "order.paid", "payload": number },
                { "name": "order.lost", "schemaFormat": "application/vnd.apache.avro;version=1.9.0", "payload": number } ] } } },
            "again": { "subscribe": { "message": { "$ref": "#/components/messages/order.created" } } },
        },
        "components": { "messages": { "order.created": { "payload": number, "tags": [{ "name": "Orders" }],
            "examples": [{ "payload": 7 }] } } },
    });
    let mut found = rows(&of_2);
    found.sort_by(|first, second| first.0.cmp(&second.0));
    let names: Vec<&str> = found.iter().map(|row| row.0.as_str()).collect();
    assert_eq!(names, ["order.created", "order.lost", "order.paid", "user/signedup"], "each type once");
    assert_eq!(
        (found[0].1.as_deref(), found[0].3.as_deref(), &found[0].4),
        (Some("Orders"), Some("7"), &Ok(number.clone()))
    );
    assert!(found[1].4.as_ref().expect_err("avro").contains("avro"));
    assert_eq!(found[2].2.as_deref(), Some("All orders"));

    let of_3 = json!({
        "asyncapi": "3.0.0",
        "channels": { "orders": { "messages": {
            "created": { "$ref": "#/components/messages/created" },
            "order.paid": { "payload": { "schemaFormat": "application/schema+json;version=draft-2020-12", "schema": number } } } } },
        "components": { "messages": { "created": { "name": "order.created", "payload": number } } },
    });
    let mut found = rows(&of_3);
    found.sort_by(|first, second| first.0.cmp(&second.0));
    let found: Vec<_> = found.into_iter().map(|row| (row.0, row.4)).collect();
    assert_eq!(found, [("order.created".to_owned(), Ok(number.clone())), ("order.paid".to_owned(), Ok(number))]);
}

#[test]
fn other_documents_are_refused_and_large_schemas_too() {
    for (document, part) in [
        (json!({}), "`openapi` or `asyncapi`"),
        (json!([]), "`openapi` or `asyncapi`"),
        (json!({ "swagger": "2.0" }), "`openapi` or `asyncapi`"),
        (json!({ "openapi": "3.1.0", "paths": {} }), "describes no event"),
        (json!({ "asyncapi": "2.0.0", "channels": 7 }), "describes no event"),
    ] {
        let fault = read(&document).expect_err("no event types").to_string();
        assert!(fault.contains(part), "{document}: {fault}");
    }
    let schemas: Map<String, Value> = (0..5000)
        .map(|nth| {
            (
                nth.to_string(),
                json!({ "properties": { "a": { "$ref": format!("#/s/{}", nth + 1) }, "b": { "enum": vec![0; 20] } } }),
            )
        })
        .collect();
    let webhook =
        json!({ "post": { "requestBody": { "content": { "application/json": { "schema": { "$ref": "#/s/0" } } } } } });
    let webhooks: Map<String, Value> = (0..900).map(|nth| (format!("a{nth}"), webhook.clone())).collect();
    let large = json!({ "openapi": "3.1.0", "webhooks": webhooks, "s": schemas });
    let found = rows(&large);
    assert!(found.iter().all(|row| row.4.as_ref().is_err_and(|reason| reason.contains("bytes"))), "{:?}", found[0].4);
    let loops = json!({ "openapi": "3.1.0", "webhooks": { "a": { "$ref": "#/webhooks/a" } } });
    assert!(rows(&loops)[0].4.is_err());
}

/// All parts have the same last name, and each needs a name of its own.
#[test]
fn many_parts_of_the_same_name_are_bundled() {
    let parts: Vec<Value> = (0..3000).map(|nth| json!({ "$ref": format!("#/s/{nth}/part") })).collect();
    let shared: Map<String, Value> = (0..3000).map(|nth| (nth.to_string(), json!({ "part": true }))).collect();
    let schema = json!({ "properties": { "of": { "anyOf": parts } } });
    let webhook = json!({ "post": { "requestBody": { "content": { "application/json": { "schema": schema } } } } });
    let document = json!({ "openapi": "3.1.0", "webhooks": { "a": webhook }, "s": shared });
    let bundled = bundle(&document, &schema, false, &mut Budget::new()).expect("a schema");
    assert_eq!(bundled["$defs"].as_object().map(Map::len), Some(3000));
    assert_eq!(bundled["properties"]["of"]["anyOf"][2999]["$ref"], "#/$defs/part_3000");
}

proptest! {
    #[test]
    fn no_document_makes_the_reader_panic(
        values in proptest::collection::vec(prop_oneof![
            Just(json!(null)), Just(json!([{}])), Just(json!("#/webhooks")), Just(json!({ "$ref": "#/channels/a" })),
            Just(json!({ "post": { "requestBody": [] } })), Just(json!({ "messages": { "": { "payload": true } } })),
        ], 2),
        version in prop_oneof![Just("2.0.0"), Just("3.0.0"), Just("3.1.0")],
    ) {
        let _ = read(&json!({ "openapi": version, "webhooks": { "a": values[0] }, "x-webhooks": values[1] }));
        let _ = read(&json!({ "asyncapi": version, "channels": { "a": values[0], "b": values[1] } }));
    }
}

use std::borrow::Cow;

use proptest::{collection::vec, prelude::*};
use serde_json::{Map, json};

use super::{
    binary::{Attribute, AttributeValue, decode_header, to_json},
    *,
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A CloudEvent with these members in addition to, or in place of, the required members.
fn with(members: Value) -> String {
    let mut event = json!({ "specversion": "1.0", "id": "1", "source": "/shop", "type": "order.created" });
    let Value::Object(members) = members else { panic!("members") };
    event.as_object_mut().expect("an object").extend(members);
    event.to_string()
}

fn parse(text: &str) -> EventFields {
    EventFields::parse(text.as_bytes()).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn fault(text: &str) -> (FaultCode, Option<String>) {
    let fault = EventFields::parse(text.as_bytes()).expect_err(text);
    (fault.code, fault.field.map(Cow::into_owned))
}

#[test]
fn reads_every_attribute() {
    let text = r#"{"specversion":"1.0","id":"ä \"1","source":"https://example.com/a?b","type":"order.created",
        "time":"2026-06-18T14:00:00+02:00","datacontenttype":"application/json","data":{"a": 1e2},"unset":null,
        "subject":"orders/1","dataschema":"urn:order","flag":true,"number":-5,"traceparent":"PARENT","tracestate":"a=1"}"#;
    let fields = parse(&text.replace("PARENT", PARENT));
    assert_eq!(fields.require_type().expect("type").as_str(), "order.created");
    assert_eq!(fields.data, r#"{"a": 1e2}"#);
    assert_eq!(fields.key.as_deref(), Some("https://example.com/a?b ä \"1"));
    assert_eq!(fields.occurred_at.expect("time").to_string(), "2026-06-18T12:00:00Z");
    assert_eq!(fields.trace, TraceContext::of_headers(PARENT, Some("a=1")));
    let cloud_event = fields.cloud_event.expect("a CloudEvent");
    let attributes: Vec<String> =
        cloud_event.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let expected = [
        r#"datacontenttype="application/json""#,
        r#"dataschema="urn:order""#,
        "flag=true",
        "number=-5",
        r#"subject="orders/1""#,
    ];
    assert_eq!(attributes, expected);
}

#[test]
fn absent_data_is_null_and_other_media_types_carry_strings() {
    assert_eq!(parse(&with(json!({}))).data, "null");
    assert_eq!(parse(&with(json!({ "datacontenttype": "text/xml" }))).data, "null");
    assert_eq!(parse(&with(json!({ "datacontenttype": "text/xml", "data": "<a/>" }))).data, "\"<a/>\"");
    assert_eq!(parse(&with(json!({ "datacontenttype": "text/json", "data": [1] }))).data, "[1]");
    let json = "application/vnd.acme+JSON; charset=utf-8";
    assert_eq!(parse(&with(json!({ "datacontenttype": json, "data": { "a": 1 } }))).data, r#"{"a":1}"#);
}

#[test]
fn each_fault_has_its_code_and_field() {
    let field = |code, name: &str| (code, Some(name.to_owned()));
    for name in ["specversion", "id", "source", "type"] {
        assert_eq!(fault(&with(json!({ name: null }))), field(FaultCode::MissingField, name));
        assert_eq!(fault(&with(json!({ name: 5 }))), field(FaultCode::WrongType, name));
        assert_eq!(fault(&with(json!({ name: "" }))), field(FaultCode::InvalidField, name));
    }
    for (members, code, name) in [
        (json!({ "specversion": "0.3" }), FaultCode::InvalidField, "specversion"),
        (json!({ "id": "a\tb" }), FaultCode::InvalidField, "id"),
        (json!({ "id": "x".repeat(250) }), FaultCode::FieldTooLong, "id"),
        (json!({ "source": "/my shop" }), FaultCode::InvalidField, "source"),
        (json!({ "type": "order created" }), FaultCode::InvalidField, "type"),
        (json!({ "type": "x".repeat(129) }), FaultCode::FieldTooLong, "type"),
        (json!({ "time": "noon" }), FaultCode::InvalidField, "time"),
        (json!({ "time": 1 }), FaultCode::WrongType, "time"),
        (json!({ "subject": "" }), FaultCode::InvalidField, "subject"),
        (json!({ "subject": "\u{fffe}" }), FaultCode::InvalidField, "subject"),
        (json!({ "datacontenttype": "json" }), FaultCode::InvalidField, "datacontenttype"),
        (json!({ "dataschema": "order" }), FaultCode::InvalidField, "dataschema"),
        (json!({ "traceparent": 1 }), FaultCode::WrongType, "traceparent"),
        (json!({ "data_base64": "AA==" }), FaultCode::UnknownField, "data_base64"),
        (json!({ "Extension": "a" }), FaultCode::UnknownField, "Extension"),
        (json!({ "my_extension": null }), FaultCode::UnknownField, "my_extension"),
        (json!({ "": "a" }), FaultCode::UnknownField, ""),
        (json!({ "extension": {} }), FaultCode::WrongType, "extension"),
        (json!({ "extension": [1] }), FaultCode::WrongType, "extension"),
        (json!({ "extension": 1.5 }), FaultCode::InvalidField, "extension"),
        (json!({ "extension": 2_147_483_648_u32 }), FaultCode::InvalidField, "extension"),
        (json!({ "extension": "\u{7f}" }), FaultCode::InvalidField, "extension"),
        (json!({ "datacontenttype": "text/xml", "data": {} }), FaultCode::WrongType, "data"),
    ] {
        assert_eq!(fault(&with(members.clone())), field(code, name), "{members}");
    }
    let twice = with(json!({})).replacen('{', "{\"id\":\"2\",", 1);
    assert_eq!(fault(&twice), field(FaultCode::DuplicateField, "id"));
    let half = with(json!({ "subject": "HALF" })).replace("HALF", "\\ud800");
    assert_eq!(fault(&half), field(FaultCode::InvalidField, "subject"));
    let native = EventFields::parse_cloud_event(br#"{"type":"a","data":1}"#).expect_err("no CloudEvent");
    assert_eq!((native.code, native.field.as_deref()), (FaultCode::MissingField, Some("specversion")));
    assert!(!EventFields::is_cloud_event(br#"{"type":"a"}"#) && EventFields::is_cloud_event(b"{\"specversion\":1}"));
}

fn texts(attributes: &[(&str, &str)]) -> Vec<Attribute> {
    attributes.iter().map(|(name, text)| ((*name).to_owned(), AttributeValue::Text((*text).to_owned()))).collect()
}

const REQUIRED: [(&str, &str); 4] = [("specversion", "1.0"), ("id", "1"), ("source", "/shop"), ("type", "a")];

#[test]
fn binary_mode_says_the_same_as_the_json_format() {
    let mut attributes = texts(&REQUIRED);
    attributes.push(("flag".to_owned(), AttributeValue::Boolean(true)));
    attributes.push(("number".to_owned(), AttributeValue::Integer(7)));
    let read = |content_type, body: &str| parse(&to_json(&attributes, content_type, body.as_bytes()).expect("JSON"));
    let same = json!({ "type": "a", "flag": true, "number": 7, "datacontenttype": "application/json", "data": [1] });
    assert_eq!(read(Some("application/json"), "[1]"), parse(&with(same)));
    assert_eq!(read(None, " [1]").data, "[1]");
    assert_eq!(read(None, "").data, "null");
    assert_eq!(read(Some("text/plain"), "a\n\"b\"").data, r#""a\n\"b\"""#);

    let refused = |attributes: &[Attribute], content_type, body: &[u8]| {
        let fault = to_json(attributes, content_type, body).expect_err("a fault");
        (fault.code, fault.field.map(Cow::into_owned))
    };
    let data = Some("data".to_owned());
    assert_eq!(refused(&attributes, None, b"<a/>"), (FaultCode::MalformedJson, data.clone()));
    assert_eq!(refused(&attributes, None, b"1,\"id\":\"2\""), (FaultCode::MalformedJson, data.clone()));
    assert_eq!(refused(&attributes, Some("image/png"), b"\x89PNG"), (FaultCode::InvalidField, data.clone()));
    assert_eq!(refused(&texts(&[("data", "1")]), None, b""), (FaultCode::UnknownField, data));
    // The attribute goes before the media type of the message.
    let attributes = texts(&[REQUIRED.as_slice(), &[("datacontenttype", "text/plain")]].concat());
    assert_eq!(parse(&to_json(&attributes, Some("application/json"), b"[1").expect("JSON")).data, "\"[1\"");
}

#[test]
fn headers_are_decoded() {
    let decode = |value: &[u8]| decode_header("subject", value).map_err(|fault| fault.code);
    assert_eq!(decode(b"Euro%20%E2%82%AC%20%F0%9F%98%80").as_deref(), Ok("Euro \u{20ac} \u{1f600}"));
    assert_eq!(decode(br#""a \"b\" \\ %25""#).as_deref(), Ok(r#"a "b" \ %"#));
    assert_eq!(decode(b"\"").as_deref(), Ok("\""));
    assert_eq!(decode("ä".as_bytes()).as_deref(), Ok("ä"));
    for value in [b"100%".as_slice(), b"%2", b"%zz", b"%ff", b"\xff"] {
        assert_eq!(decode(value), Err(FaultCode::InvalidField));
    }
}

/// Percent-encoding as the HTTP binding demands.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'!' | b'#'..=b'$' | b'&'..=b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

proptest! {
    #[test]
    fn never_panics(members in vec(("[a-z0-9_]{0,12}|specversion|source|id", "\\PC{0,12}"), 0..6), body: Vec<u8>) {
        let object: Map<String, Value> =
            members.iter().map(|(name, text)| (name.clone(), serde_json::from_str(text).unwrap_or(json!(text)))).collect();
        let _ = EventFields::parse_cloud_event(Value::from(object).to_string().as_bytes());
        let attributes: Vec<(&str, &str)> = members.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let _ = to_json(&texts(&attributes), None, &body).map(|text| EventFields::parse(text.as_bytes()));
        let _ = decode_header("a", &body);
    }

    /// Different pairs of source and id are different keys.
    #[test]
    fn a_key_is_a_source_and_an_id(left in ("[/a-c%2-9]{1,4}", "[ /a]{1,4}"), right in ("[/a-c%2-9]{1,4}", "[ /a]{1,4}")) {
        let key = |(source, id): &(String, String)| {
            EventFields::parse(with(json!({ "source": source, "id": id })).as_bytes()).ok()?.key
        };
        if let (Some(first), Some(second)) = (key(&left), key(&right)) {
            prop_assert_eq!(first == second, left == right);
        }
    }

    /// Attributes written again are the same attributes.
    #[test]
    fn attributes_survive(subject in "\\PC{1,20}", text in "\\PC{0,20}", flag: bool, number: i32) {
        let given = with(json!({ "subject": subject, "text": text, "flag": flag, "number": number }));
        if let Ok(fields) = EventFields::parse(given.as_bytes()) {
            let attributes = &fields.cloud_event.as_ref().expect("a CloudEvent").attributes;
            let again: String = attributes.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
            let again = with(json!({})).replace('}', &format!("{again}}}"));
            prop_assert_eq!(parse(&again), fields);
        }
    }

    #[test]
    fn encoded_headers_are_decoded(text in "\\PC{0,20}") {
        prop_assert_eq!(decode_header("a", encoded(&text).as_bytes()), Ok(text));
    }

    /// A body cannot add attributes.
    #[test]
    fn a_body_is_only_data(body in "[\\[\\]{}\",:a1 ]{1,12}") {
        if let Ok(text) = to_json(&texts(&REQUIRED), None, body.as_bytes())
            && let Ok(fields) = EventFields::parse(text.as_bytes())
        {
            prop_assert_eq!(fields.data, body.trim());
            prop_assert_eq!(fields.cloud_event.expect("a CloudEvent").attributes, BTreeMap::new());
        }
    }
}

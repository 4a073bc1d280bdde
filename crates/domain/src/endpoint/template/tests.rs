use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::dialect::Dialects;

fn dialect() -> Arc<Dialect> {
    let dialects = Dialects::read([]).unwrap_or_else(|faults| panic!("{faults:?}"));
    Arc::clone(dialects.get("standard").expect("a dialect"))
}

fn of(data: Json, work: impl FnOnce(&mut TemplateEvent<'_>)) {
    let (dialect, event_type) = (dialect(), EventType::parse("order.paid").expect("a type"));
    let id = (Timestamp::UNIX_EPOCH, EventId(uuid::Uuid::from_u128(1)));
    work(&mut TemplateEvent::of_sample(&dialect, &event_type, id, data));
}

fn rendered(template: &Json, data: Json) -> Result<Json, TemplateFault> {
    let mut result = Err(TemplateFault::whole("not rendered"));
    of(data, |event| {
        result = Template::of(template)
            .and_then(|template| template.render(event))
            .map(|body| serde_json::from_str(&body).expect("JSON"));
    });
    result
}

fn refused(template: &Json) -> String {
    Template::of(template).expect_err("a fault").to_string()
}

#[test]
fn a_single_placeholder_has_a_type_and_others_are_joined() {
    let data =
        json!({ "n": 7, "ok": true, "list": [1, { "a": null }], "text": "a \"b\"\n", "half": 0.5, "none": null });
    let template = json!({
        "n": "{{data.n}}", "ok": " {{ data.ok }} ", "list": "{{data.list}}", "text": "{{data.text}}", "none": "{{data.none}}",
        "joined": "{{type}}: {{data.text}}|{{ data.n }}|{{data.half}}|{{data.list}}", "made": "{{ data.list.map(x, [x, 1]) }}",
        "fixed": 1, "quoted": "{{ '}}' + \"{{\" + r'\\' }}", "id": "{{id}}", "time": "{{time}}", "a/b": ["{{data.?x.orValue('-')}}"]
    });
    let expected = json!({
        "n": 7, "ok": true, "list": [1, { "a": null }], "text": "a \"b\"\n", "none": null,
        "joined": "order.paid: a \"b\"\n|7|0.5|[1,{\"a\":null}]", "made": [[1, 1], [{ "a": null }, 1]],
        "fixed": 1, "quoted": "}}{{\\", "id": dialect().event_id(EventId(uuid::Uuid::from_u128(1))),
        "time": "1970-01-01T00:00:00.000Z", "a/b": ["-"]
    });
    assert_eq!(rendered(&template, data.clone()), Ok(expected));
    assert_eq!(rendered(&json!("{{data}}"), data.clone()), Ok(data));
}

#[test]
fn a_fault_names_the_place_and_the_reason() {
    for (template, expected) in [
        (json!({ "a": ["x", "äb {{ name }}"] }), "/a/1, character 7, in {{ name }}: unknown name `name`; "),
        (json!({ "a": "b {{ data.n" }), "/a, character 3: the placeholder has no end: close it by }}"),
        (json!({ "a": "{{ 'x }}" }), "/a, character 1: the placeholder has no end"),
        (json!("{{}}"), "the text, character 3, in {{  }}: the expression is empty"),
        (json!({ "{{ type }}": 1 }), "/{{ type }}, character 1: a member's name holds no placeholder"),
        (json!({ "a": "{{ data.?x }}" }), "/a, character 8, in {{ data.?x }}: yields an optional value"),
        (json!(["x".repeat(MAX_TEMPLATE)]), "has 16388 bytes, and 16384 are allowed"),
        (json!(vec!["{{type}}"; 101]), "/100, character 1: more than 100 placeholders"),
        (json!(vec!["{{type.matches('a{60}')}}"; 4]), "patterns with more than 200 states in the template"),
    ] {
        let found = refused(&template);
        assert!(found.contains(expected), "{found}");
    }
    let missing = rendered(&json!({ "text": "Paid: {{ data.n }}" }), json!({})).expect_err("no value");
    assert_eq!(missing.to_string(), "/text, character 14, in {{ data.n }}: the event has no member `n`");
    let optional = rendered(&json!("{{ true ? data.?n : data.?m }}"), json!({})).expect_err("no value");
    assert!(optional.reason.contains(".orValue"), "{optional}");
    let infinite = rendered(&json!("{{ 1.0 / 0.0 }}"), json!({})).expect_err("no value");
    assert!(infinite.reason.contains("infinite"), "{infinite}");
    let syntax = Template::parse("{\n \"a\": {{ type }} }").expect_err("no JSON");
    assert!(syntax.to_string().contains("line 2"), "{syntax}");
    assert!(Template::stored("{".to_owned()).pieces().is_none());
}

/// 100 MB, and more.
#[test]
#[expect(clippy::disallowed_methods, reason = "measures")]
fn a_body_without_end_is_refused_at_once() {
    let list: Vec<u32> = (0..20_000).collect();
    let data = json!({ "list": list, "text": "x".repeat(60_000) });
    for template in [
        json!({ "a": "{{ data.list.map(x, data.text) }}" }),
        json!({ "a": "{{ data.list.map(x, data.list.map(y, data)) }}" }),
        json!({ "a": "{{ data.list.map(x, data) }}" }),
        json!({ "a": "{{ data.list.map(x, data.text + data.text) }}" }),
        json!(vec!["{{ data }}"; 100]),
        json!(vec!["{{ data.text }} and {{ data.text }}"; 50]),
    ] {
        let begun = Instant::now();
        let fault = rendered(&template, data.clone()).expect_err("too long");
        let reason = &fault.reason;
        assert!(
            ["256 KiB", "more than 200000 steps", "longer than 65536"].iter().any(|part| reason.contains(part)),
            "{fault}"
        );
        println!("refused after {:?}: {fault}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}

#[test]
fn all_templates_of_an_event_share_a_budget() {
    of(json!({ "text": "x".repeat(200_000) }), |event| {
        let template = Template::of(&json!("{{data.text}}")).expect("a template");
        let made = (0..1000).take_while(|_| template.render(event).is_ok()).count();
        assert_eq!(made, 79, "16 MB together");
        let fault = template.render(event).expect_err("no steps");
        assert!(fault.reason.contains("1000000 steps"), "{fault}");
    });
}

#[test]
fn hidden_values_are_neither_shown_nor_named_by_a_fault() {
    let (dialect, event_type) = (dialect(), EventType::parse("a").expect("a type"));
    let redaction = Redaction::parse(&["card"]).expect("names");
    let body = r#"{"data":{"card":"4111","n":1}}"#;
    let id = (Timestamp::UNIX_EPOCH, EventId(uuid::Uuid::nil()));
    let mut shaper = Shaper::new(&dialect, &redaction, &event_type, id, body);
    let mut shape = |template: Json| shaper.shape(&Template::of(&template).expect("a template")).as_ref().clone();
    let body = |body: &str, shown: &str| Shaped::Body { body: body.to_owned(), shown: Some(shown.to_owned()) };
    assert_eq!(shape(json!("no. {{data.card}}")), body("\"no. 4111\"", "\"no. [redacted]\""));
    assert_eq!(shape(json!("{{int(data.card)}}")), body("4111", "\"[redacted]\""));
    let Shaped::Failed(sentence) = shape(json!("{{data[data.card]}}")) else { panic!("a body") };
    assert!(!sentence.contains("4111"), "{sentence}");
    let Shaped::Failed(sentence) = shape(json!("{{data.card == '4111' ? data.x : 1}}")) else { panic!("a body") };
    assert!(sentence.contains("hidden"), "{sentence}");
}

/// PostgreSQL refuses a NUL in a text: a fault that names a value of the event would park the event.
#[test]
fn a_fault_has_no_control_characters() {
    let dialect = dialect();
    let event_type = EventType::parse("a").expect("a type");
    let (redaction, body) = (Redaction::default(), r#"{"data":{"key":"a\u0000b","names":{}}}"#);
    let id = (Timestamp::UNIX_EPOCH, EventId(uuid::Uuid::nil()));
    let mut shaper = Shaper::new(&dialect, &redaction, &event_type, id, body);
    let template = Template::of(&json!("{{ data.names[data.key] }}")).expect("a template");
    let Shaped::Failed(sentence) = shaper.shape(&template).as_ref().clone() else { panic!("a body") };
    assert!(sentence.contains("a b") && !sentence.contains(char::is_control), "{sentence:?}");
}

/// Members that were hidden at the acceptance stay hidden, although the present rules hide nothing.
#[test]
fn the_body_of_an_encrypted_event_is_not_shown() {
    let body = Shaped::Body { body: "1".to_owned(), shown: None }.of_sealed_event();
    assert!(matches!(body, Shaped::Body { shown: Some(shown), .. } if shown.contains("redacted")));
}

#[test]
fn presets_render_the_sample_in_the_form_of_the_receiver() {
    let render = |preset: &Preset| {
        assert_eq!(SAMPLE_TYPE, "order.paid");
        let template: Json = serde_json::from_str(preset.template).expect("JSON");
        let data = serde_json::from_str(SAMPLE_DATA).expect("JSON");
        rendered(&template, data).unwrap_or_else(|fault| panic!("{}: {fault}", preset.name))
    };
    let [slack, teams, discord, pagerduty, zapier] = PRESETS.each_ref().map(render);
    assert_eq!(slack["text"], "*order.paid*");
    assert_eq!(slack["blocks"][0]["text"]["type"], "plain_text");
    assert_eq!(teams["attachments"][0]["contentType"], "application/vnd.microsoft.card.adaptive");
    assert_eq!(teams["attachments"][0]["content"]["type"], "AdaptiveCard");
    assert!(discord["content"].is_string() && discord["embeds"][0]["description"].is_string());
    assert_eq!((&pagerduty["event_action"], &pagerduty["payload"]["severity"]), (&json!("trigger"), &json!("error")));
    assert_eq!(pagerduty["payload"]["custom_details"]["amount"], 129.5);
    assert_eq!((&zapier["type"], &zapier["data"]["currency"]), (&json!("order.paid"), &json!("EUR")));
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Json::from),
        "\\PC{0,12}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::hash_map("[a-z]{1,3}", inner, 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn a_template_without_placeholders_is_itself(template in any_json()) {
        prop_assume!(!template.to_string().contains(OPEN));
        prop_assert_eq!(rendered(&template, Json::Null), Ok(template));
    }

    #[test]
    fn data_passes_unchanged(data in any_json()) {
        prop_assert_eq!(rendered(&json!({ "copy": "{{ data }}" }), data.clone()), Ok(json!({ "copy": data })));
    }

    #[test]
    fn texts_are_joined_unchanged(before in "[^{]{0,9}", text in any::<String>(), after in "[^{]{0,9}") {
        let template = json!(format!("-{before}{{{{ data }}}}{after}-"));
        prop_assert_eq!(rendered(&template, json!(text)), Ok(json!(format!("-{before}{text}{after}-"))));
    }

    #[test]
    fn any_text_is_accepted_or_refused_with_a_place(text in "[a-z{}\"'\\\\. +()\\[\\]]{0,40}") {
        match Template::of(&json!({ "a": text })) {
            Ok(template) => {
                prop_assert!(Template::stored(template.text().to_owned()).pieces().is_some());
                let _ = rendered(&json!({ "a": text }), json!({ "a": 1 }));
            }
            Err(fault) => {
                prop_assert_eq!(&fault.pointer, "/a");
                prop_assert!(fault.position.is_some_and(|position| position <= text.chars().count() + 1), "{}", fault);
            }
        }
    }
}

use std::time::{Duration, Instant};

use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::*;

fn parse(text: &str) -> Expression {
    Expression::condition(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn parts(data: &Json) -> Parts<'_> {
    Parts { event_type: "order.paid", id: "evt_1", time: "2026-01-01T00:00:00.000Z", data, hides: false }
}

fn outcome(text: &str, data: &Json) -> Outcome {
    parse(text).evaluate(parts(data)).0
}

fn order() -> Json {
    json!({
        "id": "ord_1", "amount": 120, "price": 9.5, "big": u64::MAX, "country": "DE", "paid": true, "note": null,
        "tags": ["new", "vip"], "items": [{"sku": "A", "quantity": 2}, {"sku": "B", "quantity": 5}, {"sku": "C"}],
        "customer": {"email": "a@example.com", "first name": "Ä"}, "empty": [],
    })
}

#[test]
fn conditions_that_are_met() {
    for text in [
        "data.amount > 100",
        "data.amount >= 120 && data.country in ['DE', 'AT']",
        "data.price * 2 == 19 && data.price + 1 > 10",
        "data.amount / 50 == 2 && data.amount % 50 == 20 && -data.amount < 0",
        "data.big > 9223372036854775807",
        "data.paid",
        "!(data.country == 'FR')",
        "data.note == null",
        "data.note != 1 && data.country != 1",
        "'vip' in data.tags && !('x' in data.tags) && 'email' in data.customer",
        "data.tags == ['new', 'vip'] && ['new'] + ['vip'] == data.tags",
        "has(data.customer.email) && !has(data.customer.phone)",
        "data.?discount.orValue(0) == 0 && data.?customer.?phone.hasValue() == false",
        "data.customer.?email.orValue('') == 'a@example.com' && data[?'x'].orValue(1) == 1",
        "data.items.exists(item, item.sku == 'B' && item.quantity > 4)",
        "data.items.all(item, item.sku != '') && data.empty.all(x, x > 1)",
        "data.items.exists_one(item, item.sku == 'A')",
        "data.items.filter(item, has(item.quantity)).map(item, item.quantity) == [2, 5]",
        "data.items.map(item, has(item.quantity), item.sku) == ['A', 'B']",
        "data.customer.exists(name, name == 'email')",
        "data.items[0].sku == 'A' && data['items'][1]['sku'] == 'B' && data.customer['first name'] == 'Ä'",
        "size(data.items) == 3 && data.country.size() == 2 && size(data.customer['first name']) == 1",
        "data.customer.email.endsWith('@example.com') && data.id.startsWith('ord_') && data.id.contains('d_')",
        "data.country.matches('^(DE|AT)$') && data.country.lowerAscii() == 'de' && 'x'.upperAscii() == 'X'",
        "type == 'order.paid' && type.startsWith('order.')",
        "data.amount > 100 ? data.paid : false",
        "int('12') == 12 && double('1.5') == 1.5 && string(data.amount) == '120' && int(9.9) == 9",
        "data.missing == 1 || true",
        "data.items.exists(item, item.quantity == 5)",
        "1 < 1.5 && 9223372036854775807 > 9.2e18 && 1 == 1.0 && true > false && 'a' < 'b'",
        "data.amount > 100 // a comment\n && data.paid",
        "r'\\d' == '\\\\d' && \"it's\" == 'it\\'s'",
        "data.items.map(a, data.items.filter(b, b.sku > a.sku).size()) == [2, 1, 0]",
    ] {
        let (outcome, _) = parse(text).evaluate(parts(&order()));
        assert_eq!(outcome, Outcome::True, "{text}: {:?}", parse(text).explain(parts(&order())));
    }
}

#[test]
fn the_part_that_said_no_is_named_with_its_values() {
    let explain = |text: &str| parse(text).explain(parts(&order()));
    let of = |text: &str| {
        let explained = explain(text);
        let values: Vec<String> = explained.values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        (explained.part.unwrap_or_default(), explained.position, values.join("; "))
    };
    for (text, part, position, values) in [
        ("data.amount > 200", "data.amount > 200", 1, "data.amount = 120"),
        ("data.paid && data.country == 'FR'", "data.country == 'FR'", 14, "data.country = \"DE\""),
        ("('ä' == 'ä' && (data.paid && data.amount < 5))", "data.amount < 5", 30, "data.amount = 120"),
        (
            "data.paid && (data.amount == 1 || data.country == 'FR')",
            "(data.amount == 1 || data.country == 'FR')",
            14,
            "data.amount = 120; data.country = \"DE\"",
        ),
        ("has(data.phone)", "has(data.phone)", 1, "data.phone = missing"),
        (
            "data.paid == true && data.items.exists(i, i.sku == 'Z')",
            "data.items.exists(i, i.sku == 'Z')",
            22,
            "data.items = a list of 3: {…}, …",
        ),
        ("data.items[7].sku == 'A'", "data.items[7].sku == 'A'", 1, "data.items[7].sku = missing"),
        ("type == 'x'", "type == 'x'", 1, "type = \"order.paid\""),
        ("data.missing == 1 && data.amount == 1", "data.amount == 1", 22, "data.amount = 120"),
    ] {
        assert_eq!(of(text), (part.to_owned(), position, values.to_owned()), "{text}");
    }
    assert_eq!(explain("data.paid").part, None);
}

#[test]
fn a_condition_without_a_result_says_why() {
    for (text, reason) in [
        ("data.missing == 1", "the event has no member `missing` (at character 5)"),
        ("data.paid && data.id.x == 1", "a text has no member `x` (at character 21)"),
        ("data.amount == 120 && data.country > 5", "`>` does not take a text and a number (at character 36)"),
        ("data.items[9] == 1", "the list has no entry 9 (at character 11)"),
        ("data.country", "yields a text, and must yield true or false (at character 5)"),
        ("data.amount && true", "yields a number, and must yield true or false (at character 5)"),
        ("(data.amount || true) && data.x", "the event has no member `x` (at character 30)"),
        ("data.amount / 0 == 1", "division by zero (at character 13)"),
        ("data.amount * 9223372036854775807 == 1", "the number is beyond 64 bits (at character 13)"),
        ("int(data.country) == 1", "the text is no number (at character 4)"),
        ("size(data.amount) == 1", "`size` does not take a number (at character 5)"),
        ("1 in data.country", "`in` does not take a number and a text (at character 3)"),
        ("data.items.all(item, item.quantity > 1)", "the event has no member `quantity` (at character 26)"),
    ] {
        let explained = parse(text).explain(parts(&order()));
        assert_eq!(explained.outcome, Outcome::Error, "{text}");
        assert_eq!(explained.error.as_deref(), Some(reason), "{text}");
    }
}

#[test]
fn a_refused_text_has_the_place_and_the_reason() {
    let nested = format!("{}true{}", "(".repeat(120), ")".repeat(120));
    let deep = format!("data.a == {}1{}", "[".repeat(30), "]".repeat(30));
    let long = format!("data.a == '{}'", "x".repeat(MAX_TEXT));
    let many = vec!["data.a"; 100].join("||");
    for (text, position, reason) in [
        ("", 1, "the expression is empty"),
        ("data.amount >", 14, "the text ends too early"),
        ("data.amount = 100", 13, "compare by =="),
        ("data.amount > 100 and data.paid", 19, "`and` is not expected here; join conditions by &&"),
        ("data.a == 'x", 11, "no closing quote"),
        ("data.amount > ) 100", 15, "`)` is not expected here"),
        ("amount > 100", 1, "unknown name `amount`; a member of the event's data is data.amount"),
        ("data.a == True", 11, "write true"),
        ("data.a.startWith('x')", 17, "unknown function `startWith`; did you mean startsWith?"),
        ("data.amount + 1", 13, "must yield true or false"),
        ("'text'", 1, "yields a text"),
        ("data.items.all(1, true)", 15, "a loop takes a name"),
        ("data.items.all(data, true)", 15, "is a part of the event"),
        ("data.a.matches(data.b)", 20, "must be a text in quotes"),
        ("data.a.matches('(a')", 16, "unclosed group"),
        ("data.a.matches('(a{100}){100}')", 16, "states"),
        ("data.a.matches('a(?=b)')", 16, "RE2"),
        ("has(data)", 4, "`has` takes a member"),
        ("size(data.a, 1) == 1", 5, "write `size` as"),
        ("data.a == {'x': 1}", 11, "an object with members cannot be made"),
        ("data.a == 1u", 11, "without `u`"),
        ("data.a == b'x'", 11, "without `b`"),
        ("data.a.all(a, a.all(b, b.all(c, c.all(d, true))))", 38, "more than 3 loops"),
        ("\u{1}", 1, "control character"),
        (&nested, 97, "nested too deep"),
        (&deep, 40, "nested deeper than 30"),
        (&long, 1, "2000 are allowed"),
        (&many, 1, "more than 250"),
        ("data.ä == 1", 6, "`ä` is not expected here"),
        ("1 ? 2 : 3 )", 11, "not expected"),
        ("timestamp(data.at) < timestamp('2026-01-01T00:00:00Z')", 10, "unknown function `timestamp`"),
    ] {
        let fault = Expression::condition(text).expect_err(text);
        assert!(fault.reason.contains(reason), "{text}: {fault}");
        if text != many {
            assert_eq!(fault.position, position, "{text}: {fault}");
        }
    }
}

/// Data of 256 KiB, each of a shape that is dear for some expressions.
fn worst_data() -> Vec<Json> {
    const BYTES: usize = 256 * 1024;
    let list = |entry: &str| {
        let text = format!("[{}]", vec![entry; BYTES / (entry.len() + 1)].join(","));
        let items: Json = serde_json::from_str(&text).expect("JSON");
        json!({"a": items, "s": "aaa", "deep": 1})
    };
    let distinct: Vec<usize> = (0..40_000).collect();
    vec![
        list("1"),
        list("\"\""),
        list("{\"b\":1}"),
        list("[1]"),
        list("[[[[]]]]"),
        list(&format!("\"{}\"", "a".repeat(1000))),
        json!({"a": distinct, "s": "a".repeat(1000)}),
        json!({"a": vec!["a"; 30_000], "s": "a".repeat(128 * 1024)}),
        json!({"a": vec![1; 30_000], "s": "a".repeat(30 * 1024), ("a".repeat(30 * 1024)): 1}),
        json!({"a": ["a".repeat(100 * 1024), "a".repeat(100 * 1024)], "s": "a".repeat(50 * 1024)}),
    ]
}

/// Expressions written to be slow.
const SLOW: [&str; 28] = [
    "data.a.all(x, data.a.all(y, data.a.all(z, x != z || y != z || true)))",
    "data.a.exists(x, data.a.exists(y, x == y + 1000000))",
    "data.a.map(x, data.a.map(y, data.a)).size() == 1",
    "data.a.map(x, [x, x, x, x, x, x, x, x]).map(x, x + x + x + x + x + x).size() == 1",
    "data.a.filter(x, true).filter(x, true).filter(x, true).filter(x, true).size() == 1",
    "data.a.all(x, data.s.contains('b') == false)",
    "data.a.all(x, data.s.contains('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab') == false)",
    "data.a.all(x, data.s.matches('(a|aa|aaa)*b') == false)",
    "data.s.matches('(a?){40}(a){60}b')",
    "data.s.matches('(.*)(.*)(.*)x') || data.s.matches('([a-z]*){20}1')",
    "data.a.exists(x, x.matches('(a?){40}a{60}b'))",
    "data.a.map(x, data.s + data.s + data.s).size() == 1",
    "data.a.map(x, data.s.lowerAscii().upperAscii().lowerAscii().upperAscii()).size() == 1",
    "data.a.all(x, size(data.s) > 0)",
    "data.a.all(x, data.a == data.a)",
    "data == data && data.a == data.a && data.a + data.a == data.a + data.a",
    "data.a.all(x, x in data.a)",
    "data.a.map(x, data.a + data.a + data.a).size() == 0",
    "data.a.exists(x, data.missing == 1)",
    "data.a.all(x, string(x) == '' || double(data.s) == 1.0 || int(data.s) == 2)",
    "[data.s + data.s].all(t, data.a.all(x, t != 'q'))",
    "data.a.map(x, data.s + '').all(t, t != 'q') || data.a.map(x, data.s + '').filter(t, t != 'q').size() == 1",
    "data.a.exists(x, data[data.s] == 2 || data[?data.s].orValue(2) == 3)",
    "data.a.exists(x, !(data.s in data))",
    "[data.s + data.s].map(t, data.a.map(x, [t, t, t])).size() == 2",
    "data.a.exists_one(x, data.a.exists_one(y, y == x))",
    "data.a.all(x, data.s <= data.s && data.s == data.s)",
    "data.a.all(x, [1,2,3,4,5,6,7,8,9].all(y, [1,2,3,4,5,6,7,8,9].all(z, x != y || y != z)))",
];

/// Longest permitted evaluation, on a shared core and without optimization.
const SLOWEST: Duration = Duration::from_millis(400);

#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures time")]
fn no_accepted_expression_takes_long_on_the_worst_event() {
    let many = vec!["data.s.contains('b')"; 45].join(" || ");
    let expressions: Vec<Expression> = SLOW.into_iter().chain([many.as_str()]).map(parse).collect();
    let mut slowest = Duration::ZERO;
    for data in worst_data() {
        for expression in &expressions {
            let began = Instant::now();
            let (_, steps) = expression.evaluate(parts(&data));
            let took = began.elapsed();
            if took > slowest {
                slowest = took;
                println!("{took:?} for {steps} steps of {}", expression.text());
            }
            assert!(took < SLOWEST, "{took:?} for {steps} steps of {}", expression.text());
            expression.explain(parts(&data));
        }
    }
}

#[test]
fn the_bounds_hold_on_a_small_stack() {
    let evaluating = || {
        for text in [
            format!("{}true{}", "(".repeat(90), ")".repeat(90)),
            format!("{}true", "!".repeat(MAX_TEXT - 10)),
            "[".repeat(MAX_TEXT),
            "-".repeat(MAX_TEXT),
            format!("data{}", ".a".repeat(990)),
            format!("data{}", "[0]".repeat(660)),
            format!("1{}", "+1".repeat(990)),
            format!("true{}", "&&true".repeat(330)),
            "true?".repeat(400),
            "data.a.all(x,".repeat(150),
            format!("{}data.a", "!".repeat(MAX_DEPTH - 2)),
        ] {
            if let Ok(expression) = Expression::condition(&text) {
                expression.explain(parts(&json!({"a": true})));
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(evaluating);
    thread.expect("a thread").join().expect("no overflow");
}

/// Expressions made of pieces, most of them valid.
fn any_condition() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        "[0-9]{1,3}",
        Just("data.n".to_owned()),
        Just("data.f".to_owned()),
        Just("data.s".to_owned()),
        Just("data.l".to_owned()),
        Just("data.o".to_owned()),
        Just("data.o.n".to_owned()),
        Just("data.x".to_owned()),
        Just("data.l[1]".to_owned()),
        Just("'ab'".to_owned()),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("[1, 'ab', null]".to_owned()),
        Just("data.b".to_owned()),
        Just("size(data.l)".to_owned()),
    ];
    let comparison = (value.clone(), "==|!=|<|<=|>|>=|in", value.clone())
        .prop_map(|(left, operator, right)| format!("{left} {operator} {right}"));
    let leaf = prop_oneof![
        comparison,
        Just("data.b".to_owned()),
        Just("has(data.o.n)".to_owned()),
        Just("has(data.x)".to_owned()),
        Just("data.s.startsWith('a')".to_owned())
    ];
    leaf.prop_recursive(4, 24, 3, move |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(|parts| parts.join(" && ")),
            vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" || "))),
            inner.clone().prop_map(|part| format!("!({part})")),
            (inner.clone(), "all|exists|exists_one")
                .prop_map(|(part, name)| format!("data.l.{name}(x, x == 1 || {part})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

fn any_data() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Json::from),
        (-3_i64..4).prop_map(Json::from),
        (-2.0..2.0_f64).prop_map(Json::from),
        "[ab]{0,2}".prop_map(Json::from)
    ];
    (any::<bool>(), -3_i64..4, vec(leaf.clone(), 0..4), "[ab]{0,2}", leaf)
        .prop_map(|(b, n, l, s, any)| json!({"b": b, "n": n, "f": 1.5, "l": l, "s": s, "o": {"n": any}}))
}

/// The result of the crate's interpreter. Integers are signed there, too.
fn by_the_crate(text: &str, data: &Json) -> Outcome {
    fn value(json: &Json) -> cel::Value {
        match json {
            Json::Number(number) => number.as_i64().map_or_else(|| number.as_f64().into(), cel::Value::Int),
            Json::Array(items) => items.iter().map(value).collect::<Vec<_>>().into(),
            Json::Object(members) => members
                .iter()
                .map(|(name, json)| (name.clone(), value(json)))
                .collect::<std::collections::HashMap<_, _>>()
                .into(),
            simple => cel::to_value(simple).expect("a value"),
        }
    }
    let program = cel::Program::compile(text).expect("a program");
    let mut context = cel::Context::default();
    context.add_variable_from_value("data", value(data));
    match program.execute(&context) {
        Ok(cel::Value::Bool(true)) => Outcome::True,
        Ok(cel::Value::Bool(false)) => Outcome::False,
        _ => Outcome::Error,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn results_are_those_of_the_crates_interpreter(text in any_condition(), data in any_data()) {
        if let Ok(expression) = Expression::condition(&text) {
            prop_assert_eq!(expression.evaluate(parts(&data)).0, by_the_crate(&text, &data), "{} on {}", text, data);
        }
    }

    #[test]
    fn the_named_part_has_the_result_of_the_whole(text in any_condition(), data in any_data()) {
        if let Ok(expression) = Expression::condition(&text) {
            let explained = expression.explain(parts(&data));
            prop_assert_eq!(explained.outcome, expression.evaluate(parts(&data)).0);
            if let Some(part) = explained.part {
                let start: String = text.chars().skip(explained.position - 1).collect();
                prop_assert!(start.starts_with(&part), "{} in {}", part, text);
                prop_assert_eq!(outcome(&part, &data), explained.outcome, "{} of {}", part, text);
            }
        }
    }

    #[test]
    fn no_text_panics(text in "[a-z(){}\\[\\].,'\"?:!=<>&|+*/%0-9 \\-\\\\\u{e9}]{0,60}", data in any_data()) {
        if let Ok(expression) = Expression::condition(&text) {
            expression.explain(parts(&data));
        }
    }

    #[test]
    fn no_change_of_a_valid_text_panics(text in any_condition(), at in 0_usize..80, with in "\\PC{0,3}") {
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.min(characters.len());
        characters.splice(at..(at + 1).min(characters.len()), with.chars());
        let changed: String = characters.into_iter().collect();
        match Expression::condition(&changed) {
            Ok(expression) => drop(expression.explain(parts(&order()))),
            Err(fault) => prop_assert!(fault.position <= changed.chars().count() + 1, "{}: {}", changed, fault),
        }
    }
}

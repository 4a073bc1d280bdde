//! Filters: conditions of endpoints on the data of events.
//!
//! A filter reads the data from the delivered body. Therefore a match, a fan-out that another process continues, a
//! replay and an explanation have the same result.

use std::{cell::OnceCell, collections::HashMap, fmt, sync::OnceLock};

use serde_json::Value as Json;

use crate::{
    dialect::Dialect,
    endpoint::redaction::Redaction,
    event::EventType,
    expression::{Explanation, Expression, ExpressionFault, MAX_STEPS, Outcome, Parts},
    json,
};

/// A condition on events, as text. Parsed at the first use.
pub struct Filter {
    text: String,
    /// `None` for a text that this release does not accept.
    expression: OnceLock<Option<Expression>>,
}

/// The same text.
impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Filter").field(&self.text).finish()
    }
}

impl Filter {
    /// Parses and checks a filter.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn parse(text: &str) -> Result<Self, ExpressionFault> {
        let text = text.trim();
        let expression = Expression::condition(text)?;
        Ok(Self { text: text.to_owned(), expression: OnceLock::from(Some(expression)) })
    }

    /// A filter that [`Self::parse`] accepted before.
    pub fn stored(text: String) -> Self {
        Self { text, expression: OnceLock::new() }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn expression(&self) -> Option<&Expression> {
        self.expression.get_or_init(|| Expression::condition(&self.text).ok()).as_ref()
    }

    /// Explains the result for an event, if the evaluation takes at most `left` steps, and takes the steps off. The
    /// explanation costs up to twice as much again.
    ///
    /// # Errors
    /// If the filter needs more steps.
    pub fn explain_within(&self, event: &FilteredEvent<'_>, left: &mut u64) -> Result<Explanation, TooLong> {
        let (_, steps) = event.evaluate(self, *left);
        *left = left.checked_sub(steps).ok_or(TooLong)?;
        Ok(self.explain(event))
    }

    /// Explains the result for an event.
    pub fn explain(&self, event: &FilteredEvent<'_>) -> Explanation {
        let failed = |error: &str| Explanation {
            outcome: Outcome::Error,
            part: Some(self.text.clone()),
            position: 1,
            error: Some(error.to_owned()),
            values: Vec::new(),
        };
        match (self.expression(), event.parts()) {
            (Some(expression), Some(parts)) => expression.explain(parts),
            (None, _) => failed("this release of Fanfare cannot read the filter: save the filter again"),
            (_, None) => failed("the body of the event has no data in the present dialect"),
        }
    }
}

/// Maximum steps of all filters for an event. Beyond, filters have no result: an application cannot hold a dispatcher
/// for longer, whatever the number of its webhooks.
pub const MAX_STEPS_OF_EVENT: u64 = 1_000_000;

/// Maximum steps of all filters for an event beside other work of a thread: less than a millisecond.
pub const MAX_STEPS_AT_ONCE: u64 = 5_000;

/// A filter needs more steps than were left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// An event, for filters. The data is parsed at the first use, and each text of a filter evaluated once.
pub struct FilteredEvent<'a> {
    event_type: &'a EventType,
    body: &'a str,
    /// Place of the data in the body.
    pointer: Option<&'a str>,
    /// The body, parsed. `None` for a body that is no JSON.
    parsed: OnceCell<Option<Json>>,
    hides: bool,
    outcomes: HashMap<String, Outcome>,
    /// Steps that filters may still take.
    steps_left: u64,
}

impl<'a> FilteredEvent<'a> {
    /// An event with its delivered body, with all members.
    pub fn new(dialect: &'a Dialect, event_type: &'a EventType, body: &'a str) -> Self {
        let pointer = dialect.data_pointer();
        let (parsed, outcomes) = (OnceCell::new(), HashMap::new());
        Self { event_type, body, pointer, parsed, hides: false, outcomes, steps_left: MAX_STEPS_OF_EVENT }
    }

    /// An event with the body that may be shown. Results that depend on a hidden member are faults.
    pub fn shown(dialect: &'a Dialect, redaction: &Redaction, event_type: &'a EventType, body: &'a str) -> Self {
        let event = Self { hides: true, ..Self::new(dialect, event_type, body) };
        if let Some(redacted) = redaction.redact(body) {
            let _ = event.parsed.set(serde_json::from_str(&redacted).ok());
        }
        event
    }

    /// A sample of a type, without hidden members.
    pub fn of_sample(event_type: &'a EventType, data: Json) -> Self {
        let parsed = OnceCell::from(Some(data));
        let (outcomes, steps_left) = (HashMap::new(), MAX_STEPS_OF_EVENT);
        Self { event_type, body: "", pointer: Some(""), parsed, hides: false, outcomes, steps_left }
    }

    /// Type of the event.
    pub fn event_type(&self) -> &'a EventType {
        self.event_type
    }

    fn parts(&self) -> Option<Parts<'_>> {
        let body = self.parsed.get_or_init(|| serde_json::from_str(&json::readable(self.body)).ok()).as_ref()?;
        let data = body.pointer(self.pointer?)?;
        Some(Parts { event_type: self.event_type.as_str(), id: "", time: "", data, hides: self.hides })
    }

    /// Steps of all evaluations so far.
    pub fn steps(&self) -> u64 {
        MAX_STEPS_OF_EVENT - self.steps_left
    }

    /// Evaluates a filter. Returns the steps of a new evaluation, too.
    pub fn outcome(&mut self, filter: &Filter) -> (Outcome, u64) {
        if let Some(known) = self.outcomes.get(filter.text()) {
            return (*known, 0);
        }
        let result = self.evaluate(filter, MAX_STEPS);
        self.keep(filter, result);
        result
    }

    /// Evaluates a filter within `left` steps, and takes the steps off.
    ///
    /// # Errors
    /// If the filter needs more steps.
    pub fn outcome_within(&mut self, filter: &Filter, left: &mut u64) -> Result<Outcome, TooLong> {
        if let Some(known) = self.outcomes.get(filter.text()) {
            return Ok(*known);
        }
        let result = self.evaluate(filter, *left);
        *left = left.checked_sub(result.1).ok_or(TooLong)?;
        self.keep(filter, result);
        Ok(result.0)
    }

    fn evaluate(&self, filter: &Filter, most: u64) -> (Outcome, u64) {
        match (filter.expression(), self.parts()) {
            (Some(expression), Some(parts)) if self.steps_left > 0 => expression.evaluate_within(most, parts),
            _ => (Outcome::Error, 1),
        }
    }

    fn keep(&mut self, filter: &Filter, (outcome, steps): (Outcome, u64)) {
        self.steps_left = self.steps_left.saturating_sub(steps);
        self.outcomes.insert(filter.text.clone(), outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::dialect::Dialects;

    #[test]
    fn a_filter_reads_the_delivered_body_of_each_dialect() {
        let dialects = Dialects::read([]).unwrap_or_else(|faults| panic!("{faults:?}"));
        let event_type = EventType::parse("order.paid").expect("a type");
        let filter = Filter::parse(r#" data.total > 10 && type == "order.paid" "#).expect("a filter");
        assert_eq!(filter.text(), r#"data.total > 10 && type == "order.paid""#);
        for dialect in dialects.all() {
            let pointer = dialect.data_pointer().unwrap_or_else(|| panic!("{}", dialect.name));
            assert_eq!(pointer, "/data", "{}", dialect.name);
            let mut event = FilteredEvent::new(dialect, &event_type, r#"{"id":1,"data":{"total":11}}"#);
            assert_eq!(event.outcome(&filter).0, Outcome::True);
            assert_eq!(event.outcome(&filter), (Outcome::True, 0), "evaluated once");
        }
    }

    #[test]
    fn a_result_that_depends_on_a_hidden_member_is_not_shown() {
        let dialects = Dialects::read([]).unwrap_or_else(|faults| panic!("{faults:?}"));
        let dialect = dialects.get("standard").expect("a dialect");
        let event_type = EventType::parse("a").expect("a type");
        let redaction = Redaction::parse(&["card.number"]).expect("names");
        let body = r#"{"data":{"card":{"number":"4111"},"n":1,"old":"[redacted]"}}"#;
        let event = FilteredEvent::shown(dialect, &redaction, &event_type, body);
        let explain = |text: &str| Filter::parse(text).expect("a filter").explain(&event);
        for text in [
            "data.card.number == '4111'",
            "data.card.number.startsWith('4')",
            "data.n == 1 && size(data.card.number) == 4",
            "'4111' in [data.card.number]",
            "data.card == data.card",
            "data.card.map(name, data.card[name]) == ['4111']",
            "data.old != ''",
            "data.?card.?number.orValue('') == '4111'",
        ] {
            let explained = explain(text);
            assert_eq!(explained.outcome, Outcome::Error, "{text}");
            assert!(!format!("{explained:?}").contains("4111\")"), "{explained:?}");
            assert!(explained.error.expect("a reason").contains("hidden"), "{text}");
        }
        let false_part = explain("data.n == 2 && data.card.number == '4111'");
        assert_eq!((false_part.outcome, false_part.part.as_deref()), (Outcome::False, Some("data.n == 2")));
        assert_eq!(explain("has(data.card.number)").outcome, Outcome::True);
    }

    /// The largest body that is matched beside other work.
    const LARGEST: usize = 8 * 1024;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test measures time")]
    fn costly_filters_are_soon_known_as_such() {
        let dialects = Dialects::read([]).unwrap_or_else(|faults| panic!("{faults:?}"));
        let dialect = dialects.get("standard").expect("a dialect");
        let event_type = EventType::parse("a").expect("a type");
        let numbers = vec!["1"; (LARGEST - 100) / 2].join(",");
        let objects = vec![r#"{"k":"x"}"#; (LARGEST - 100) / 10].join(",");
        let slow = [
            "data.a.all(x, data.a == data.a)",
            "data.a.all(x, x in data.a)",
            "data.a.all(x, data.a.all(y, data.a.all(z, x != z || y != z || true)))",
            "data.a.map(x, [x, x, x, x, x, x, x, x]).map(x, x + x + x + x + x + x).size() == 1",
            "data.a.all(x, string(x) == '' || double(data.s) == 1.0 || int(data.s) == 2)",
            "data.a.all(x, data.s.matches('(a|aa|aaa)*b') == false)",
            "data.a.exists_one(x, data.a.exists_one(y, y == x))",
            "data.a.filter(x, true).filter(x, true).filter(x, true).filter(x, true).size() == 1",
        ];
        let filters = slow.map(|text| Filter::parse(text).expect("a filter"));
        for list in [numbers, objects] {
            let body = format!(r#"{{"data":{{"s":"aaaaaaaaaaaaaaaa","a":[{list}]}}}}"#);
            assert!(body.len() <= LARGEST);
            let began = Instant::now();
            let mut event = FilteredEvent::new(dialect, &event_type, &body);
            let mut left = MAX_STEPS_AT_ONCE;
            let result = filters.iter().try_for_each(|filter| event.outcome_within(filter, &mut left).map(drop));
            let known = began.elapsed();
            assert_eq!(result, Err(TooLong));
            let began = Instant::now();
            let mut event = FilteredEvent::new(dialect, &event_type, &body);
            let steps: u64 = filters.iter().map(|filter| event.outcome(filter).1).sum();
            println!("known after {known:?}; all {steps} steps take {:?}", began.elapsed());
            assert!(known < Duration::from_millis(20), "{known:?}");
        }
    }

    #[test]
    fn a_bound_changes_no_outcome() {
        let dialects = Dialects::read([]).unwrap_or_else(|faults| panic!("{faults:?}"));
        let dialect = dialects.get("standard").expect("a dialect");
        let event_type = EventType::parse("a").expect("a type");
        let event = || FilteredEvent::new(dialect, &event_type, r#"{"data":{"n":1,"a":[1,2,3,4,5]}}"#);
        for text in ["data.n == 1", "data.n == 2 || data.a.exists(x, x == 9)", "data.a.all(x, x < 5)", "data.b"] {
            let filter = Filter::parse(text).expect("a filter");
            let (outcome, steps) = event().outcome(&filter);
            for most in 0..steps + 5 {
                let (mut event, mut left) = (event(), most);
                let expected = if most < steps { (Err(TooLong), most) } else { (Ok(outcome), most - steps) };
                assert_eq!((event.outcome_within(&filter, &mut left), left), expected, "{text} within {most}");
                assert_eq!(event.steps(), most - left);
                let mut left = most;
                let explained = filter.explain_within(&event, &mut left).map(|explained| explained.outcome);
                assert_eq!((explained, left), expected, "{text} explained within {most}");
                assert_eq!(event.outcome(&filter).0, outcome, "{text} after {most}");
            }
        }
    }

    #[test]
    fn a_body_without_data_has_no_result() {
        let dialects = Dialects::read([]).unwrap_or_else(|faults| panic!("{faults:?}"));
        let event_type = EventType::parse("a").expect("a type");
        let filter = Filter::parse("true").expect("a filter");
        for body in ["{", "[]", r#"{"payload":1}"#] {
            let mut event = FilteredEvent::new(dialects.get("nudj").expect("a dialect"), &event_type, body);
            assert_eq!(event.outcome(&filter).0, Outcome::Error);
            assert!(filter.explain(&event).error.is_some());
        }
        let old = Filter::stored("no filter".to_owned());
        let event = FilteredEvent::new(dialects.get("nudj").expect("a dialect"), &event_type, r#"{"data":1}"#);
        assert!(old.explain(&event).error.expect("a reason").contains("save the filter again"));
    }
}

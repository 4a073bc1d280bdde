use proptest::{prelude::*, sample::select};
use uuid::Uuid;

use super::*;
use crate::endpoint::filter::FilteredEvent;

const WEBHOOK: EndpointId = EndpointId(Uuid::from_u128(1));
const DELIVERY: DeliveryId = DeliveryId(Uuid::from_u128(2));
const APPLICATION: ApplicationId = ApplicationId(Uuid::from_u128(3));

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("timestamp")
}

fn event() -> EventFacts {
    EventFacts {
        id: EventId(Uuid::from_u128(4)),
        event_type: EventType::parse("order.paid").expect("type"),
        accepted_at: at(0),
        is_test: false,
        erased_at: None,
        is_retained: true,
        is_fanned_out: true,
        matches: 1,
        delay: None,
    }
}

fn webhook(subscriptions: &[&str]) -> WebhookFacts {
    let parse = |text: &&str| Subscription::parse(text).expect("subscription");
    WebhookFacts {
        id: WEBHOOK,
        created_at: at(-100),
        deleted_at: None,
        status: EndpointStatus::Enabled,
        status_reason: None,
        feed: Feed::None,
        subscriptions: subscriptions.iter().map(parse).collect(),
        filter: None,
        template_fault: None,
        token_failure: None,
        has_authentication: false,
        certificate_ends_at: None,
        filtered: FilterResult::Unknown,
        rules: None,
        changes: Vec::new(),
        delivery: None,
        attempts: Vec::new(),
        backlog: None,
    }
}

fn delivery(state: State) -> DeliveryFacts {
    DeliveryFacts {
        id: DELIVERY,
        state,
        queued: None,
        failed: None,
        since: at(5),
        due_at: None,
        expires_at: None,
        first_in_order: None,
        parked_by: None,
        replay: None,
    }
}

fn attempt(number: u32, outcome: Outcome) -> AttemptFacts {
    AttemptFacts {
        number,
        started_at: at(i64::from(number)),
        duration_ms: Some(20),
        outcome,
        error: None,
        url: Some("https://receiver.example/".to_owned()),
        digest: None,
    }
}

fn answered(status: u16) -> Outcome {
    Outcome::answered(status)
}

fn codes(steps: &[Step]) -> Vec<&'static str> {
    steps.iter().map(|step| step.code).collect()
}

fn of(webhook: &WebhookFacts) -> Vec<Step> {
    of_webhook(&event(), webhook, at(10))
}

#[test]
fn a_webhook_without_a_delivery_is_told_the_reason_and_the_way() {
    let send = Some(Remedy::SendThere(event().id, WEBHOOK));
    let other = of(&webhook(&["points.*", "order"]));
    assert_eq!(codes(&other), ["other_types", "sendable"]);
    assert_eq!(other[0].evidence, [("subscriptions", "points.*, order".to_owned())]);
    assert_eq!((other[0].remedy, other[1].remedy), (Some(Remedy::ChangeSubscriptions(WEBHOOK)), send));

    let request = Some(r#"{"events":["order.*"]}"#);
    let change = ChangeFacts::of(AuditId(Uuid::nil()), at(7), "change_webhook".to_owned(), request);
    let changed = of(&WebhookFacts { changes: vec![change], ..webhook(&["order.*"]) });
    assert_eq!(codes(&changed), ["changed_later", "sendable"]);
    assert_eq!(changed[0].evidence[1], ("changed_at", at(7).to_string()));

    let later = of(&WebhookFacts { created_at: at(1), ..webhook(&["*"]) });
    assert_eq!((codes(&later), later[1].remedy), (vec!["created_later", "sendable"], send));
    let disabled = of(&WebhookFacts { status: EndpointStatus::Disabled, created_at: at(1), ..webhook(&["*"]) });
    assert_eq!(disabled[1].remedy, Some(Remedy::Enable(WEBHOOK)));
    assert_eq!(codes(&of(&WebhookFacts { deleted_at: Some(at(-1)), ..webhook(&["*"]) })), ["deleted"]);
}

#[test]
fn a_filter_that_said_no_is_named_with_the_part_and_the_values() {
    let filter = Arc::new(Filter::parse("data.n > 1 && data.x == 'a'").expect("a filter"));
    let event_type = event().event_type;
    let explained = |data: serde_json::Value| {
        let filtered = FilterResult::Explained(filter.explain(&FilteredEvent::of_sample(&event_type, data)));
        of(&WebhookFacts { filter: Some(Arc::clone(&filter)), filtered, ..webhook(&["*"]) })
    };
    let no = explained(serde_json::json!({ "n": 2, "x": "b" }));
    assert_eq!((codes(&no), no[0].remedy), (vec!["filtered", "sendable"], Some(Remedy::ChangeFilter(WEBHOOK))));
    assert!(no[0].sentence.contains("does not meet data.x == 'a'"), "{}", no[0].sentence);
    assert_eq!(no[0].evidence[2..], [("position", "15".to_owned()), ("value", "data.x = \"b\"".to_owned())]);
    let failed = explained(serde_json::json!({ "n": 2 }));
    assert_eq!(codes(&failed), ["filter_failed", "sendable"]);
    assert_eq!(codes(&explained(serde_json::json!({ "n": 2, "x": "a" }))), ["changed_later", "sendable"]);

    let gone = WebhookFacts { filter: Some(Arc::clone(&filter)), ..webhook(&["*"]) };
    assert_eq!(codes(&of(&gone)), ["filter_unknown", "sendable"]);
    let too_long = of(&WebhookFacts { filtered: FilterResult::TooLong, ..gone });
    assert_eq!(codes(&too_long), ["filter_unknown", "sendable"]);
    assert!(too_long[0].sentence.contains("alone"), "{}", too_long[0].sentence);
    let other = WebhookFacts { filter: Some(filter), ..webhook(&["points.*"]) };
    assert_eq!(codes(&of(&other)), ["other_types", "sendable"], "the types decide first");
}

#[test]
fn a_reader_without_payloads_learns_nothing_from_a_filter() {
    let told = |filter: &str, changes: &[ChangeFacts]| {
        let filter = Some(Arc::new(Filter::parse(filter).expect("a filter")));
        let changes = changes.to_vec();
        let step = of(&WebhookFacts { filter, filtered: FilterResult::Withheld, changes, ..webhook(&["*"]) }).remove(0);
        assert!(step.evidence.iter().all(|(name, _)| ["filter", "change", "changed_at"].contains(name)), "{step:?}");
        (step.code, step.sentence, step.remedy)
    };
    // The record alone: an unchanged filter, and no delivery.
    let (code, _, remedy) = told("data.n > 1", &[]);
    assert_eq!((code, remedy), ("filtered", Some(Remedy::ChangeFilter(WEBHOOK))));
    let request = Some(r#"{"filter":"data.n > 1"}"#);
    let change = ChangeFacts::of(AuditId(Uuid::nil()), at(7), "change_webhook".to_owned(), request);
    let changed = told("data.n > 1", std::slice::from_ref(&change));
    assert_eq!(changed.0, "filter_unknown");
    for other in ["data.n <= 1", "data.salary > 5000", "true", "data.a.b.c"] {
        assert_eq!(told(other, std::slice::from_ref(&change)), changed, "{other}");
        assert_eq!(told(other, &[]).0, "filtered", "{other}");
    }
}

#[test]
fn attempts_with_the_same_result_are_one_step() {
    let attempts = [500, 500, 401].into_iter().zip(1..).map(|(status, number)| attempt(number, answered(status)));
    let failed = DeliveryFacts { failed: Some(FailureReason::AttemptsExhausted), ..delivery(State::Failed) };
    let steps = of(&WebhookFacts { attempts: attempts.collect(), delivery: Some(failed), ..webhook(&["*"]) });
    assert_eq!(codes(&steps), ["matched", "answered", "answered", "attempts_exhausted"]);
    assert!(steps[1].sentence.starts_with("Attempts 1 to 2, each with the same result: "), "{}", steps[1].sentence);
    let told = (steps[1].remedy, steps[2].remedy, steps[3].remedy);
    assert_eq!(told, (None, Some(Remedy::CheckSignature(WEBHOOK)), Some(Remedy::Resend(DELIVERY))));
}

#[test]
fn a_customer_reads_of_a_parked_message_only_with_the_own_routing_key() {
    let message = ParkedFacts {
        id: ParkedId(Uuid::nil()),
        parked_at: at(0),
        reason: "malformed_json".to_owned(),
        message: "the body is no JSON, near PRIVATE".to_owned(),
        routing_key: Some(format!("{APPLICATION}.order.paid")),
    };
    let messages = [message.clone(), ParkedFacts { routing_key: None, ..message }];
    let read = parked(&messages, APPLICATION, Reader::Customer);
    assert_eq!(codes(&read), ["unreadable"]);
    assert!(!format!("{read:?}").contains("PRIVATE") && !format!("{read:?}").contains("prk_"), "{read:?}");
    let other = ApplicationId(Uuid::nil());
    assert!(parked(&messages, other, Reader::Customer).is_empty());
    assert_eq!(parked(&messages, APPLICATION, Reader::Administrator).len(), 2);
    assert_eq!(parked(&messages, other, Reader::Administrator).len(), 1);
}

#[test]
fn reasons_of_fanfare_are_told_as_such() {
    for reason in [QueueReason::ShuttingDown, QueueReason::ApplicationUnreadable, QueueReason::Isolated] {
        let queued = DeliveryFacts { queued: Some(reason), ..delivery(State::Queued) };
        let steps = of(&WebhookFacts { delivery: Some(queued), ..webhook(&["*"]) });
        assert!(steps[1].sentence.starts_with("Fanfare deferred the delivery: "), "{}", steps[1].sentence);
        assert_eq!(steps[1].fault, Some(Fault::Ours));
    }
    let steps = arrival(&EventFacts { is_fanned_out: false, ..event() });
    assert_eq!((steps[1].code, steps[1].fault), ("fanning_out", Some(Fault::Ours)));
}

#[test]
fn a_delivery_in_order_names_the_delivery_before() {
    let other = DeliveryId(Uuid::from_u128(7));
    let waiting = DeliveryFacts { queued: Some(QueueReason::InOrder), ..delivery(State::Queued) };
    let last = |delivery| of(&WebhookFacts { delivery: Some(delivery), ..webhook(&["*"]) }).pop().expect("a step");
    let behind = last(DeliveryFacts { first_in_order: Some(other), expires_at: Some(at(90)), ..waiting.clone() });
    assert_eq!(behind.evidence.first(), Some(&("first", other.to_string())));
    assert!(behind.evidence.iter().all(|(name, _)| *name != "expires_at"), "the lifetime begins with the turn");
    let parked = last(DeliveryFacts { first_in_order: Some(other), parked_by: Some(other), ..waiting.clone() });
    assert_eq!((parked.code, parked.remedy), ("key_parked", Some(Remedy::ResumeKey(WEBHOOK))));
    assert_eq!(last(waiting).fault, Some(Fault::Ours), "the turn has come");
}

#[test]
fn a_wait_for_a_token_tells_the_state_of_the_token_server() {
    let waiting = DeliveryFacts { queued: Some(QueueReason::TokenUnavailable), ..delivery(State::Queued) };
    let failure = TokenFailure { error: "answers 503".to_owned(), since: at(7) };
    let facts = WebhookFacts { delivery: Some(waiting), token_failure: Some(failure), ..webhook(&["*"]) };
    let step = of(&facts).pop().expect("a step");
    assert_eq!((step.code, step.remedy), ("token_unavailable", Some(Remedy::ChangeAuthentication(WEBHOOK))));
    assert_eq!(step.sentence, "The webhook has no token: the token server answers 503.");
    assert_eq!(step.evidence.first(), Some(&("failing_since_at", at(7).to_string())));
    let behind = DeliveryFacts { queued: Some(QueueReason::Backlog), ..delivery(State::Queued) };
    let codes: Vec<_> =
        of(&WebhookFacts { delivery: Some(behind), ..facts.clone() }).iter().map(|step| step.code).collect();
    assert!(codes.ends_with(&["backlog", "token_unavailable"]), "{codes:?}");
    let fetching = of(&WebhookFacts { token_failure: None, ..facts }).pop().expect("a step");
    assert_eq!((fetching.state, fetching.fault), (StepState::Pending, Some(Fault::Ours)));
}

#[test]
fn a_delay_tells_its_due_time_or_its_cancellation() {
    let of = |state| EventFacts { matches: 0, delay: Some(DelayFacts { deliver_at: at(90), state }), ..event() };
    let waiting = arrival(&of(DelayState::Waiting));
    assert_eq!((waiting.len(), waiting[1].code, waiting[1].state), (2, "delayed", StepState::Pending));
    assert_eq!(waiting[1].remedy, Some(Remedy::WaitUntil(at(90))));
    assert!(waiting[1].sentence.contains(&at(90).to_string()), "{}", waiting[1].sentence);
    let cancelled = arrival(&of(DelayState::Cancelled(at(5), "key_1".to_owned())));
    assert_eq!((cancelled.len(), cancelled[1].code, cancelled[1].state), (2, "cancelled", StepState::Problem));
    let sentence = &cancelled[1].sentence;
    assert!(sentence.contains("key_1") && sentence.contains(&at(5).to_string()), "{sentence}");
    let due = arrival(&of(DelayState::Due));
    assert_eq!(due.iter().map(|step| step.code).collect::<Vec<_>>(), ["accepted", "due", "unmatched"]);

    // The match happens when the event is due: a webhook that was created before is no later webhook.
    let webhook = WebhookFacts { created_at: at(60), ..webhook(&["*"]) };
    let code = |event: &EventFacts| of_webhook(event, &webhook, at(100))[0].code;
    assert_eq!(code(&of(DelayState::Waiting)), "not_matched");
    assert_eq!(code(&of(DelayState::Due)), "changed_later");
    assert_eq!(code(&event()), "created_later");
}

#[test]
fn a_wait_has_its_end() {
    let due = DeliveryFacts { due_at: Some(at(60)), ..delivery(State::Scheduled) };
    let steps = of(&WebhookFacts { delivery: Some(due.clone()), ..webhook(&["*"]) });
    assert_eq!(steps[1].remedy, Some(Remedy::WaitUntil(at(60))));
    let late = of_webhook(&event(), &WebhookFacts { delivery: Some(due), ..webhook(&["*"]) }, at(200));
    assert_eq!((late[1].code, late[1].fault), ("overdue", Some(Fault::Ours)));
    let backlog = BacklogFacts { since: at(1), failures: 12, next_probe: Some(at(70)), rests_until: None };
    let queued = DeliveryFacts { queued: Some(QueueReason::Backlog), ..delivery(State::Queued) };
    let steps = of(&WebhookFacts { delivery: Some(queued), backlog: Some(backlog), ..webhook(&["*"]) });
    assert_eq!((steps[2].code, steps[2].remedy), ("probing", Some(Remedy::WaitUntil(at(70)))));
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let unanswered = [
        Outcome::TimedOut,
        Outcome::ConnectionFailed,
        Outcome::ConnectionClosed,
        Outcome::NameNotResolved,
        Outcome::AddressForbidden,
        Outcome::TlsFailed,
        Outcome::NotHttp,
        Outcome::NotSendable,
        Outcome::Unknown,
    ];
    prop_oneof![(100u16..600).prop_map(answered), select(unanswered.to_vec())]
}

fn deliveries() -> impl Strategy<Value = DeliveryFacts> {
    let (states, failed, queued) =
        (select(State::ALL.to_vec()), select(FailureReason::ALL.to_vec()), select(QueueReason::ALL.to_vec()));
    (states, failed, queued, any::<bool>()).prop_map(|(state, failed, queued, is_replayed)| DeliveryFacts {
        failed: (state == State::Failed).then_some(failed),
        queued: matches!(state, State::Queued | State::Held).then_some(queued),
        due_at: (state == State::Scheduled).then_some(at(50)),
        replay: is_replayed.then_some(ReplayId(Uuid::nil())),
        ..delivery(state)
    })
}

fn facts() -> impl Strategy<Value = (EventFacts, WebhookFacts)> {
    let events =
        (any::<[bool; 4]>(), 0..3i32).prop_map(|([is_test, is_erased, is_retained, is_fanned_out], matches)| {
            let erased_at = is_erased.then_some(at(8));
            EventFacts { is_test, erased_at, is_retained, is_fanned_out, matches, ..event() }
        });
    let attempts = proptest::collection::vec(outcomes(), 0..5).prop_map(|outcomes| {
        outcomes.into_iter().zip(1..).map(|(outcome, number)| attempt(number, outcome)).collect::<Vec<_>>()
    });
    let statuses = select(EndpointStatus::ALL.to_vec());
    let webhooks = (statuses, any::<[bool; 4]>(), proptest::option::of(deliveries()), attempts).prop_map(
        |(status, [is_later, is_deleted, covers, is_read], delivery, attempts)| WebhookFacts {
            status,
            feed: if is_read { Feed::Only } else { Feed::None },
            created_at: at(if is_later { 3 } else { -3 }),
            deleted_at: is_deleted.then_some(at(4)),
            delivery,
            attempts,
            ..webhook(if covers { &["*"] } else { &["points.*"] })
        },
    );
    (events, webhooks)
}

proptest! {
    #[test]
    fn each_explanation_is_whole((event, webhook) in facts()) {
        let arrival = arrival(&event);
        let steps = of_webhook(&event, &webhook, at(10));
        prop_assert!(!steps.is_empty() && arrival[0].code == "accepted");
        for step in arrival.iter().chain(&steps) {
            prop_assert!(step.sentence.ends_with('.') && !step.code.is_empty());
            prop_assert!(step.sentence.split(". ").all(|part| part.split_whitespace().count() <= 25), "{}", step.sentence);
            for (name, value) in &step.evidence {
                prop_assert!(!name.ends_with("_at") || value.parse::<Timestamp>().is_ok(), "{} {}", name, value);
            }
            prop_assert!(step.state != StepState::Done || (step.remedy.is_none() && step.fault.is_none()), "{:?}", step);
        }
    }

    /// Each remedy can be done now.
    #[test]
    fn no_remedy_would_be_refused((event, webhook) in facts()) {
        let is_lost = event.erased_at.is_some() || !event.is_retained || event.is_test;
        for remedy in of_webhook(&event, &webhook, at(10)).into_iter().filter_map(|step| step.remedy) {
            match remedy {
                Remedy::Resend(_) | Remedy::SendThere(..) => {
                    prop_assert!(!is_lost && webhook.deleted_at.is_none());
                    prop_assert!(webhook.status != EndpointStatus::Disabled && webhook.feed != Feed::Only);
                    prop_assert_eq!(matches!(remedy, Remedy::Resend(_)), webhook.delivery.is_some());
                }
                Remedy::Enable(_) => prop_assert_eq!(webhook.status, EndpointStatus::Disabled),
                Remedy::WaitUntil(_) | Remedy::PublishAgain | Remedy::Resume(_) => {}
                _ => prop_assert!(webhook.deleted_at.is_none()),
            }
        }
    }

    #[test]
    fn the_last_step_tells_the_state((event, webhook) in facts()) {
        let steps = of_webhook(&event, &webhook, at(10));
        let last = steps.last().expect("a step");
        match webhook.delivery.as_ref().map(|delivery| delivery.state) {
            Some(State::Delivered) => prop_assert_eq!((last.code, last.state), ("delivered", StepState::Done)),
            Some(State::Skipped) if webhook.feed == Feed::Only => {
                prop_assert_eq!((last.code, last.state), ("in_feed", StepState::Done));
            }
            Some(State::Failed | State::Skipped | State::Held) => prop_assert_eq!(last.state, StepState::Problem),
            Some(_) => prop_assert_eq!(last.state, StepState::Pending),
            None => prop_assert!(last.state != StepState::Done),
        }
    }
}

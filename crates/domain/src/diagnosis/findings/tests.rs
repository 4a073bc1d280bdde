//! Tests of all checks.

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*};
use uuid::Uuid;

use super::{
    Severity::{Critical, Notice, Warning},
    Whose::{Ours, Publisher, Theirs},
    *,
};
use crate::{
    diagnosis::rollup::{Counts, FailureCounts},
    ids::ProcessId,
};

const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a moment")
}

fn ago(seconds: i64) -> Timestamp {
    at(NOW - seconds)
}

fn application() -> ApplicationId {
    ApplicationId(Uuid::from_u128(1))
}

fn webhook() -> EndpointId {
    EndpointId(Uuid::from_u128(2))
}

fn process(is_dispatcher: bool) -> ProcessFact {
    ProcessFact {
        id: ProcessId(Uuid::from_u128(3)),
        is_dispatcher,
        host: Some(if is_dispatcher { "pod-1" } else { "pod-2" }.to_owned()),
        version: "1.0.0".to_owned(),
        settings: r#"{"FANFARE_EXPIRY":"1h"}"#.to_owned(),
        is_alive: true,
        seen_at: Some(ago(1)),
        has_broker: true,
        has_database: true,
        places: (1, 100),
        events_in_hand: 5,
        longest_wait: Duration::ZERO,
        due: 0,
        clock_offset: Duration::ZERO,
    }
}

fn failing() -> EndpointFact {
    EndpointFact {
        application: application(),
        endpoint: webhook(),
        host: "hooks.acme.example".to_owned(),
        since: Some(ago(1800)),
        cause: Some("401".to_owned()),
        waiting: 213,
        next_probe: Some(at(NOW + 20)),
        change: Some(ChangeFact { at: ago(1860), action: "rotate_secret".to_owned(), by: "key_7k".to_owned() }),
    }
}

fn queue(queue: &str, ready: u64, consumers: u64) -> QueueFact {
    QueueFact { queue: queue.to_owned(), ready, ready_before: ready, consumers }
}

fn load() -> ApplicationLoad {
    ApplicationLoad {
        application: application(),
        name: "shop".to_owned(),
        events_per_second: 20.0,
        share: 0.4,
        limit: None,
        busy_backlogs: 0,
        unreadable_backlogs: 0,
    }
}

fn sound() -> Facts {
    Facts {
        now: at(NOW),
        due: DueDeliveries::default(),
        processes: vec![process(true), process(false)],
        queues: vec![queue("events", 3, 1), queue("deliveries", 0, 1), queue("unrouted", 0, 1)],
        parked: Vec::new(),
        endpoints: Vec::new(),
        applications: vec![load(), load()],
        rotations: Vec::new(),
        certificates: Vec::new(),
        held: Vec::new(),
        expiring: Vec::new(),
        partitions_ahead: 7,
        days_to_archive: 0,
        jobs: vec![JobFact { job: "census".to_owned(), error: None, succeeded_at: Some(ago(5)) }],
        counted_until: ago(120),
        recent: Counts::default(),
    }
}

fn application_facts() -> ApplicationFacts {
    ApplicationFacts {
        application: application(),
        now: at(NOW),
        endpoints: Vec::new(),
        stopped: Vec::new(),
        rotations: Vec::new(),
        certificates: Vec::new(),
        held: Vec::new(),
        expiring: Vec::new(),
        recent: Counts::default(),
    }
}

#[test]
fn a_sound_deployment_keeps_up() {
    let examined = examine(&sound());
    assert_eq!((examined.findings.as_slice(), examined.well.len()), (&[][..], 24));
    assert_eq!(summary(&examined), "Fanfare keeps up.");
}

/// The change of a sound deployment, and the expected severity, side and sentence of the only finding.
type Case = (fn(&mut Facts), Severity, Whose, &'static str);

const PROCESSES_AND_QUEUES: [Case; 12] = [
    (|facts| facts.processes.retain(|process| process.is_dispatcher), Critical, Ours, "No ingest runs"),
    (|facts| facts.processes.retain(|process| !process.is_dispatcher), Critical, Ours, "No dispatcher runs"),
    (
        |facts| facts.processes.push(ProcessFact { is_alive: false, ..process(true) }),
        Warning,
        Ours,
        "The process dispatcher pod-1 died: last seen at",
    ),
    (|facts| facts.processes[1].has_broker = false, Warning, Ours, "No answer of RabbitMQ at ingest pod-2"),
    (|facts| facts.processes[0].has_database = false, Warning, Ours, "No answer of the database at dispatcher"),
    (|facts| facts.processes[0].longest_wait = Duration::from_secs(6), Warning, Ours, "the oldest for 6.0 s"),
    (|facts| facts.processes[0].longest_wait = Duration::from_secs(61), Critical, Ours, "the oldest for 61 s"),
    (|facts| facts.processes[0].places = (90, 100), Warning, Ours, "nine tenths"),
    (
        |facts| facts.due = DueDeliveries { retries: 2, oldest_retry: Some(ago(60)), unowned_since: None },
        Warning,
        Ours,
        "2 retries are late",
    ),
    (|facts| facts.due.unowned_since = Some(ago(60)), Critical, Ours, "no dispatcher since"),
    (
        |facts| facts.queues[0] = queue("events", 11, 1),
        Warning,
        Ours,
        "11 events wait in the broker, and 10 are in hand",
    ),
    (|facts| facts.queues[1].consumers = 0, Critical, Ours, "No dispatcher consumes the queue `deliveries`"),
];

const OTHERS: [Case; 18] = [
    (|facts| facts.queues[2].ready = 1, Warning, Ours, "1 message matched no binding"),
    (
        |facts| facts.processes[1].settings = r#"{"FANFARE_EXPIRY":"2h"}"#.to_owned(),
        Critical,
        Ours,
        r#"FANFARE_EXPIRY differs: "1h" in dispatcher pod-1; "2h" in ingest pod-2."#,
    ),
    (|facts| facts.processes[1].version = "1.1.0".to_owned(), Warning, Ours, "versions 1.0.0, 1.1.0"),
    (|facts| facts.processes[1].clock_offset = Duration::from_secs(3), Warning, Ours, "by 3.0 s"),
    (
        |facts| facts.recent.failed = FailureCounts { unknown: 1, ..FailureCounts::default() },
        Warning,
        Ours,
        "1 attempt has no known outcome",
    ),
    (|facts| facts.partitions_ahead = 3, Warning, Ours, "3 days ahead"),
    (|facts| facts.partitions_ahead = 1, Critical, Ours, "1 days ahead"),
    (|facts| facts.days_to_archive = 2, Warning, Ours, "2 days at the end"),
    (|facts| facts.jobs[0].error = Some("no".to_owned()), Warning, Ours, "The job census failed: no."),
    (|facts| facts.counted_until = ago(1000), Notice, Ours, "Attempts are counted until"),
    (|facts| facts.applications[0].share = 0.6, Notice, Publisher, "shop publishes 20 events/s, 60 % of all"),
    (|facts| facts.applications[0].busy_backlogs = 2, Warning, Theirs, "shop uses its half of the places"),
    (|facts| facts.applications[0].unreadable_backlogs = 1, Critical, Ours, "cannot read the settings of shop"),
    (|facts| facts.endpoints.push(failing()), Warning, Theirs, "hooks.acme.example has failed since"),
    (
        |facts| {
            let (reason, newest, oldest) = ("missing_message_id".to_owned(), ago(60), ago(600));
            facts.parked.push(ParkedGroup { reason, messages: 3, newest, oldest });
        },
        Warning,
        Publisher,
        "3 messages are parked: missing_message_id",
    ),
    (
        |facts| {
            let (application, endpoint, host) = (application(), webhook(), "a.example".to_owned());
            facts.rotations.push(RotationFact { application, endpoint, host, ends_at: at(NOW + 60) });
        },
        Notice,
        Theirs,
        "The previous secret of a.example signs until",
    ),
    (
        |facts| {
            let (application, endpoint, host) = (application(), webhook(), "a.example".to_owned());
            facts.certificates.push(CertificateFact { application, endpoint, host, ends_at: at(NOW + 86_400) });
        },
        Notice,
        Theirs,
        "The client certificate for a.example ends at",
    ),
    (
        |facts| {
            let (application, endpoint, host) = (application(), webhook(), "a.example".to_owned());
            facts.certificates.push(CertificateFact { application, endpoint, host, ends_at: ago(60) });
        },
        Warning,
        Theirs,
        "The client certificate for a.example has ended at",
    ),
];

#[test]
fn each_trouble_is_found_alone() {
    for (change, severity, whose, sentence) in PROCESSES_AND_QUEUES.into_iter().chain(OTHERS) {
        let mut facts = sound();
        change(&mut facts);
        let found = examine(&facts).findings;
        let [finding] = found.as_slice() else { panic!("{sentence}: {found:?}") };
        assert!(finding.sentence.contains(sentence), "{sentence}: {finding:?}");
        assert_eq!((finding.severity, finding.whose), (severity, whose), "{sentence}");
    }
}

#[test]
fn a_failing_endpoint_is_explained_by_the_change_before() {
    let mut facts = sound();
    facts.endpoints.push(failing());
    let examined = examine(&facts);
    assert_eq!(
        examined.findings[0].sentence,
        "hooks.acme.example has failed since 07:30 UTC (401), right after its secret was rotated (07:29 UTC, by key_7k). \
         213 deliveries wait, the next is tried at 08:00 UTC."
    );
    assert_eq!(summary(&examined), "Fanfare keeps up. 1 endpoint needs its owner.");
    // A change long before explains nothing.
    facts.endpoints[0].change.as_mut().expect("a change").at = ago(10000);
    assert!(!examine(&facts).findings[0].sentence.contains("rotated"));
    // A short failure is no finding.
    facts.endpoints[0] = EndpointFact { since: Some(ago(599)), next_probe: None, ..failing() };
    assert!(examine(&facts).findings.is_empty());
}

#[test]
fn a_customer_does_not_see_the_author_of_a_change() {
    let facts = ApplicationFacts { endpoints: vec![failing()], ..application_facts() };
    let sentence = &application_findings(&facts).findings[0].sentence;
    assert!(sentence.contains("right after its secret was rotated (07:29 UTC)."), "{sentence}");
}

#[test]
fn messages_of_a_dead_process_are_not_in_hand() {
    let mut facts = sound();
    facts.processes.push(ProcessFact { is_alive: false, events_in_hand: 1000, ..process(true) });
    facts.queues[0] = queue("events", 11, 1);
    let sentences: Vec<String> = examine(&facts).findings.into_iter().map(|finding| finding.sentence).collect();
    assert!(sentences.iter().any(|sentence| sentence.contains("and 10 are in hand")), "{sentences:?}");
}

#[test]
fn a_count_that_reaches_its_bound_is_no_exact_number() {
    let mut facts = sound();
    let group =
        |reason: &str, messages| ParkedGroup { reason: reason.to_owned(), messages, newest: ago(60), oldest: ago(600) };
    facts.parked = vec![group("malformed_json", 3), group("missing_message_id", MAX_PARKED - 3)];
    facts.due = DueDeliveries { retries: MAX_LATE, oldest_retry: Some(ago(60)), unowned_since: None };
    facts.endpoints = vec![EndpointFact { waiting: MAX_WAITING, ..failing() }];
    let sentences: Vec<String> = examine(&facts).findings.into_iter().map(|finding| finding.sentence).collect();
    for expected in [
        "3 or more messages are parked: malformed_json",
        "997 or more messages are parked",
        "1000 or more retries are late",
        "1000 or more deliveries wait, the next",
    ] {
        assert!(sentences.iter().any(|sentence| sentence.contains(expected)), "{expected}: {sentences:?}");
    }
}

#[test]
fn many_held_deliveries_are_found_at_half_of_the_usual_bound() {
    let (application, endpoint, host) = (application(), webhook(), "a.example".to_owned());
    let held = HeldFact {
        application,
        endpoint,
        host,
        held: MAX_HELD,
        since: ago(60),
        max_held: Some(1_000_000),
        max_age: None,
    };
    let mut facts = sound();
    facts.held = vec![HeldFact { held: MAX_HELD - 1, ..held.clone() }, held];
    let found = examine(&facts).findings;
    assert_eq!(found.len(), 1, "{found:?}");
    let expected = "50000 or more deliveries are held for a.example, paused for 60 s: the oldest fail beyond 1000000.";
    assert_eq!(found[0].sentence, expected);
}

#[test]
fn held_and_expiring_deliveries_are_found_before_their_end() {
    let (application, endpoint, host) = (application(), webhook(), "a.example".to_owned());
    let held = HeldFact {
        application,
        endpoint,
        host: host.clone(),
        held: 50,
        since: ago(60),
        max_held: Some(100),
        max_age: Some(Duration::from_secs(86400)),
    };
    let mut facts = sound();
    facts.held = vec![held.clone(), HeldFact { held: 49, ..held.clone() }, HeldFact { held: 0, ..held.clone() }];
    facts.held.push(HeldFact { held: 1, since: ago(43200), ..held });
    facts.expiring = vec![ExpiringFact { application, endpoint, host, expires_at: at(NOW + 3600) }];
    let sentences: Vec<String> = examine(&facts).findings.into_iter().map(|finding| finding.sentence).collect();
    assert_eq!(sentences.len(), 3, "{sentences:?}");
    assert!(sentences[0].contains("beyond 100") && sentences[1].contains("fail after 24 h"), "{sentences:?}");
    assert!(sentences[2].contains("expire from 09:00 UTC on"), "{sentences:?}");
}

#[test]
fn events_without_an_endpoint_are_told_to_the_application() {
    let recent = Counts { events: 10, unmatched: 1, ..Counts::default() };
    let facts = ApplicationFacts { endpoints: vec![failing()], recent, ..application_facts() };
    let Examined { findings, well } = application_findings(&facts);
    assert_eq!((findings.len(), well.len()), (2, 4));
    assert_eq!(findings[1].sentence, "1 event of the last hour, of 10, matched no endpoint.");
}

fn any_moment() -> impl Strategy<Value = Timestamp> {
    prop_oneof![(NOW - 200_000..NOW + 10_000).prop_map(at), Just(Timestamp::MIN), Just(Timestamp::MAX)]
}

fn any_process() -> impl Strategy<Value = ProcessFact> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let numbers = (0usize..200, 0usize..200, any::<usize>(), any::<u64>(), 0u64..200_000, 0u64..10_000);
    (flags, numbers, option::of(any_moment()), option::of(".*"), "[0-9.]*", ".*").prop_map(
        |((is_dispatcher, is_alive, has_broker, has_database), numbers, seen_at, host, version, settings)| {
            let (used, all, events_in_hand, due, wait, offset) = numbers;
            ProcessFact {
                is_alive,
                host,
                version,
                settings,
                seen_at,
                has_broker,
                has_database,
                places: (used, all),
                events_in_hand,
                longest_wait: Duration::from_millis(wait),
                due,
                clock_offset: Duration::from_millis(offset),
                ..process(is_dispatcher)
            }
        },
    )
}

fn any_endpoint() -> impl Strategy<Value = EndpointFact> {
    let change = (any_moment(), ".*", ".*").prop_map(|(at, action, by)| ChangeFact { at, action, by });
    let times = (option::of(any_moment()), option::of(any_moment()));
    (".*", times, option::of(".*"), any::<u64>(), option::of(change)).prop_map(
        |(host, (since, next_probe), cause, waiting, change)| EndpointFact {
            host,
            since,
            next_probe,
            cause,
            waiting,
            change,
            ..failing()
        },
    )
}

fn any_held() -> impl Strategy<Value = HeldFact> {
    (any::<u64>(), any_moment(), option::of(any::<u64>()), option::of(0u64..1_000_000)).prop_map(
        |(held, since, max_held, max_age)| HeldFact {
            application: application(),
            endpoint: webhook(),
            host: "a.example".to_owned(),
            held,
            since,
            max_held,
            max_age: max_age.map(Duration::from_secs),
        },
    )
}

fn any_load() -> impl Strategy<Value = ApplicationLoad> {
    (any::<f64>(), any::<f64>(), any::<u64>(), any::<u64>()).prop_map(|(rate, share, busy, unreadable)| {
        ApplicationLoad {
            events_per_second: rate,
            share,
            busy_backlogs: busy,
            unreadable_backlogs: unreadable,
            ..load()
        }
    })
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let groups = (any_moment(), any_moment(), any::<u64>(), "[a-z_]+");
    let group = groups.prop_map(|(newest, oldest, messages, reason)| ParkedGroup { reason, messages, newest, oldest });
    let queues = ("events|deliveries|unrouted|parked", any::<u64>(), any::<u64>())
        .prop_map(|(name, ready, consumers)| queue(&name, ready, consumers));
    let due = (any::<u64>(), option::of(any_moment()), option::of(any_moment()))
        .prop_map(|(retries, oldest_retry, unowned_since)| DueDeliveries { retries, oldest_retry, unowned_since });
    let numbers = (any::<i32>(), any::<i64>(), any::<u64>(), any_moment());
    let lists = (vec(any_endpoint(), 0..4), vec(any_held(), 0..4), vec(any_load(), 0..4), vec(group, 0..4));
    (due, vec(any_process(), 0..5), vec(queues, 0..4), lists, numbers, any_moment()).prop_map(
        |(due, processes, queues, (endpoints, held, applications, parked), numbers, moment)| {
            let (partitions_ahead, days_to_archive, unknown, counted_until) = numbers;
            let (application, endpoint) = (application(), webhook());
            let host = "a.example".to_owned();
            Facts {
                due,
                processes,
                queues,
                endpoints,
                held,
                applications,
                parked,
                partitions_ahead,
                days_to_archive,
                counted_until,
                rotations: vec![RotationFact { application, endpoint, host: host.clone(), ends_at: moment }],
                certificates: vec![CertificateFact { application, endpoint, host: host.clone(), ends_at: moment }],
                expiring: vec![ExpiringFact { application, endpoint, host, expires_at: moment }],
                recent: Counts { failed: FailureCounts { unknown, ..FailureCounts::default() }, ..Counts::default() },
                ..sound()
            }
        },
    )
}

#[test]
fn an_endpoint_that_stopped_is_a_finding_for_its_owner() {
    let sentences = |cause| {
        let (application, endpoint, host) = (application(), webhook(), "a.example".to_owned());
        let stopped = vec![StoppedFact { application, endpoint, host, since: ago(600), cause }];
        let examined = application_findings(&ApplicationFacts { stopped, ..application_facts() });
        examined.findings.into_iter().map(|finding| finding.sentence).collect::<Vec<_>>()
    };
    assert!(sentences(Stop::ParkedKeys(1))[0].starts_with("1 ordering key is parked at a.example since "));
    assert!(sentences(Stop::ParkedKeys(2))[0].starts_with("2 ordering keys are parked"));
    assert!(sentences(Stop::DisabledByAnswer)[0].starts_with("An answer of a.example disabled the webhook at "));
}

proptest! {
    #[test]
    fn each_finding_has_a_sentence_and_an_action(facts in any_facts()) {
        let examined = examine(&facts);
        prop_assert!(examined.findings.is_sorted_by_key(|finding| finding.severity));
        for finding in &examined.findings {
            prop_assert!(finding.sentence.len() > 10 && finding.sentence.ends_with('.'), "{:?}", finding);
            prop_assert!(finding.action.len() > 10 && finding.action.ends_with('.'), "{:?}", finding);
        }
        prop_assert!(summary(&examined).starts_with("Fanfare "));
    }
}

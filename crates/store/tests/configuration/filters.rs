//! Filters of endpoints: stored, in the services' copy of the configuration, and with past events.

use std::sync::Arc;

use fanfare_domain::{delivery::replay::Replayed, dialect::Dialects, endpoint::Endpoint, ids::ReplayId};
use fanfare_store::{Directory, EndpointSettings, NewReplay};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{APPLICATION, Database, ONE, endpoint, timed};

async fn set(database: &Database, settings: EndpointSettings) -> Option<String> {
    let changed = database.store.change_endpoint(APPLICATION, endpoint(1), &settings).await;
    changed.expect("a change").expect("the endpoint").filter
}

fn filter(text: Option<&str>) -> EndpointSettings {
    EndpointSettings { filter: Some(text.map(str::to_owned)), ..EndpointSettings::default() }
}

#[tokio::test]
async fn a_filter_is_kept_parsed_until_its_text_changes() {
    let database = Database::new().await;
    let stop = CancellationToken::new();
    let dialects = Arc::new(Dialects::read([]).expect("the built-in dialects"));
    let directory = Directory::follow(database.another_store(), dialects, stop.clone()).await;
    let loaded = async || -> (Arc<Endpoint>, usize) {
        assert!(directory.refresh([APPLICATION]).await);
        let application = directory.application(APPLICATION).expect("the application");
        (Arc::clone(application.endpoint(endpoint(1)).expect("the endpoint")), application.filters())
    };
    assert_eq!((loaded().await.0.filter.is_none(), loaded().await.1), (true, 0));
    assert_eq!(set(&database, filter(Some("data.n == 1"))).await.as_deref(), Some("data.n == 1"));
    let (first, filters) = loaded().await;
    let known = first.filter.clone().expect("a filter");
    assert_eq!((known.text(), filters), ("data.n == 1", 1));
    let renamed = EndpointSettings { name: Some(Some("renamed".to_owned())), ..EndpointSettings::default() };
    assert_eq!(set(&database, renamed).await.as_deref(), Some("data.n == 1"), "another change keeps the filter");
    assert!(Arc::ptr_eq(&known, loaded().await.0.filter.as_ref().expect("a filter")), "not parsed again");
    set(&database, filter(Some("data.n == 2"))).await;
    assert_eq!(loaded().await.0.filter.as_ref().map(|filter| filter.text().to_owned()).as_deref(), Some("data.n == 2"));
    assert_eq!(set(&database, filter(None)).await, None);
    assert_eq!((loaded().await.0.filter.is_none(), loaded().await.1), (true, 0));
    stop.cancel();
}

#[tokio::test]
async fn past_events_have_complete_bodies_if_asked() {
    let database = Database::new().await;
    let new =
        fanfare_store::NewEvent { redacted: Some("{\"data\":\"[redacted]\"}".to_owned()), content: None, ..timed() };
    database.store.persist(ONE, &[&new]).await.expect("a commit");
    let now = Timestamp::now();
    let replay = NewReplay {
        id: ReplayId(Uuid::from_u128(1)),
        application: APPLICATION,
        endpoint: None,
        event_types: Vec::new(),
        states: vec![Replayed::Unmatched],
        since: now - SignedDuration::from_hours(1),
        until: now + SignedDuration::from_hours(1),
        rate_per_second: 10,
    };
    let without = database.store.past_events(&replay, None, 10, false).await.expect("events");
    assert_eq!((without.len(), without[0].body.as_deref()), (1, None));
    let with = database.store.past_events(&replay, None, 10, true).await.expect("events");
    assert_eq!(with[0].body.as_deref(), Some(new.body.as_str()), "the complete body, decrypted");
}

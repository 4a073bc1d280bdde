//! Deliveries with bodies of their own.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fanfare_domain::{
    delivery::{QueueReason, State},
    endpoint::template::Shaped,
};
use fanfare_store::{Erasure, ResendFilter, Start};

use crate::database::{APPLICATION, Database, ONE, endpoint, lease_id, starting, timed, to};

fn body(body: &str, shown: Option<&str>) -> Option<Arc<Shaped>> {
    Some(Arc::new(Shaped::Body { body: body.to_owned(), shown: shown.map(str::to_owned) }))
}

#[tokio::test]
async fn a_delivery_is_sent_with_its_own_body_until_the_erasure() {
    let database = Database::fresh().await;
    database.run("UPDATE endpoints SET had_template = true").await;
    let queued = Start::Queued(QueueReason::LaneFull);
    let no_body = Start::NotRendered { notifies_owner: true };
    let mut new = to(timed(), &[(endpoint(1), queued), (endpoint(2), no_body), (endpoint(3), queued)]);
    new.deliveries[0].shaped = body("\"own\"", Some("\"[redacted]\""));
    new.deliveries[1].shaped = Some(Arc::new(Shaped::Failed("no member".to_owned())));
    let [own, failed, usual] = [0, 1, 2].map(|position: usize| new.deliveries[position].id);
    let persisted = database.store.persist(ONE, &[&new]).await.expect("a commit");
    assert!(persisted.new.contains(&new.event.id));
    assert_eq!(database.count("delivery_bodies").await, 2);
    assert_eq!(database.count("failure_notices").await, 1);
    assert_eq!(database.count("delivery_bodies WHERE body LIKE '%own%'").await, 0, "encrypted");

    let leased = database.drain(1, endpoint(1), 10).await;
    let payload = leased[0].payload.as_ref().expect("an event");
    assert_eq!((payload.body.as_deref(), payload.is_unshaped), (Some("\"own\""), false));
    let other = database.drain(2, endpoint(3), 10).await;
    let payload = other[0].payload.as_ref().expect("an event");
    assert_eq!((other[0].delivery, payload.body.as_deref()), (usual, Some(new.body.as_str())));

    let shown = async |id| database.store.delivery(APPLICATION, id).await.expect("an answer").expect("a delivery").0;
    let row = shown(own).await;
    assert_eq!((row.body.as_deref(), row.is_redacted), (Some("\"[redacted]\""), true));
    let row = shown(failed).await;
    assert_eq!((row.state, row.reason.as_deref()), (State::Failed, Some("not_rendered")));
    assert_eq!((row.fault.as_deref(), row.body), (Some("no member"), None));

    // Requested again, the delivery gets its body at the lease, once.
    let filter = ResendFilter {
        deliveries: Some(vec![failed]),
        states: vec![State::Failed],
        limit: 1,
        ..ResendFilter::default()
    };
    let hour = Duration::from_secs(3600);
    let resent = database.store.resend(APPLICATION, &filter, &HashMap::new(), hour).await.expect("a commit");
    assert_eq!(resent.len(), 1);
    database.run("UPDATE endpoint_backlogs SET owner = (SELECT owner FROM endpoint_backlogs WHERE owner IS NOT NULL LIMIT 1)").await;
    let leased = database.drain(3, endpoint(2), 10).await;
    let payload = leased[0].payload.as_ref().expect("an event");
    assert_eq!((payload.body.as_deref(), payload.is_unshaped), (Some(new.body.as_str()), true));
    let mended = Shaped::Body { body: "1".to_owned(), shown: None };
    let keep = async |lease| database.store.keep_body(failed, lease_id(lease), &mended).await.expect("an answer");
    assert_eq!([keep(4).await, keep(3).await, keep(3).await], [false, true, false]);
    assert_eq!(shown(failed).await.body.as_deref(), Some("1"));

    database.run("UPDATE open_deliveries SET state = 'queued', lease_id = NULL, lease_until = NULL").await;
    assert_eq!(database.store.erase_event(APPLICATION, new.event.id).await.expect("a commit"), Erasure::Done);
    assert_eq!(database.count("delivery_bodies").await, 0);
}

#[tokio::test]
async fn a_batch_with_and_without_own_bodies_is_one_commit() {
    let database = Database::new().await;
    let mut events = [to(timed(), &[(endpoint(1), starting(1))]), to(timed(), &[(endpoint(1), starting(2))])];
    events[1].deliveries[0].shaped = body("2", None);
    let mut batch: Vec<_> = events.iter().collect();
    batch.sort_unstable_by_key(|new| new.event.id);
    let persisted = database.store.persist(ONE, &batch).await.expect("a commit");
    assert_eq!((persisted.new.len(), persisted.queued.len()), (2, 0));
    assert_eq!(database.count("open_deliveries WHERE shaped").await, 1);
    let leased = database.store.leased_under(lease_id(2)).await.expect("an answer");
    assert_eq!(leased[0].payload.as_ref().and_then(|payload| payload.body.as_deref()), Some("2"));
}

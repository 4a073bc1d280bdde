//! Groups of parked messages, and the messages of a group.

use fanfare_domain::ids::ParkedId;
use fanfare_store::{ParkedFilter, ParkedMessage};

use crate::database::{Database, moment};

fn parked(number: u8, reason: &str, body: usize) -> ParkedMessage {
    ParkedMessage {
        id: ParkedId::new(moment(60 - u64::from(number)), [number; 10]),
        reason: reason.to_owned(),
        message: "the fault".to_owned(),
        origin: None,
        routing_key: None,
        message_id: None,
        headers: "{}".to_owned(),
        body: vec![b'a'; body],
        bytes: body,
    }
}

#[tokio::test]
async fn the_oldest_messages_go_first_except_sound_ones() {
    let database = Database::new().await;
    let reasons = ["delivery_limit", "malformed_json", "application_unreadable"];
    for number in 0..9_u8 {
        let message = parked(number, reasons[usize::from(number) % 3], 100);
        database.store.park(&message).await.expect("a commit");
    }
    let left = async || {
        let filter = ParkedFilter { limit: 10, ..ParkedFilter::default() };
        let rows = database.store.parked(&filter).await.expect("a look");
        rows.iter().rev().map(|row| row.id.0.as_bytes()[15]).collect::<Vec<_>>()
    };
    assert_eq!(database.store.trim_parked(3, 300, 10).await.expect("a commit"), 0);
    assert_eq!(database.store.trim_parked(2, 1000, 10).await.expect("a commit"), 1);
    assert_eq!(left().await, [0, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(database.store.trim_parked(2, 199, 10).await.expect("a commit"), 1);
    assert_eq!(left().await, [0, 2, 3, 5, 6, 7, 8]);
    database.store.park(&parked(9, "malformed_json", 1)).await.expect("a commit");
    assert_eq!(database.store.trim_parked(0, 0, 1).await.expect("a commit"), 1, "the oldest");
    assert_eq!(left().await, [0, 2, 3, 5, 6, 8, 9]);
}

#[tokio::test]
async fn a_group_without_a_routing_key_has_exactly_its_messages() {
    let database = Database::new().await;
    let keys = [None, Some(""), Some("shop.order.paid"), None];
    for (key, number) in keys.into_iter().zip(0..) {
        let parked = ParkedMessage { routing_key: key.map(str::to_owned), ..parked(number, "missing_message_id", 2) };
        database.store.park(&parked).await.expect("a commit");
    }
    let groups = database.store.parked_groups().await.expect("a look").groups;
    let shown: Vec<_> = groups.iter().map(|group| (group.routing_key.as_deref(), group.messages)).collect();
    assert_eq!(shown, [(None, 3), (Some("shop.order.paid"), 1)]);
    for group in groups {
        let key = group.routing_key.unwrap_or_default();
        let filter = ParkedFilter { routing_key: Some(key.clone()), limit: 10, ..ParkedFilter::default() };
        let found = database.store.parked(&filter).await.expect("a look");
        assert_eq!(found.len(), usize::try_from(group.messages).expect("a number"), "{key:?}");
    }
}

//! Groups of parked messages, and the messages of a group.

use fanfare_domain::ids::ParkedId;
use fanfare_store::{ParkedFilter, ParkedMessage};

use crate::database::{Database, moment};

#[tokio::test]
async fn a_group_without_a_routing_key_has_exactly_its_messages() {
    let database = Database::new().await;
    let keys = [None, Some(""), Some("shop.order.paid"), None];
    for (key, number) in keys.into_iter().zip(0..) {
        let parked = ParkedMessage {
            id: ParkedId::new(moment(60), [number; 10]),
            reason: "missing_message_id".to_owned(),
            message: "message_id is missing".to_owned(),
            origin: None,
            routing_key: key.map(str::to_owned),
            message_id: None,
            headers: "{}".to_owned(),
            body: b"{}".to_vec(),
        };
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

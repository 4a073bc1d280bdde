//! The search: by each kind of id, by the publisher's key, by texts, and its limits for managers.

use fanfare_tests::{clients::api::Client, patience::until, receiver::Behaviour, world::World};
use serde_json::{Value, json};

use crate::api::{assert_refused, delivery_in, list, text};

/// Kinds and ids of the hits.
async fn found(client: &Client, query: &str) -> Vec<(String, String)> {
    let answer = client.get(&format!("search?{query}")).await;
    let data = answer.data();
    assert!(!list(&data["tried"]).is_empty() && data["retention_seconds"].is_u64(), "{query}: {data}");
    list(&data["hits"]).iter().map(|hit| (text(hit, "kind").to_owned(), text(hit, "id").to_owned())).collect()
}

fn hit(kind: &str, id: &str) -> Vec<(String, String)> {
    vec![(kind.to_owned(), id.to_owned())]
}

#[tokio::test]
async fn each_object_is_found_by_its_id() {
    let world = World::new().await;
    let (admin, _dispatcher) = (world.admin().await, world.dispatcher().await);
    let endpoint = world.endpoint("slow", &["order.paid"]).await;
    world.receiver.script("slow", &[Behaviour::FAIL, Behaviour::OK]);
    let event = world.publish(&json!({ "type": "order.paid", "id": "order 1001", "data": 1 })).await;
    let delivery = text(&world.wait_for_deliveries(&format!("event={event}"), 1).await[0], "id").to_owned();
    let attempts = delivery_in(&world, &delivery, "delivered").await["attempts"].clone();
    world.receiver.script("slow", &[Behaviour::OK]);
    let prompt = world.publish(&json!({ "type": "order.paid", "data": 1 })).await;
    let prompt =
        text(&world.wait_for_deliveries(&format!("event={prompt}&state=delivered"), 1).await[0], "id").to_owned();
    let inline = world.delivery(&prompt).await["attempts"][0].clone();
    let range = json!({ "since": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z" });
    let replay = text(world.client().post("replays", &range).await.data(), "id").to_owned();
    let key = text(&admin.get("keys").await.data()[0], "id").to_owned();
    let broker = world.broker().await;
    let routing_key = format!("{}.order.paid", world.application);
    assert!(broker.publish(&routing_key, Some("parked 7"), &[], "no JSON").await.expect("the broker"));
    let parked = until("the message to be parked", async || {
        let parked = admin.get("parked").await;
        list(parked.data()).first().map(|parked| text(parked, "id").to_owned())
    })
    .await;
    let of_dialect = event.replacen("evt_", "we_", 1);
    let scoped = format!("&application={}", world.application);
    let clients = [(world.client(), ""), (&admin, ""), (&admin, scoped.as_str())];
    for (client, scope) in clients {
        for (kind, id) in [
            ("event", &event),
            ("delivery", &delivery),
            ("attempt", &text(&attempts[0], "id").to_owned()),
            ("attempt", &text(&attempts[1], "id").to_owned()),
            ("attempt", &text(&inline, "id").to_owned()),
            ("webhook", &endpoint.id),
            ("application", &world.application),
            ("replay", &replay),
        ] {
            assert_eq!(found(client, &format!("q={id}{scope}")).await, hit(kind, id), "{kind}");
        }
        assert_eq!(found(client, &format!("q=%20{of_dialect}{scope}")).await, hit("event", &event));
        assert_eq!(found(client, &format!("q=order%201001{scope}")).await, hit("event", &event));
        assert_eq!(found(client, &format!("q=/SLOW{scope}")).await, hit("webhook", &endpoint.id));
        assert_eq!(found(client, &format!("q=dlv_00000000000000000000000000{scope}")).await, []);
    }
    let attempt = admin.get(&format!("search?q={}", text(&attempts[1], "id"))).await.data()["hits"][0].clone();
    assert_eq!((text(&attempt, "delivery"), text(&attempt, "title")), (&*delivery, "attempt 2"));
    assert_eq!(attempt["application"], *world.application);
    for (query, kind, id) in [
        (format!("q={parked}"), "parked_message", &parked),
        ("q=parked%207".to_owned(), "parked_message", &parked),
        (format!("q={key}"), "key", &key),
    ] {
        assert_eq!(found(&admin, &query).await, hit(kind, id), "{query}");
        assert_eq!(found(world.client(), &query).await, [], "{query} by a manager");
    }
    admin.patch(&format!("applications/{}", world.application), &json!({ "name": "Acme shop" })).await.data();
    assert_eq!(found(&admin, "q=acme%20sh").await, hit("application", &world.application));
    world.client().delete(&format!("webhooks/{}", endpoint.id)).await.data();
    let deleted = world.client().get(&format!("search?q={}", endpoint.id)).await.data()["hits"][0].clone();
    assert_eq!(deleted["detail"], "deleted");
}

#[tokio::test]
async fn a_search_tells_its_look_ups_and_refuses_bad_texts() {
    let world = World::shared().await;
    let nothing = world.client().get("search?q=nothing").await.data().clone();
    assert_eq!((&nothing["hits"], list(&nothing["tried"]).len()), (&json!([]), 2), "{nothing}");
    let admin = world.admin().await;
    let nothing = admin.get("search?q=there%20is%20no%20such%20text").await.data().clone();
    assert_eq!((&nothing["hits"], list(&nothing["tried"]).len()), (&json!([]), 4), "{nothing}");
    // A text in the form of an id may be the publisher's own id.
    let id = "dlv_7zzzzzzzzzzzzzzzzzzzzzzzzz";
    let event = world.publish(&json!({ "type": "a", "id": id, "data": 1 })).await;
    until("the event to be found", async || {
        (found(world.client(), &format!("q={id}")).await == hit("event", &event)).then_some(())
    })
    .await;
    let long = "x".repeat(256);
    for query in ["q=", "q=%20", "q=a%00b", &format!("q={long}")] {
        assert_refused(query, &world.client().get(&format!("search?{query}")).await, (422, "invalid_field", "q"));
    }
    for query in ["", "query=a"] {
        let answer = world.client().get(&format!("search?{query}")).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_query"), "{query}: {}", answer.body);
    }
    assert_eq!(answer_of_other(&world).await, Value::Array(Vec::new()));
}

/// Hits of another application's manager for this application's id.
async fn answer_of_other(world: &World) -> Value {
    let (_, other) = world.other_application().await;
    other.get(&format!("search?q={}", world.application)).await.data()["hits"].clone()
}

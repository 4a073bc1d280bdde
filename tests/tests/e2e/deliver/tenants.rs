//! Several applications in a single Fanfare. An application with unreadable settings delays no other application, and
//! loses no event.

use fanfare_tests::{
    clients::api::{Answer, Client},
    patience::until,
    receiver::Behaviour,
    world::{
        World,
        process::{Process, fanfare},
    },
};
use serde_json::{Value, json};

/// A shipped dialect, and a dialect that no process has, as after a deployment without the file.
const KNOWN: &str = "incenta";
const UNKNOWN: &str = "gone";

/// A schedule longer than the test, so that a scheduled delivery does not end early.
const WAITS: &str = "2s,2s,2s,2s,2s,2s,2s,2s,2s,2s";

/// A further application with a webhook for events of type `a`.
struct Tenant {
    name: &'static str,
    application: String,
    key: String,
}

impl Tenant {
    async fn new(world: &World, name: &'static str) -> Self {
        let application = fanfare(&world.variables, &["app", "create", name]);
        let key = world.create_key(&["--role", "manage", "--application", &application]);
        let client = world.client().with_key(&key);
        client.accepted().await;
        create_webhook(world, &client, name).await;
        world.known().await;
        Self { name, application, key }
    }

    /// A client of the current ingest, which may have been restarted.
    fn client(&self, world: &World) -> Client {
        world.client().with_key(&self.key)
    }

    async fn publish(&self, world: &World) -> Answer {
        self.client(world).post("events", &json!({ "type": "a", "data": 1 })).await
    }

    /// Sets the dialect in the database, because the API refuses an unknown dialect.
    async fn set_dialect(&self, world: &World, dialect: &str) {
        let change = "UPDATE applications SET dialect = $1, version = version + 1 WHERE name = $2";
        let changed = world.database().await.execute(change, &[&dialect, &self.name]).await;
        assert_eq!(changed.expect("the database answers"), 1);
    }

    /// Waits until the application's only delivery fulfils `is_so`. Returns the delivery.
    async fn delivery(&self, world: &World, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(&format!("the delivery of {} to be {what}", self.name), async || {
            let deliveries = self.client(world).get("deliveries").await.data().clone();
            deliveries.as_array()?.first().filter(|delivery| is_so(delivery)).cloned()
        })
        .await
    }

    /// Waits until the backlog of a delivery's endpoint has the reason `application_unreadable`.
    async fn is_unreadable(&self, world: &World, delivery: &Value) {
        let path = format!("webhooks/{}/backlog", text(&delivery["webhook"]));
        until("a backlog with the reason application_unreadable", async || {
            let backlog = self.client(world).get(&path).await.data().clone();
            (backlog["reason"] == "application_unreadable").then_some(())
        })
        .await;
    }
}

async fn create_webhook(world: &World, client: &Client, path: &str) -> String {
    let new = json!({ "url": world.receiver.url(path), "events": ["a"] });
    client.post("webhooks", &new).await.data()["id"].as_str().expect("an id").to_owned()
}

/// A ready dispatcher that [`World::known`] does not wait for: the newest settings are unreadable.
async fn dispatcher(world: &World) -> Process {
    let dispatcher = world.dispatcher_starting();
    dispatcher.ready().await;
    dispatcher
}

/// Both services start without any readable settings of the application.
#[tokio::test]
async fn services_serve_all_applications_except_an_unreadable_one() {
    let mut world = World::of_waits(WAITS, &[]).await;
    let broken = Tenant::new(&world, "broken").await;
    let healthy = world.endpoint("healthy", &["a"]).await;
    let doomed = world.endpoint("doomed", &["order"]).await;
    for path in ["broken", "doomed"] {
        world.receiver.script(path, &[Behaviour::FAIL]);
    }
    let before = world.dispatcher().await;
    broken.publish(&world).await.data();
    world.publish(&json!({ "type": "order", "data": 1 })).await;
    broken.delivery(&world, "scheduled", |delivery| delivery["state"] == "scheduled").await;
    world.wait_for_deliveries("state=scheduled", 1).await;
    before.terminate();
    assert_eq!(before.ended().await, 0);
    drop(world.take_ingest());
    broken.set_dialect(&world, UNKNOWN).await;
    let sent = world.receiver.received("broken").len();

    world.start_ingest().await;
    world.client().delete(&format!("webhooks/{}", doomed.id)).await.data();
    let dispatcher = dispatcher(&world).await;
    dispatcher.logged("cannot read an application's settings; others are served").await;
    let event = world.publish(&json!({ "type": "a", "data": 2 })).await;
    world.wait_for_deliveries(&format!("event={event}&state=delivered"), 1).await;
    let test = world.client().post(&format!("webhooks/{}/test", healthy.id), &json!({})).await;
    assert_eq!(test.data()["delivered"], true, "{}", test.body);
    // The endpoint's application is readable, so a missing endpoint is a deleted endpoint.
    let ended = world.wait_for_deliveries(&format!("webhook={}&state=failed", doomed.id), 1).await.remove(0);
    assert_eq!(ended["reason"], "endpoint_deleted", "{ended}");

    let refused = broken.publish(&world).await;
    assert_eq!((refused.status, refused.code()), (503, "application_unavailable"), "{}", refused.body);
    assert!(refused.retry_after().is_some_and(|seconds| seconds > 0), "{refused:?}");
    let key = format!("{}.a", broken.application);
    assert!(world.broker().await.publish(&key, Some("1"), &[], r#"{"data":1}"#).await.expect("the broker"));
    let parked = "SELECT count(*) FROM parked WHERE reason = 'application_unreadable' AND message_id = '1'";
    until("the parked message", async || (world.count(parked).await == 1).then_some(())).await;
    assert_eq!(world.count("SELECT count(*) FROM parked").await, 1, "a message of another application was parked");
    let queued = broken.delivery(&world, "queued", |delivery| delivery["state"] == "queued").await;
    broken.is_unreadable(&world, &queued).await;
    assert_eq!(world.receiver.received("broken").len(), sent, "a delivery was sent without readable settings");

    world.receiver.script("broken", &[Behaviour::OK]);
    broken.set_dialect(&world, KNOWN).await;
    broken.delivery(&world, "delivered", |delivery| delivery["state"] == "delivered").await;
    until("ingest to accept the application's events again", async || {
        (broken.publish(&world).await.status == 202).then_some(())
    })
    .await;
    world.receiver.wait_for("broken", sent + 2).await;
}

/// Running processes keep the last readable settings of an application, and load the changes of other applications.
#[tokio::test]
async fn an_application_is_served_by_the_last_settings_that_could_be_read() {
    let world = World::new().await;
    let broken = Tenant::new(&world, "broken").await;
    let doomed = world.endpoint("doomed", &["order"]).await;
    world.receiver.script("doomed", &[Behaviour::FAIL]);
    let dispatcher = dispatcher(&world).await;
    broken.set_dialect(&world, UNKNOWN).await;
    dispatcher.logged("cannot read an application's settings; others are served").await;

    assert_eq!(broken.publish(&world).await.status, 202);
    world.receiver.wait_for("broken", 1).await;
    world.publish(&json!({ "type": "order", "data": 1 })).await;
    world.wait_for_deliveries("state=scheduled", 1).await;
    world.client().delete(&format!("webhooks/{}", doomed.id)).await.data();
    let ended = world.wait_for_deliveries("state=failed", 1).await.remove(0);
    assert_eq!(ended["reason"], "endpoint_deleted", "{ended}");
    let new = create_webhook(&world, world.client(), "new").await;
    let test = world.client().post(&format!("webhooks/{new}/test"), &json!({})).await;
    assert_eq!(test.data()["delivered"], true, "a new webhook cannot be tested: {}", test.body);
    until("the new webhook to get events", async || {
        world.publish(&json!({ "type": "a", "data": 2 })).await;
        // The first request is the test.
        (world.receiver.received("new").len() > 1).then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM parked").await, 0);
}

/// A webhook may be newer than the last readable settings: its absence there does not mean a deletion.
#[tokio::test]
async fn a_webhook_is_not_taken_for_deleted_where_the_newest_settings_cannot_be_read() {
    let world = World::of_waits("24h", &[]).await;
    let broken = Tenant::new(&world, "broken").await;
    world.receiver.script("broken", &[Behaviour::FAIL, Behaviour::OK]);
    let dispatcher = world.dispatcher().await;
    broken.publish(&world).await.data();
    let waiting = broken.delivery(&world, "scheduled", |delivery| delivery["state"] == "scheduled").await;
    // The dispatcher drops the webhook, and cannot read the settings that contain the webhook again.
    let database = world.database().await;
    let forget = "UPDATE endpoints SET deleted_at = now() WHERE url LIKE '%/broken'";
    database.batch_execute(forget).await.expect("the database answers");
    world.known().await;
    let return_unreadable = format!(
        "BEGIN; UPDATE endpoints SET deleted_at = NULL WHERE url LIKE '%/broken';
         UPDATE applications SET dialect = '{UNKNOWN}', version = version + 1 WHERE name = 'broken'; COMMIT"
    );
    database.batch_execute(&return_unreadable).await.expect("the database answers");
    dispatcher.logged("cannot read an application's settings; others are served").await;

    let path = format!("deliveries/{}/resend", text(&waiting["id"]));
    broken.client(&world).post(&path, &json!({})).await.data();
    let queued = broken.delivery(&world, "queued", |delivery| delivery["state"] == "queued").await;
    broken.is_unreadable(&world, &queued).await;
    broken.set_dialect(&world, KNOWN).await;
    broken.delivery(&world, "delivered", |delivery| delivery["state"] == "delivered").await;
    assert_eq!(world.receiver.received("broken").len(), 2);
}

/// The API does not answer 404 either, because the client would search for the webhook or create another.
#[tokio::test]
async fn a_webhook_with_unreadable_settings_is_not_reported_as_missing() {
    let mut world = World::new().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    drop(world.take_ingest());
    // The state of a process without the encryption key.
    let lost = "UPDATE endpoint_secrets SET key_name = 'lost'";
    world.database().await.batch_execute(lost).await.expect("the database answers");
    world.start_ingest().await;
    let refused = world.client().post("events", &json!({ "type": "a", "data": 1 })).await;
    assert_eq!((refused.status, refused.code()), (503, "application_unavailable"), "{}", refused.body);
    let refused = world.client().post(&format!("webhooks/{}/test", endpoint.id), &json!({})).await;
    assert_eq!((refused.status, refused.code()), (503, "application_unavailable"), "{}", refused.body);
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

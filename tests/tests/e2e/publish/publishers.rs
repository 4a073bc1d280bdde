//! RabbitMQ users with the documented permissions: Fanfare's user is no administrator, and a publisher's user reaches
//! only the user's own applications.

use std::fs;

use fanfare_tests::{
    clients::amqp::Broker,
    patience::until,
    receiver::Behaviour,
    servers::instance::{Instance, Servers, repository},
    world::World,
};
use lapin::{
    BasicProperties, Connection, ConnectionProperties, ErrorKind, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::json;
use tokio::task::block_in_place;

/// The `rabbitmqctl` commands of `deploy/security.md`, with the names of the test.
fn commands(prefix: &str, application: &str) -> Vec<Vec<String>> {
    let security = fs::read_to_string(repository().join("deploy/security.md")).expect("the document");
    let (_, rest) = security.split_once("<!-- rights in RabbitMQ -->").expect("the commands");
    let (block, _) = rest.split_once("<!-- end -->").expect("the end of the commands");
    let named = block
        .replace("fanfare\\.", &format!("{prefix}\\."))
        .replace("orders fanfare.events", &format!("orders {prefix}.events"))
        .replace("app_01h455vb4pex5vsknk084sn02q", application);
    let commands = named.lines().filter_map(|line| line.strip_prefix("rabbitmqctl "));
    let words = |command: &str| command.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect();
    commands.map(words).collect()
}

/// Definition of the outbox table.
const OUTBOX: &str = include_str!("../../../../proto/outbox.sql");

fn url_of(world: &World, user: &str) -> String {
    let url = &world.variables["AMQP_URL"];
    let (_, rest) = url.trim_start_matches("amqp://").split_once('@').expect("a user");
    format!("amqp://{user}:secret@{rest}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_reaches_its_own_application_and_nothing_else() {
    let rabbitmq = block_in_place(|| Instance::rabbitmq("rights"));
    let mut world = World::with(Servers { amqp_url: rabbitmq.url(), ..Servers::given() }, &[]).await;
    let prefix = world.variables["FANFARE_PREFIX"].clone();
    let commands = commands(&prefix, &world.application);
    assert_eq!(commands.len(), 5, "{commands:?}");
    for command in &commands {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        block_in_place(|| rabbitmq.rabbitmqctl(&words));
    }
    // Fanfare runs as the user `fanfare`, without administrator rights.
    let own = url_of(&world, "fanfare");
    world.variables.insert("AMQP_URL".to_owned(), own);
    drop(world.take_ingest());
    world.start_ingest().await;
    let _dispatcher = world.dispatcher().await;
    let (other_application, other) = world.other_application().await;
    world.receiver.script("a", &[Behaviour::FAIL, Behaviour::OK]);
    let endpoint = world.endpoint("a", &["order.created"]).await;
    let new = json!({ "url": world.receiver.url("other"), "events": ["order.created"] });
    other.post("webhooks", &new).await.data();

    // An event for the publisher's own application is accepted, delivered and retried.
    let orders = url_of(&world, "orders");
    let publisher = Broker::connect(&orders, &prefix).await.expect("a connection");
    let own = format!("{}.order.created", world.application);
    assert!(publisher.publish(&own, Some("one"), &[], r#"{"data":1}"#).await.expect("a confirm"));
    world.receiver.wait_for(&endpoint.path, 2).await;

    // An event for another application is refused, which closes the channel, and is delivered to no endpoint.
    let foreign = [
        format!("{other_application}.order.created"),
        format!("{other_application}.{}.order.created", world.application),
        format!("x{own}"),
        format!(".{own}"),
        String::new(),
        "#".to_owned(),
    ];
    for key in &foreign {
        let publisher = Broker::connect(&orders, &prefix).await.expect("a connection");
        assert_refused(key, publisher.publish(key, Some("two"), &[], r#"{"data":2}"#).await);
    }
    // Headers do not change the application: only the routing key decides.
    let forged = [("application", other_application.as_str()), ("x-application", &other_application)];
    let publisher = Broker::connect(&orders, &prefix).await.expect("a connection");
    assert!(publisher.publish(&own, Some("three"), &forged, r#"{"data":3}"#).await.expect("a confirm"));
    world.receiver.wait_for(&endpoint.path, 3).await;
    // RabbitMQ routes copies by the headers CC and BCC without a permission check: Fanfare must drop these copies.
    let connection = Connection::connect(&orders, ConnectionProperties::default()).await.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let mut headers = FieldTable::default();
    for name in ["CC", "BCC"] {
        let key = AMQPValue::LongString(format!("{other_application}.order.created").into());
        headers.insert(name.into(), AMQPValue::FieldArray(vec![key].into()));
    }
    let properties = BasicProperties::default().with_message_id("four".into()).with_headers(headers);
    let (exchange, options) = (format!("{prefix}.events"), BasicPublishOptions::default());
    let published = channel.basic_publish(exchange.into(), own.as_str().into(), options, br#"{"data":4}"#, properties);
    published.await.expect("sent").await.expect("a confirm");
    world.receiver.wait_for(&endpoint.path, 4).await;
    assert_eq!(world.receiver.received("other").len(), 0);
    assert_eq!(other.get("events").await.data(), &json!([]));
    assert_nothing_else(&orders, &prefix).await;

    assert_relay_leaves_others(&world, &orders, &other_application).await;
    world.receiver.wait_for(&endpoint.path, 5).await;
    assert_eq!(other.get("events").await.data(), &json!([]));
}

/// Checks that a relay of the publisher leaves rows of another application, and publishes its own.
async fn assert_relay_leaves_others(world: &World, url: &str, other_application: &str) {
    let database = world.database().await;
    database.batch_execute(OUTBOX).await.expect("the table");
    let insert = "INSERT INTO fanfare_outbox (application, type, id, data, ordering_key)
                  VALUES ($1, 'order.created', $2, '5', $3)";
    for (application, id, key) in [
        (other_application, "theirs", Some("a")),
        (&world.application, "mine", None),
        (other_application, "after theirs", Some("a")),
    ] {
        database.execute(insert, &[&application, &id, &key]).await.expect("a row");
    }
    let relay = world.process_with("fanfare relay", &[("AMQP_URL", url)]);
    let left = until("the relay to leave a row", async || {
        relay.logs().into_iter().find(|line| line.to_string().contains("does not take a row"))
    })
    .await;
    assert_eq!(left["routing_key"], format!("{other_application}.order.created"), "{left}");
    until("the other row to be published", async || {
        (world.count("SELECT count(*) FROM fanfare_outbox").await == 2).then_some(())
    })
    .await;
}

/// Checks that the user declares, reads, binds and deletes nothing, and publishes to no other exchange. Each refusal
/// closes a channel.
async fn assert_nothing_else(url: &str, prefix: &str) {
    let queue = || format!("{prefix}.events").into();
    let fields = FieldTable::default;
    let connected = async || {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        (connection, channel)
    };
    let (_connection, channel) = connected().await;
    assert_refused("declare", channel.queue_declare("mine".into(), QueueDeclareOptions::default(), fields()).await);
    let (_connection, channel) = connected().await;
    let options = ExchangeDeclareOptions::default();
    let declared = channel.exchange_declare("mine".into(), ExchangeKind::Fanout, options, fields()).await;
    assert_refused("declare", declared);
    let (_connection, channel) = connected().await;
    assert_refused("get", channel.basic_get(queue(), BasicGetOptions::default()).await);
    let (_connection, channel) = connected().await;
    let consumed = channel.basic_consume(queue(), "me".into(), BasicConsumeOptions::default(), fields()).await;
    assert_refused("consume", consumed);
    let (_connection, channel) = connected().await;
    assert_refused("purge", channel.queue_purge(queue(), QueuePurgeOptions::default()).await);
    let (_connection, channel) = connected().await;
    assert_refused("delete", channel.queue_delete(queue(), QueueDeleteOptions::default()).await);
    let (_connection, channel) = connected().await;
    let bound = channel.queue_bind(queue(), queue(), "more".into(), QueueBindOptions::default(), fields()).await;
    assert_refused("bind", bound);
    for (exchange, key) in [
        (String::new(), format!("{prefix}.deliveries")),
        (format!("{prefix}.deliveries"), "due".to_owned()),
        (format!("{prefix}.deliveries"), "parked".to_owned()),
        (format!("{prefix}.unrouted"), "x".to_owned()),
    ] {
        let (_connection, channel) = connected().await;
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let published =
            channel.basic_publish(exchange.clone().into(), key.into(), options, b"{}", properties).await.expect("sent");
        assert_refused(&exchange, published.await);
    }
}

/// Checks that the broker refused an operation with 403, instead of failing for another reason.
fn assert_refused<T>(what: &str, answer: lapin::Result<T>) {
    let error = answer.err().unwrap_or_else(|| panic!("{what}: the broker permitted the operation"));
    let is_refused = matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == 403);
    assert!(is_refused, "{what}: {error}");
}

//! `proto/asyncapi.yaml`: AsyncAPI's own parser accepts the description, and the description agrees with the code.

use std::collections::BTreeSet;

use fanfare_domain::{
    event::{MAX_KEY_LENGTH, MAX_TYPE_LENGTH},
    ids::ApplicationId,
};
use fanfare_tests::{clients::node::node, servers::instance::repository, world::World};
use serde_json::{Value, json};

/// The reason that publishers never see: retry messages are Fanfare's own.
const INTERNAL: &str = "invalid_retry";

#[tokio::test]
async fn the_description_of_the_amqp_interface_is_true() {
    let file = repository().join("proto/asyncapi.yaml");
    let printed = node("asyncapi.mjs", &[&file.to_string_lossy()], String::new()).await;
    let described: Value = serde_json::from_str(&printed.join("\n")).expect("JSON");
    let world = World::new().await;
    let prefix = &world.variables["FANFARE_PREFIX"];

    let exchange = &described["exchanges"][0];
    assert_eq!((&exchange["name"], &exchange["template"]), (&json!("fanfare.events"), &json!("{prefix}.events")));
    let parameters = &described["parameters"];
    assert_eq!(parameters["eventType"]["maxLength"], MAX_TYPE_LENGTH);
    assert_eq!(described["properties"]["message_id"]["maxLength"], MAX_KEY_LENGTH);
    let length = world.application.parse::<ApplicationId>().expect("an id").to_string().len();
    assert_eq!(
        (&parameters["application"]["minLength"], &parameters["application"]["maxLength"]),
        (&json!(length), &json!(length))
    );
    assert_eq!(described["operations"]["publish"]["deliveryMode"], 2);
    assert_eq!(reasons(&described), explained_reasons());

    // Each example is accepted. The passive declaration fails unless the exchange is as described.
    let endpoint = world.endpoint("all", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    world.known().await;
    let broker = world.broker().await;
    broker.assert_exchange(&format!("{prefix}.events"), exchange["durable"] == true).await.expect("the exchange");
    let examples = described["examples"].as_array().expect("examples");
    for example in examples {
        let (_, event_type) =
            example["routing_key"].as_str().and_then(|key| key.split_once('.')).expect("a routing key");
        let headers: Vec<(&str, &str)> = example["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), value.as_str().expect("a text")))
            .collect();
        let routing_key = format!("{}.{event_type}", world.application);
        let body = example["payload"].to_string();
        assert!(broker.publish(&routing_key, example["message_id"].as_str(), &headers, body).await.expect("a confirm"));
    }
    world.receiver.wait_for(&endpoint.path, examples.len()).await;
    assert_eq!(world.count("SELECT count(*) FROM parked").await, 0);
}

fn reasons(described: &Value) -> BTreeSet<String> {
    let reasons = described["reasons"].as_array().expect("reasons");
    reasons.iter().map(|reason| reason.as_str().expect("a code").to_owned()).collect()
}

/// The reasons in the table of `proto/README.md`, which another test compares with the code.
fn explained_reasons() -> BTreeSet<String> {
    let readme = std::fs::read_to_string(repository().join("proto/README.md")).expect("the document");
    let (_, section) = readme.split_once("## Reasons to park or refuse").expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let code = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    section.lines().filter_map(code).filter(|code| code != INTERNAL).collect()
}

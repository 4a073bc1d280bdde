//! The commands of `fanfare` that send requests to the API.

use std::fs;

use fanfare_tests::{
    receiver::{Behaviour, signature::is_signed},
    world::{
        World,
        process::{Variables, try_fanfare},
    },
};
use serde_json::{Value, json};

/// Variables of a developer with a key of a role.
async fn developer(world: &World, role: &str) -> Variables {
    let address = world.ingest().address("serving the API").await;
    let key = match role {
        "admin" => world.create_key(&["--role", role]),
        _ => world.create_key(&["--role", role, "--application", &world.application]),
    };
    let variables = [("FANFARE_API", format!("http://{address}")), ("FANFARE_KEY", key.trim().to_owned())];
    variables.map(|(name, value)| (name.to_owned(), value)).into()
}

fn run(variables: &Variables, arguments: &[&str]) -> String {
    let (printed, failed) = try_fanfare(variables, arguments);
    assert_eq!(failed, None, "{arguments:?} printed {printed}");
    printed.trim().to_owned()
}

#[tokio::test]
async fn a_developer_publishes_watches_and_resends() {
    let world = World::new().await;
    let endpoint = world.endpoint("orders", &["order.*"]).await;
    world.receiver.script("orders", &[Behaviour::OK, Behaviour::OK]);
    let _dispatcher = world.dispatcher().await;
    world.known().await;
    let developer = developer(&world, "manage").await;

    let event = run(&developer, &["publish", "order.created", "{\"order\": 1}", "--id", "order-1"]);
    world.receiver.wait_for(&endpoint.path, 1).await;
    assert_eq!(run(&developer, &["publish", "order.created", "{\"order\": 1}", "--id", "order-1"]), event, "a repeat");
    world.wait_for_deliveries("state=delivered", 1).await;
    let listed = run(&developer, &["events", "list", "--type", "order.*"]);
    assert!(listed.lines().count() == 1 && listed.contains(&event) && listed.contains("order-1"), "{listed}");
    let shown: Value = serde_json::from_str(&run(&developer, &["events", "show", &event, "--json"])).expect("JSON");
    assert_eq!(shown["id"], event.as_str());
    let explained = run(&developer, &["events", "why", &event]);
    assert!(explained.contains("The webhook has the event."), "{explained}");

    let delivery: Value = serde_json::from_str(&run(&developer, &["deliveries", "--json"])).expect("JSON");
    let delivery = delivery["id"].as_str().expect("an id").to_owned();
    assert!(run(&developer, &["resend", &delivery]).contains(&delivery));
    world.receiver.wait_for(&endpoint.path, 2).await;
    let since = ["replay", "--since", "2026-01-01T00:00:00Z", "--states", "delivered"];
    world.wait_for_deliveries("state=delivered", 1).await;
    assert_eq!(
        run(&developer, &[&since[..], &["--dry-run"]].concat()),
        "deliveries to send: 1; events looked through: 1"
    );
    let replayed = run(&developer, &[&since[..], &["--rate", "1000"]].concat());
    assert!(replayed.contains("done, 1 deliveries of 1 events"), "{replayed}");
    world.receiver.wait_for(&endpoint.path, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_developer_manages_endpoints() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let developer = developer(&world, "manage").await;
    let url = world.receiver.url("command");
    let create = ["endpoint", "create", "--url", &url, "--events", "order.*,invoice.paid", "--header", "x-own: 1"];
    let created = run(&developer, &create);
    let (id, secret) = created.split_once('\n').expect("an id and a secret");
    assert!(secret.starts_with("whsec_"), "{secret}");
    let shown = async || world.client().get(&format!("webhooks/{id}")).await.data().clone();
    let webhook = shown().await;
    assert_eq!((&webhook["url"], &webhook["events"]), (&json!(url), &json!(["order.*", "invoice.paid"])));
    assert_eq!(webhook["headers"], json!(["x-own"]));

    run(&developer, &["endpoint", "update", id, "--feed", "copy"]);
    let settings =
        ["endpoint", "update", id, "--name", "shop", "--schedule", "60s,5m", "--rate", "5", "--filter", "data.n > 1"];
    run(&developer, &settings);
    let webhook = shown().await;
    assert_eq!((&webhook["name"], &webhook["schedule"]), (&json!("shop"), &json!(["60s", "5m"])));
    assert_eq!((&webhook["rate_per_second"], &webhook["feed"]), (&json!(5), &json!("copy")));
    assert_eq!(webhook["filter"], json!("data.n > 1"));
    run(&developer, &["endpoint", "update", id, "--template", r#"{"text":"{{ type }}"}"#]);
    assert_eq!(shown().await["template"], json!({ "text": "{{ type }}" }));
    run(&developer, &["endpoint", "update", id, "--unset", "schedule,headers,filter,template"]);
    assert_eq!(shown().await["template"], Value::Null);
    let webhook = shown().await;
    assert_eq!(
        (&webhook["schedule"], &webhook["filter"], &webhook["headers"], &webhook["name"]),
        (&Value::Null, &Value::Null, &json!([]), &json!("shop"))
    );

    for (action, status) in [("pause", "paused"), ("disable", "disabled"), ("enable", "enabled")] {
        assert!(run(&developer, &["endpoint", action, id]).contains(status));
        assert_eq!(shown().await["status"], status);
    }
    let listed = run(&developer, &["endpoint", "list", "--contains", "shop"]);
    assert!(listed.lines().count() == 1 && listed.starts_with(id) && listed.ends_with(&url), "{listed}");
    let printed: Value = serde_json::from_str(&run(&developer, &["endpoint", "show", id, "--json"])).expect("JSON");
    assert_eq!(printed, shown().await);

    let rotated = run(&developer, &["endpoint", "rotate-secret", id, "--overlap-seconds", "3600"]);
    assert!(rotated.starts_with(id) && rotated.contains("whsec_") && !rotated.contains(secret), "{rotated}");
    run(&developer, &["endpoint", "end-rotation", id]);
    world.known().await;
    let tested = run(&developer, &["endpoint", "test", id, "--type", "order.created", "--data", "{\"n\":1}"]);
    assert!(tested.starts_with("answered  200"), "{tested}");
    let new_secret = rotated.lines().last().expect("a secret");
    assert!(is_signed(&world.receiver.received("command")[0], new_secret));
    world.receiver.script("command", &[Behaviour::FAIL]);
    let failed = try_fanfare(&developer, &["endpoint", "test", id]).1.unwrap_or_default();
    assert!(failed.contains("did not accept the test: dlv_"), "{failed}");

    run(&developer, &["endpoint", "delete", id]);
    assert_eq!(run(&developer, &["endpoint", "list"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_developer_lists_and_rotates_signing_keys() {
    let world = World::new().await;
    let developer = developer(&world, "manage").await;
    let named = try_fanfare(&developer, &["signing-keys", "list"]).1.unwrap_or_default();
    assert!(named.contains("--application"), "{named}");
    let keys = |action: &[&str]| {
        let printed = run(&developer, &[&["signing-keys"], action, &["--application", &world.application]].concat());
        printed.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let path = format!("/api/v1/applications/{}/jwks.json", world.application);
    assert_eq!(keys(&["list"]), std::slice::from_ref(&path));
    run(
        &developer,
        &["endpoint", "create", "--url", &world.receiver.url("a"), "--events", "*", "--asymmetric", "true"],
    );
    assert_eq!(keys(&["list"]).len(), 2);
    let rotated = keys(&["rotate", "--overlap-seconds", "7200"]);
    assert!(rotated.len() == 3 && rotated[0] == path && rotated[1].contains("whpk_"), "{rotated:?}");
    assert_eq!(keys(&["end-rotation"]), [path.clone(), rotated[1].clone()]);
    assert_eq!(keys(&["rotate", "--overlap-seconds", "0"]).len(), 2);
}

#[tokio::test]
async fn a_command_says_what_is_wrong() {
    let world = World::new().await;
    let manage = developer(&world, "manage").await;
    let without_key: Variables = [("FANFARE_API".to_owned(), manage["FANFARE_API"].clone())].into();
    let fails = |variables: &Variables, arguments: &[&str], part: &str| {
        let failed = try_fanfare(variables, arguments).1.unwrap_or_default();
        assert!(failed.contains(part), "{arguments:?}: {failed}");
    };
    fails(&manage, &["publish", "order.created", "{"], "the argument is not JSON");
    fails(&manage, &["publish", "order.created", "@/nowhere"], "cannot read /nowhere");
    fails(&manage, &["publish", "a b"], "other characters");
    fails(&manage, &["events", "why", "evt_1"], "expected an id of the form evt_");
    let endpoint = |url, events| ["endpoint", "create", "--url", url, "--events", events];
    fails(&manage, &endpoint("http://10.0.0.1/", "*"), "10.0.0.1");
    fails(&manage, &endpoint("nowhere", "*"), "write it like https://");
    fails(&manage, &endpoint("https://example.com/", "a b"), "holds \"a b\"");
    fails(&manage, &["endpoint", "create", "--events", "*"], "`url` is missing");
    fails(&manage, &["endpoint", "update", "wh_1"], "name a setting to change");
    fails(&manage, &["endpoint", "delete", "wh_00000000000000000000000000"], "not_found");
    fails(&manage, &[&endpoint("https://example.com/", "*")[..], &["--header", "x"]].concat(), "is not `name: value`");
    fails(&manage, &["resend"], "name ids of deliveries or a filter");
    fails(&without_key, &["events", "list"], "FANFARE_KEY is missing");
    fails(&Variables::new(), &["events", "list"], "set FANFARE_API and FANFARE_KEY");
    fails(&developer(&world, "admin").await, &["events", "list"], "application");

    // Profiles of two environments, in a file that only the user can read.
    let file = std::env::temp_dir().join(format!("fanfare-profiles-{}", std::process::id()));
    let profile = |name: &str, key: &str| format!("[{name}]\nurl = '{}'\nkey = '{key}'\n", manage["FANFARE_API"]);
    fs::write(&file, profile("default", "wrong") + &profile("test", &manage["FANFARE_KEY"])).expect("a file");
    let profiles: Variables = [("FANFARE_PROFILES".to_owned(), file.to_string_lossy().into_owned())].into();
    fails(&profiles, &["events", "list"], "chmod 600");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
    fails(&profiles, &["events", "list"], "invalid_key");
    fails(&profiles, &["events", "list", "--profile", "live"], "default, test");
    assert_eq!(run(&profiles, &["events", "list", "--profile", "test"]), "");
    fs::remove_file(file).expect("the file");
}

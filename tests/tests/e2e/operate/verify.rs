//! `fanfare verify` on a running deployment, also while processes are killed.

use fanfare_tests::world::{
    World,
    process::{Variables, try_fanfare},
};
use serde_json::Value;
use tokio::task::{JoinHandle, spawn_blocking};

/// Runs the command, with JSON output. Returns the last object, and the failure.
fn verify(variables: &Variables, arguments: &[&str]) -> (Value, Option<String>) {
    let all = ["verify", "--json", "--listen", "127.0.0.1:0"].into_iter().chain(arguments.iter().copied());
    let (printed, failed) = try_fanfare(variables, &all.collect::<Vec<_>>());
    let last = printed.lines().last().unwrap_or_default();
    (serde_json::from_str(last).unwrap_or_default(), failed)
}

fn verifying(world: &World, api: String, arguments: &'static [&'static str]) -> JoinHandle<(Value, Option<String>)> {
    let variables = world.variables.clone();
    spawn_blocking(move || {
        let all: Vec<&str> = ["--api", &api].into_iter().chain(arguments.iter().copied()).collect();
        verify(&variables, &all)
    })
}

async fn api(world: &World) -> String {
    format!("http://{}", world.ingest().address("serving the API").await)
}

#[tokio::test]
async fn nothing_is_lost_while_a_dispatcher_is_killed() {
    let world = World::new().await;
    let first = world.dispatcher().await;
    let verification = verifying(&world, api(&world).await, &["--rate", "40", "--for", "8s", "--fail", "5"]);
    let received = "SELECT count(*) FROM deliveries";
    fanfare_tests::patience::until("some deliveries", async || (world.count(received).await > 80).then_some(())).await;
    first.kill();
    let _second = world.dispatcher().await;
    let (result, failed) = verification.await.expect("a result");
    assert_eq!(failed, None, "{result}");
    assert_eq!(result["faults"], Value::Array(Vec::new()));
    let sums = &result["result"];
    assert!(sums["accepted"].as_u64().is_some_and(|accepted| accepted >= 300), "{result}");
    assert_eq!((&sums["accepted"], &sums["missing"]), (&sums["delivered"], &Value::from(0)));
    assert_eq!(world.count("SELECT count(*) FROM endpoints WHERE status = 'disabled'").await, 1);
}

#[tokio::test]
async fn an_unreachable_receiver_is_named() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let api = api(&world).await;
    let forbidden = ["--api", &api, "--url", "http://10.1.2.3/", "--for", "1s"];
    let (_, failed) = verify(&world.variables, &forbidden);
    assert!(failed.as_ref().is_some_and(|failed| failed.contains("is not permitted")), "{failed:?}");
    let elsewhere = ["--api", &api, "--url", "http://127.0.0.1:65534/", "--for", "1s"];
    let (_, failed) = verify(&world.variables, &elsewhere);
    assert!(failed.as_ref().is_some_and(|failed| failed.contains("--url")), "{failed:?}");
    let enabled = "SELECT count(*) FROM endpoints WHERE status = 'enabled'";
    assert_eq!(world.count(enabled).await, 0, "the endpoint of a failed run stays");
    let valid = "SELECT count(*) FROM api_keys k JOIN applications a ON a.id = k.application_id
                 WHERE a.name LIKE 'verify-%' AND k.revoked_at IS NULL";
    assert_eq!(world.count(valid).await, 0, "the key of a failed run stays");
}

//! The tests of the SDKs in `proto/sdk`, against a running Fanfare.

use fanfare_tests::{servers::instance::repository, world::World};
use tokio::process::Command;

/// Runs a program in the folder of an SDK, with the variables of its tests.
async fn run(sdk: &str, program: &[&str]) {
    let world = World::new().await;
    // The demo, at which the tests of an SDK are developed, has such a webhook, too.
    world.endpoint("all", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    world.known().await;
    let address = world.ingest().address("serving the API").await;
    let manage = ["--role", "manage", "--application", &world.application];
    let [program, arguments @ ..] = program else { panic!("no program") };
    let status = Command::new(program)
        .args(arguments)
        .current_dir(repository().join("proto/sdk").join(sdk))
        .env("FANFARE_API", format!("http://{address}/api/v1"))
        .env("FANFARE_APPLICATION", &world.application)
        .env("FANFARE_KEY", world.create_key(&manage).trim())
        .env("FANFARE_ADMIN_KEY", world.create_key(&["--role", "admin"]).trim())
        .status()
        .await
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    assert!(status.success(), "the tests of the SDK in {sdk} failed: {status}");
}

#[tokio::test]
#[ignore = "needs the packages of the SDK: run `make test-sdk`"]
async fn sdk_of_typescript() {
    run("typescript", &["npm", "test", "--silent"]).await;
}

#[tokio::test]
#[ignore = "needs the packages of the SDK: run `make test-sdk`"]
async fn sdk_of_python() {
    let python = std::env::var("FANFARE_TEST_PYTHON").expect("`make test-sdk` sets FANFARE_TEST_PYTHON");
    run("python", &[&python, "-m", "pytest", "-q"]).await;
}

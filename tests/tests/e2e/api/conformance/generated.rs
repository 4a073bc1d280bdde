//! Requests that Schemathesis generates from the OpenAPI document, valid and invalid. No answer may be a server error
//! or differ from the document.

use std::{fmt::Write, fs};

use fanfare_tests::{clients::python::python_module, world::World};
use hyper::Method;

use crate::api::{conformance::contract, conformance::samples::Things};

/// Maximal number of generated requests for each operation, in addition to the requests for each parameter. With
/// 20 requests, the test took three quarters of the time of a whole run.
const EXAMPLES: &str = "5";

/// Checks of Schemathesis. A valid request may still be refused: the document omits some rules, such as unique names.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method";

/// Configuration for Schemathesis with existing ids, so that most requests find an object. DELETE routes get unknown
/// ids, as the first request would delete the object.
fn configuration(things: &Things) -> String {
    let mut text = String::new();
    for route in contract::routes().iter().filter(|route| route.path.contains('{') || route.name() == "publish_events")
    {
        let _ = writeln!(text, "[[operations]]\ninclude-operation-id = {:?}", route.name());
        if let Some(at) = route.path.find('{') {
            let path = if route.method == Method::DELETE { Things::unknown().path(route) } else { things.path(route) };
            let name = &route.path[at + 1..route.path.find('}').unwrap_or_default()];
            let id = path[at..].split('/').next().unwrap_or_default();
            let _ = writeln!(text, "parameters = {{ \"path.{name}\" = {id:?} }}");
        }
        if route.name() == "publish_events" {
            // A list may contain valid and invalid events: the answer is 207.
            text += "checks.negative_data_rejection.expected-statuses = [\"207\", \"4xx\"]\n";
        }
    }
    text
}

async fn assert_as_described(world: &World, things: &Things, key: &str, application: Option<&str>) {
    let folder = std::env::temp_dir().join(format!("fanfare-generated-{:032x}", rand::random::<u128>()));
    fs::create_dir_all(&folder).expect("a folder");
    let mut text = configuration(things);
    if let Some(application) = application {
        text = format!("[parameters]\n\"query.application\" = {application:?}\n\n{text}");
    }
    let file = folder.join("schemathesis.toml");
    fs::write(&file, text).expect("the configuration");
    let address = world.ingest().address("serving the API").await;
    let examples = std::env::var("FANFARE_TEST_EXAMPLES").unwrap_or_else(|_| EXAMPLES.to_owned());
    let seed = std::env::var("FANFARE_TEST_SEED").unwrap_or_else(|_| "1".to_owned());
    let mut run = python_module("schemathesis.cli").await;
    run.current_dir(&folder).arg("--config-file").arg(&file).arg("run");
    run.arg(format!("http://{address}/api/v1/openapi.json"));
    run.args(["--header", &format!("Authorization: Bearer {key}"), "--checks", CHECKS, "--max-examples", &examples]);
    run.args(["--seed", &seed, "--phases", "examples,coverage,fuzzing", "--generation-database", "none"]);
    run.args(["--continue-on-failure", "--warnings", "off", "--no-color"]);
    let output = run.output().await.expect("Schemathesis");
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let _ = fs::remove_dir_all(&folder);
    println!("{told}");
    assert!(output.status.success(), "Schemathesis found the faults printed above");
}

#[tokio::test]
async fn answers_to_generated_requests_match_the_openapi_document() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let things = Things::of(&world).await;
    let key = world.create_key(&["--role", "admin"]);
    world.client().with_key(&key).accepted().await;
    assert_as_described(&world, &things, &key, Some(&things.application)).await;
    assert_as_described(&world, &things, &world.key, None).await;
}

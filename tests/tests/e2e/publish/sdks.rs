//! The tests of the SDKs in `proto/sdk`, against a running Fanfare, and the examples of the API's reference.

use std::path::Path;

use fanfare_tests::{
    folder::Folder,
    servers::instance::repository,
    world::{World, release::Release},
};
use serde_json::{Value, json};
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

/// The examples of the page about the API in a language, by the name of their element.
fn examples(element: &str) -> Vec<String> {
    let printed = std::process::Command::new(Release::present().program("ingest")).arg("--docs").output();
    let page = String::from_utf8(printed.expect("ingest starts").stdout).expect("UTF-8");
    let begin = format!("<{element}>");
    let parts = page.split(&begin).skip(1).map(|rest| rest.split("</").next().unwrap_or_default());
    let found: Vec<String> = parts.map(|text| text.replace("&lt;", "<").replace("&amp;", "&")).collect();
    assert!(found.len() > 50, "{} examples of {element}", found.len());
    found
}

#[test]
fn examples_for_curl_are_commands_with_json() {
    let examples = examples("c-");
    let script = format!("set -eu; FANFARE_KEY=x; curl() {{ printf '%s\\n' \"$*\"; }}\n{}", examples.join("\n"));
    let ran = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let commands = String::from_utf8(ran.stdout).expect("UTF-8");
    assert_eq!(commands.lines().count(), examples.len() - 1, "the first example sets variables");
    for command in commands.lines() {
        assert!(command.contains(" https://fanfare.example.com/"), "{command}");
        if let Some((_, body)) = command.split_once("--json ") {
            serde_json::from_str::<Value>(body).unwrap_or_else(|error| panic!("{command}: {error}"));
        }
    }
}

async fn passes(program: &str, arguments: &[&str], folder: &Path) {
    let ran = Command::new(program).args(arguments).current_dir(folder).output().await;
    let ran = ran.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test]
#[ignore = "needs the packages of the SDK: run `make test-sdk`"]
async fn sdk_examples_of_the_reference_have_the_types_of_typescript() {
    let (folder, sdk) = (Folder::new("reference"), repository().join("proto/sdk/typescript"));
    let options = json!({
        "strict": true, "noEmit": true, "target": "ES2022", "module": "ESNext", "moduleResolution": "Bundler",
        "types": ["node"], "typeRoots": [sdk.join("node_modules/@types")], "skipLibCheck": true,
        "paths": { "@fanfare/sdk": [sdk.join("src/index.ts")] },
    });
    let settings = json!({ "compilerOptions": options, "files": ["examples.ts"] });
    folder.write("tsconfig.json", &settings.to_string());
    folder.write("examples.ts", &examples("t-").join("\n"));
    let compiler = sdk.join("node_modules/.bin/tsc");
    passes(&compiler.to_string_lossy(), &["-p", "."], &folder.0).await;
}

#[tokio::test]
#[ignore = "needs the packages of the SDK: run `make test-sdk`"]
async fn sdk_examples_of_the_reference_have_the_types_of_python() {
    let folder = Folder::new("reference");
    folder.write("examples.py", &examples("p-").join("\n"));
    let python = std::env::var("FANFARE_TEST_PYTHON").expect("`make test-sdk` sets FANFARE_TEST_PYTHON");
    passes(&python, &["-m", "mypy", "--strict", "examples.py"], &folder.0).await;
}

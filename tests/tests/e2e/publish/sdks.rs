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

/// The page about the API, without HTML's escapes.
fn reference() -> String {
    let printed = std::process::Command::new(Release::present().program("ingest")).arg("--docs").output();
    let page = String::from_utf8(printed.expect("ingest starts").stdout).expect("UTF-8");
    page.replace("&lt;", "<").replace("&amp;", "&")
}

/// The beginning of a program in a language, by the name of its element.
fn beginning<'a>(page: &'a str, element: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("<{element}>")).expect("the element");
    rest.split("</").next().unwrap_or_default()
}

/// The operations of the page: heading, example for curl, type of the body, and method of the SDKs.
fn operations(page: &str) -> Vec<[&str; 4]> {
    let read = |part| {
        let lines: Vec<&str> = str::lines(part).collect();
        let after = |begin| lines.iter().find_map(|line| line.strip_prefix(begin)).unwrap_or_default();
        let curl = lines.iter().find(|line| line.starts_with("curl "))?.split("</ul>").next()?;
        let kind = after("Body ").split(' ').find(|word| word.starts_with(char::is_uppercase)).unwrap_or_default();
        Some([lines[0], curl, kind, after("SDK ")])
    };
    let parts = page.split("<li id=").skip(1).filter_map(|part| part.split_once('>'));
    let found: Vec<_> = parts.filter_map(|(_, part)| read(part.split("<li id=").next()?)).collect();
    assert!(found.len() > 50, "{} operations", found.len());
    found
}

#[test]
fn examples_for_curl_are_commands_with_json() {
    let page = reference();
    let examples: Vec<&str> = operations(&page).into_iter().map(|[_, curl, ..]| curl).collect();
    let (begin, commands) = (beginning(&page, "c-"), examples.join("\n"));
    let script = format!("set -eu; FANFARE_KEY=x; curl() {{ printf '%s\\n' \"$*\"; }}\n{begin}\n{commands}");
    let ran = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let commands = String::from_utf8(ran.stdout).expect("UTF-8");
    assert_eq!(commands.lines().count(), examples.len());
    for command in commands.lines() {
        assert!(command.contains(" https://fanfare.example.com/"), "{command}");
        if let Some((_, body)) = command.split_once("--json ") {
            serde_json::from_str::<Value>(body).unwrap_or_else(|error| panic!("{command}: {error}"));
        }
    }
}

/// A program of all examples in a language, `t` or `p`, as the page's script makes them.
async fn program(language: &str) -> String {
    let page = reference();
    let script = repository().join("crates/console/src/reference/examples.js");
    let script = std::fs::read_to_string(script).expect("the script");
    let operations = json!(operations(&page));
    let print = format!("for (const of of {operations}) console.log(examples(...of)['{language}'])");
    let ran = Command::new("node").args(["--eval", &format!("{script}\n{print}")]).output().await.expect("node starts");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let examples = String::from_utf8(ran.stdout).expect("UTF-8");
    format!("{}\n{examples}", beginning(&page, &format!("{language}-")))
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
    folder.write("examples.ts", &program("t").await);
    let compiler = sdk.join("node_modules/.bin/tsc");
    passes(&compiler.to_string_lossy(), &["-p", "."], &folder.0).await;
}

#[tokio::test]
#[ignore = "needs the packages of the SDK: run `make test-sdk`"]
async fn sdk_examples_of_the_reference_have_the_types_of_python() {
    let folder = Folder::new("reference");
    folder.write("examples.py", &program("p").await);
    let python = std::env::var("FANFARE_TEST_PYTHON").expect("`make test-sdk` sets FANFARE_TEST_PYTHON");
    passes(&python, &["-m", "mypy", "--strict", "examples.py"], &folder.0).await;
}

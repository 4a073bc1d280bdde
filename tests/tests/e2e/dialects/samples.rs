//! The code that the page of a new webhook shows: Node and Python run the code on a test event of each dialect.

use std::process::Stdio;

use fanfare_tests::{
    clients::api::{Answer, Client},
    folder::Folder,
    receiver::Received,
    world::World,
};
use hyper::Method;
use serde_json::json;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::dialects::DIALECTS;

/// Reads requests as lines from standard input, and prints the result of the code's `verify` for each.
const NODE: &str = "import { verify } from './sample.mjs'
import { createInterface } from 'node:readline'
for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body } = JSON.parse(line)
  console.log(verify(secret, headers, Buffer.from(body)))
}
";

/// Like [`NODE`].
const PYTHON: &str = "import json, sys
from sample import verify
for line in sys.stdin:
    request = json.loads(line)
    print(str(verify(request['secret'], request['headers'], request['body'].encode())).lower())
";

/// A visitor of the console.
struct Visitor {
    client: Client,
    cookie: String,
    token: String,
}

impl Visitor {
    async fn sign_in(world: &World) -> Self {
        let mut visitor = Self { client: world.client().with_key(""), cookie: String::new(), token: String::new() };
        let answer = visitor.post("/console/sign-in", &format!("key={}", world.key)).await;
        let cookie = answer.headers.get("set-cookie").expect("a cookie").to_str().expect("a text");
        visitor.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        visitor.token = between(&visitor.get("/console/session").await, "name=\"_form\" value=\"", "\"");
        visitor
    }

    async fn get(&self, path: &str) -> String {
        let answer = self.client.send_to(Method::GET, path, &[("cookie", &self.cookie)], String::new()).await;
        answer.expect("a page").text
    }

    async fn post(&self, path: &str, fields: &str) -> Answer {
        let headers = [
            ("cookie", self.cookie.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
            ("sec-fetch-site", "same-origin"),
        ];
        let body = format!("_form={}&{fields}", self.token);
        self.client.send_to(Method::POST, path, &headers, body).await.expect("an answer")
    }
}

/// The text between two marks, with the characters that the page escapes.
fn between(page: &str, before: &str, after: &str) -> String {
    let (_, rest) = page.split_once(before).unwrap_or_else(|| panic!("{before} is missing in {page}"));
    let text = rest.split_once(after).unwrap_or_else(|| panic!("{after} is missing in {page}")).0;
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">")]
        .iter()
        .fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
        .replace("&amp;", "&")
        .replace("&#38;", "&")
}

/// The code of a language on a page.
fn sample(page: &str, language: &str) -> String {
    let rest = page.split_once(&format!("id=\"sample-{language}\"")).expect("the sample").1;
    between(rest, ">", "</pre>")
}

/// Runs the driver of a sample on requests. Returns the printed results.
async fn run(mut command: Command, requests: &str) -> Vec<String> {
    let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    program.stdin.take().expect("a piped input").write_all(requests.as_bytes()).await.expect("the program reads");
    let output = program.wait_with_output().await.expect("the output");
    assert!(output.status.success(), "the sample failed");
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

/// The request as it came, with a changed body, with another secret, and without its signatures.
fn requests(received: &Received, secret: &str) -> String {
    let body = String::from_utf8(received.body.clone()).expect("UTF-8");
    let unsigned = json!({ "webhook-id": received.event() });
    let lines = [
        json!({ "secret": secret, "headers": received.headers, "body": body }),
        json!({ "secret": secret, "headers": received.headers, "body": format!("{body} ") }),
        json!({ "secret": "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "headers": received.headers, "body": body }),
        json!({ "secret": secret, "headers": unsigned, "body": body }),
    ];
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn the_code_on_the_page_verifies_each_dialect() {
    for dialect in DIALECTS {
        let world = World::shared_of_dialect(dialect).await;
        let visitor = Visitor::sign_in(&world).await;
        let pages = format!("/console/{}/webhooks", world.application);
        let id = between(&visitor.get(&format!("{pages}/new")).await, "name=\"id\" value=\"", "\"");
        let url = world.receiver.url("sample").replace(':', "%3A").replace('/', "%2F");
        let fields = format!("id={id}&url={url}&which=all");
        let created = visitor.post(&format!("{pages}/new"), &fields).await;
        assert_eq!(created.status, 201, "{dialect}: {}", created.text);
        let secret = between(&created.text, "<code class=\"copy\">", "</code>");

        let again = visitor.post(&format!("{pages}/new"), &fields).await;
        assert_eq!(again.status, 303, "{dialect}: a form that is sent twice is one webhook");
        for page in [format!("{pages}/{id}"), format!("{pages}/{id}/secret"), format!("{pages}/{id}/edit")] {
            assert!(!visitor.get(&page).await.contains(&secret), "{dialect}: {page} shows the secret again");
        }

        let tested = visitor.post(&format!("{pages}/{id}/test"), "").await;
        assert!(tested.text.contains("The webhook took the event"), "{dialect}: {}", tested.text);
        let received = world.receiver.wait_for("sample", 1).await.remove(0);
        let folder = Folder::new("sample");
        folder.write("sample.mjs", &sample(&created.text, "node"));
        folder.write("sample.py", &sample(&created.text, "python"));
        let (node, python) = (folder.write("run.mjs", NODE), folder.write("run.py", PYTHON));
        for (program, file) in [("node", node), ("python3", python)] {
            let mut command = Command::new(program);
            command.arg(file);
            let results = run(command, &requests(&received, &secret)).await;
            assert_eq!(results, ["true", "false", "false", "false"], "{dialect}, {program}");
        }
    }
}

//! The receiver programs `clients/node/receivers.mjs` and `clients/python/receivers.py`.

use std::{
    collections::{BTreeMap, HashMap},
    process::Stdio,
};

use bytes::Bytes;
use fanfare_tests::{
    clients::{node, python::python},
    receiver::Received,
};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// A running receiver program. Ends on drop.
pub(crate) struct Verifiers {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    port: u16,
}

/// The report of a receiver.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    path: String,
    /// Number of valid requests.
    pub(crate) verified: usize,
    /// Number of invalid requests.
    pub(crate) refused: usize,
    /// Faults of the first invalid requests.
    pub(crate) faults: Vec<String>,
    /// SHA-256 of the data bytes, by event.
    pub(crate) data: BTreeMap<String, String>,
}

impl Verifiers {
    pub(crate) async fn in_node() -> Self {
        Self::start(node::program("receivers.mjs")).await
    }

    pub(crate) async fn in_python() -> Self {
        Self::start(python("receivers.py").await).await
    }

    async fn start(mut program: Command) -> Self {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the receivers start");
        let input = child.stdin.take().expect("a piped standard input");
        let output = BufReader::new(child.stdout.take().expect("a piped standard output")).lines();
        let mut verifiers = Self { child, input, output, port: 0 };
        let listening: Value = verifiers.line().await;
        verifiers.port = listening["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
        verifiers
    }

    async fn line<T: DeserializeOwned>(&mut self) -> T {
        let line = self.output.next_line().await.expect("the receivers' output").expect("a line: the receivers ended");
        serde_json::from_str(&line).expect("JSON in the form described at the top of the receivers' program")
    }

    /// The URL of a path at the receivers.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Adds a receiver at a path with the secret of a dialect's webhook.
    pub(crate) async fn receive(&mut self, path: &str, dialect: &str, secret: &str) {
        self.receive_of(&json!({ "path": format!("/{path}"), "dialect": dialect, "secret": secret })).await;
    }

    /// Like [`Self::receive`], with a secret that is no base64 for the Standard Webhooks library.
    pub(crate) async fn receive_raw(&mut self, path: &str, dialect: &str, secret: &str) {
        let path = format!("/{path}");
        self.receive_of(&json!({ "path": path, "dialect": dialect, "secret": secret, "format": "raw" })).await;
    }

    async fn receive_of(&mut self, receiver: &Value) {
        self.input.write_all(format!("{receiver}\n").as_bytes()).await.expect("the receivers read their input");
        let ready: Value = self.line().await;
        assert_eq!(ready["path"], receiver["path"]);
    }

    /// Repeats a request to the receiver at a path. Returns the faults that the receiver reports.
    pub(crate) async fn faults(&self, path: &str, request: &Received) -> Vec<String> {
        #[derive(Deserialize)]
        struct Answer {
            faults: Vec<String>,
        }
        let mut again = Request::post(self.url(path));
        for (name, value) in &request.headers {
            if !matches!(name.as_str(), "host" | "content-length") {
                again = again.header(name, value);
            }
        }
        let again = again.body(Full::new(Bytes::from(request.body.clone()))).expect("a request");
        let client = legacy::Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(again).await.expect("an answer");
        let is_right = answer.status() == 200;
        let body = answer.into_body().collect().await.expect("the body of the answer").to_bytes();
        let answer: Answer = serde_json::from_slice(&body).expect("faults");
        assert_eq!(is_right, answer.faults.is_empty());
        answer.faults
    }

    /// Ends the receivers. Returns each receiver's report, by path.
    pub(crate) async fn report(mut self) -> HashMap<String, Report> {
        drop(self.input);
        let mut reports = HashMap::new();
        while let Some(line) = self.output.next_line().await.expect("the receivers' output") {
            let report: Report = serde_json::from_str(&line).expect("a report");
            reports.insert(report.path.trim_start_matches('/').to_owned(), report);
        }
        assert!(self.child.wait().await.expect("the exit status").success(), "the receivers failed");
        reports
    }
}

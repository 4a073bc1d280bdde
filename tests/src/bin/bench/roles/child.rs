//! Processes of the roles: the bench starts its own program with the name of a role.
//!
//! Receiver, publisher and ceiling are separate processes: the bench measures the processor time of each.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin, Stdout},
    process::{ChildStdin, ChildStdout, Command},
};

/// Process of a role. Responds to each line of JSON with a line of JSON. Killed when dropped.
pub(crate) struct Child {
    process: tokio::process::Child,
    requests: ChildStdin,
    responses: Lines<BufReader<ChildStdout>>,
}

impl Child {
    pub(crate) fn start(role: &str) -> Self {
        Self::start_with(role, &[])
    }

    pub(crate) fn start_with(role: &str, arguments: &[&str]) -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let mut process = Command::new(program)
            .arg(role)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("this program starts");
        let requests = process.stdin.take().expect("a piped standard input");
        let responses = BufReader::new(process.stdout.take().expect("a piped standard output")).lines();
        Self { process, requests, responses }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id().expect("a running process")
    }

    /// Sends a request, and waits for the response.
    pub(crate) async fn request(&mut self, request: &Value) -> Value {
        self.requests.write_all(format!("{request}\n").as_bytes()).await.expect("a running process");
        let response = self.responses.next_line().await.expect("readable output").expect("a response");
        serde_json::from_str(&response).expect("JSON")
    }
}

/// Requests to a role, and its responses: the other end of [`Child`].
pub(crate) struct Parent {
    requests: Lines<BufReader<Stdin>>,
    responses: Stdout,
}

impl Parent {
    pub(crate) fn new() -> Self {
        Self { requests: BufReader::new(tokio::io::stdin()).lines(), responses: tokio::io::stdout() }
    }

    /// Returns the next request; `None` once the parent has ended.
    pub(crate) async fn next_request(&mut self) -> Option<Value> {
        let line = self.requests.next_line().await.ok()??;
        Some(serde_json::from_str(&line).expect("JSON"))
    }

    pub(crate) async fn respond(&mut self, response: &Value) {
        self.responses.write_all(format!("{response}\n").as_bytes()).await.expect("a running parent");
        self.responses.flush().await.expect("a running parent");
    }
}

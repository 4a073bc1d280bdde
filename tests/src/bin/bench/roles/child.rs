//! The parts that a bench runs as processes of their own, so that what each of them costs can be told apart: the
//! receiver, the publisher, and what is measured against. They are this program, started with the name of a role.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin, Stdout},
    process::{ChildStdin, ChildStdout, Command},
};

/// A role in a process of its own: it answers each line of JSON with one. Killed when it is dropped.
pub(crate) struct Child {
    process: tokio::process::Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Child {
    pub(crate) fn start(role: &str) -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let mut process = Command::new(program)
            .arg(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("this program starts");
        let questions = process.stdin.take().expect("its input is piped");
        let answers = BufReader::new(process.stdout.take().expect("its output is piped")).lines();
        Self { process, questions, answers }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&mut self, question: &Value) -> Value {
        self.questions.write_all(format!("{question}\n").as_bytes()).await.expect("it runs");
        let answer = self.answers.next_line().await.expect("its output").expect("an answer");
        serde_json::from_str(&answer).expect("JSON")
    }
}

/// The other side: the questions that a role is asked, and its answers.
pub(crate) struct Parent {
    questions: Lines<BufReader<Stdin>>,
    answers: Stdout,
}

impl Parent {
    pub(crate) fn new() -> Self {
        Self { questions: BufReader::new(tokio::io::stdin()).lines(), answers: tokio::io::stdout() }
    }

    /// The next question; none once nobody asks any more.
    pub(crate) async fn question(&mut self) -> Option<Value> {
        let line = self.questions.next_line().await.ok()??;
        Some(serde_json::from_str(&line).expect("JSON"))
    }

    pub(crate) async fn answer(&mut self, answer: &Value) {
        self.answers.write_all(format!("{answer}\n").as_bytes()).await.expect("somebody listens");
        self.answers.flush().await.expect("somebody listens");
    }
}

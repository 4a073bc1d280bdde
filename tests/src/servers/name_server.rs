//! A name server of a test, which may answer nobody.

use std::net::SocketAddr;

use tokio::{net::UdpSocket, sync::watch, task::JoinHandle};

/// Names that exist, with the address 127.0.0.1, or 127.0.0.2 if the name begins with `second`.
const ZONE: &str = ".receiver.test";

/// Answers of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// Each question.
    All,
    /// SERVFAIL to each question.
    Failures,
    /// SERVFAIL to names that begin with `odd`.
    SomeFailures,
    /// Nothing.
    Nothing,
}

/// A name server on a free UDP port. Ends on drop.
pub struct NameServer {
    address: SocketAddr,
    answers: watch::Sender<Answers>,
    task: JoinHandle<()>,
}

impl NameServer {
    /// Starts a server that answers all questions.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("a local address");
        let answers = watch::Sender::new(Answers::All);
        let ordered = answers.subscribe();
        let task = tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let answers = *ordered.borrow();
                if let Some(answer) = answer(&question[..length], answers) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { address, answers, task }
    }

    /// Address and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Orders the answers to all further questions.
    pub fn answer(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers a question (RFC 1035, 4.1).
fn answer(question: &[u8], answers: Answers) -> Option<Vec<u8>> {
    let (name, end) = name(question)?;
    let is_ipv4 = question.get(end..end + 2)? == [0, 1];
    let fails = match answers {
        Answers::All => false,
        Answers::Failures => true,
        Answers::SomeFailures => name.starts_with("odd"),
        Answers::Nothing => return None,
    };
    let exists = name.strip_suffix(ZONE).is_some_and(|host| !host.contains('.'));
    let code = if fails {
        2
    } else if exists {
        0
    } else {
        3
    };
    let records = u8::from(code == 0 && is_ipv4);
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, records, 0, 0, 0, 0]);
    answer.extend(question.get(12..end + 4)?);
    if records > 0 {
        // A pointer to the question's name, type A, class IN, TTL 0, four bytes.
        let last = if name.starts_with("second") { 2 } else { 1 };
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, last]);
    }
    Some(answer)
}

/// The name of a question, and the place behind it.
fn name(question: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while *question.get(at)? > 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(question.get(at + 1..end)?).to_lowercase());
        at = end;
    }
    Some((labels.join("."), at + 1))
}

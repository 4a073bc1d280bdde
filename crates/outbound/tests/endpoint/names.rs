//! Names with several addresses, with changing addresses, or with aliases; and silent name servers.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fanfare_domain::delivery::outcome::Outcome;
use fanfare_outbound::{Client, Settings};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::AbortHandle,
    time::timeout,
};

use crate::receiver::{AMPLE, Receiver, SHORT, allowing, request, status};

const OK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A record: an address, or another name.
#[derive(Clone)]
enum Record {
    Is(IpAddr),
    Alias(&'static str),
}

fn is(address: &str) -> Record {
    Record::Is(address.parse().expect("address"))
}

/// A name server for tests. Each name has a list of answers, given in turn; the last answer repeats. Unknown names get
/// no answer.
#[derive(Clone)]
struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<HashMap<(String, u16), usize>>>,
    is_silent: Arc<AtomicBool>,
    task: AbortHandle,
}

type Zone = HashMap<&'static str, Vec<Vec<Record>>>;

impl NameServer {
    async fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("address");
        let asked = Arc::<Mutex<HashMap<(String, u16), usize>>>::default();
        let is_silent = Arc::<AtomicBool>::default();
        let (counted, silenced) = (Arc::clone(&asked), Arc::clone(&is_silent));
        let task = tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                if !silenced.load(Ordering::Acquire)
                    && let Some(answer) = answer(&zone, &counted, &question[..length])
                {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { address, asked, is_silent, task: task.abort_handle() }
    }

    /// A client that asks this server, and may call only 127.0.0.1.
    fn client(&self) -> Client {
        let name_servers = vec![self.address.to_string().parse().expect("a name server")];
        Client::new(&Settings { name_servers, ..allowing(&["127.0.0.1/32"]) }).expect("client")
    }
}

/// Answers a question (RFC 1035, 4.1).
fn answer(zone: &Zone, asked: &Mutex<HashMap<(String, u16), usize>>, question: &[u8]) -> Option<Vec<u8>> {
    let (name, end) = read_name(question)?;
    let kind = u16::from_be_bytes([question[end], question[end + 1]]);
    let count = {
        let mut asked = asked.lock().expect("counts");
        let count = asked.entry((name.clone(), kind)).or_default();
        *count += 1;
        *count
    };
    let Some(turns) = zone.get(name.as_str()) else {
        // A name below a known name does not exist. Other names get no answer.
        let is_below = name.split_once('.').is_some_and(|(_, parent)| zone.contains_key(parent));
        let unknown = || [&question[..2], &[0x81, 0x83], &question[4..6], &[0; 6], &question[12..end + 4]].concat();
        return is_below.then(unknown);
    };
    let turn = (count - 1).min(turns.len() - 1);
    let mut records = Vec::new();
    let mut count: u16 = 0;
    let mut owner = name;
    for record in &turns[turn] {
        let (of_kind, data) = match record {
            Record::Is(IpAddr::V4(address)) => (1, address.octets().to_vec()),
            Record::Is(IpAddr::V6(address)) => (28, address.octets().to_vec()),
            Record::Alias(other) => (5, write_name(other)),
        };
        if of_kind == 5 || of_kind == kind {
            count += 1;
            records.extend(write_name(&owner));
            records.extend(of_kind.to_be_bytes());
            // Class IN, TTL 0.
            records.extend([0, 1, 0, 0, 0, 0]);
            records.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
            records.extend(data);
        }
        if let Record::Alias(other) = record {
            owner = (*other).to_owned();
        }
    }
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1]);
    answer.extend(count.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(&question[12..end + 4]);
    answer.extend(records);
    Some(answer)
}

fn read_name(question: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while *question.get(at)? > 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(question.get(at + 1..end)?).to_lowercase());
        at = end;
    }
    Some((labels.join("."), at + 1))
}

fn write_name(name: &str) -> Vec<u8> {
    let label = |label: &str| [&[u8::try_from(label.len()).expect("short")], label.as_bytes()].concat();
    name.split('.').flat_map(label).chain([0]).collect()
}

/// A forbidden listener inside the network: 127.0.0.2, at the receiver's port.
async fn inside(receiver: &Receiver) -> TcpListener {
    TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), receiver.address.port())).await.expect("the port is free there")
}

async fn assert_not_called(inside: &TcpListener) {
    assert!(timeout(Duration::from_millis(200), inside.accept()).await.is_err(), "127.0.0.2 was called");
}

/// Each attempt looks up the name once, and dials the judged address.
#[tokio::test]
async fn a_name_that_changes_its_address_is_judged_at_each_attempt() {
    let receiver = Receiver::answering(OK).await;
    let inside = inside(&receiver).await;
    let turns = vec![vec![is("127.0.0.1")], vec![is("127.0.0.2")], vec![is("127.0.0.1")], vec![is("127.0.0.2")]];
    let server = NameServer::start([("rebinding.example", turns)].into()).await;
    let client = server.client();
    let url = format!("http://rebinding.example:{}/", receiver.address.port());
    for expected in [status(200), Outcome::AddressForbidden, status(200), Outcome::AddressForbidden] {
        let exchange = client.post(request(&url, AMPLE)).await.expect("our egress works");
        assert_eq!(exchange.outcome, expected, "{:?}", exchange.error);
    }
    assert_eq!(receiver.accepted(), 2);
    assert_not_called(&inside).await;
    let asked = server.asked.lock().expect("counts")[&("rebinding.example".to_owned(), 1)];
    assert_eq!(asked, 4, "one question for each attempt");
}

#[tokio::test]
async fn all_addresses_of_a_name_are_checked_in_every_notation() {
    let receiver = Receiver::answering(OK).await;
    let inside = inside(&receiver).await;
    let zone: Zone = [
        ("one.example", vec![vec![is("127.0.0.1")]]),
        ("both.example", vec![vec![is("127.0.0.1"), is("127.0.0.2")]]),
        ("mapped.example", vec![vec![is("127.0.0.1"), is("::ffff:127.0.0.2")]]),
        ("nat64.example", vec![vec![is("127.0.0.1"), is("64:ff9b::7f00:1")]]),
        ("unspecified.example", vec![vec![is("0.0.0.0")]]),
        ("alias.example", vec![vec![Record::Alias("elsewhere.example"), is("127.0.0.1")]]),
        ("chain.example", vec![vec![Record::Alias("a.example"), Record::Alias("b.example"), is("127.0.0.2")]]),
        ("metadata.example", vec![vec![Record::Alias("metadata.internal"), is("169.254.169.254")]]),
        ("nothing.example", vec![vec![]]),
        // Targets of the aliases, without further addresses.
        ("elsewhere.example", vec![vec![]]),
        ("b.example", vec![vec![]]),
        ("metadata.internal", vec![vec![]]),
    ]
    .into();
    let client = NameServer::start(zone).await.client();
    let forbidden = Outcome::AddressForbidden;
    for (name, expected) in [
        ("one.example", status(200)),
        ("ONE.Example.", status(200)),
        ("both.example", forbidden),
        ("mapped.example", forbidden),
        ("nat64.example", forbidden),
        ("unspecified.example", forbidden),
        ("alias.example", status(200)),
        ("chain.example", forbidden),
        ("metadata.example", forbidden),
        ("nothing.example", Outcome::NameNotResolved),
    ] {
        let url = format!("http://{name}:{}/", receiver.address.port());
        let exchange = client.post(request(&url, AMPLE)).await.expect("our egress works");
        assert_eq!(exchange.outcome, expected, "{name}: {:?}", exchange.error);
        let ahead = client.refusal(&url.parse().expect("URL")).await;
        assert_eq!(ahead.is_some(), expected == forbidden, "{name}: {ahead:?}");
    }
    assert_eq!(receiver.accepted(), 3);
    assert_not_called(&inside).await;
}

/// Many unanswered names do not delay other names. The number exceeds the threads of a process, on which the system's
/// own look-ups would wait.
#[tokio::test]
async fn unanswered_names_do_not_delay_other_names() {
    const MORE_THAN_THREADS: usize = 600;
    let receiver = Receiver::answering(OK).await;
    let server = NameServer::start([("one.example", vec![vec![is("127.0.0.1")]])].into()).await;
    let client = server.client();
    let url = |name: &str| format!("http://{name}:{}/", receiver.address.port());
    let silent: Vec<_> = (0..1000)
        .map(|number| {
            let (client, url) = (client.clone(), url(&format!("silent-{number}.example")));
            tokio::spawn(async move { client.post(request(&url, AMPLE)).await.expect("our egress works").outcome })
        })
        .collect();
    timeout(AMPLE, async {
        // Some questions are lost in transit.
        while server.asked.lock().expect("counts").len() < MORE_THAN_THREADS {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the questions");
    assert_eq!(client.post(request(&url("one.example"), AMPLE)).await.expect("our egress works").outcome, status(200));
    let waiting = silent.iter().filter(|attempt| !attempt.is_finished()).count();
    assert!(waiting >= MORE_THAN_THREADS, "only {waiting} attempts still waited");
    silent.iter().for_each(|attempt| attempt.abort());
}

/// A name without an answer is the receiver's fault, unless no name has an answer.
#[tokio::test]
async fn name_servers_that_answer_nobody_are_our_fault() {
    let receiver = Receiver::answering(OK).await;
    let server = NameServer::start([("one.example", vec![vec![is("127.0.0.1")]])].into()).await;
    let client = server.client();
    let send =
        async |name: &str| client.post(request(&format!("http://{name}:{}/", receiver.address.port()), SHORT)).await;
    assert!(send("silent.example").await.is_err(), "nothing was answered before");
    assert_eq!(send("one.example").await.expect("our egress works").outcome, status(200));
    assert_eq!(send("silent.example").await.expect("one.example is answered").outcome, Outcome::TimedOut);
    server.task.abort();
    // The answer of a moment ago still holds.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let error = send("one.example").await.expect_err("no name server answers");
    assert!(error.to_string().contains("resolved") || error.to_string().contains("head"), "{error}");
}

/// Name servers that answer again just before the deadline were silent during the attempt.
#[tokio::test]
async fn silence_that_ends_before_the_deadline_is_our_fault() {
    const DEADLINE: Duration = Duration::from_millis(1900);
    const SILENCE: Duration = Duration::from_millis(1800);
    let receiver = Receiver::answering(OK).await;
    let server = NameServer::start([("one.example", vec![vec![is("127.0.0.1")]])].into()).await;
    let client = server.client();
    let send =
        async |name: &str| client.post(request(&format!("http://{name}:{}/", receiver.address.port()), DEADLINE)).await;
    assert_eq!(send("one.example").await.expect("our egress works").outcome, status(200));
    assert_eq!(send("silent.example").await.expect("one.example is answered").outcome, Outcome::TimedOut);
    server.is_silent.store(true, Ordering::Release);
    let speak = async {
        tokio::time::sleep(SILENCE).await;
        server.is_silent.store(false, Ordering::Release);
    };
    let (of_all, of_one, ()) = tokio::join!(send("one.example"), send("silent.example"), speak);
    assert!(of_all.is_err() && of_one.is_err(), "{of_all:?}, {of_one:?}");
    assert_eq!(send("one.example").await.expect("our egress works").outcome, status(200));
}

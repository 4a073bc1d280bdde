//! Receiver: a minimal HTTP server, so that no sender waits for the receiver.
//!
//! A path is `/<group>/<behaviour>?<endpoint>`. The publisher writes the time of publish and a number into the event:
//! `"at":<microseconds since 1970>,"n":<number>`. For each group, the receiver records the latencies of the events and
//! the numbers that each endpoint has accepted.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::sleep,
};

use crate::{roles::child::Parent, statistics::percentiles};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const FAIL: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno";
const DRIPPING: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";

/// True if endpoints behind the gate succeed.
static GATE: AtomicBool = AtomicBool::new(false);

/// Delay of `late` answers, in milliseconds.
static LATE: AtomicU64 = AtomicU64::new(0);

/// Accounts of the groups of endpoints, by name.
type Ledger = Arc<Mutex<HashMap<String, Account>>>;

/// Receipts of a group.
#[derive(Default)]
struct Account {
    /// Microseconds from publish to receipt, for receipts since the last request of the parent.
    latencies: Vec<u32>,
    /// Endpoint and number of each successful receipt since the start.
    succeeded: HashSet<(u32, u64)>,
    /// Highest number of each endpoint's successful receipts.
    highest: HashMap<u32, u64>,
    /// Successful receipts of a number after the endpoint's first successful receipt of that number.
    repeats: u64,
    /// Successful receipts more than `BEHIND` numbers behind the highest number of their endpoint.
    disordered: u64,
}

impl Account {
    /// Permitted distance to the highest number: requests to an endpoint overtake each other.
    const BEHIND: u64 = 200;

    fn record_success(&mut self, endpoint: u32, number: u64) {
        if !self.succeeded.insert((endpoint, number)) {
            self.repeats += 1;
        }
        let highest = self.highest.entry(endpoint).or_default();
        *highest = number.max(*highest);
        self.disordered += u64::from(number + Self::BEHIND < *highest);
    }
}

/// Serves at an address, by default at a free port, until the parent ends. The response to each request of the parent
/// has the receipts since the last request. `"open"` opens the gate; `{"late": 10000}` sets the delay of `late`
/// answers. The response to `"received"` has the number of distinct receipts since the start.
pub(crate) async fn run(address: Option<String>) {
    let address = address.map(|address| address.parse().expect("an address"));
    let address = address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
    socket.set_reuseaddr(true).expect("a socket");
    socket.bind(address).expect("a free port");
    // Recovery of 1,000 endpoints opens thousands of connections at once. A connection beyond a full queue opens a
    // second later, and this second is not Fanfare's latency.
    let listener = socket.listen(65_535).expect("a listener");
    let address = listener.local_addr().expect("an address").to_string();
    let ledger = Ledger::default();
    let serving = Arc::clone(&ledger);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(serve(stream, Arc::clone(&serving)));
        }
    });
    let mut parent = Parent::new();
    while let Some(request) = parent.next_request().await {
        if request == "received" {
            parent.respond(&json!({ "received": distinct(&ledger) })).await;
            continue;
        }
        GATE.fetch_or(request == "open", Ordering::Relaxed);
        if let Some(late) = request["late"].as_u64() {
            LATE.store(late, Ordering::Relaxed);
        }
        let groups = read(&ledger);
        parent.respond(&json!({ "address": address, "groups": groups })).await;
    }
}

/// Returns the number of distinct successful receipts since the start.
fn distinct(ledger: &Ledger) -> usize {
    let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    ledger.values().map(|account| account.succeeded.len()).sum()
}

/// Returns the receipts of each group since the last request of the parent, and its repeats since the start.
fn read(ledger: &Ledger) -> serde_json::Map<String, Value> {
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let noted = ledger.iter_mut().filter(|(_, account)| !account.latencies.is_empty());
    let answers = noted.map(|(group, account)| {
        let latencies = std::mem::take(&mut account.latencies);
        let count = latencies.len();
        let [p50, p99, p100] = percentiles(latencies, [50.0, 99.0, 100.0]);
        let (repeats, disordered) = (account.repeats, account.disordered);
        let answer = json!({ "count": count, "p50": p50, "p99": p99, "max": p100, "repeats": repeats,
                             "disordered": disordered });
        (group.clone(), answer)
    });
    answers.collect()
}

async fn serve(mut stream: TcpStream, ledger: Ledger) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let Some(request) = Request::find(&buffer) else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let (group, rest) = request.path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let (behaviour, endpoint) = rest.split_once('?').unwrap_or((rest, "0"));
        if let Some(at) = request.published {
            let latency = u32::try_from(microseconds().saturating_sub(at)).unwrap_or(u32::MAX);
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let account = match ledger.get_mut(group) {
                Some(account) => account,
                None => ledger.entry(group.to_owned()).or_default(),
            };
            account.latencies.push(latency);
            if behaviour != "gate" || GATE.load(Ordering::Relaxed) {
                account.record_success(endpoint.parse().expect("a number"), request.number.unwrap_or_default());
            }
        }
        let behaviour = behaviour.to_owned();
        let end = request.end;
        buffer.drain(..end);
        answer(&mut stream, &behaviour).await?;
    }
}

/// Answers as `ok`, `gate`, `hang`, `drip`, `late`, `life` or `wait-<milliseconds>`.
///
/// Endpoints behind the gate fail until the gate opens. The delays of `life` are lognormal from 50 ms to 5 s, with a
/// median of 200 ms.
async fn answer(stream: &mut TcpStream, behaviour: &str) -> io::Result<()> {
    match behaviour {
        "ok" => stream.write_all(OK).await,
        "gate" if GATE.load(Ordering::Relaxed) => stream.write_all(OK).await,
        "gate" => stream.write_all(FAIL).await,
        "hang" => std::future::pending().await,
        "drip" => {
            stream.write_all(DRIPPING).await?;
            loop {
                stream.write_all(b".").await?;
                // The pace of the slow body.
                sleep(Duration::from_secs(1)).await;
            }
        }
        waits => {
            let milliseconds = match waits {
                "late" => LATE.load(Ordering::Relaxed),
                "life" => lognormal(200.0, 1.0).clamp(50.0, 5_000.0) as u64,
                _ => waits.strip_prefix("wait-").and_then(|wait| wait.parse().ok()).expect("a behaviour"),
            };
            if milliseconds > 0 {
                // The answer time that the measurement sets.
                sleep(Duration::from_millis(milliseconds)).await;
            }
            stream.write_all(OK).await
        }
    }
}

/// Returns a random number of the lognormal distribution, by the Box-Muller transform.
fn lognormal(median: f64, sigma: f64) -> f64 {
    let (first, second): (f64, f64) = (1.0 - rand::random::<f64>(), rand::random());
    median * (sigma * (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos()).exp()
}

/// Complete request at the beginning of a buffer.
pub(super) struct Request<'a> {
    path: &'a str,
    published: Option<u64>,
    number: Option<u64>,
    pub(super) body: Range<usize>,
    pub(super) end: usize,
}

impl<'a> Request<'a> {
    /// Returns `None` if the request is incomplete.
    pub(super) fn find(buffer: &'a [u8]) -> Option<Self> {
        let head_end = position(buffer, b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&buffer[..head_end]).ok()?;
        let end = match length(head) {
            Some(length) => head_end + length,
            // In chunks, without trailers.
            None => head_end + position(&buffer[head_end..], b"\r\n0\r\n\r\n")? + 7,
        };
        let body = buffer.get(head_end..end)?;
        let path = head.split(' ').nth(1)?;
        let (published, number) = (number_of(body, b"\"at"), number_of(body, b"\"n"));
        Some(Self { path, published, number, body: head_end..end, end })
    }
}

/// `Content-Length` of a head.
pub(super) fn length(head: &str) -> Option<usize> {
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    };
    head.lines().find_map(header)
}

/// Number of a member of JSON, whose name follows `quoted`. Another server may print white space around the colon, or
/// the whole data as a text.
fn number_of(bytes: &[u8], quoted: &[u8]) -> Option<u64> {
    let mut rest = bytes;
    loop {
        rest = &rest[position(rest, quoted)? + quoted.len()..];
        let is_between = |byte: &&u8| matches!(byte, b'\\' | b'"' | b':' | b' ');
        let digits = &rest[rest.iter().take_while(is_between).count()..];
        if digits.first().is_some_and(u8::is_ascii_digit) {
            let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
            return Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
        }
    }
}

fn position(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

/// Returns the microseconds since 1970.
pub(crate) fn microseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_other_servers_are_read() {
        for (head, body) in [
            ("content-length: 26", r#"{"attempt":1,"at":7,"n":8}"#),
            ("Content-Length:30", r#"{"a": [ {"at" : 7, "n": 8 } ]}"#),
            ("Content-length: 35", r#"{"payload":"{\"at\":7,\"n\":8}"}   "#),
            ("Transfer-Encoding: chunked", "d\r\n{\"at\":7,\"n\":\r\n2\r\n8}\r\n0\r\n\r\n"),
        ] {
            let request = format!("POST /all/ok?0 HTTP/1.1\r\n{head}\r\n\r\n{body}");
            let rest = format!("{request}POST");
            let found = Request::find(rest.as_bytes()).expect("a request");
            assert_eq!((found.path, found.end), ("/all/ok?0", request.len()), "{request}");
            if !head.starts_with("Transfer") {
                assert_eq!((found.published, found.number), (Some(7), Some(8)), "{request}");
            }
            assert!(Request::find(&request.as_bytes()[..request.len() - 1]).is_none());
        }
    }
}

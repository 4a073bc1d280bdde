//! The receiver: as little HTTP as will do, so that it is never what is waited for.
//!
//! A path is `/<group>/<behaviour>`; the time from an event's publishing to its receipt is noted for each group. The
//! publisher writes the moment of publishing into the event: `"at":<microseconds since 1970>`.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::{child::Parent, statistics::percentiles};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const FAIL: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno";
const DRIPPING: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";

/// Whether what stands behind the gate is up.
static GATE: AtomicBool = AtomicBool::new(false);

/// Microseconds from publishing to receipt, by group.
type Books = Arc<Mutex<HashMap<String, Vec<u32>>>>;

/// Serves until nobody asks any more. Each question is answered with what has come in since the one before; `"open"` opens
/// the gate before that.
pub(crate) async fn run() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    let books = Books::default();
    let serving = Arc::clone(&books);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(serve(stream, Arc::clone(&serving)));
        }
    });
    let mut parent = Parent::new();
    while let Some(question) = parent.question().await {
        GATE.fetch_or(question == "open", Ordering::Relaxed);
        let noted = std::mem::take(&mut *books.lock().unwrap_or_else(PoisonError::into_inner));
        let groups: serde_json::Map<String, Value> = noted
            .into_iter()
            .map(|(group, latencies)| {
                let count = latencies.len();
                let [p50, p99, p100] = percentiles(latencies, [50.0, 99.0, 100.0]);
                (group, json!({ "count": count, "p50": p50, "p99": p99, "max": p100 }))
            })
            .collect();
        parent.answer(&json!({ "address": address, "groups": groups })).await;
    }
}

async fn serve(mut stream: TcpStream, books: Books) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let Some(request) = Request::find(&buffer) else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let (group, behaviour) = request.path.trim_start_matches('/').split_once('/').unwrap_or_default();
        if let Some(at) = request.published {
            let latency = u32::try_from(microseconds().saturating_sub(at)).unwrap_or(u32::MAX);
            let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
            match books.get_mut(group) {
                Some(latencies) => latencies.push(latency),
                None => drop(books.insert(group.to_owned(), vec![latency])),
            }
        }
        let behaviour = behaviour.to_owned();
        let end = request.end;
        buffer.drain(..end);
        answer(&mut stream, &behaviour).await?;
    }
}

/// `ok`, `gate`, `hang`, `drip`, or `wait-<milliseconds>`. Behind the gate all fails until it is opened.
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
                sleep(Duration::from_secs(1)).await;
            }
        }
        waits => {
            let milliseconds = waits.strip_prefix("wait-").and_then(|wait| wait.parse().ok());
            sleep(Duration::from_millis(milliseconds.expect("a behaviour"))).await;
            stream.write_all(OK).await
        }
    }
}

/// A request at the beginning of what has come in.
struct Request<'a> {
    path: &'a str,
    published: Option<u64>,
    end: usize,
}

impl<'a> Request<'a> {
    /// None where it is not complete yet.
    fn find(buffer: &'a [u8]) -> Option<Self> {
        let head_end = position(buffer, b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&buffer[..head_end]).ok()?;
        let length = after(head.as_bytes(), b"content-length: ")?;
        let end = head_end + usize::try_from(length).ok()?;
        let body = buffer.get(head_end..end)?;
        let path = head.split(' ').nth(1)?;
        Some(Self { path, published: after(body, b"\"at\":"), end })
    }
}

/// The number behind a text.
fn after(bytes: &[u8], text: &[u8]) -> Option<u64> {
    let start = position(bytes, text)? + text.len();
    let digits = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

fn position(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

/// Microseconds since 1970.
pub(crate) fn microseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

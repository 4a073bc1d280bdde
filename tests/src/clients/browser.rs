//! Chromium, driven by `browser/driver.mjs` for the tests of the pages. All tests of a program share a browser; each
//! visit has cookies and pages of its own.

use std::{
    collections::HashMap,
    fmt,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::spawn,
};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{servers::instance::repository, world::World};

const MISSING: &str = "Node 18 or later, Chromium and the packages of tests/browser are needed: run `make test-browser`, \
                       which installs them";

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// The program that drives the browser. Ends with the standard input, at the end of the tests.
struct Driver {
    input: Mutex<ChildStdin>,
    waiting: Waiting,
}

static DRIVER: LazyLock<Driver> = LazyLock::new(Driver::start);
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The folder of screenshots and traces.
pub fn screens() -> PathBuf {
    repository().join("target/screens")
}

impl Driver {
    fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
        assert!(folder.join("node_modules").is_dir(), "{MISSING}");
        let mut node = Command::new("node")
            .arg(folder.join("driver.mjs"))
            .env("FANFARE_SCREENS", screens())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect(MISSING);
        let input = Mutex::new(node.stdin.take().expect("a piped standard input"));
        let output = BufReader::new(node.stdout.take().expect("a piped standard output"));
        let waiting = Waiting::default();
        let answered = Arc::clone(&waiting);
        // A thread: the driver outlives the runtime of each test.
        spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let answer: Value = serde_json::from_str(&line).unwrap_or_default();
                let id = answer["id"].as_u64().unwrap_or_default();
                let waiter = answered.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                // A test that failed meanwhile waits no more.
                waiter.map(|waiter| waiter.send(answer));
            }
            // Without the senders, all waiting tests fail at once.
            answered.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let _ = node.wait();
        });
        Self { input, waiting }
    }

    fn send(&self, mut request: Value) -> oneshot::Receiver<Value> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        request["id"] = json!(id);
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        if writeln!(input, "{request}").is_err() {
            // A driver that has ended answers nothing: the receiver tells.
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
        receiver
    }
}

/// Settings of a [`Visit`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// True without JavaScript.
    pub without_scripts: bool,
    /// True for a network of 400 kbit/s and 400 ms.
    pub is_slow: bool,
    /// True for a page whose clock the test moves.
    pub has_clock: bool,
    /// True for a window of 320 px.
    pub is_narrow: bool,
}

impl Manner {
    /// A usual browser.
    pub const USUAL: Self = Self { without_scripts: false, is_slow: false, has_clock: false, is_narrow: false };
    /// A browser without JavaScript.
    pub const WITHOUT_SCRIPTS: Self = Self { without_scripts: true, ..Self::USUAL };
    /// A browser over a slow network.
    pub const SLOW: Self = Self { is_slow: true, ..Self::USUAL };
    /// A browser on a small phone.
    pub const NARROW: Self = Self { is_narrow: true, ..Self::USUAL };
}

/// A browser window with cookies of its own. Each action waits for its element, and panics after the driver's patience.
pub struct Visit {
    id: u64,
    is_ended: bool,
}

impl Visit {
    /// Opens a window on the world's ingest. `name` names the screenshot and the trace of a fault. `cookie` is the
    /// cookie of a session, `name=value`, or empty.
    pub async fn begin(world: &World, name: &str, cookie: &str, manner: Manner) -> Self {
        let address = world.ingest().address("serving the API").await;
        Self::at(&format!("http://{address}"), name, cookie, manner).await
    }

    /// Like [`Self::begin`], on the pages at an origin.
    pub async fn at(origin: &str, name: &str, cookie: &str, manner: Manner) -> Self {
        let visit = Self { id: NEXT.fetch_add(1, Ordering::Relaxed), is_ended: false };
        let name = format!("{name}{}", if manner.without_scripts { "-without-scripts" } else { "" });
        let mut request = json!({
            "do": "begin", "name": name, "origin": origin,
            "scripts": !manner.without_scripts, "slow": manner.is_slow, "clock": manner.has_clock,
            "width": if manner.is_narrow { 320 } else { 1100 },
        });
        if !cookie.is_empty() {
            request["cookie"] = json!(cookie);
        }
        visit.send(request).await;
        visit
    }

    async fn send(&self, mut request: Value) -> Value {
        request["visit"] = json!(self.id);
        ask(request).await
    }

    /// Does an action of the driver with these members.
    ///
    /// # Panics
    /// If the action fails.
    pub async fn act(&self, action: &str, mut members: Value) -> Value {
        members["do"] = json!(action);
        self.send(members).await
    }

    /// Opens an address. Returns the status.
    pub async fn open(&self, address: &str) -> u64 {
        self.act("open", json!({ "address": address })).await.as_u64().unwrap_or_default()
    }

    /// Clicks a button or a link that leads to another page.
    pub async fn follow(&self, name: &str) {
        self.act("follow", json!({ "name": name })).await;
    }

    /// Clicks a button or a link that changes the page.
    pub async fn click(&self, name: &str) {
        self.act("click", json!({ "name": name })).await;
    }

    /// Clicks an element that leads to another page.
    pub async fn choose(&self, selector: &str) {
        self.act("choose", json!({ "selector": selector })).await;
    }

    /// Types a text into the field of a label.
    pub async fn fill(&self, label: &str, text: &str) {
        self.act("fill", json!({ "label": label, "text": text })).await;
    }

    /// Waits until a text is seen.
    pub async fn sees(&self, text: &str) {
        self.act("sees", json!({ "text": text })).await;
    }

    /// Waits until an element is seen.
    pub async fn finds(&self, selector: &str) {
        self.act("finds", json!({ "selector": selector })).await;
    }

    /// Presses a key.
    pub async fn press(&self, key: &str) {
        self.act("press", json!({ "key": key })).await;
    }

    /// Presses a key that leads to another page.
    pub async fn enter(&self, key: &str) {
        self.act("enter", json!({ "key": key })).await;
    }

    /// Number of elements of a selector.
    pub async fn count(&self, selector: &str) -> u64 {
        self.act("count", json!({ "selector": selector })).await.as_u64().unwrap_or_default()
    }

    /// The text of an element.
    pub async fn text(&self, selector: &str) -> String {
        text(&self.act("text", json!({ "selector": selector })).await)
    }

    /// Path and query of the page.
    pub async fn address(&self) -> String {
        text(&self.act("address", json!({})).await)
    }

    /// Paths of the requests since the last call.
    pub async fn requests(&self) -> Vec<String> {
        self.act("requests", json!({})).await.as_array().into_iter().flatten().map(text).collect()
    }

    /// Ends the visit.
    ///
    /// # Panics
    /// If the console or the policy of the pages had a message.
    pub async fn end(mut self) {
        self.is_ended = true;
        let messages = self.act("end", json!({})).await;
        assert_eq!(messages, json!([]), "messages of the browser's console");
    }
}

/// Sends a request to the driver. Returns the value of the answer.
async fn ask(request: Value) -> Value {
    let answer = DRIVER.send(request).await.expect("the driver of the browser has ended");
    assert!(answer["error"].is_null(), "{}", answer["error"].as_str().unwrap_or_default());
    answer["value"].clone()
}

/// A proxy in front of an ingest, which the browser reaches by a host name.
#[derive(Debug)]
pub struct Front {
    port: u64,
    /// Address of the pages: `https://fanfare.test:1234`.
    pub origin: String,
}

impl Front {
    /// Opens a front over `https` or `http`. The origin is known before the ingest is started.
    pub async fn open(scheme: &str) -> Self {
        let port = ask(json!({ "do": "front", "secure": scheme == "https" })).await.as_u64().unwrap_or_default();
        Self { port, origin: format!("{scheme}://fanfare.test:{port}") }
    }

    /// Hands all requests on to the world's ingest.
    pub async fn lead_to(&self, world: &World) {
        let target = world.ingest().address("serving the API").await.to_string();
        ask(json!({ "do": "lead", "port": self.port, "target": target })).await;
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Drop for Visit {
    fn drop(&mut self) {
        if !self.is_ended {
            drop(DRIVER.send(json!({ "do": "end", "visit": self.id })));
        }
    }
}

impl fmt::Debug for Visit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Visit({})", self.id)
    }
}

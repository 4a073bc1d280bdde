//! Processes of a test: Fanfare's own binaries.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
    thread::{JoinHandle, spawn},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

use crate::{patience::until, world::release::Release};

/// Environment variables of a process.
pub type Variables = HashMap<String, String>;

/// Log lines of a process. Outlives the process.
pub type Logs = Arc<Mutex<Vec<Value>>>;

/// Limits of the log lines in a [`Trail::report`].
const REPORTED_LINES: usize = 200;
const REPORTED_BYTES: usize = 64 * 1024;

/// A running service. Killed on drop.
pub struct Process {
    child: Child,
    trail: Arc<Trail>,
    /// The threads that read standard output and standard error.
    readers: [Option<JoinHandle<()>>; 2],
    reading: Arc<Reading>,
}

/// Whether the threads read.
#[derive(Default)]
struct Reading {
    is_stopped: Mutex<bool>,
    changed: Condvar,
}

impl Reading {
    fn set(&self, reads: bool) {
        *self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner) = !reads;
        self.changed.notify_all();
    }

    /// Waits while nothing is to be read.
    fn wait(&self) {
        let stopped = self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(stopped, |is_stopped| *is_stopped));
    }
}

/// Logs and exit of a process. Outlives the process.
pub(crate) struct Trail {
    name: &'static str,
    id: u32,
    logs: Logs,
    /// Empty while the process runs, and if the drop of the [`Process`] killed the process.
    exit: OnceLock<ExitStatus>,
}

impl Trail {
    /// Name, exit and newest log lines, for the output of a failing test.
    pub(crate) fn report(&self) -> String {
        let exit = self.exit.get().map_or_else(|| "ran until its drop".to_owned(), ToString::to_string);
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = newest(&logs);
        let (shown, all) = (lines.len(), logs.len());
        format!("=== {} {} ({exit}), {shown} of {all} log lines:\n{}\n", self.name, self.id, lines.join("\n"))
    }
}

/// The newest log lines, in their order, at most [`REPORTED_LINES`] and [`REPORTED_BYTES`].
fn newest(logs: &[Value]) -> Vec<String> {
    let mut bytes = 0;
    let lines = logs.iter().rev().take(REPORTED_LINES).map(Value::to_string);
    let mut lines: Vec<String> = lines
        .take_while(|line| {
            bytes += line.len();
            bytes <= REPORTED_BYTES
        })
        .collect();
    lines.reverse();
    lines
}

/// Runs `fanfare` of this release with these arguments. Returns the printed text.
///
/// # Panics
/// If the command fails.
pub fn fanfare(variables: &Variables, arguments: &[&str]) -> String {
    Release::present().fanfare(variables, arguments)
}

/// Runs `fanfare` of this release with these arguments. Returns the printed text, and standard error if the command
/// fails.
pub fn try_fanfare(variables: &Variables, arguments: &[&str]) -> (String, Option<String>) {
    Release::present().try_fanfare(variables, arguments)
}

impl Process {
    /// Starts a service of a release and keeps its log lines, and the lines of standard error. Words after the name are
    /// arguments. `TEST_OPEN_FILES` limits the open files of the process.
    ///
    /// # Panics
    /// If the service cannot be started.
    pub(crate) fn start(release: &Release, name: &'static str, variables: &Variables) -> Self {
        let mut words = name.split(' ');
        let program = release.program(words.next().unwrap_or_default());
        let mut command = Command::new(&program);
        if variables.contains_key("TEST_OPEN_FILES") {
            command = Command::new("sh");
            command.args(["-c", "ulimit -n \"$TEST_OPEN_FILES\" && exec \"$0\" \"$@\""]).arg(&program);
        }
        let mut child = command
            .args(words)
            // The shell of the caller may have settings for Fanfare.
            .env_clear()
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the service starts");
        record(child.id());
        let logs: Logs = Arc::default();
        let show = std::env::var_os("FANFARE_TEST_LOGS").is_some();
        let reading = Arc::<Reading>::default();
        let keep = {
            let (kept, reading) = (Arc::clone(&logs), Arc::clone(&reading));
            move |line: String| {
                reading.wait();
                if show {
                    eprintln!("{name}: {line}");
                }
                let log = serde_json::from_str(&line).unwrap_or(Value::String(line));
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(log);
            }
        };
        let output = read(child.stdout.take().expect("a piped standard output"), keep.clone());
        let errors = read(child.stderr.take().expect("a piped standard error"), keep);
        let trail = Arc::new(Trail { name, id: child.id(), logs, exit: OnceLock::new() });
        Self { child, trail, readers: [Some(output), Some(errors)], reading }
    }

    /// Reads the output of the process, or lets the output wait, as a log driver that takes nothing.
    pub fn read_log(&self, reads: bool) {
        self.reading.set(reads);
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All log lines so far.
    pub fn logs(&self) -> Vec<Value> {
        self.trail.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The log lines so far and all later log lines.
    pub fn log_lines(&self) -> Logs {
        Arc::clone(&self.trail.logs)
    }

    pub(crate) fn trail(&self) -> Arc<Trail> {
        Arc::clone(&self.trail)
    }

    /// Waits for a log line with this message.
    pub async fn logged(&self, message: &str) -> Value {
        until(&format!("{} to log {message:?}", self.trail.name), async || {
            self.logs().into_iter().find(|log| log["message"] == message)
        })
        .await
    }

    /// Waits for a log line with this message and returns the line's address.
    ///
    /// # Panics
    /// If the log line has no address.
    pub async fn address(&self, message: &str) -> SocketAddr {
        let log = self.logged(message).await;
        log["address"].as_str().and_then(|text| text.parse().ok()).expect("an address")
    }

    /// True until the process ends.
    pub(crate) fn runs(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.id())).is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Waits until `/readyz` reports ready.
    pub async fn ready(&self) {
        let address = self.address("serving health and metrics").await;
        until(&format!("{} to be ready", self.trail.name), async || {
            get(address, "readyz").await?.starts_with("ready").then_some(())
        })
        .await;
    }

    /// Sends SIGKILL and waits for the end of the process.
    ///
    /// # Panics
    /// If the process cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process ends");
    }

    /// Sends SIGTERM without waiting.
    ///
    /// # Panics
    /// If the signal cannot be sent.
    pub fn terminate(&self) {
        signal("TERM", self.id());
    }

    /// Waits for the regular end of the process. Returns the exit code.
    ///
    /// # Panics
    /// If a signal ended the process.
    pub async fn ended(mut self) -> i32 {
        let what = format!("{} to end", self.trail.name);
        let status = until(&what, async || self.child.try_wait().expect("the process status")).await;
        status.code().expect("an exit code")
    }
}

impl Process {
    /// Waits until the process aborts at the crash point of `FANFARE_CRASH_AT`.
    ///
    /// # Panics
    /// If the process ends in another manner.
    pub async fn crashed(mut self) {
        const ABORT: i32 = 6;
        let what = format!("{} to be killed", self.trail.name);
        let status = until(&what, async || self.child.try_wait().expect("the process status")).await;
        assert_eq!(status.signal(), Some(ABORT));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            let _ = self.trail.exit.set(status);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.reading.set(true);
        // The last lines tell the most: they may still be in the pipes.
        for reader in self.readers.iter_mut().filter_map(Option::take) {
            let _ = reader.join();
        }
    }
}

/// Starts a thread that hands over each line until the end of the output.
fn read(output: impl Read + Send + 'static, take: impl Fn(String) + Send + 'static) -> JoinHandle<()> {
    spawn(move || BufReader::new(output).lines().map_while(Result::ok).for_each(take))
}

/// Registers a process with `deploy/dev/with-services`, which ends the process if this program is killed first.
fn record(process: u32) {
    let Some(folder) = std::env::var_os("FANFARE_DEV_DIR") else { return };
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Start time: field 22, the 20th field after the program name. The name may contain any characters.
    let started = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19)).unwrap_or_default();
    let file = PathBuf::from(folder).join("pids").join(process.to_string());
    let _ = std::fs::write(file, format!("{started}\n"));
}

/// Body of a GET response from a process's operations listener. `None` without a response.
pub async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = client.get(format!("http://{address}/{path}").parse().ok()?).await.ok()?;
    let bytes = response.into_body().collect().await.ok()?.to_bytes();
    String::from_utf8(bytes.to_vec()).ok()
}

/// Sends a signal to a process.
///
/// # Panics
/// If the signal cannot be sent.
pub fn signal(name: &str, process: u32) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name} {process}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{REPORTED_BYTES, REPORTED_LINES, newest};

    #[test]
    fn a_report_has_the_newest_lines_in_their_order() {
        let logs: Vec<Value> = (0..REPORTED_LINES + 2).map(|number| json!(number)).collect();
        let lines = newest(&logs);
        assert_eq!(lines.len(), REPORTED_LINES);
        assert_eq!(lines[..2], ["2", "3"]);
        assert_eq!(lines.last().map(String::as_str), Some("201"));
    }

    #[test]
    fn a_report_has_a_limit_in_bytes() {
        let lines = newest(&vec![json!("x".repeat(REPORTED_BYTES / 4)); 10]);
        assert_eq!(lines.len(), 3);
    }
}

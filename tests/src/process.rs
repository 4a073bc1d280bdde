//! The processes of a test: Fanfare's own binaries.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;

use crate::patience::until;

/// Environment variables of a process.
pub type Variables = HashMap<String, String>;

/// What a process logs, which outlives it.
pub type Logs = Arc<Mutex<Vec<Value>>>;

/// A running service. Killed when it is dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    logs: Logs,
}

/// The path of one of the workspace's binaries.
///
/// # Panics
/// When it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("the path of this program");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run the tests with `make test`, which builds it", path.display());
    path
}

/// Runs `fanfare` with these arguments and gives what it prints.
///
/// # Panics
/// When it fails.
pub fn fanfare(variables: &Variables, arguments: &[&str]) -> String {
    let (printed, failed) = try_fanfare(variables, arguments);
    assert!(failed.is_none(), "fanfare {arguments:?} failed: {}", failed.unwrap_or_default());
    printed
}

/// Runs `fanfare` with these arguments; gives what it prints, and its complaint where it fails.
pub fn try_fanfare(variables: &Variables, arguments: &[&str]) -> (String, Option<String>) {
    let mut command = Command::new(binary("fanfare"));
    let output = command.args(arguments).env_clear().envs(variables).output().expect("fanfare starts");
    let failed = (!output.status.success()).then(|| text(&output.stderr));
    (text(&output.stdout), failed)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

impl Process {
    /// Starts a service. Its logs are JSON, and kept.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &'static str, variables: &Variables) -> Self {
        let mut child = Command::new(binary(name))
            // Whoever runs the tests may have settings of their own.
            .env_clear()
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the service starts");
        record(child.id());
        let logs: Logs = Arc::default();
        let kept = Arc::clone(&logs);
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let show = std::env::var_os("FANFARE_TEST_LOGS").is_some();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if show {
                    eprintln!("{name}: {line}");
                }
                let log = serde_json::from_str(&line).unwrap_or(Value::String(line));
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(log);
            }
        });
        Self { name, child, logs }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has logged so far.
    pub fn logs(&self) -> Vec<Value> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that it logs, from now on, too.
    pub fn log_book(&self) -> Logs {
        Arc::clone(&self.logs)
    }

    /// Waits until it logs a message.
    pub async fn logged(&self, message: &str) -> Value {
        until(&format!("{} to log {message:?}", self.name), async || {
            self.logs().into_iter().find(|log| log["message"] == message)
        })
        .await
    }

    /// Waits for the address that it logs with a message.
    ///
    /// # Panics
    /// When what it logs is no address.
    pub async fn address(&self, message: &str) -> SocketAddr {
        let log = self.logged(message).await;
        log["address"].as_str().and_then(|text| text.parse().ok()).expect("an address")
    }

    /// kill -9.
    ///
    /// # Panics
    /// When there is nothing to kill.
    pub fn kill(mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process ends");
    }

    /// SIGTERM, without waiting.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn terminate(&self) {
        signal("TERM", self.id());
    }

    /// Waits until it has ended by itself and gives its exit code.
    ///
    /// # Panics
    /// When it was ended by a signal.
    pub async fn ended(mut self) -> i32 {
        let status = until(&format!("{} to end", self.name), async || self.child.try_wait().expect("its status")).await;
        status.code().expect("an exit code")
    }
}

impl Process {
    /// Waits until it has killed itself, as `FANFARE_CRASH_AT` told it to.
    ///
    /// # Panics
    /// When it ends in another way.
    pub async fn crashed(mut self) {
        const ABORT: i32 = 6;
        let what = format!("{} to be killed", self.name);
        let status = until(&what, async || self.child.try_wait().expect("its status")).await;
        assert_eq!(status.signal(), Some(ABORT));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Notes a process for `deploy/dev/with-services`, which ends it where this program is killed before it can.
fn record(process: u32) {
    let Some(folder) = std::env::var_os("FANFARE_DEV_DIR") else { return };
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Field 22 of all, and the twentieth after the program's name, which may hold anything.
    let started = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19)).unwrap_or_default();
    let file = PathBuf::from(folder).join("pids").join(process.to_string());
    let _ = std::fs::write(file, format!("{started}\n"));
}

/// Sends a signal to a process.
///
/// # Panics
/// When it cannot be sent.
pub fn signal(name: &str, process: u32) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name} {process}");
}

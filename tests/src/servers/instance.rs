//! Brokers and databases of the tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// The URLs of a broker and a database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Servers {
    /// The broker's URL.
    pub amqp_url: String,
    /// The database's URL. The user may create databases.
    pub database_url: String,
}

impl Servers {
    /// The servers of `AMQP_URL` and `DATABASE_URL`, set by `make test` or by the caller.
    ///
    /// # Panics
    /// If a variable is not set.
    pub fn given() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: run the tests with `make test`, which starts broker and database")
            })
        };
        Self { amqp_url: variable("AMQP_URL"), database_url: variable("DATABASE_URL") }
    }
}

/// Lines of a server's log that a failing test prints.
const REPORTED_LINES: usize = 50;

/// A private broker or database that a test may kill. Removed on drop. A drop by a panic prints the end of the log.
pub struct Instance {
    service: &'static str,
    folder: PathBuf,
    /// The folder of the node whose cluster this node joins at the first start.
    cluster: Option<PathBuf>,
}

impl Instance {
    /// Starts a private RabbitMQ.
    pub fn rabbitmq(name: &str) -> Self {
        Self::start_in("rabbitmq", name, None)
    }

    /// Starts the nodes of a private RabbitMQ cluster.
    ///
    /// # Panics
    /// If a node does not start.
    pub fn cluster(name: &str, nodes: usize) -> Vec<Self> {
        let first = Self::rabbitmq(name);
        let join = |number| Self::start_in("rabbitmq", &format!("{name}-{number}"), Some(first.folder.clone()));
        let others: Vec<Self> = thread::scope(|scope| {
            let starting: Vec<_> = (2..=nodes).map(|number| scope.spawn(move || join(number))).collect();
            starting.into_iter().map(|node| node.join().expect("a node")).collect()
        });
        std::iter::once(first).chain(others).collect()
    }

    /// Starts a private PostgreSQL.
    pub fn postgres(name: &str) -> Self {
        Self::start_in("postgres", name, None)
    }

    fn start_in(service: &'static str, name: &str, cluster: Option<PathBuf>) -> Self {
        let root = std::env::var_os("FANFARE_DEV_DIR").map_or_else(|| repository().join(".dev/tests"), PathBuf::from);
        let folder = root.join(format!("{service}-{name}-{}", std::process::id()));
        let instance = Self { service, folder, cluster };
        instance.start();
        instance
    }

    /// Starts the server, with its old data if any.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn start(&self) {
        self.start_with(&[]);
    }

    /// Like [`Self::start`], with environment variables of the server.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn start_with(&self, variables: &[(&str, &str)]) {
        self.run("start", self.cluster.as_deref(), variables);
    }

    /// Shuts the server down regularly.
    ///
    /// # Panics
    /// If the server does not end.
    pub fn stop(&self) {
        self.run("stop", None, &[]);
    }

    /// Sends SIGKILL.
    ///
    /// # Panics
    /// If the signal cannot be sent.
    pub fn kill(&self) {
        self.run("kill", None, &[]);
    }

    /// Sends SIGSTOP to all processes of the server: connections stay open without an answer.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn pause(&self) {
        self.run("pause", None, &[]);
    }

    /// Sends SIGCONT to all processes of the server.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn resume(&self) {
        self.run("resume", None, &[]);
    }

    /// The folder with data, settings and log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data folder of a stopped server.
    ///
    /// # Panics
    /// If the server runs in Docker, with the data elsewhere.
    pub fn data(&self) -> PathBuf {
        let data = self.folder.join("data").canonicalize().expect("a data folder: the server must not run in Docker");
        data.join(if self.service == "rabbitmq" { "node" } else { "cluster" })
    }

    /// Output of `rabbitmqctl` with these arguments.
    ///
    /// # Panics
    /// If the command fails.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> String {
        let script = repository().join("deploy/dev/rabbitmqctl");
        let output = Command::new(script).arg(&self.folder).args(arguments).output().expect("the script starts");
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The server's URL.
    ///
    /// # Panics
    /// If the server was never started.
    pub fn url(&self) -> String {
        std::fs::read_to_string(self.folder.join("url")).expect("the instance has a URL").trim().to_owned()
    }

    fn run(&self, verb: &str, cluster: Option<&Path>, variables: &[(&str, &str)]) {
        let mut script = Command::new(repository().join("deploy/dev").join(self.service));
        script.arg(verb).arg(&self.folder).args(cluster).envs(variables.iter().copied());
        let output = script.output().expect("the script starts");
        assert!(output.status.success(), "{verb} {}: {}", self.service, String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = std::fs::read(self.folder.join("log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(REPORTED_LINES)..].join("\n");
            eprintln!("=== {}, the end of its log:\n{end}", self.folder.display());
        }
        let script = repository().join("deploy/dev").join(self.service);
        let _ = Command::new(script).arg("remove").arg(&self.folder).output();
    }
}

/// The root folder of the checkout from which the tests were built.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository")
}

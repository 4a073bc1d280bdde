//! The brokers and databases of the tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// Where a broker and a database are.
#[derive(Debug, Clone)]
pub struct Servers {
    /// The broker.
    pub amqp_url: String,
    /// The database, whose user may create others.
    pub database_url: String,
}

impl Servers {
    /// Those that `make test` has started, or that the caller has named.
    ///
    /// # Panics
    /// When they are not set.
    pub fn shared() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: run the tests with `make test`, which starts what they need")
            })
        };
        Self { amqp_url: variable("AMQP_URL"), database_url: variable("DATABASE_URL") }
    }
}

/// A broker or a database of a test's own, which it may kill. Removed when it is dropped.
pub struct Instance {
    service: &'static str,
    folder: PathBuf,
    /// The folder of the node whose cluster it joins at its first start.
    cluster: Option<PathBuf>,
}

impl Instance {
    /// A RabbitMQ of its own.
    pub fn rabbitmq(name: &str) -> Self {
        Self::start_in("rabbitmq", name, None)
    }

    /// The nodes of a RabbitMQ of its own, all in one cluster.
    ///
    /// # Panics
    /// When one does not start.
    pub fn cluster(name: &str, nodes: usize) -> Vec<Self> {
        let first = Self::rabbitmq(name);
        let join = |number| Self::start_in("rabbitmq", &format!("{name}-{number}"), Some(first.folder.clone()));
        let others: Vec<Self> = thread::scope(|scope| {
            let starting: Vec<_> = (2..=nodes).map(|number| scope.spawn(move || join(number))).collect();
            starting.into_iter().map(|node| node.join().expect("a node")).collect()
        });
        std::iter::once(first).chain(others).collect()
    }

    /// A Postgres of its own.
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

    /// Starts it, or starts it again on the data that it had.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(&self) {
        self.run("start", self.cluster.as_deref());
    }

    /// Ends it properly.
    ///
    /// # Panics
    /// When it cannot be ended.
    pub fn stop(&self) {
        self.run("stop", None);
    }

    /// kill -9.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&self) {
        self.run("kill", None);
    }

    /// SIGSTOP to all its processes: their connections stay, and nobody answers.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self) {
        self.run("pause", None);
    }

    /// The end of that.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self) {
        self.run("resume", None);
    }

    /// The folder with all that it has, its log among it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it must not lose, while it does not run.
    ///
    /// # Panics
    /// When it runs in Docker, which keeps that elsewhere.
    pub fn data(&self) -> PathBuf {
        let data = self.folder.join("data").canonicalize().expect("a server that does not run in Docker");
        data.join(if self.service == "rabbitmq" { "node" } else { "cluster" })
    }

    /// What `rabbitmqctl` prints with these arguments.
    ///
    /// # Panics
    /// When it fails.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> String {
        let script = repository().join("deploy/dev/rabbitmqctl");
        let output = Command::new(script).arg(&self.folder).args(arguments).output().expect("the script starts");
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Where it is.
    ///
    /// # Panics
    /// When it was never started.
    pub fn url(&self) -> String {
        std::fs::read_to_string(self.folder.join("url")).expect("the instance has a URL").trim().to_owned()
    }

    fn run(&self, verb: &str, cluster: Option<&Path>) {
        let script = repository().join("deploy/dev").join(self.service);
        let output =
            Command::new(script).arg(verb).arg(&self.folder).args(cluster).output().expect("the script starts");
        assert!(output.status.success(), "{verb} {}: {}", self.service, String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let script = repository().join("deploy/dev").join(self.service);
        let _ = Command::new(script).arg("remove").arg(&self.folder).output();
    }
}

/// The checkout that the tests were built from.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository")
}

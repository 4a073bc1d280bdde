//! Settings that more than one process reads, each described once.

use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use fanfare_domain::{
    address::AddressPolicy,
    dialect::Dialects,
    endpoint_url::{Ports, UrlPolicy},
};

use crate::Environment;

/// Each event's key is looked up in every month that the retention reaches.
const LONGEST_RETENTION: Duration = Duration::from_secs(400 * 86400);

/// The days' partitions are dropped whole.
const DAY: Duration = Duration::from_secs(86400);

impl Environment {
    /// The broker's URLs.
    pub fn amqp_urls<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        let meaning = "the broker: `amqp://user:password@host:5672/vhost`, or `amqps://…` with TLS, where \
                       `?cacertfile=/path` names certificates (PEM) that are trusted beside those of the system; for a \
                       cluster the URLs of its nodes, separated by commas";
        self.required("AMQP_URL", meaning)
    }

    /// The prefix of all names in the broker.
    pub fn prefix<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        let meaning = "what all exchanges and queues start with; environments that share a broker differ in it";
        self.with_default("FANFARE_PREFIX", "fanfare", meaning)
    }

    /// The dialects: those that are built in, and those of the deployment's own folder. All are read and
    /// checked here, so that a broken one stops the start.
    pub fn dialects(&mut self) -> Option<Arc<Dialects>> {
        let meaning = "a folder of dialects of your own, `<name>.toml` each; the same for all processes";
        let folder = self.optional::<PathBuf>("FANFARE_DIALECTS", meaning);
        let files = match folder.map(|folder| dialect_files(&folder)).transpose() {
            Ok(files) => files.unwrap_or_default(),
            Err(error) => {
                self.mistake(format!("FANFARE_DIALECTS: {error:#}"));
                return None;
            }
        };
        let files = files.iter().map(|(path, name, text)| (path.as_str(), name.as_str(), text.as_str()));
        let read = Dialects::read(files);
        read.map(Arc::new).map_err(|faults| faults.iter().for_each(|fault| self.mistake(fault))).ok()
    }

    /// The largest body of an event, in bytes.
    pub fn max_event_bytes(&mut self) -> Option<usize> {
        self.number("FANFARE_MAX_EVENT_BYTES", "262144", 1024..=15_728_640, "the largest body of an event")
    }

    /// The database's URL.
    pub fn database_url<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        let meaning = "the database: `postgres://user:password@host:5432/database`; `?sslmode=verify-full` asks for TLS \
                       and a certificate for that host, by an authority of the system or of `&sslrootcert=/path` \
                       (PEM); `require`, `prefer` and the others are as libpq has them";
        self.required("DATABASE_URL", meaning)
    }

    /// How many connections to the database the process may open.
    pub fn database_connections(&mut self) -> Option<usize> {
        let meaning = "database connections of the process, beside four for batches and one that listens";
        self.number("FANFARE_DATABASE_CONNECTIONS", "6", 2..=100, meaning)
    }

    /// The keys that secrets are encrypted with.
    pub fn secret_keys<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        let meaning = "the keys that secrets are encrypted with: `name:base64 of 32 bytes`, several separated by commas, \
                       the current one first";
        self.required("FANFARE_SECRET_KEYS", meaning)
    }

    /// Which URLs endpoints may have, and which addresses may be called.
    pub fn url_policy(&mut self) -> Option<UrlPolicy> {
        let meaning = "networks (CIDR) that endpoints may be in although they are not public, such as `10.1.0.0/16`";
        let allow = self.list("FANFARE_ALLOW_ADDRESSES", meaning);
        let meaning = "networks (CIDR) that endpoints may not be in although they are public; it beats what is allowed";
        let deny = self.list("FANFARE_DENY_ADDRESSES", meaning);
        let meaning = "ports, and ranges of them, that endpoints may have";
        let ports = self.with_default("FANFARE_PORTS", Ports::DEFAULT, meaning);
        let meaning = "`false` lets endpoints have `http:` URLs";
        let https_only = self.with_default("FANFARE_HTTPS_ONLY", "true", meaning);
        Some(UrlPolicy { https_only: https_only?, addresses: AddressPolicy::new(allow?, deny?), ports: ports? })
    }

    /// Whom to ask for the addresses of endpoints' names.
    pub fn name_servers<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<Vec<T>> {
        let meaning = "name servers that are asked for the addresses of endpoints, such as `9.9.9.9` or `127.0.0.1:5353`, \
                       instead of those of `/etc/resolv.conf` with its search domains";
        self.list("FANFARE_NAME_SERVERS", meaning)
    }

    /// A proxy that all requests to endpoints go through, and whether it is given the names of hosts.
    pub fn egress_proxy<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<(T, bool)> {
        let meaning = "a proxy that all requests to endpoints go through, by CONNECT: `http://host:3128` or \
                       `http://user:password@host:3128`";
        let proxy = self.optional("FANFARE_EGRESS_PROXY", meaning);
        let meaning = "`true` gives that proxy the names of hosts, for networks in which they cannot be looked up: then it \
                       must refuse private addresses, as no address is seen here";
        let gets_names = self.with_default("FANFARE_EGRESS_PROXY_GETS_NAMES", "false", meaning);
        proxy.zip(gets_names)
    }

    /// A file with certificates.
    pub fn extra_roots(&mut self) -> Option<PathBuf> {
        let meaning = "certificates (PEM) that are trusted beside those of the system";
        self.optional("FANFARE_CA_FILE", meaning)
    }

    /// How long beyond its whole schedule a delivery may stay unfinished.
    pub fn expiry(&mut self) -> Option<Duration> {
        let meaning = "how long beyond its whole schedule a delivery may stay unfinished before it fails as `expired`; the \
                       same for all processes";
        self.duration("FANFARE_EXPIRY", "24h", meaning)
    }

    /// How long events, deliveries and attempts are kept.
    pub fn retention(&mut self) -> Option<Duration> {
        let meaning = "how long events, deliveries and attempts are kept, a day or more; the same for all processes. An \
                       endpoint's own schedule, with `FANFARE_EXPIRY`, must end a day before";
        let retention = self.duration_of_at_least("FANFARE_RETENTION", "30d", DAY, meaning)?;
        if retention > LONGEST_RETENTION {
            self.mistake(format!("FANFARE_RETENTION: {retention:?} is too long; give {LONGEST_RETENTION:?} or less"));
            return None;
        }
        Some(retention)
    }

    /// How long the process may take to drain.
    pub fn grace(&mut self) -> Option<Duration> {
        let meaning = "how long the process may take to drain after SIGTERM; stay below the orchestrator's own limit";
        self.duration("FANFARE_GRACE", "25s", meaning)
    }

    /// Where the listener for operators is.
    pub fn operations_address(&mut self) -> Option<SocketAddr> {
        let meaning = "where `/healthz`, `/readyz` and `/metrics` are served";
        self.with_default("FANFARE_OPERATIONS_ADDRESS", "0.0.0.0:9090", meaning)
    }
}

/// The settings that all processes must agree on, as a JSON object: each process shows them to the others.
pub fn agreed_settings(dialects: &Dialects, expiry: Duration, retention: Duration) -> String {
    let names: Vec<String> = dialects.all().iter().map(|dialect| format!("{:?}", dialect.name)).collect();
    format!(
        r#"{{"FANFARE_DIALECTS":[{}],"FANFARE_EXPIRY":{},"FANFARE_RETENTION":{}}}"#,
        names.join(","),
        expiry.as_secs(),
        retention.as_secs()
    )
}

/// Path, name and content of each dialect's file in a folder.
fn dialect_files(folder: &Path) -> anyhow::Result<Vec<(String, String, String)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read the folder {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.push((path.display().to_string(), name, text));
        }
    }
    files.sort();
    Ok(files)
}

//! Settings of more than one process, each described once.

use std::{
    fmt, fs,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use fanfare_credentials::{Credentials, Secret};
use fanfare_domain::{
    dialect::Dialects,
    endpoint::{
        address::AddressPolicy,
        url::{Ports, UrlPolicy},
    },
};
use serde_json::{Value, json};
use url::Url;

use crate::{Environment, limits::memory::memory_limit};

/// Plain settings that all processes must share. Addresses of servers are missing: a URL holds a password.
const AGREED: [&str; 8] = [
    "FANFARE_ALLOW_ADDRESSES",
    "FANFARE_DENY_ADDRESSES",
    "FANFARE_EXPIRY",
    "FANFARE_HTTPS_ONLY",
    "FANFARE_MAX_EVENT_BYTES",
    "FANFARE_PORTS",
    "FANFARE_PREFIX",
    "FANFARE_RETENTION",
];

/// Memory that is assumed if the system does not tell, in bytes.
const UNKNOWN_MEMORY: usize = 1024 * 1024 * 1024;

/// Longest retention. Each event's key is looked up in every month of the retention.
const LONGEST_RETENTION: Duration = Duration::from_secs(400 * 86400);

/// Shortest retention, since each day's partition is dropped as a whole.
const DAY: Duration = Duration::from_secs(86400);

/// Meaning of the archive's URL.
const ARCHIVE_URL: &str = "archive of days at the end of their retention: `s3://bucket/prefix`, `gs://bucket/prefix`, \
                           `az://container/prefix` or `file:///folder`, with the credentials in the cloud's own \
                           variables (`AWS_…`, `GOOGLE_…`, `AZURE_…`). Each deployment needs a prefix of its own. \
                           Without a value, days are dropped without a copy";

/// Address of the web pages: scheme, host and port.
struct ConsoleUrl(Url);

impl FromStr for ConsoleUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|error| format!("{error}"))?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !is_bare || !url.username().is_empty() {
            return Err("write it like https://fanfare.example.com, without a path".to_owned());
        }
        Ok(Self(url))
    }
}

impl Environment {
    /// URLs of the broker, and the credentials.
    pub fn broker<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<(T, Credentials)> {
        let meaning = "URL of the broker: `amqp://user:password@host:5672/vhost`, or `amqps://…` for TLS, where \
                       `?cacertfile=/path` adds trusted certificates (PEM) to the system's; for a cluster the URLs of \
                       the nodes, separated by commas";
        let urls = self.required_secret("AMQP_URL", meaning);
        let username = self.secret("AMQP_USERNAME", "user at the broker, instead of the user in `AMQP_URL`");
        let meaning = "password at the broker, not percent-encoded, instead of the password in `AMQP_URL`";
        let password = self.secret("AMQP_PASSWORD", meaning);
        with_credentials(urls, username, password)
    }

    /// Prefix of all names in the broker.
    pub fn prefix<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        let meaning = "prefix of all exchanges and queues; environments that share a broker need different prefixes";
        self.with_default("FANFARE_PREFIX", "fanfare", meaning)
    }

    /// The built-in dialects and the dialects of the deployment's folder. All are read and checked here, so that a
    /// faulty dialect stops the start.
    pub fn dialects(&mut self) -> Option<Arc<Dialects>> {
        let meaning = "folder of own dialects, each a file `<name>.toml`; the same for all processes";
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

    /// Address of the web pages; `None` without the pages.
    pub fn console_url(&mut self) -> Option<Url> {
        let meaning = "address of the web pages in browsers, such as `https://fanfare.example.com`, without a path; \
                       without a value, ingest serves no pages";
        self.optional::<ConsoleUrl>("FANFARE_CONSOLE_URL", meaning).map(|ConsoleUrl(url)| url)
    }

    /// Largest body of an event, in bytes.
    pub fn max_event_bytes(&mut self) -> Option<usize> {
        self.number("FANFARE_MAX_EVENT_BYTES", "262144", 1024..=15_728_640, "largest body of an event, in bytes")
    }

    /// Bytes of memory for the work of the process. The rest of its memory is for the program itself.
    pub fn memory_budget(&mut self) -> Option<usize> {
        let meaning = "MiB of memory for bodies, answers and attempts; default: half of the container's limit, or of the \
                       machine's memory. Lower limits of the process follow from it";
        let name = "FANFARE_MEMORY_MIB";
        match self.optional::<NonZeroUsize>(name, meaning) {
            Some(mebibytes) => Some(mebibytes.get().saturating_mul(1024 * 1024)),
            None => Some(memory_limit().unwrap_or(UNKNOWN_MEMORY) / 2),
        }
    }

    /// URL of the database, and the credentials.
    pub fn database<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<(T, Credentials)> {
        let meaning = "URL of the database: `postgres://user:password@host:5432/database`; `?sslmode=verify-full` \
                       requires TLS and a certificate for that host, by an authority of the system or of \
                       `&sslrootcert=/path` (PEM); `require`, `prefer` and the other modes are as in libpq";
        let url = self.required_secret("DATABASE_URL", meaning);
        let username = self.secret("DATABASE_USERNAME", "user of the database, instead of the user in `DATABASE_URL`");
        let meaning = "password of the database, not percent-encoded, instead of the password in `DATABASE_URL`";
        let password = self.secret("DATABASE_PASSWORD", meaning);
        with_credentials(url, username, password)
    }

    /// Maximum database connections of the process.
    pub fn database_connections(&mut self) -> Option<usize> {
        let meaning = "database connections of a dispatcher's general statements, or of ingest's management API; a dispatcher \
                       opens eight more, ingest up to ten";
        self.number("FANFARE_DATABASE_CONNECTIONS", "6", 2..=100, meaning)
    }

    /// Keys for the encryption of secrets.
    pub fn secret_keys<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        let meaning = "keys for the encryption of secrets: `name:base64 of 32 bytes`, several separated by commas, the \
                       current key first";
        // Read only at the start: another key must be in all processes before a process uses the key.
        self.required_secret("FANFARE_SECRET_KEYS", meaning).map(|(keys, _)| keys)
    }

    /// Permitted URLs and addresses of endpoints.
    pub fn url_policy(&mut self) -> Option<UrlPolicy> {
        let meaning = "networks (CIDR) permitted for endpoints although not public, such as `10.1.0.0/16`";
        let allow = self.list("FANFARE_ALLOW_ADDRESSES", meaning);
        let meaning = "networks (CIDR) forbidden for endpoints although public; beats `FANFARE_ALLOW_ADDRESSES`";
        let deny = self.list("FANFARE_DENY_ADDRESSES", meaning);
        let meaning = "permitted ports and port ranges of endpoints";
        let ports = self.with_default("FANFARE_PORTS", Ports::DEFAULT, meaning);
        let meaning = "`false` permits `http:` URLs for endpoints";
        let https_only = self.with_default("FANFARE_HTTPS_ONLY", "true", meaning);
        Some(UrlPolicy { https_only: https_only?, addresses: AddressPolicy::new(allow?, deny?), ports: ports? })
    }

    /// Name servers for endpoints' names.
    pub fn name_servers<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<Vec<T>> {
        let meaning = "name servers for the host names of endpoints, such as `9.9.9.9` or `127.0.0.1:5353`, instead of \
                       the name servers and search domains in `/etc/resolv.conf`";
        self.list("FANFARE_NAME_SERVERS", meaning)
    }

    /// Proxy for all requests to endpoints with its URL's source, and true if the proxy gets host names.
    pub fn egress_proxy<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<((T, Secret), bool)> {
        let meaning = "proxy for all requests to endpoints, by CONNECT: `http://host:3128` or \
                       `http://user:password@host:3128`";
        let proxy = self.secret("FANFARE_EGRESS_PROXY", meaning);
        let meaning = "`true` gives that proxy host names, for networks without look-up of public names: the proxy \
                       must then refuse private addresses, as Fanfare cannot check the addresses of names";
        let gets_names = self.with_default("FANFARE_EGRESS_PROXY_GETS_NAMES", "false", meaning);
        proxy.zip(gets_names)
    }

    /// File with additional root certificates.
    pub fn extra_roots(&mut self) -> Option<PathBuf> {
        let meaning = "file of certificates (PEM) trusted in addition to the system's";
        self.optional("FANFARE_CA_FILE", meaning)
    }

    /// Time beyond the whole schedule after which an unfinished delivery expires.
    pub fn expiry(&mut self) -> Option<Duration> {
        let meaning = "time beyond the whole schedule after which an unfinished delivery fails as `expired`; the same \
                       for all processes";
        self.duration("FANFARE_EXPIRY", "24h", meaning)
    }

    /// Retention of events, deliveries and attempts.
    pub fn retention(&mut self) -> Option<Duration> {
        let meaning = "retention of events, deliveries and attempts, a day or more; the same for all processes. An \
                       endpoint's own schedule, with `FANFARE_EXPIRY`, must end a day before";
        let retention = self.duration_of_at_least("FANFARE_RETENTION", "30d", DAY, meaning)?;
        if retention > LONGEST_RETENTION {
            self.mistake(format!("FANFARE_RETENTION: {retention:?} is too long; give {LONGEST_RETENTION:?} or less"));
            return None;
        }
        Some(retention)
    }

    /// The settings that all processes must share, as a JSON object: the texts of plain settings, the names of the
    /// keys, and the digests of the dialects. Each process publishes the object for comparison.
    pub fn agreed_settings(&self, dialects: &Dialects, mut key_names: Vec<&str>) -> String {
        // The order differs for a while whenever a new key is introduced.
        key_names.sort_unstable();
        let plain = AGREED.into_iter().map(|name| (name.to_owned(), Value::from(self.text(name))));
        let others = [("FANFARE_DIALECTS", json!(dialects.digests())), ("FANFARE_SECRET_KEYS", json!(key_names))];
        let others = others.into_iter().map(|(name, value)| (name.to_owned(), value));
        Value::Object(plain.chain(others).collect()).to_string()
    }

    /// URL of the archive.
    pub fn archive<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        self.optional("FANFARE_ARCHIVE_URL", ARCHIVE_URL)
    }

    /// URL of the archive, for commands that need an archive.
    pub fn required_archive<T: FromStr<Err: fmt::Display>>(&mut self) -> Option<T> {
        self.required("FANFARE_ARCHIVE_URL", ARCHIVE_URL)
    }

    /// Longest drain of the process.
    pub fn grace(&mut self) -> Option<Duration> {
        let meaning = "longest drain after SIGTERM; stay below the orchestrator's own limit";
        self.duration("FANFARE_GRACE", "25s", meaning)
    }

    /// Address of the listener for operators.
    pub fn operations_address(&mut self) -> Option<SocketAddr> {
        let meaning = "address of the listener for `/healthz`, `/readyz` and `/metrics`";
        self.with_default("FANFARE_OPERATIONS_ADDRESS", "0.0.0.0:9090", meaning)
    }
}

/// The value of a URL, and all credentials of the server.
fn with_credentials<T>(
    url: Option<(T, Secret)>,
    username: Option<(String, Secret)>,
    password: Option<(String, Secret)>,
) -> Option<(T, Credentials)> {
    let source = |secret: Option<(String, Secret)>| secret.map(|(_, source)| source);
    let (value, url) = url?;
    Some((value, Credentials { url, username: source(username), password: source(password) }))
}

/// Path, name and content of each dialect file in a folder.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(variables: &[(&str, &str)], keys: Vec<&str>) -> Value {
        let variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let mut environment = Environment::new(variables);
        environment.prefix::<String>();
        environment.max_event_bytes();
        environment.url_policy();
        environment.expiry();
        environment.retention();
        let dialects = environment.dialects().expect("the dialects");
        serde_json::from_str(&environment.agreed_settings(&dialects, keys)).expect("JSON")
    }

    #[test]
    fn agreed_settings_have_texts_and_defaults_and_no_secrets() {
        let ours = agreed(&[("FANFARE_MAX_EVENT_BYTES", "131072")], vec!["new", "old"]);
        assert_eq!(ours["FANFARE_MAX_EVENT_BYTES"], "131072");
        assert_eq!(ours["FANFARE_RETENTION"], "30d");
        assert_eq!(ours["FANFARE_DENY_ADDRESSES"], "");
        assert_eq!(ours["FANFARE_SECRET_KEYS"], json!(["new", "old"]));
        assert_eq!(ours["FANFARE_DIALECTS"]["standard"].as_str().map(str::len), Some(8));
        assert_eq!(ours, agreed(&[("FANFARE_MAX_EVENT_BYTES", "131072")], vec!["old", "new"]));
        assert_ne!(ours, agreed(&[], vec!["new", "old"]));
    }

    #[test]
    fn each_agreed_setting_is_read() {
        let ours = agreed(&[], Vec::new());
        for name in AGREED.into_iter().filter(|name| !name.ends_with("ADDRESSES")) {
            assert_ne!(ours[name], "", "{name} has no default, or is not read");
        }
    }
}

//! From host names to addresses.
//!
//! The resolver replaces the system's `getaddrinfo`, which blocks a thread until the name server answers. A process has
//! some hundreds of such threads, so a customer with a few silent name servers would hold up all new connections.

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    system_conf::parse_resolv_conf,
};
use tokio::time::Instant;

use crate::{SetupError, evidence::Evidence};

/// The system's file of name servers, and the interval between two looks at it.
const SYSTEM_FILE: &str = "/etc/resolv.conf";
const LOOK: Duration = Duration::from_secs(5);

/// The root of all names, without the last dot.
const ROOT: &str = "";

/// Longest name that gets a question of our own in front: a name has at most 253 characters.
const LONGEST_ASKED: usize = 220;

/// Size and longest lifetimes of the cache, whatever TTL an answer has. A moved endpoint is found soon. A cached answer
/// is used only for connections that are checked against the same answer.
const KEPT_ANSWERS: u64 = 4096;
const KEPT_FOR: Duration = Duration::from_secs(30);
const KEPT_WITHOUT_ADDRESS: Duration = Duration::from_secs(5);

/// Maximum open questions per connection to a name server.
const MAX_QUESTIONS: usize = 4096;

/// Default port of name servers.
const PORT: u16 = 53;

/// Address of a name server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameServer(SocketAddr);

/// The text is not the address of a name server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the address of a name server, such as 9.9.9.9 or 127.0.0.1:5353")]
pub struct InvalidNameServer;

impl FromStr for NameServer {
    type Err = InvalidNameServer;

    fn from_str(text: &str) -> Result<Self, InvalidNameServer> {
        let address = text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, PORT).into()));
        address.map(Self).map_err(|_| InvalidNameServer)
    }
}

/// The reason why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NameError {
    #[error("the name does not exist")]
    Unknown,
    #[error("the name has no address")]
    NoAddress,
    #[error("no name server has answered: {0}")]
    NoAnswer(#[source] NetError),
}

/// Resolver of host names.
pub(crate) struct Names {
    resolvers: RwLock<Arc<Resolvers>>,
    /// The file of the name servers, if they come from a file.
    file: Option<ServerFile>,
    evidence: Arc<Evidence>,
}

struct Resolvers {
    cached: TokioResolver,
    /// Asks the name servers each time.
    fresh: TokioResolver,
}

/// A file of name servers. Its content changes with the network.
struct ServerFile {
    path: PathBuf,
    /// Time of the last look, and the file's time of change then.
    seen: Mutex<(Instant, Option<SystemTime>)>,
}

impl ServerFile {
    fn new(path: PathBuf) -> Self {
        let seen = Mutex::new((Instant::now(), changed_at(&path)));
        Self { path, seen }
    }

    /// True if the file has changed since the last look.
    fn has_changed(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0.elapsed() < LOOK {
            return false;
        }
        let before = std::mem::replace(&mut *seen, (Instant::now(), changed_at(&self.path))).1;
        seen.1 != before
    }

    fn resolvers(&self) -> Result<Resolvers, NetError> {
        let (config, options) = parse_resolv_conf(fs::read(&self.path)?)?;
        Resolvers::new(config, options)
    }
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

impl Resolvers {
    fn new(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, NetError> {
        limit(&mut options);
        let build = |options: ResolverOpts| {
            TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
                .with_options(options)
                .build()
        };
        let mut without_cache = options.clone();
        without_cache.cache_size = 0;
        Ok(Self { cached: build(options)?, fresh: build(without_cache)? })
    }
}

impl Names {
    /// Creates a resolver for `servers`, or for the system's name servers if empty, with the system's `hosts` file and
    /// search domains.
    pub(crate) fn new(servers: &[NameServer]) -> Result<Self, SetupError> {
        if servers.is_empty() {
            return Self::of_file(SYSTEM_FILE.into());
        }
        let servers = servers.iter().map(|NameServer(address)| configured(*address)).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        Self::of(config).map_err(SetupError::NoNameServers)
    }

    fn of(config: ResolverConfig) -> Result<Self, NetError> {
        let resolvers = RwLock::new(Arc::new(Resolvers::new(config, ResolverOpts::default())?));
        Ok(Self { resolvers, file: None, evidence: Arc::default() })
    }

    fn of_file(path: PathBuf) -> Result<Self, SetupError> {
        let file = ServerFile::new(path);
        let resolvers = RwLock::new(Arc::new(file.resolvers().map_err(SetupError::NoNameServers)?));
        Ok(Self { resolvers, file: Some(file), evidence: Arc::default() })
    }

    /// The resolvers of the file's present content. A file that cannot be read changes nothing.
    fn resolvers(&self) -> Arc<Resolvers> {
        if let Some(file) = self.file.as_ref().filter(|file| file.has_changed()) {
            match file.resolvers() {
                Ok(resolvers) => {
                    tracing::info!(path = %file.path.display(), "the name servers have changed");
                    *self.resolvers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(resolvers);
                }
                Err(error) => tracing::warn!(%error, path = %file.path.display(), "keeping the previous name servers"),
            }
        }
        self.resolvers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True while a look-up of the host waits for an answer.
    pub(crate) fn is_waiting(&self, host: &str) -> bool {
        self.evidence.is_open(Some(host))
    }

    /// True if the name servers answer any question. Asks for names that no server has in a cache: random names below
    /// names that were found lately, and below the root. The absence of a name is an answer, too.
    pub(crate) async fn are_answering(&self) -> bool {
        let resolvers = self.resolvers();
        let ask = |name: String| {
            let fresh = &resolvers.fresh;
            async move {
                let below = if name.is_empty() { String::new() } else { format!("{name}.") };
                let unknown = format!("fanfare-{:016x}.{below}", rand::random::<u64>());
                match fresh.lookup_ip(unknown).await {
                    Ok(_) => true,
                    Err(error) => error.is_nx_domain() || error.is_no_records_found(),
                }
            }
        };
        self.evidence.works(Some(ROOT), None, ask).await.unwrap_or_default()
    }

    /// Every address of a host. IPv4 addresses come first, since more networks reach IPv4.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NameError> {
        if let Ok(literal) = host.parse() {
            return Ok(vec![literal]);
        }
        let _waiting = self.evidence.begin(host);
        // A name with a dot is absolute. With search domains, a wildcard there would answer for customers' names, and in a
        // pod each look-up would ask three to five wrong names first.
        let is_absolute = host.contains('.') && !host.ends_with('.');
        let name = if is_absolute { format!("{host}.") } else { host.to_owned() };
        let found = self.resolvers().cached.lookup_ip(name).await.map_err(|error| match error {
            error if error.is_nx_domain() => NameError::Unknown,
            error if error.is_no_records_found() => NameError::NoAddress,
            error => NameError::NoAnswer(error),
        })?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        if is_absolute && host.len() <= LONGEST_ASKED {
            self.evidence.note(host);
        }
        if addresses.is_empty() { Err(NameError::NoAddress) } else { Ok(addresses) }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Names")
    }
}

fn configured(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::new(address.ip(), true, vec![ConnectionConfig::udp(), ConnectionConfig::tcp()]);
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn limit(options: &mut ResolverOpts) {
    // All addresses are judged, so all must be looked up.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = KEPT_ANSWERS;
    options.positive_max_ttl = Some(KEPT_FOR);
    options.negative_max_ttl = Some(KEPT_WITHOUT_ADDRESS);
    options.max_active_requests = MAX_QUESTIONS;
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::Name;
    use tokio::net::UdpSocket;

    use super::*;

    /// Answers each question with NXDOMAIN (RFC 1035, 4.1). Returns the name of each question.
    async fn unknown(socket: &UdpSocket) -> String {
        let mut message = [0; 512];
        let (length, from) = socket.recv_from(&mut message).await.expect("a question");
        let (mut labels, mut at) = (Vec::new(), 12);
        while message[at] > 0 {
            let end = at + 1 + usize::from(message[at]);
            labels.push(String::from_utf8_lossy(&message[at + 1..end]).into_owned());
            at = end;
        }
        message[2..4].copy_from_slice(&[0x81, 0x83]);
        socket.send_to(&message[..length], from).await.expect("an answer");
        labels.join(".")
    }

    #[tokio::test]
    async fn search_domains_serve_only_names_without_a_dot() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let server = configured(socket.local_addr().expect("an address"));
        let search = vec![Name::from_ascii("search.example.").expect("a name")];
        let config = ResolverConfig::from_parts(None, search, vec![server]);
        let names = Names::of(config).expect("a resolver");
        let asked = tokio::spawn(async move {
            let mut asked = std::collections::BTreeSet::new();
            loop {
                let name = unknown(&socket).await;
                if name == "end.example" {
                    return asked;
                }
                asked.insert(name);
            }
        });
        for host in ["hooks.customer.example", "short", "end.example"] {
            assert!(names.addresses(host).await.is_err(), "{host}");
        }
        let expected = ["hooks.customer.example", "short", "short.search.example"].map(str::to_owned);
        assert_eq!(asked.await.expect("the names"), expected.into());
    }

    /// The file is looked at every five seconds of the paused clock.
    #[tokio::test(start_paused = true)]
    async fn a_changed_file_of_name_servers_is_read_again() {
        let path = std::env::temp_dir().join(format!("fanfare-resolv-{}", std::process::id()));
        let write = |server: &str, second: u64| {
            fs::write(&path, format!("nameserver {server}\n")).expect("a file");
            let file = fs::File::options().append(true).open(&path).expect("the file");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).expect("a time");
        };
        write("192.0.2.1", 1);
        let names = Names::of_file(path.clone()).expect("a resolver");
        let first = names.resolvers();
        write("192.0.2.2", 2);
        assert!(Arc::ptr_eq(&first, &names.resolvers()), "a look of a moment ago holds");
        tokio::time::advance(LOOK).await;
        let second = names.resolvers();
        assert!(!Arc::ptr_eq(&first, &second));
        tokio::time::advance(LOOK).await;
        assert!(Arc::ptr_eq(&second, &names.resolvers()), "the file is the same");
        fs::remove_file(&path).expect("a file");
        tokio::time::advance(LOOK).await;
        assert!(Arc::ptr_eq(&second, &names.resolvers()), "a missing file changes nothing");
    }

    #[test]
    fn a_name_server_is_parsed_as_written() {
        for (text, address) in [
            ("9.9.9.9", "9.9.9.9:53"),
            ("127.0.0.1:5353", "127.0.0.1:5353"),
            ("::1", "[::1]:53"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(text.parse(), Ok(NameServer(address.parse().expect("address"))));
        }
        for text in ["", "dns.example", "9.9.9", "9.9.9.9:"] {
            assert_eq!(text.parse::<NameServer>(), Err(InvalidNameServer), "{text}");
        }
    }
}

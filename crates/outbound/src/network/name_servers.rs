//! Addresses and settings of the name servers.

use std::{
    fs,
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

use crate::SetupError;

/// The system's file of name servers, and the interval between two looks at it.
const SYSTEM_FILE: &str = "/etc/resolv.conf";
const LOOK: Duration = Duration::from_secs(5);

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

/// The configured name servers.
pub(crate) struct NameServers {
    resolvers: RwLock<Arc<Resolvers>>,
    /// The file of the name servers, if they come from a file.
    file: Option<ServerFile>,
}

/// Resolvers that ask the same name servers.
pub(crate) struct Resolvers {
    pub(crate) cached: TokioResolver,
    /// Asks the name servers each time.
    pub(crate) fresh: TokioResolver,
}

/// A file of name servers. Its content changes with the network.
struct ServerFile {
    path: PathBuf,
    /// Time of the last look, and the file's time of change then.
    seen: Mutex<(Instant, Option<SystemTime>)>,
}

impl NameServers {
    /// Reads the system's file, with its search domains, if `servers` is empty.
    ///
    /// # Errors
    /// If the file has no name servers.
    pub(crate) fn new(servers: &[NameServer]) -> Result<Self, SetupError> {
        if servers.is_empty() {
            return Self::of_file(SYSTEM_FILE.into());
        }
        let servers = servers.iter().map(|NameServer(address)| configured(*address)).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        Self::of(config).map_err(SetupError::NoNameServers)
    }

    pub(crate) fn of(config: ResolverConfig) -> Result<Self, NetError> {
        let resolvers = RwLock::new(Arc::new(Resolvers::new(config, ResolverOpts::default())?));
        Ok(Self { resolvers, file: None })
    }

    fn of_file(path: PathBuf) -> Result<Self, SetupError> {
        let file = ServerFile::new(path);
        let resolvers = RwLock::new(Arc::new(file.resolvers().map_err(SetupError::NoNameServers)?));
        Ok(Self { resolvers, file: Some(file) })
    }

    /// The resolvers of the file's present content. A file that cannot be read changes nothing.
    pub(crate) fn resolvers(&self) -> Arc<Resolvers> {
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

pub(crate) fn configured(address: SocketAddr) -> NameServerConfig {
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
    use super::*;

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
        let servers = NameServers::of_file(path.clone()).expect("a resolver");
        let first = servers.resolvers();
        write("192.0.2.2", 2);
        assert!(Arc::ptr_eq(&first, &servers.resolvers()), "a look of a moment ago holds");
        tokio::time::advance(LOOK).await;
        let second = servers.resolvers();
        assert!(!Arc::ptr_eq(&first, &second));
        tokio::time::advance(LOOK).await;
        assert!(Arc::ptr_eq(&second, &servers.resolvers()), "the file is the same");
        fs::remove_file(&path).expect("a file");
        tokio::time::advance(LOOK).await;
        assert!(Arc::ptr_eq(&second, &servers.resolvers()), "a missing file changes nothing");
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

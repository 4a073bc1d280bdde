//! From host names to addresses.
//!
//! The resolver replaces the system's `getaddrinfo`, which blocks a thread until the name server answers. A process has
//! some hundreds of such threads, so a customer with a few silent name servers would hold up all new connections.

use std::{
    convert::Infallible,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_domain::delivery::silence::{INTERVAL, PROMPT, Silence};
use hickory_resolver::net::NetError;
use tokio::time::{Instant, sleep};

use crate::network::{
    evidence::Evidence,
    name_servers::{NameServers, Resolvers},
};

/// The root of all names, without the last dot.
const ROOT: &str = "";

/// Longest name that gets a question of our own in front: a name has at most 253 characters.
const LONGEST_ASKED: usize = 220;

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
    servers: NameServers,
    evidence: Arc<Evidence>,
    origin: Instant,
    silence: Mutex<Silence>,
}

impl Names {
    pub(crate) fn new(servers: NameServers) -> Self {
        Self { servers, evidence: Arc::default(), origin: Instant::now(), silence: Mutex::default() }
    }

    /// True while a look-up of the host waits for an answer.
    pub(crate) fn is_waiting(&self, host: &str) -> bool {
        self.evidence.is_open(Some(host))
    }

    /// True if the name servers answer no question now, or were silent while a look-up since `began` waited.
    pub(crate) async fn are_at_fault(&self, began: Instant) -> bool {
        if self.silence().explains(began - self.origin, self.origin.elapsed()) {
            return true;
        }
        let resolvers = self.servers.resolvers();
        self.evidence.works(Some(ROOT), None, |name| resolvers.answer_below(name)).await == Some(false)
    }

    /// Asks the name servers test questions while a look-up waits. All look-ups share the questions.
    async fn watch(&self) -> Infallible {
        loop {
            sleep(INTERVAL).await;
            let asked = self.origin.elapsed();
            if self.silence().ask(asked) {
                let resolvers = self.servers.resolvers();
                let reached = self.evidence.any(Some(ROOT), None, PROMPT, |name| resolvers.speak_below(name));
                let is_prompt = reached.await.unwrap_or_default();
                self.silence().record(asked, is_prompt);
            }
        }
    }

    fn silence(&self) -> MutexGuard<'_, Silence> {
        // No holder of this lock can panic halfway.
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every address of a host. IPv4 addresses come first, since more networks reach IPv4.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NameError> {
        if let Ok(literal) = host.parse() {
            return Ok(vec![literal]);
        }
        let _waiting = self.evidence.begin(host);
        // A name with a dot is absolute. With search domains, a wildcard there would answer for customers' names, and
        // in a pod each look-up would ask three to five wrong names first.
        let is_absolute = host.contains('.') && !host.ends_with('.');
        let name = if is_absolute { format!("{host}.") } else { host.to_owned() };
        let resolvers = self.servers.resolvers();
        let found = tokio::select! {
            // First: a cached answer starts no watch.
            biased;
            found = resolvers.cached.lookup_ip(name) => found,
            never = self.watch() => match never {},
        };
        let found = found.map_err(|error| match error {
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

impl Resolvers {
    /// Asks a question that no server has in a cache: the address of a random name below `name`.
    async fn ask_below(&self, name: String) -> Result<(), NetError> {
        let below = if name.is_empty() { String::new() } else { format!("{name}.") };
        let unknown = format!("fanfare-{:016x}.{below}", rand::random::<u64>());
        self.fresh.lookup_ip(unknown).await.map(drop)
    }

    /// True if the name servers answer the question. The absence of a name is an answer, too; a failure is none.
    async fn answer_below(&self, name: String) -> bool {
        self.ask_below(name).await.map_or_else(|error| error.is_nx_domain() || error.is_no_records_found(), |()| true)
    }

    /// True unless the name servers are silent. A failure is an answer.
    async fn speak_below(&self, name: String) -> bool {
        let asked = self.ask_below(name).await;
        !matches!(asked, Err(NetError::Timeout | NetError::NoConnections | NetError::Io(_)))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Names")
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::{config::ResolverConfig, proto::rr::Name};
    use tokio::net::UdpSocket;

    use super::*;
    use crate::network::name_servers::configured;

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
        let names = Names::new(NameServers::of(config).expect("a resolver"));
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
}

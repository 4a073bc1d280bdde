//! The operator's egress proxy, for networks whose firewall lets no other traffic out.
//!
//! Normally, the proxy gets a request for a tunnel (`CONNECT`, RFC 9110, 9.3.6) to an address that was looked up and
//! vetted here. The guard applies as without a proxy, and TLS is end to end. Where the operator's network cannot look
//! up names, the proxy gets the name instead. The guard then covers only the text of the URL, and the proxy must refuse
//! forbidden addresses.

use std::{fmt, io, str::FromStr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use fanfare_credentials::Secret;
use percent_encoding::percent_decode_str;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use url::{Host, Url};

/// Longest response of a proxy that is read, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// Longest time for the proxy to accept. A proxy is near.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Status of a proxy that refuses the credentials, or misses them (RFC 9110, 15.5.8).
pub(crate) const WRONG_CREDENTIALS: u16 = 407;

/// The operator's egress proxy.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Host, port and credentials.
    pub address: ProxyAddress,
    /// URL of the proxy, for later credentials.
    pub url: Secret,
    /// True if the proxy gets host names and guards by itself, instead of addresses vetted here.
    pub gives_names: bool,
}

/// Host and port of the proxy, and Fanfare's credentials there.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyAddress {
    host: String,
    port: u16,
    /// Value of `Proxy-Authorization`.
    authorization: Option<String>,
}

/// The text is not a proxy's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected http://host:port or http://user:password@host:port, with user and password percent-encoded")]
pub struct InvalidProxy;

impl FromStr for ProxyAddress {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let url = Url::parse(text).map_err(|_| InvalidProxy)?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || !is_bare {
            return Err(InvalidProxy);
        }
        let host = match url.host().ok_or(InvalidProxy)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| InvalidProxy);
        let authorization = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                let pair = format!("{}:{}", decoded(user)?, decoded(password.unwrap_or_default())?);
                Some(format!("Basic {}", STANDARD.encode(pair)))
            }
        };
        Ok(Self { host, port: url.port_or_known_default().ok_or(InvalidProxy)?, authorization })
    }
}

impl fmt::Debug for ProxyAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ProxyAddress({}:{})", self.host, self.port)
    }
}

/// The reason why a proxy gave no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    #[error("the egress proxy cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    #[error("the egress proxy does not permit this host ({0})")]
    Refused(u16),
    #[error("the egress proxy could not connect ({0})")]
    Failed(u16),
    #[error("the egress proxy's answer is not HTTP")]
    NotHttp,
    #[error("the egress proxy has not answered in time")]
    TimedOut,
}

impl Proxy {
    /// Connects to `authority`, a host and port, through the proxy. If the proxy refuses the
    /// credentials, reads the file of the URL again, and tries other credentials once.
    pub(crate) async fn tunnel(&self, authority: &str) -> Result<TcpStream, TunnelError> {
        let given = self.authorization(&self.url.last_text());
        let tunnelled = self.address.tunnel(authority, given.as_deref()).await;
        if self.url.is_in_file() && matches!(tunnelled, Err(TunnelError::Failed(WRONG_CREDENTIALS))) {
            let authorization = self.authorization(&self.url.text());
            if authorization != given {
                return self.address.tunnel(authority, authorization.as_deref()).await;
            }
        }
        tunnelled
    }

    fn authorization(&self, url: &str) -> Option<String> {
        url.parse::<ProxyAddress>().unwrap_or_else(|_| self.address.clone()).authorization
    }
}

impl ProxyAddress {
    async fn tunnel(&self, authority: &str, authorization: Option<&str>) -> Result<TcpStream, TunnelError> {
        let connected = timeout(CONNECT_LIMIT, TcpStream::connect((self.host.as_str(), self.port))).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let mut stream = connected.map_err(TunnelError::Unreachable)?;
        let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
        let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n");
        stream.write_all(request.as_bytes()).await.map_err(TunnelError::Unreachable)?;
        match status(&read_head(&mut stream).await?).ok_or(TunnelError::NotHttp)? {
            200..300 => Ok(stream),
            status @ (401 | 403 | 451) => Err(TunnelError::Refused(status)),
            status => Err(TunnelError::Failed(status)),
        }
    }
}

/// Reads up to the empty line. Later bytes belong to the endpoint, which sends nothing before a request.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, TunnelError> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD || stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
            return Err(TunnelError::NotHttp);
        }
    }
    Ok(head)
}

fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let (_, rest) = line.strip_prefix("HTTP/1.")?.split_once(' ')?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_is_written() {
        let proxy: ProxyAddress = "http://us%40er:p%3Aw@proxy.example:3128".parse().expect("proxy");
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert_eq!(proxy.authorization.as_deref(), Some("Basic dXNAZXI6cDp3"));
        assert!(!format!("{proxy:?}").contains("dXN"), "{proxy:?}");
        let bare: ProxyAddress = "http://[::1]".parse().expect("proxy");
        assert_eq!((bare.host.as_str(), bare.port, bare.authorization), ("::1", 80, None));
        for text in ["", "proxy:3128", "https://proxy:3128", "http://proxy:3128/path", "http://proxy?x=1", "http://"] {
            assert_eq!(text.parse::<ProxyAddress>(), Err(InvalidProxy), "{text}");
        }
    }

    #[test]
    fn the_status_decides() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407\r\n\r\n"), Some(407));
        for head in [&b""[..], b"HTTP/2 200 OK", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 20", b"HTTP/1.1 \xff\xff\xff"] {
            assert_eq!(status(head), None);
        }
    }
}

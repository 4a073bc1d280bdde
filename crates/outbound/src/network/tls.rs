//! TLS to endpoints.

use std::path::Path;

use fanfare_tls::{InvalidRoots, add_roots, system_roots};
use hickory_resolver::net::NetError;
use rustls::ClientConfig;

/// The reason why no [`Client`](crate::Client) could be made. Each is a fault of the deployment.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file with additional root certificates cannot be used.
    #[error(transparent)]
    Roots(#[from] InvalidRoots),
    /// No root certificates, although only https is permitted: every delivery would fail.
    #[error("only https is permitted, but this system has no root certificates: install ca-certificates")]
    NoRoots,
    /// The system's name servers cannot be read.
    #[error("cannot read the name servers from /etc/resolv.conf: {0}; set FANFARE_NAME_SERVERS")]
    NoNameServers(#[source] NetError),
    /// The TLS library refused the library's own defaults.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Creates a configuration with the system's root certificates and the certificates in `extra` (PEM).
///
/// ALPN offers HTTP/1.1 only: over HTTP/2, all customers behind a host would share a connection, and a stalled customer
/// would hold up the others.
pub(crate) fn client_config(extra: Option<&Path>, https_only: bool) -> Result<ClientConfig, SetupError> {
    let mut roots = system_roots();
    if let Some(path) = extra {
        add_roots(&mut roots, path)?;
    }
    if roots.is_empty() && https_only {
        return Err(SetupError::NoRoots);
    }
    let mut config = fanfare_tls::client_config(roots)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

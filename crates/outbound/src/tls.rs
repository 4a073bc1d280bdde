//! TLS configuration: trusted root certificates.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hickory_resolver::net::NetError;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};

/// The reason why no [`Client`](crate::Client) could be made. Each is a fault of the deployment.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file with additional root certificates cannot be read as PEM.
    #[error("cannot read root certificates from {path}: {source}")]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: pem::Error,
    },
    /// A certificate in the file cannot be a root.
    #[error("a certificate in {path} is not usable as a root: {source}")]
    Unusable {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: rustls::Error,
    },
    /// The file has no certificate.
    #[error("{0} holds no PEM certificate")]
    Empty(PathBuf),
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

/// Creates a configuration for TLS 1.2 and 1.3 with the system's root certificates and the certificates in `extra`
/// (PEM).
///
/// ALPN offers HTTP/1.1 only: over HTTP/2, all customers behind a host would share a connection, and a stalled customer
/// would hold up the others.
pub(crate) fn client_config(extra: Option<&Path>, https_only: bool) -> Result<ClientConfig, SetupError> {
    let mut roots = system_roots();
    if let Some(path) = extra {
        add_from_file(&mut roots, path)?;
    }
    if roots.is_empty() && https_only {
        return Err(SetupError::NoRoots);
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Reads the system's roots, and skips unreadable certificates: a single odd certificate among a hundred must not stop
/// the service.
fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read some of the system's root certificates");
    }
    let mut roots = RootCertStore::empty();
    let (taken, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(taken, ignored, "read the system's root certificates");
    roots
}

/// Adds the certificates of a file. Strict, unlike for the system's roots, since the operator has named the file.
fn add_from_file(roots: &mut RootCertStore, path: &Path) -> Result<(), SetupError> {
    let unreadable = |source| SetupError::Unreadable { path: path.to_owned(), source };
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        roots.add(certificate).map_err(|source| SetupError::Unusable { path: path.to_owned(), source })?;
    }
    if roots.len() == before { Err(SetupError::Empty(path.to_owned())) } else { Ok(()) }
}

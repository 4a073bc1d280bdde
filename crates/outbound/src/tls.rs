//! Whom to trust when an endpoint presents its certificate.

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

/// Why no [`Client`](crate::Client) could be made. Each is a fault of the deployment.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file with additional root certificates cannot be read as PEM.
    #[error("cannot read root certificates from {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: pem::Error,
    },
    /// A certificate in that file cannot be a root.
    #[error("a certificate in {path} is not usable as a root: {source}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// That file holds no certificate at all.
    #[error("{0} holds no PEM certificate")]
    Empty(PathBuf),
    /// Every delivery would fail.
    #[error("only https is permitted, but this system has no root certificates: install ca-certificates")]
    NoRoots,
    /// The system does not say whom to ask for the addresses of names.
    #[error("cannot read which name servers to ask from /etc/resolv.conf: {0}; set FANFARE_NAME_SERVERS")]
    NoNameServers(#[source] NetError),
    /// The TLS library refused its own defaults.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// TLS 1.2 and 1.3 with the system's root certificates, and those of `extra` (PEM).
///
/// ALPN offers HTTP/1.1 only: over HTTP/2, all customers behind one host would share a connection, and
/// one that stalls would hold up the others.
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

/// What can be read is used: one odd certificate among a system's hundred must not stop the service.
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

/// Strict, unlike the system's: the operator has named this file.
fn add_from_file(roots: &mut RootCertStore, path: &Path) -> Result<(), SetupError> {
    let unreadable = |source| SetupError::Unreadable { path: path.to_owned(), source };
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        roots.add(certificate).map_err(|source| SetupError::Unusable { path: path.to_owned(), source })?;
    }
    if roots.len() == before { Err(SetupError::Empty(path.to_owned())) } else { Ok(()) }
}

//! TLS of outgoing connections, to endpoints, broker and database: root certificates and versions.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};

/// A file of root certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRoots {
    /// The file cannot be read as PEM.
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
}

/// Reads the system's roots, and skips unreadable certificates: a single odd certificate among a hundred must not stop
/// the service.
pub fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read some of the system's root certificates");
    }
    let mut roots = RootCertStore::empty();
    let (taken, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(taken, ignored, "read the system's root certificates");
    roots
}

/// Adds the certificates of a PEM file. Strict, unlike for the system's roots, since the operator has named the file.
///
/// # Errors
/// If the file cannot be read, has no certificate, or has a certificate that cannot be a root.
pub fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), InvalidRoots> {
    let unreadable = |source| InvalidRoots::Unreadable { path: path.to_owned(), source };
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        roots.add(certificate).map_err(|source| InvalidRoots::Unusable { path: path.to_owned(), source })?;
    }
    if roots.len() == before { Err(InvalidRoots::Empty(path.to_owned())) } else { Ok(()) }
}

/// Creates a configuration for TLS 1.2 and 1.3 that checks certificates against the roots, and sends no certificate.
///
/// # Errors
/// If the TLS library refuses its own defaults.
pub fn client_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

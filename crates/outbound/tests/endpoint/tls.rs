//! Certificates: trusted issuers, and names.

use std::{
    fs,
    path::PathBuf,
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fanfare_domain::delivery::outcome::Outcome;
use fanfare_outbound::{Client, Settings, SetupError};
use fanfare_tls::InvalidRoots;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    HandshakeKind, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::receiver::{AMPLE, Receiver, allowing, read_request, request, status};

/// A receiver with a self-signed certificate, and the PEM that makes the certificate trusted. The receiver would resume
/// sessions, but requires full handshakes, with a check of the certificate.
pub(crate) async fn receiver_named(name: &str) -> (Receiver, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).expect("certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("certificate");
    // Prefers a protocol that the client does not offer.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let receiver = Receiver::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await?;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            read_request(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
            stream.shutdown().await
        }
    })
    .await;
    (receiver, cert.pem())
}

/// A client that trusts this PEM in addition to the system's roots.
pub(crate) fn trusting(pem: &str) -> Result<Client, SetupError> {
    trusting_in(pem, allowing(&["127.0.0.0/8"]))
}

/// The same client with other settings.
pub(crate) fn trusting_in(pem: &str, settings: Settings) -> Result<Client, SetupError> {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let name = format!("roots-{}-{}.pem", process::id(), FILES.fetch_add(1, Ordering::Relaxed));
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, pem).expect("written");
    let client = Client::new(&Settings { extra_roots: Some(path.clone()), ..settings });
    fs::remove_file(&path).expect("removed");
    client
}

pub(crate) fn reading(extra_roots: Option<PathBuf>) -> Result<Client, SetupError> {
    Client::new(&Settings { extra_roots, ..allowing(&["127.0.0.0/8"]) })
}

#[tokio::test]
async fn a_certificate_from_the_extra_roots_is_trusted() {
    let (receiver, roots) = receiver_named("127.0.0.1").await;
    let client = trusting(&roots).expect("client");
    let exchange =
        client.post(request(&format!("https://{}/", receiver.address), AMPLE)).await.expect("our egress works");
    assert_eq!((exchange.outcome, &exchange.response_body[..]), (status(200), &b"ok"[..]), "{:?}", exchange.error);
}

#[tokio::test]
async fn an_unknown_issuer_is_not() {
    let (receiver, _) = receiver_named("127.0.0.1").await;
    let exchange = reading(None)
        .expect("client")
        .post(request(&format!("https://{}/", receiver.address), AMPLE))
        .await
        .expect("our egress works");
    assert_eq!(exchange.outcome, Outcome::TlsFailed);
    assert_eq!(exchange.error.as_deref(), Some("no TLS session: invalid peer certificate: UnknownIssuer"));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (receiver, roots) = receiver_named("other.example").await;
    let client = trusting(&roots).expect("client");
    let exchange =
        client.post(request(&format!("https://{}/", receiver.address), AMPLE)).await.expect("our egress works");
    assert_eq!(exchange.outcome, Outcome::TlsFailed);
    assert!(exchange.error.is_some_and(|error| error.starts_with("no TLS session: invalid peer certificate")));
}

#[tokio::test]
async fn plain_http_on_the_port_is_no_tls() {
    let receiver = Receiver::start(|mut stream| async move {
        let mut hello = [0; 1024];
        stream.read_exact(&mut hello[..5]).await?;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?;
        while stream.read(&mut hello).await? > 0 {}
        Ok(())
    })
    .await;
    let client = reading(None).expect("client");
    let exchange =
        client.post(request(&format!("https://{}/", receiver.address), AMPLE)).await.expect("our egress works");
    assert_eq!(exchange.outcome, Outcome::TlsFailed, "{:?}", exchange.error);
}

#[test]
fn extra_roots_that_are_none_stop_the_start() {
    let missing = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("missing.pem");
    assert!(matches!(reading(Some(missing)), Err(SetupError::Roots(InvalidRoots::Unreadable { .. }))));
    assert!(matches!(trusting("no certificate in here"), Err(SetupError::Roots(InvalidRoots::Empty(_)))));
    let unusable = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(trusting(unusable), Err(SetupError::Roots(InvalidRoots::Unusable { .. }))));
}

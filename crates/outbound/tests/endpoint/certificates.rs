//! Client certificates: a receiver that requires them, and connections that no other webhook uses.

use std::sync::Arc;

use fanfare_domain::{delivery::outcome::Outcome, endpoint::authentication::ClientCertificate, ids::EndpointId};
use fanfare_outbound::{Client, Exchange, check_certificate};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    generate_simple_self_signed,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

use crate::{
    receiver::{AMPLE, Receiver, read_request, request, status},
    tls::trusting,
};

/// An issuer of client certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: rustls::pki_types::CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "clients");
        let root = parameters.self_signed(&key).expect("a certificate").der().clone();
        Self { issuer: Issuer::new(parameters, key), root }
    }

    /// A client certificate until the beginning of a day.
    fn client(&self, (year, month, day): (i32, u8, u8)) -> Arc<ClientCertificate> {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(vec!["client".to_owned()]).expect("a name");
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.not_after = rcgen::date_time_ymd(year, month, day);
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        // All certificates begin in 1975.
        let then = "1976-01-01T00:00:00Z".parse().expect("a time");
        let checked = check_certificate(&certificate.pem(), &key.serialize_pem(), then);
        Arc::new(checked.expect("a sound certificate"))
    }

    /// A receiver that requires certificates of this authority, keeps connections open, and its client.
    async fn receiver(&self) -> (Receiver, Client) {
        let own = generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(vec![own.cert.der().clone()], key)
            .expect("certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let receiver = Receiver::start(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = acceptor.accept(stream).await?;
                while read_request(&mut stream).await.is_ok() {
                    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
                }
                Ok(())
            }
        })
        .await;
        (receiver, trusting(&own.cert.pem()).expect("client"))
    }
}

const LATE: (i32, u8, u8) = (2100, 1, 1);

fn endpoint(number: u8) -> EndpointId {
    EndpointId::new(Timestamp::UNIX_EPOCH, [number; 10])
}

async fn post(
    client: &Client,
    receiver: &Receiver,
    certificate: Option<(EndpointId, &Arc<ClientCertificate>)>,
) -> Exchange {
    let mut request = request(&format!("https://{}/", receiver.address), AMPLE);
    request.certificate = certificate.map(|(endpoint, certificate)| (endpoint, Arc::clone(certificate)));
    client.post(request).await.expect("our egress works")
}

#[tokio::test]
async fn a_receiver_that_requires_a_certificate_gets_it() {
    let authority = Authority::new();
    let (receiver, client) = authority.receiver().await;
    let own = authority.client(LATE);
    let exchange = post(&client, &receiver, Some((endpoint(1), &own))).await;
    assert_eq!(exchange.outcome, status(204), "{:?}", exchange.error);

    let foreign = Authority::new().client(LATE);
    for refused in [None, Some((endpoint(2), &foreign))] {
        let exchange = post(&client, &receiver, refused).await;
        assert_eq!(exchange.outcome, Outcome::TlsFailed, "{:?}", exchange.error);
        assert!(exchange.error.is_some_and(|error| error.starts_with("no TLS session: received fatal alert")));
    }
}

#[tokio::test]
async fn a_connection_with_a_certificate_serves_one_webhook() {
    let authority = Authority::new();
    let (receiver, client) = authority.receiver().await;
    let (own, renewed) = (authority.client(LATE), authority.client(LATE));
    for _ in 0..3 {
        assert_eq!(post(&client, &receiver, Some((endpoint(1), &own))).await.outcome, status(204));
    }
    assert_eq!(receiver.accepted(), 1, "the webhook itself reuses the connection");
    assert_eq!(post(&client, &receiver, Some((endpoint(2), &own))).await.outcome, status(204));
    assert_eq!(receiver.accepted(), 2, "another webhook, even with the same certificate");
    assert_eq!(post(&client, &receiver, Some((endpoint(1), &renewed))).await.outcome, status(204));
    assert_eq!(receiver.accepted(), 3, "a renewed certificate");
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_not_sent() {
    let authority = Authority::new();
    let (receiver, client) = authority.receiver().await;
    let ended = authority.client((2020, 1, 1));
    let exchange = post(&client, &receiver, Some((endpoint(1), &ended))).await;
    assert_eq!((exchange.outcome, receiver.accepted()), (Outcome::NotSendable, 0));
    let error = exchange.error.unwrap_or_default();
    assert!(error.contains("has ended at 2020-01-01") && error.contains("client_certificate"), "{error}");
    let mut request = request(&format!("https://{}/", receiver.address), AMPLE);
    request.certificate = Some((endpoint(1), ended));
    let probe = client.probe(request).await.expect("our egress works");
    assert_eq!(probe.exchange.outcome, Outcome::NotSendable);
}

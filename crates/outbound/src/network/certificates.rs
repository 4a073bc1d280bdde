//! Client certificates: the check before saving, and the connections of each certificate.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_domain::{
    endpoint::authentication::{ClientCertificate, HiddenText, ShownCertificate},
    ids::EndpointId,
};
use jiff::Timestamp;
use rustls::{
    ClientConfig,
    client::Resumption,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use sha2::{Digest, Sha256};
use x509_cert::{Certificate, der::Decode};

/// Maximum length of a chain and of a private key, in bytes of PEM.
const MAX_CHAIN: usize = 32 * 1024;
const MAX_KEY: usize = 16 * 1024;

/// Maximum certificates of a chain.
const MAX_CERTIFICATES: usize = 8;

/// Maximum client certificates with kept connections and a parsed key. Beyond, the certificate that was used least
/// recently loses both.
const MAX_KEPT: usize = 1024;

/// TLS sessions of a certificate that are kept for resumption: those of a receiver behind a few names.
const SESSIONS: usize = 4;

/// A client certificate that cannot be used. The text follows the name of the member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CertificateFault {
    /// `certificate_chain` or `private_key`.
    pub member: &'static str,
    /// The fault and the remedy.
    pub message: String,
}

/// Checks a client certificate and its private key, in PEM.
///
/// # Errors
/// If a text is too long or no PEM, if the certificate has ended at `now`, or if the key is of another kind than TLS
/// supports, or belongs to another certificate.
pub fn check_certificate(
    chain: &str,
    private_key: &str,
    now: Timestamp,
) -> Result<ClientCertificate, CertificateFault> {
    let of_chain = |message: String| CertificateFault { member: "certificate_chain", message };
    if chain.len() > MAX_CHAIN {
        return Err(of_chain(format!("has more than {MAX_CHAIN} bytes: leave out the root certificates")));
    }
    let certificates = certificates(chain).map_err(of_chain)?;
    let unreadable = || of_chain("has an unreadable certificate: give certificates of X.509 in PEM".to_owned());
    let mut parsed = Vec::new();
    for certificate in &certificates {
        parsed.push(Certificate::from_der(certificate).map_err(|_| unreadable())?);
    }
    let shown = shown(&certificates[0], &parsed[0]).ok_or_else(unreadable)?;
    if shown.not_after <= now {
        let message = format!("has ended at {}: give the renewed certificate", shown.not_after);
        return Err(of_chain(message));
    }
    let start = parsed[0].tbs_certificate.validity.not_before.to_unix_duration().as_secs();
    let start =
        i64::try_from(start).ok().and_then(|start| Timestamp::from_second(start).ok()).ok_or_else(unreadable)?;
    if start > now {
        return Err(of_chain(format!("begins only at {start}: give a certificate that holds now")));
    }
    certified(certificates, private_key)?;
    Ok(ClientCertificate { chain: chain.to_owned(), private_key: HiddenText::from(private_key.to_owned()), shown })
}

/// The certificates of a chain, at least one.
fn certificates(chain: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let all = all.map_err(|_| "cannot be read as PEM: give the text from -----BEGIN CERTIFICATE----- on".to_owned())?;
    match all.len() {
        0 => Err("has no certificate: give PEM that begins with -----BEGIN CERTIFICATE-----".to_owned()),
        count if count > MAX_CERTIFICATES => {
            Err(format!("has {count} certificates, more than {MAX_CERTIFICATES}: leave out the root certificates"))
        }
        _ => Ok(all),
    }
}

/// The certificate with its key.
fn certified(chain: Vec<CertificateDer<'static>>, private_key: &str) -> Result<CertifiedKey, CertificateFault> {
    let fault = |message: &str| CertificateFault { member: "private_key", message: message.to_owned() };
    if private_key.len() > MAX_KEY {
        return Err(fault(&format!("has more than {MAX_KEY} bytes: give a single private key in PEM")));
    }
    if private_key.contains("ENCRYPTED") {
        return Err(fault("is encrypted: decrypt the key first, such as by `openssl pkey -in key.pem`"));
    }
    let key = PrivateKeyDer::from_pem_slice(private_key.as_bytes())
        .map_err(|_| fault("has no private key: give PEM that begins with -----BEGIN PRIVATE KEY-----"))?;
    let key = any_supported_type(&key).map_err(|_| {
        fault("is of a kind that cannot be used: give RSA from 2048 bits, ECDSA P-256 or P-384, or Ed25519")
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(_) => Err(fault("does not belong to the first certificate of the chain: give the key of this certificate")),
    }
}

/// The shown part of a certificate; `None` for a time that cannot be shown.
fn shown(der: &CertificateDer<'_>, certificate: &Certificate) -> Option<ShownCertificate> {
    let part = &certificate.tbs_certificate;
    let end = part.validity.not_after.to_unix_duration().as_secs();
    let mut sha256 = String::new();
    for byte in Sha256::digest(der) {
        let _ = write!(sha256, "{byte:02x}");
    }
    Some(ShownCertificate {
        subject: part.subject.to_string(),
        issuer: part.issuer.to_string(),
        not_after: Timestamp::from_second(i64::try_from(end).ok()?).ok()?,
        sha256,
    })
}

/// The configuration of connections that show the certificate.
///
/// # Errors
/// If the certificate cannot be used. Saved certificates are checked before.
pub(crate) fn with_certificate(
    base: &ClientConfig,
    certificate: &ClientCertificate,
) -> Result<ClientConfig, CertificateFault> {
    let chain = certificates(&certificate.chain)
        .map_err(|message| CertificateFault { member: "certificate_chain", message })?;
    let certified = certified(chain, certificate.private_key.reveal())?;
    let mut config = base.clone();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    // Sessions of their own: a resumed session would show the certificate of another webhook.
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

/// Values of client certificates in use, each for one webhook: a bounded cache.
pub(crate) struct Certified<T>(Mutex<Cache<T>>);

struct Cache<T> {
    of_endpoint: HashMap<EndpointId, Kept<T>>,
    /// Number of uses so far.
    uses: u64,
}

struct Kept<T> {
    certificate: Arc<ClientCertificate>,
    value: T,
    used: u64,
}

impl<T: Clone> Certified<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Cache { of_endpoint: HashMap::new(), uses: 0 }))
    }

    /// The value of a webhook's certificate, made by `make` at the first use and after a change of the certificate.
    ///
    /// # Errors
    /// If `make` fails.
    pub(crate) fn get<E>(
        &self,
        endpoint: EndpointId,
        certificate: &Arc<ClientCertificate>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(value) = self.kept(endpoint, certificate) {
            return Ok(value);
        }
        // Outside of the lock: other webhooks do not wait for the parsing of a key.
        let made = make()?;
        // Another attempt may have made the value meanwhile.
        if let Some(value) = self.kept(endpoint, certificate) {
            return Ok(value);
        }
        let mut cache = self.cache();
        let (used, value) = (cache.uses, made);
        if cache.of_endpoint.len() >= MAX_KEPT
            && let Some(oldest) = cache.of_endpoint.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| *id)
        {
            cache.of_endpoint.remove(&oldest);
        }
        let kept = Kept { certificate: Arc::clone(certificate), value: value.clone(), used };
        cache.of_endpoint.insert(endpoint, kept);
        Ok(value)
    }

    /// The kept value of a webhook's certificate.
    fn kept(&self, endpoint: EndpointId, certificate: &Arc<ClientCertificate>) -> Option<T> {
        let mut cache = self.cache();
        cache.uses += 1;
        let used = cache.uses;
        let kept = cache.of_endpoint.get_mut(&endpoint)?;
        if !Arc::ptr_eq(&kept.certificate, certificate) {
            if kept.certificate != *certificate {
                return None;
            }
            // The next look compares no text.
            kept.certificate = Arc::clone(certificate);
        }
        kept.used = used;
        Some(kept.value.clone())
    }

    fn cache(&self) -> MutexGuard<'_, Cache<T>> {
        // No holder of this lock can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

    use super::*;

    /// A certificate that signs itself, and its key, in PEM.
    fn own(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let mut parameters = CertificateParams::new(vec!["client.example".to_owned()]).expect("names");
        parameters.distinguished_name.push(DnType::CommonName, "shop");
        parameters.not_before = rcgen::date_time_ymd(1970, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2100, 1, 2);
        let key = KeyPair::generate_for(algorithm).expect("a key");
        (parameters.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    fn fault(chain: &str, key: &str) -> (&'static str, String) {
        let fault = check_certificate(chain, key, Timestamp::UNIX_EPOCH).expect_err("a fault");
        (fault.member, fault.message)
    }

    #[test]
    fn a_certificate_is_shown_without_its_key() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
            let (chain, key) = own(algorithm);
            let checked = check_certificate(&chain, &key, Timestamp::UNIX_EPOCH).expect("a certificate");
            assert!(checked.shown.subject.contains("CN=shop"), "{:?}", checked.shown);
            assert_eq!(checked.shown.not_after.to_string(), "2100-01-02T00:00:00Z");
            assert_eq!(checked.shown.sha256.len(), 64);
            assert!(!format!("{checked:?}").contains("PRIVATE"));
        }
    }

    #[test]
    fn each_refusal_names_the_member_and_the_remedy() {
        let (chain, key) = own(&PKCS_ECDSA_P256_SHA256);
        let (_, other) = own(&PKCS_ECDSA_P256_SHA256);
        let (member, message) = fault(&chain, &other);
        assert!(member == "private_key" && message.contains("does not belong"), "{message}");
        let (member, message) = fault(&chain, &chain);
        assert!(member == "private_key" && message.contains("BEGIN PRIVATE KEY"), "{message}");
        let (member, message) = fault(&chain, "-----BEGIN ENCRYPTED PRIVATE KEY-----");
        assert!(member == "private_key" && message.contains("openssl pkey"), "{message}");
        let (member, message) = fault("hello", &key);
        assert!(member == "certificate_chain" && message.contains("has no certificate"), "{message}");
        let (member, message) = fault(&chain.repeat(9), &key);
        assert!(member == "certificate_chain" && message.contains("root certificates"), "{message}");
        let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(fault(no_certificate, &key).0, "certificate_chain");
        let early =
            check_certificate(&chain, &key, "1969-12-31T00:00:00Z".parse().expect("a time")).expect_err("a fault");
        assert!(early.message.contains("begins only at 1970-01-01"), "{early}");
        let late = "2100-01-03T00:00:00Z".parse().expect("a time");
        let ended = check_certificate(&chain, &key, late).expect_err("a fault");
        assert!(ended.member == "certificate_chain" && ended.message.contains("has ended at 2100-01-02"), "{ended}");
    }

    #[test]
    fn a_changed_certificate_is_made_anew_and_others_stay() {
        let (chain, key) = own(&PKCS_ECDSA_P256_SHA256);
        let first = Arc::new(check_certificate(&chain, &key, Timestamp::UNIX_EPOCH).expect("a certificate"));
        let (chain, key) = own(&PKCS_ED25519);
        let second = Arc::new(check_certificate(&chain, &key, Timestamp::UNIX_EPOCH).expect("a certificate"));
        let endpoint = |number: u16| {
            let mut random = [0; 10];
            random[8..].copy_from_slice(&number.to_be_bytes());
            EndpointId::new(Timestamp::UNIX_EPOCH, random)
        };
        let same = Arc::new(ClientCertificate::clone(&first));
        let cache = Certified::new();
        let get = |number: u16, certificate, value| cache.get(endpoint(number), certificate, || Ok::<u32, ()>(value));
        assert_eq!(get(1, &first, 1), Ok(1));
        assert_eq!(get(1, &same, 2), Ok(1), "the same certificate");
        assert_eq!(get(1, &second, 3), Ok(3), "a replaced certificate");
        assert_eq!(get(2, &second, 4), Ok(4), "no connection serves two webhooks");
        for number in 3..=1026 {
            assert_eq!(get(number, &first, 5), Ok(5));
        }
        assert_eq!(cache.0.lock().expect("a lock").of_endpoint.len(), MAX_KEPT);
        assert_eq!(get(1, &second, 6), Ok(6), "the least recently used were forgotten");
    }
}

//! TLS to the database by `sslmode` and `sslrootcert` of the URL, with the meanings of libpq.

use std::{path::Path, sync::Arc};

use fanfare_tls::{add_roots, system_roots};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Required check of the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// None: a man in the middle can read along.
    None,
    /// A trusted authority issued the certificate, for any name.
    Authority,
    /// A trusted authority issued the certificate for the host of the URL.
    Name,
}

/// Splits the TLS parameters off a URL. Returns the rest, with an `sslmode` known to `tokio-postgres`.
///
/// # Errors
/// A text for people that names the wrong parameter or the unusable file.
pub(crate) fn split(url: &str) -> Result<(String, MakeRustlsConnect), String> {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    if !address.contains("://") {
        // Key-value form such as `host=…`, which `tokio-postgres` reads without our help.
        return Ok((url.to_owned(), MakeRustlsConnect::new(client_config(Check::None, None)?)));
    }
    let (mut mode, mut roots) = ("prefer", None);
    for parameter in query.split('&').filter(|parameter| is_tls(parameter)) {
        match parameter.split_once('=') {
            Some(("sslmode", value)) => mode = value,
            Some((_, value)) => roots = Some(decoded(value)?),
            None => {}
        }
    }
    let (plain, check) = match mode {
        "disable" => ("disable", Check::None),
        "prefer" => ("prefer", Check::None),
        "require" if roots.is_some() => ("require", Check::Authority),
        "require" => ("require", Check::None),
        "verify-ca" => ("require", Check::Authority),
        "verify-full" => ("require", Check::Name),
        other => {
            return Err(format!("sslmode={other}; expected disable, prefer, require, verify-ca or verify-full"));
        }
    };
    let connector = MakeRustlsConnect::new(client_config(check, roots.as_deref().map(Path::new))?);
    let rest = without_tls(url);
    let separator = if rest.contains('?') { '&' } else { '?' };
    Ok((format!("{rest}{separator}sslmode={plain}"), connector))
}

/// A URL without the parameters of TLS, which `tokio-postgres` does not know.
pub(crate) fn without_tls(url: &str) -> String {
    let Some((address, query)) = url.split_once('?').filter(|(address, _)| address.contains("://")) else {
        return url.to_owned();
    };
    let others = query.split('&').filter(|parameter| !parameter.is_empty() && !is_tls(parameter)).collect::<Vec<_>>();
    if others.is_empty() { address.to_owned() } else { format!("{address}?{}", others.join("&")) }
}

fn is_tls(parameter: &str) -> bool {
    parameter.starts_with("sslmode=") || parameter.starts_with("sslrootcert=")
}

fn decoded(value: &str) -> Result<String, String> {
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
    decoded.map(Into::into).map_err(|_| "sslrootcert is not UTF-8".to_owned())
}

fn client_config(check: Check, file: Option<&Path>) -> Result<ClientConfig, String> {
    if check == Check::Name {
        return fanfare_tls::client_config(roots(file)?).map_err(|error| error.to_string());
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let authority = (check == Check::Authority).then(|| {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots(file)?), Arc::clone(&provider))
            .build()
            .map_err(|error| error.to_string())
    });
    let verifier = Verifier { authority: authority.transpose()?, provider };
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// Root certificates of the file, or of the system.
fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let Some(file) = file else {
        let roots = system_roots();
        let nothing = "this system has no root certificates: name a file by sslrootcert";
        return if roots.is_empty() { Err(nothing.to_owned()) } else { Ok(roots) };
    };
    let mut roots = RootCertStore::empty();
    add_roots(&mut roots, file).map_err(|error| format!("sslrootcert cannot be used: {error}"))?;
    Ok(roots)
}

/// Verifier for [`Check::None`] and [`Check::Authority`], which check less than rustls does.
#[derive(Debug)]
struct Verifier {
    authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        match authority.verify_server_cert(certificate, chain, name, ocsp, now) {
            // rustls checks the name last: all other checks have passed.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_parameters_stay_and_sslmode_comes_last() {
        let url = "postgres://u:p@h:5432/d?application_name=x&sslmode=require&connect_timeout=3";
        let (rest, _) = split(url).expect("a URL");
        assert_eq!(rest, "postgres://u:p@h:5432/d?application_name=x&connect_timeout=3&sslmode=require");
        assert_eq!(split("postgres://h/d").expect("a URL").0, "postgres://h/d?sslmode=prefer");
    }

    #[test]
    fn says_what_is_wrong() {
        let wrong = |query: &str| split(&format!("postgres://h/d?{query}")).map(|_| ()).expect_err("wrong");
        assert!(wrong("sslmode=allow").contains("verify-full"));
        assert!(wrong("sslmode=verify-full&sslrootcert=/nowhere").contains("/nowhere"));
        assert!(wrong("sslmode=require&sslrootcert=%FF").contains("UTF-8"));
    }
}

//! Credentials of endpoints, encrypted: authentication and client certificates.

use deadpool_postgres::GenericClient;
use fanfare_domain::{
    endpoint::authentication::{Authentication, ClientCertificate, Credentials, ShownAuthentication, ShownCertificate},
    ids::{ApplicationId, EndpointId},
};
use serde_json::json;
use tokio_postgres::{Row, types::ToSql};

use crate::{EndpointSettings, Keyring, Store, StoreError, connection::keyring::Sealed};

/// Changes the credentials of an endpoint. Matches nothing if the present authentication has another version than $12.
const CHANGE: &str = "
UPDATE endpoints
SET authentication = CASE WHEN $3 THEN $4 ELSE authentication END,
    authentication_key_name = CASE WHEN $3 THEN $5 ELSE authentication_key_name END,
    authentication_ciphertext = CASE WHEN $3 THEN $6 ELSE authentication_ciphertext END,
    authentication_version = authentication_version + CASE WHEN $3 THEN 1 ELSE 0 END,
    certificate = CASE WHEN $7 THEN $8 ELSE certificate END,
    certificate_key_name = CASE WHEN $7 THEN $9 ELSE certificate_key_name END,
    certificate_ciphertext = CASE WHEN $7 THEN $10 ELSE certificate_ciphertext END,
    certificate_ends_at = CASE WHEN $7 THEN $11 ELSE certificate_ends_at END,
    updated_at = now()
WHERE id = $1 AND application_id = $2 AND deleted_at IS NULL
  AND ($12::bigint IS NULL OR authentication_version = $12)";

/// A sealed value in three columns: the shown part, the name of the key, the ciphertext.
#[derive(Default)]
struct SealedParts {
    shown: Option<String>,
    key_name: Option<String>,
    ciphertext: Option<Vec<u8>>,
}

impl SealedParts {
    fn new(shown: String, sealed: Sealed) -> Self {
        Self { shown: Some(shown), key_name: Some(sealed.key_name), ciphertext: Some(sealed.ciphertext) }
    }
}

impl Store {
    /// Changes the credentials among `settings`, under the lock of the application. False if the endpoint does not
    /// exist, or if the change keeps a secret that was changed meanwhile.
    pub(crate) async fn change_credentials_in(
        &self,
        client: &impl GenericClient,
        (application, endpoint): (ApplicationId, EndpointId),
        settings: &EndpointSettings,
    ) -> Result<bool, StoreError> {
        let EndpointSettings { authentication, certificate, keeps_secret_of, .. } = settings;
        if !settings.has_credentials() {
            return Ok(true);
        }
        let sealed = match authentication {
            Some(Some(authentication)) => {
                let plain = json!(authentication).to_string();
                let sealed = self.keyring.seal(plain.as_bytes(), &authentication_identity(endpoint))?;
                SealedParts::new(json!(authentication.shown()).to_string(), sealed)
            }
            _ => SealedParts::default(),
        };
        let (certified, ends_at) = match certificate {
            Some(Some(certificate)) => {
                let plain = json!(certificate).to_string();
                let sealed = self.keyring.seal(plain.as_bytes(), &certificate_identity(endpoint))?;
                let shown = json!(certificate.shown).to_string();
                (SealedParts::new(shown, sealed), Some(certificate.shown.not_after))
            }
            _ => (SealedParts::default(), None),
        };
        let parameters: [&(dyn ToSql + Sync); 12] = [
            &endpoint.0,
            &application.0,
            &authentication.is_some(),
            &sealed.shown,
            &sealed.key_name,
            &sealed.ciphertext,
            &certificate.is_some(),
            &certified.shown,
            &certified.key_name,
            &certified.ciphertext,
            &ends_at,
            keeps_secret_of,
        ];
        let is_changed = client.execute(CHANGE, &parameters).await? == 1;
        if is_changed && authentication.is_some() {
            // The token of the former settings is of no use. The endpoint is locked before the token, as in a fetch.
            client.execute("DELETE FROM endpoint_tokens WHERE endpoint_id = $1", &[&endpoint.0]).await?;
        }
        Ok(is_changed)
    }

    /// The authentication of an endpoint with its secrets, and its version.
    pub async fn authentication(
        &self,
        application: ApplicationId,
        endpoint: EndpointId,
    ) -> Result<Option<Credentials>, StoreError> {
        let statement = "SELECT authentication_key_name, authentication_ciphertext, authentication_version
                         FROM endpoints WHERE id = $1 AND application_id = $2 AND deleted_at IS NULL";
        let row = self.connection().await?.query_opt(statement, &[&endpoint.0, &application.0]).await?;
        row.map_or(Ok(None), |row| open_authentication(&self.keyring, endpoint, &row))
    }
}

/// Decrypts the authentication of an endpoint.
pub(crate) fn open_authentication(
    keyring: &Keyring,
    endpoint: EndpointId,
    row: &Row,
) -> Result<Option<Credentials>, StoreError> {
    let Some(key_name) = row.get::<_, Option<&str>>("authentication_key_name") else { return Ok(None) };
    let ciphertext = row.get("authentication_ciphertext");
    let plain = keyring.open(key_name, ciphertext, &authentication_identity(endpoint))?;
    let settings: Option<Authentication> = serde_json::from_slice(&plain).ok();
    let settings = settings.ok_or_else(|| corrupt(endpoint, "authentication"))?;
    Ok(Some(Credentials::new(settings, row.get("authentication_version"))))
}

/// Decrypts the client certificate of an endpoint.
pub(crate) fn open_certificate(
    keyring: &Keyring,
    endpoint: EndpointId,
    row: &Row,
) -> Result<Option<ClientCertificate>, StoreError> {
    let Some(key_name) = row.get::<_, Option<&str>>("certificate_key_name") else { return Ok(None) };
    let plain = keyring.open(key_name, row.get("certificate_ciphertext"), &certificate_identity(endpoint))?;
    serde_json::from_slice(&plain).map(Some).map_err(|_| corrupt(endpoint, "certificate"))
}

/// The shown part of an endpoint's authentication.
pub(crate) fn shown_authentication(endpoint: EndpointId, row: &Row) -> Result<Option<ShownAuthentication>, StoreError> {
    let read = |text: &str| serde_json::from_str(text).map_err(|_| corrupt(endpoint, "authentication"));
    row.get::<_, Option<&str>>("authentication").map(read).transpose()
}

/// The shown part of an endpoint's client certificate.
pub(crate) fn shown_certificate(endpoint: EndpointId, row: &Row) -> Result<Option<ShownCertificate>, StoreError> {
    let read = |text: &str| serde_json::from_str(text).map_err(|_| corrupt(endpoint, "certificate"));
    row.get::<_, Option<&str>>("certificate").map(read).transpose()
}

fn corrupt(endpoint: EndpointId, what: &str) -> StoreError {
    StoreError::corrupt("endpoints", format!("{endpoint}: {what}"))
}

/// Associated data of an endpoint's authentication: binds the ciphertext to its row.
pub(crate) fn authentication_identity(endpoint: EndpointId) -> Vec<u8> {
    [b"endpoints.authentication".as_slice(), endpoint.0.as_bytes()].concat()
}

pub(crate) fn certificate_identity(endpoint: EndpointId) -> Vec<u8> {
    [b"endpoints.certificate".as_slice(), endpoint.0.as_bytes()].concat()
}

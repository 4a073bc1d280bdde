//! Authentication of Fanfare at the receiver: members of webhooks, and their checks.

use std::time::Duration;

use fanfare_domain::{
    endpoint::{
        Endpoint, Feed,
        access_token::TokenFault,
        authentication::{
            Authentication, ClientAuthentication, Credentials, HiddenText, OAuth2, ShownAuthentication,
            ShownCertificate, bearer,
        },
    },
    ids::{EndpointId, LeaseId},
};
use fanfare_outbound::check_certificate;
use fanfare_store::{EndpointRow, EndpointSettings, TokenLook, TokenState, TokenTurn};
use http::HeaderValue;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use crate::{
    http::{
        authentication::AuthorizedApplication,
        error::{ApiError, ErrorCode},
    },
    state::ApiState,
};

/// Longest wait of a test for a token: a fetch of another process, and a fetch of our own.
const TOKEN_LIMIT: Duration = Duration::from_secs(12);

/// Interval of looks while another process fetches.
const TOKEN_LOOKS: Duration = Duration::from_millis(250);

/// Authentication in the header `authorization` of all deliveries. The secrets are stored encrypted, and never shown. A
/// change without the secret of the same `type` keeps the stored secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewAuthentication)]
pub struct NewAuthentication {
    /// `basic`: user name and password; `bearer`: a fixed token; `oauth2`: tokens of a token server, by client
    /// credentials.
    #[schema(example = "oauth2")]
    pub r#type: String,
    /// Of `basic`.
    pub username: Option<String>,
    /// Of `basic`.
    #[schema(write_only)]
    pub password: Option<String>,
    /// Of `bearer`.
    #[schema(write_only)]
    pub token: Option<String>,
    /// Of `oauth2`: the URL of the token server.
    pub token_url: Option<String>,
    /// Of `oauth2`.
    pub client_id: Option<String>,
    /// Of `oauth2`. Required with another origin of `token_url`.
    #[schema(write_only)]
    pub client_secret: Option<String>,
    /// Of `oauth2`: the scope to ask for.
    pub scope: Option<String>,
    /// Of `oauth2`: the audience to ask for.
    pub audience: Option<String>,
    /// Of `oauth2`: `basic`, or `body` for client id and secret in the form. Default: `basic`.
    pub client_authentication: Option<String>,
}

/// A client certificate for mutual TLS. The private key is stored encrypted, and never shown.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewClientCertificate)]
pub struct NewCertificate {
    /// PEM, the client's certificate first, then the certificates between it and the root.
    pub certificate_chain: String,
    /// PEM, not encrypted: RSA, ECDSA P-256 or P-384, or Ed25519.
    #[schema(write_only)]
    pub private_key: String,
}

/// Authentication of a webhook, without secrets.
#[derive(Serialize, ToSchema)]
#[schema(as = Authentication)]
pub struct AuthenticationView {
    /// `basic`, `bearer` or `oauth2`.
    #[schema(example = "oauth2")]
    pub r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_authentication: Option<String>,
    /// The state of the tokens, of `oauth2`; absent in lists, and before the first token is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<TokenStateView>,
}

/// State of a webhook's tokens.
#[derive(Serialize, ToSchema)]
#[schema(as = TokenState)]
pub struct TokenStateView {
    /// The present token is sent until then; `null` without a token.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub token_until: Option<Timestamp>,
    /// The beginning of the failures; `null` if the last fetch brought a token.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failing_since: Option<Timestamp>,
    /// The last failed fetch.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failed_at: Option<Timestamp>,
    /// The reason of the last failure.
    #[schema(example = "the token server answers 503")]
    pub error: Option<String>,
}

/// Client certificate of a webhook, without the private key.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientCertificate)]
pub struct CertificateView {
    #[schema(example = "CN=fanfare,O=Example")]
    pub subject: String,
    pub issuer: String,
    /// The end of the certificate. From then on, no delivery is sent.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// SHA-256 of the certificate in DER, in hex.
    pub sha256: String,
}

impl From<ShownAuthentication> for AuthenticationView {
    fn from(shown: ShownAuthentication) -> Self {
        let ShownAuthentication { r#type, username, token_url, client_id, scope, audience, client_authentication } =
            shown;
        Self { r#type, username, token_url, client_id, scope, audience, client_authentication, state: None }
    }
}

impl From<TokenState> for TokenStateView {
    fn from(state: TokenState) -> Self {
        Self {
            token_until: state.usable_until,
            failing_since: state.failing_since,
            failed_at: state.failed_at,
            error: state.error.map(|error| format!("the token server {error}")),
        }
    }
}

impl From<ShownCertificate> for CertificateView {
    fn from(shown: ShownCertificate) -> Self {
        let ShownCertificate { subject, issuer, not_after, sha256 } = shown;
        Self { subject, issuer, not_after, sha256 }
    }
}

/// Credentials in a request; `Some(None)` removes.
#[derive(Default)]
pub(super) struct AskedCredentials {
    pub(super) authentication: Option<Option<NewAuthentication>>,
    pub(super) certificate: Option<Option<NewCertificate>>,
}

impl NewAuthentication {
    /// Refuses members of other types.
    fn check_members(&self) -> Result<(), ApiError> {
        let given = [
            ("username", "basic", self.username.is_some()),
            ("password", "basic", self.password.is_some()),
            ("token", "bearer", self.token.is_some()),
            ("token_url", "oauth2", self.token_url.is_some()),
            ("client_id", "oauth2", self.client_id.is_some()),
            ("client_secret", "oauth2", self.client_secret.is_some()),
            ("scope", "oauth2", self.scope.is_some()),
            ("audience", "oauth2", self.audience.is_some()),
            ("client_authentication", "oauth2", self.client_authentication.is_some()),
        ];
        match given.into_iter().find(|(_, of, is_given)| *is_given && *of != self.r#type) {
            Some((member, of, _)) => {
                Err(invalid(member, format!("belongs to the type `{of}`, not `{}`: leave it out", self.r#type)))
            }
            None => Ok(()),
        }
    }
}

impl ApiState {
    /// Checks the credentials of a request, for a new webhook, or with the present `row` of a webhook.
    pub(super) async fn check_credentials(
        &self,
        authorized: &AuthorizedApplication,
        row: Option<&EndpointRow>,
        asked: AskedCredentials,
        settings: &mut EndpointSettings,
    ) -> Result<(), ApiError> {
        let AskedCredentials { authentication, certificate } = asked;
        if let Some(Some(asked)) = &authentication {
            if !["basic", "bearer", "oauth2"].contains(&asked.r#type.as_str()) {
                return Err(invalid("type", "must be one of basic, bearer, oauth2"));
            }
            asked.check_members()?;
        }
        let is_read = settings.feed.or(row.map(|row| row.feed)) == Some(Feed::Only);
        if is_read && (matches!(authentication, Some(Some(_))) || matches!(certificate, Some(Some(_)))) {
            let message = "has no use with the feed `only`: nothing is sent; leave it out";
            let member = if matches!(authentication, Some(Some(_))) { "authentication" } else { "client_certificate" };
            return Err(ApiError::invalid(member, message));
        }
        settings.authentication = match authentication {
            Some(Some(asked)) => {
                let stored = match row.filter(|row| row.authentication.is_some()) {
                    Some(row) => self.store.authentication(authorized.application, row.id).await?,
                    None => None,
                };
                let (authentication, keeps) = self.authentication(asked, stored.as_ref()).await?;
                settings.keeps_secret_of = stored.filter(|_| keeps).map(|stored| stored.version);
                Some(Some(authentication))
            }
            Some(None) => Some(None),
            None => None,
        };
        let check = |asked: NewCertificate| {
            check_certificate(&asked.certificate_chain, &asked.private_key, self.store.now())
                .map_err(|fault| ApiError::invalid(&format!("client_certificate.{}", fault.member), fault.message))
        };
        settings.certificate = certificate.map(|asked| asked.map(check).transpose()).transpose()?;
        check_header(settings, row)
    }

    /// Checks the credentials of a change. Accepts an unknown webhook, which the change itself refuses.
    pub(super) async fn check_credentials_of_change(
        &self,
        authorized: &AuthorizedApplication,
        webhook: EndpointId,
        asked: AskedCredentials,
        settings: &mut EndpointSettings,
    ) -> Result<(), ApiError> {
        if asked.authentication.is_none() && asked.certificate.is_none() && settings.headers.is_none() {
            return Ok(());
        }
        let Some(row) = self.store.endpoint(authorized.application, webhook).await? else { return Ok(()) };
        self.check_credentials(authorized, Some(&row), asked, settings).await
    }

    /// Refuses own headers with `authorization` for a webhook with authentication.
    pub(crate) async fn check_header_of_change(
        &self,
        authorized: &AuthorizedApplication,
        webhook: EndpointId,
        settings: &EndpointSettings,
    ) -> Result<(), ApiError> {
        if settings.headers.is_none() {
            return Ok(());
        }
        let row = self.store.endpoint(authorized.application, webhook).await?;
        check_header(settings, row.as_ref())
    }

    /// The authentication of a request. Tells, too, whether it keeps a stored secret.
    async fn authentication(
        &self,
        asked: NewAuthentication,
        stored: Option<&Credentials>,
    ) -> Result<(Authentication, bool), ApiError> {
        let stored = stored.map(|stored| &stored.settings);
        let (authentication, keeps) = match asked.r#type.as_str() {
            "basic" => {
                let kept = match stored {
                    Some(Authentication::Basic { password, .. }) => Some(password),
                    _ => None,
                };
                let (password, keeps) = secret("password", asked.password, kept)?;
                let username = asked.username.ok_or_else(|| missing("username"))?;
                (Authentication::Basic { username, password }, keeps)
            }
            "bearer" => {
                let kept = match stored {
                    Some(Authentication::Bearer { token }) => Some(token),
                    _ => None,
                };
                let (token, keeps) = secret("token", asked.token, kept)?;
                (Authentication::Bearer { token }, keeps)
            }
            _ => self.oauth2(asked, stored).await?,
        };
        authentication.check().map_err(|fault| invalid(fault.member, fault.message))?;
        Ok((authentication, keeps))
    }

    async fn oauth2(
        &self,
        asked: NewAuthentication,
        stored: Option<&Authentication>,
    ) -> Result<(Authentication, bool), ApiError> {
        let token_url = asked.token_url.ok_or_else(|| missing("token_url"))?;
        let at = |error: ApiError| error.at("authentication.token_url");
        let token_url = self.url_to_try(&token_url).await.map_err(at)?;
        let kept = match stored {
            // The caller does not know the secret, and must not send it to another host.
            Some(Authentication::OAuth2(known)) if known.token_url.origin() == token_url.origin() => {
                Some(&known.client_secret)
            }
            _ => None,
        };
        let (client_secret, keeps) = secret("client_secret", asked.client_secret, kept)?;
        let place = asked.client_authentication.as_deref();
        let place = place.map_or(Some(ClientAuthentication::default()), ClientAuthentication::parse);
        let oauth2 = OAuth2 {
            token_url,
            client_id: asked.client_id.ok_or_else(|| missing("client_id"))?,
            client_secret,
            scope: asked.scope,
            audience: asked.audience,
            client_authentication: place
                .ok_or_else(|| invalid("client_authentication", "must be one of basic, body"))?,
        };
        Ok((Authentication::OAuth2(oauth2), keeps))
    }

    /// The token for a test of an endpoint with OAuth 2.0, shared with the dispatchers; `None` for other endpoints.
    pub(super) async fn token_for_test(&self, endpoint: &Endpoint) -> Result<Option<TestToken>, ApiError> {
        let Some((oauth2, version)) = endpoint.oauth2() else { return Ok(None) };
        let end = Instant::now() + TOKEN_LIMIT;
        while Instant::now() < end {
            let TokenLook { token, turn } = self.store.access_token(endpoint.id, version).await?;
            if turn == TokenTurn::Due {
                let fetch = LeaseId::new(self.store.now(), rand::random());
                if let Some(failures) = self.store.begin_fetch(endpoint.id, version, fetch).await? {
                    self.fetch_token(endpoint.id, oauth2, (version, fetch), failures).await?;
                    continue;
                }
            }
            if let Some(token) = token {
                let header = bearer(token.token.reveal());
                let generation = token.generation;
                return Ok(header.map(|header| TestToken { header, version, generation }));
            }
            match turn {
                TokenTurn::Until(_) => break,
                _ => sleep(TOKEN_LOOKS).await,
            }
        }
        let state = self.store.token_state(endpoint.id, version).await?;
        let why = match state.map(|state| state.error) {
            Some(Some(error)) => format!("the token server {error}"),
            Some(None) => "there is no token now, and the next is fetched in a few seconds".to_owned(),
            None => "the token server has given no token yet".to_owned(),
        };
        let message = format!("the test was not sent: {why}; test again later");
        Err(ApiError::new(ErrorCode::TokenUnavailable, message).retry_after(30))
    }

    async fn fetch_token(
        &self,
        endpoint: EndpointId,
        oauth2: &OAuth2,
        fetch: (i64, LeaseId),
        failures: u32,
    ) -> Result<(), ApiError> {
        let began = self.store.now();
        let fetched: Result<_, TokenFault> = self.client.fetch_token(oauth2).await;
        match fetched {
            Ok(granted) => self.store.grant_token(endpoint, fetch, &granted, began).await?,
            Err(fault) => {
                let is_stored = self.store.fail_token(endpoint, fetch, &fault, failures.saturating_add(1)).await?;
                if matches!(fault, TokenFault::EgressUnavailable(_)) {
                    let message = format!("the test was not sent: the token server {fault}; test again later");
                    return Err(ApiError::new(ErrorCode::EgressUnavailable, message).retry_after(30));
                }
                is_stored
            }
        };
        Ok(())
    }

    /// Discards a token that the receiver of a test refused.
    pub(super) async fn refuse_token(&self, endpoint: EndpointId, token: &TestToken) {
        if let Err(error) = self.store.refuse_token(endpoint, token.version, token.generation).await {
            tracing::warn!(%error, %endpoint, "cannot discard a token that the receiver refused; it stays until its end");
        }
    }

    /// The state of a webhook's tokens.
    pub(super) async fn token_state(&self, row: &EndpointRow) -> Result<Option<TokenStateView>, ApiError> {
        if row.authentication.as_ref().is_none_or(|authentication| authentication.r#type != "oauth2") {
            return Ok(None);
        }
        let state = self.store.token_state(row.id, row.authentication_version).await?;
        Ok(state.map(TokenStateView::from))
    }
}

/// A token for a test.
pub(super) struct TestToken {
    pub(super) header: HeaderValue,
    pub(super) version: i64,
    pub(super) generation: i64,
}

/// Refuses an own header `authorization` beside authentication. `row` is the present webhook.
fn check_header(settings: &EndpointSettings, row: Option<&EndpointRow>) -> Result<(), ApiError> {
    let has_header = match &settings.headers {
        Some(headers) => headers.keys().any(|name| name.eq_ignore_ascii_case("authorization")),
        None => row.is_some_and(|row| row.header_names.iter().any(|name| name == "authorization")),
    };
    let has_authentication = match &settings.authentication {
        Some(authentication) => authentication.is_some(),
        None => row.is_some_and(|row| row.authentication.is_some()),
    };
    if has_header && has_authentication {
        let message =
            "`headers` has an own header `authorization`, which `authentication` sets, too: remove one of them";
        return Err(ApiError::new(ErrorCode::InvalidField, message).at("authentication"));
    }
    Ok(())
}

/// A given secret, or the stored secret. Tells, too, whether it is the stored secret.
fn secret(
    member: &'static str,
    given: Option<String>,
    stored: Option<&HiddenText>,
) -> Result<(HiddenText, bool), ApiError> {
    match (given, stored) {
        (Some(given), _) => Ok((HiddenText::from(given), false)),
        (None, Some(stored)) => Ok((stored.clone(), true)),
        (None, None) => Err(missing(member)),
    }
}

fn invalid(member: &str, message: impl std::fmt::Display) -> ApiError {
    ApiError::invalid(&format!("authentication.{member}"), message)
}

fn missing(member: &str) -> ApiError {
    let member = format!("authentication.{member}");
    ApiError::new(ErrorCode::MissingField, format!("`{member}` is missing")).at(&member)
}

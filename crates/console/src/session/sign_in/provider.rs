//! The sign-in by a provider of OpenID Connect: code flow with PKCE, state and nonce.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{Query, State},
    http::{HeaderMap, header, request::Parts},
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fanfare_api::http::error::{ApiError, ErrorCode};
use fanfare_domain::{
    access::{
        Access, access,
        session::{Face, SessionToken, SignIn},
    },
    display_name::check_display_name,
};
use fanfare_store::NewSession;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use openidconnect::{
    AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse, IssuerUrl, Nonce,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse,
    core::{CoreAuthenticationFlow, CoreClient, CoreProviderMetadata},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Console, ProviderSignIn, Settings,
    session::{
        cookie::of_token,
        home::Home,
        sign_in::{To, attempt::Attempt, begin, local, sign_in_page},
    },
};

/// Deadline of a request to the provider, and the largest answer in bytes.
const DEADLINE: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 1024 * 1024;

/// Leads the browser to the provider.
pub(crate) async fn start(
    State((console, _)): State<(Console, Face)>,
    Query(query): Query<To>,
    headers: HeaderMap,
) -> Response {
    let to = local(query.to);
    match beginning(&console, &to).await {
        Ok((address, attempt)) => {
            let cookie = [(header::SET_COOKIE, attempt.header(&console.settings))];
            (AppendHeaders(cookie), Redirect::to(&address)).into_response()
        }
        Err(error) => sign_in_page(&console, &headers, Some(to), Some(error)),
    }
}

/// The answer of the provider, in the query.
#[derive(Deserialize)]
pub(crate) struct Answered {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

/// Begins a session of the visitor whom the provider names.
pub(crate) async fn finish(
    State((console, _)): State<(Console, Face)>,
    Query(answered): Query<Answered>,
    parts: Parts,
) -> Response {
    match session(&console, answered, &parts).await {
        Ok((token, to)) => {
            let settings = &console.settings;
            let cookies =
                [of_token(settings, Home::Console, &token), Attempt::end(settings)].map(|c| (header::SET_COOKIE, c));
            (AppendHeaders(cookies), Redirect::to(&to)).into_response()
        }
        Err(error) => sign_in_page(&console, &parts.headers, None, Some(error)),
    }
}

/// The address at the provider, and the attempt that the browser keeps.
async fn beginning(console: &Console, to: &str) -> Result<(String, Attempt), ApiError> {
    let settings = &*console.settings;
    let provider = provider(settings)?;
    let metadata = console.metadata.of(provider).await?;
    let client = CoreClient::from_provider_metadata(
        metadata,
        ClientId::new(provider.client_id.clone()),
        Some(ClientSecret::new(provider.client_secret.clone())),
    )
    .set_redirect_uri(redirect(settings)?);
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let flow = CoreAuthenticationFlow::AuthorizationCode;
    let mut request =
        client.authorize_url(flow, CsrfToken::new_random, Nonce::new_random).set_pkce_challenge(challenge);
    for scope in &provider.scopes {
        request = request.add_scope(Scope::new(scope.clone()));
    }
    let (url, state, nonce) = request.url();
    let attempt = Attempt {
        state: state.into_secret(),
        nonce: nonce.secret().clone(),
        verifier: verifier.into_secret(),
        to: to.to_owned(),
    };
    Ok((url.into(), attempt))
}

async fn session(console: &Console, answered: Answered, parts: &Parts) -> Result<(SessionToken, String), ApiError> {
    let provider = provider(&console.settings)?;
    let attempt = Attempt::of(&console.settings, &parts.headers)
        .ok_or_else(|| refused("the sign-in took longer than ten minutes, or began in another browser: begin again"))?;
    if answered.state.as_ref() != Some(&attempt.state) {
        return Err(refused("the answer belongs to another sign-in: begin again"));
    }
    let code = answered.code.ok_or_else(|| {
        let error = answered.error.unwrap_or_default();
        refused(format!("the provider refused the sign-in ({error}): ask the operator of the provider"))
    })?;
    let claims = claims(&console.settings, provider, &attempt, code).await?;
    let (name, access) = visitor(provider, &claims)?;
    let new = NewSession::of_console(name, SignIn::Provider, access.application(), access.rights());
    let token = begin(console, parts, new).await?;
    Ok((token, local(Some(attempt.to))))
}

/// Exchanges the code for an ID token, and checks signature, issuer, audience, time and nonce. Returns the claims.
async fn claims(
    settings: &Settings,
    provider: &ProviderSignIn,
    attempt: &Attempt,
    code: String,
) -> Result<Value, ApiError> {
    let http = Http::new(provider).map_err(|error| unreachable(&error))?;
    let metadata = metadata(provider, &http).await?;
    let client = CoreClient::from_provider_metadata(
        metadata,
        ClientId::new(provider.client_id.clone()),
        Some(ClientSecret::new(provider.client_secret.clone())),
    )
    .set_redirect_uri(redirect(settings)?);
    let send = |request| http.clone().send(request);
    let exchange = client.exchange_code(AuthorizationCode::new(code)).map_err(|error| unreachable(&error))?;
    let answer = exchange.set_pkce_verifier(PkceCodeVerifier::new(attempt.verifier.clone())).request_async(&send).await;
    let answer = answer.map_err(|error| {
        tracing::warn!(%error, "the provider of the sign-in gives no token for a code");
        refused("the provider gives no token for the sign-in: begin again; the log of ingest has the cause")
    })?;
    let invalid = || refused("the provider's token is not valid: the log of ingest has the cause");
    let token = answer.id_token().ok_or_else(invalid)?;
    token.claims(&client.id_token_verifier(), &Nonce::new(attempt.nonce.clone())).map_err(|error| {
        tracing::warn!(%error, "the ID token of a provider is not valid");
        invalid()
    })?;
    // The library's claims lack the claims of the provider: read them from the checked token.
    let text = token.to_string();
    let payload = text.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).ok_or_else(invalid)
}

/// The visitor's name, and the access by the claim of the settings. A user may choose every name but `sub`.
fn visitor(provider: &ProviderSignIn, claims: &Value) -> Result<(String, Access), ApiError> {
    let claim = |name: &str| claims[name].as_str().filter(|name| check_display_name(name).is_ok());
    let subject = claim("sub").ok_or_else(|| refused("the provider names no user: the ID token lacks sub"))?;
    let chosen = claim("preferred_username").or_else(|| claim("email"));
    let name = chosen.map(|chosen| format!("{chosen} ({subject})")).filter(|name| check_display_name(name).is_ok());
    let name = name.unwrap_or_else(|| subject.to_owned());
    let words: Vec<&str> = match &claims[&provider.claim] {
        // Anybody may give an address at some providers.
        Value::String(_) if provider.claim == "email" && claims["email_verified"] != true => Vec::new(),
        Value::String(word) => vec![word],
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let access = access(&provider.rules, &words).ok_or_else(|| {
        let claim = &provider.claim;
        refused(format!(
            "{name} has no access: the operator names a value of the claim {claim} in FANFARE_CONSOLE_ROLES"
        ))
    })?;
    Ok((name, access))
}

fn provider(settings: &Settings) -> Result<&ProviderSignIn, ApiError> {
    settings.provider.as_ref().ok_or_else(|| {
        refused("no provider of OpenID Connect signs in here: the operator sets FANFARE_OIDC_ISSUER, or use a key")
    })
}

fn redirect(settings: &Settings) -> Result<RedirectUrl, ApiError> {
    RedirectUrl::new(format!("{}/console/sign-in/callback", settings.origin())).map_err(|error| unreachable(&error))
}

/// Time until the metadata of the provider are read anew to begin a sign-in. Anybody can begin sign-ins.
const METADATA_KEPT: Duration = Duration::from_secs(300);

/// The metadata of the provider, as read last.
#[derive(Clone, Default)]
pub(crate) struct KeptMetadata(Arc<Mutex<Option<(Instant, CoreProviderMetadata)>>>);

impl KeptMetadata {
    async fn of(&self, provider: &ProviderSignIn) -> Result<CoreProviderMetadata, ApiError> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, metadata)) = kept.filter(|(read_at, _)| read_at.elapsed() < METADATA_KEPT) {
            return Ok(metadata);
        }
        let http = Http::new(provider).map_err(|error| unreachable(&error))?;
        let metadata = metadata(provider, &http).await?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), metadata.clone()));
        Ok(metadata)
    }
}

/// Reads addresses and keys of the provider. The end of a sign-in needs the present keys.
async fn metadata(provider: &ProviderSignIn, http: &Http) -> Result<CoreProviderMetadata, ApiError> {
    let issuer = IssuerUrl::new(provider.issuer.clone()).map_err(|error| unreachable(&error))?;
    let send = |request| http.clone().send(request);
    CoreProviderMetadata::discover_async(issuer, &send).await.map_err(|error| unreachable(&error))
}

fn refused(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Forbidden, message)
}

fn unreachable(error: &dyn std::error::Error) -> ApiError {
    // The outer error tells only the step.
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    tracing::warn!(%error, cause, "the provider of the sign-in cannot be used");
    let message =
        "the provider of the sign-in cannot be used now: the log of ingest has the cause. A key still signs in";
    ApiError::new(ErrorCode::InternalError, message)
}

/// A client for requests to the provider. Follows no redirect.
#[derive(Clone)]
struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    fn new(provider: &ProviderSignIn) -> io::Result<Self> {
        let mut roots = fanfare_tls::system_roots();
        if let Some(path) = &provider.extra_roots {
            fanfare_tls::add_roots(&mut roots, path).map_err(io::Error::other)?;
        }
        let tls = fanfare_tls::client_config(roots).map_err(io::Error::other)?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    async fn send(self, request: HttpRequest) -> io::Result<HttpResponse> {
        let work = async {
            let (head, body) = self.0.request(request.map(Full::from)).await.map_err(io::Error::other)?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(io::Error::other)?;
            Ok(HttpResponse::from_parts(head, body.to_bytes().into()))
        };
        tokio::time::timeout(DEADLINE, work).await?
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn provider_of(claim: &str) -> ProviderSignIn {
        ProviderSignIn {
            issuer: "https://id.example.com".to_owned(),
            client_id: "fanfare".to_owned(),
            client_secret: "secret".to_owned(),
            claim: claim.to_owned(),
            scopes: Vec::new(),
            rules: ["ops=admin", "ada@example.com=look"].map(|rule| rule.parse().expect("a rule")).to_vec(),
            extra_roots: None,
        }
    }

    fn access_of(claim: &str, claims: &Value) -> Option<Access> {
        visitor(&provider_of(claim), claims).ok().map(|(_, access)| access)
    }

    #[test]
    fn the_claim_decides() {
        let groups = |groups: Value| access_of("groups", &json!({ "sub": "1", "groups": groups }));
        assert_eq!(groups(json!(["staff", "ops"])), Some(Access::Administrator));
        assert_eq!(groups(json!("ops")), Some(Access::Administrator));
        assert_eq!(groups(json!(["staff"])), None);
        assert_eq!(groups(json!({ "ops": true })), None);
        assert_eq!(access_of("groups", &json!({ "groups": ["ops"] })), None);
    }

    #[test]
    fn a_chosen_name_stands_beside_the_subject() {
        let of = |claims: Value| {
            let provider = provider_of("groups");
            visitor(&provider, &claims).ok().map(|(name, _)| name)
        };
        let ops = json!(["ops"]);
        let name = of(json!({ "sub": "1", "preferred_username": "key_01h455vb4pex5vsknk084sn02q", "groups": ops }));
        assert_eq!(name.as_deref(), Some("key_01h455vb4pex5vsknk084sn02q (1)"));
        assert_eq!(of(json!({ "sub": "1", "groups": ops })).as_deref(), Some("1"));
        let long = json!({ "sub": "1", "email": "a".repeat(199), "groups": ops });
        assert_eq!(of(long).as_deref(), Some("1"));
        assert_eq!(of(json!({ "preferred_username": "ada", "groups": ops })), None);
    }

    #[test]
    fn an_address_counts_only_if_the_provider_has_verified_the_address() {
        let of = |verified: Value| {
            access_of("email", &json!({ "sub": "1", "email": "ada@example.com", "email_verified": verified }))
        };
        assert_eq!(of(json!(true)), Some(Access::Look));
        assert_eq!((of(json!(false)), of(json!("true")), of(Value::Null)), (None, None, None));
    }
}

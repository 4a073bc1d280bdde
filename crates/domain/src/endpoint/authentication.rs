//! Authentication of Fanfare at a receiver: HTTP Basic, bearer tokens, OAuth 2.0 client credentials, client
//! certificates.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use url::{Url, form_urlencoded};

/// Maximum length of a user name, a password, a client id, a client secret, a scope or an audience, in bytes.
const MAX_TEXT: usize = 1024;

/// Maximum length of a bearer token, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Minimum length of a fixed bearer token, in bytes: answers that echo a shorter token cannot be told from others.
const MIN_TOKEN: usize = 8;

/// Minimum length of user name and password together, in bytes: the header then has as many characters as a token.
const MIN_BASIC: usize = 3;

/// A secret text, hidden from `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HiddenText(String);

impl HiddenText {
    /// The secret text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for HiddenText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for HiddenText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HiddenText(…)")
    }
}

/// Authentication in the header `authorization`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Authentication {
    /// HTTP Basic (RFC 7617).
    Basic {
        /// User name, without a colon.
        username: String,
        /// Password.
        password: HiddenText,
    },
    /// A fixed bearer token (RFC 6750).
    Bearer {
        /// Token.
        token: HiddenText,
    },
    /// Bearer tokens of a token server, by client credentials (RFC 6749, 4.4).
    OAuth2(OAuth2),
}

/// Client credentials for a token server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuth2 {
    /// URL of the token server, checked as webhook URLs are.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub token_url: Url,
    /// Id of the client.
    pub client_id: String,
    /// Secret of the client.
    pub client_secret: HiddenText,
    /// Scope to ask for.
    pub scope: Option<String>,
    /// Audience to ask for.
    pub audience: Option<String>,
    /// Place of the client's id and secret.
    pub client_authentication: ClientAuthentication,
}

fn as_text<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(url.as_str())
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// Place of a client's id and secret in a request for a token (RFC 6749, 2.3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuthentication {
    /// The header `authorization`.
    #[default]
    Basic,
    /// The form of the body.
    Body,
}

impl ClientAuthentication {
    /// Name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Body => "body",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Basic, Self::Body].into_iter().find(|place| place.as_str() == text)
    }
}

/// A member that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AuthenticationFault {
    /// Name of the member below `authentication`.
    pub member: &'static str,
    /// The fault and the remedy, behind the member's name.
    pub message: String,
}

impl Authentication {
    /// Name of the type in the API.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Basic { .. } => "basic",
            Self::Bearer { .. } => "bearer",
            Self::OAuth2(_) => "oauth2",
        }
    }

    /// Checks the members that requests carry. The URL of the token server is checked elsewhere, as webhook URLs are.
    ///
    /// # Errors
    /// If a member is empty, too long, or has characters that the request cannot carry.
    pub fn check(&self) -> Result<(), AuthenticationFault> {
        match self {
            Self::Basic { username, password } => {
                check_text("username", username)?;
                if username.contains(':') {
                    let message = "cannot have a colon: HTTP Basic ends the user name at the first colon".to_owned();
                    return Err(AuthenticationFault { member: "username", message });
                }
                check_text("password", password.reveal())?;
                if username.len() + password.reveal().len() < MIN_BASIC {
                    let message =
                        format!("is too short: user name and password must have at least {MIN_BASIC} bytes together");
                    return Err(AuthenticationFault { member: "password", message });
                }
                Ok(())
            }
            Self::Bearer { token } => {
                check_token("token", token.reveal())?;
                if token.reveal().len() < MIN_TOKEN {
                    let message = format!("must have at least {MIN_TOKEN} characters: a shorter token can be guessed");
                    return Err(AuthenticationFault { member: "token", message });
                }
                Ok(())
            }
            Self::OAuth2(oauth2) => {
                check_text("client_id", &oauth2.client_id)?;
                check_text("client_secret", oauth2.client_secret.reveal())?;
                oauth2.scope.as_deref().map_or(Ok(()), |scope| check_text("scope", scope))?;
                oauth2.audience.as_deref().map_or(Ok(()), |audience| check_text("audience", audience))
            }
        }
    }

    /// Value of `authorization`; `None` for OAuth 2.0, whose value is the present token.
    pub fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Basic { username, password } => basic(username, password.reveal()),
            Self::Bearer { token } => bearer(token.reveal()),
            Self::OAuth2(_) => None,
        }
    }

    /// The part without secrets.
    pub fn shown(&self) -> ShownAuthentication {
        let shown = ShownAuthentication { r#type: self.type_name().to_owned(), ..ShownAuthentication::default() };
        match self {
            Self::Basic { username, .. } => ShownAuthentication { username: Some(username.clone()), ..shown },
            Self::Bearer { .. } => shown,
            Self::OAuth2(oauth2) => ShownAuthentication {
                token_url: Some(oauth2.token_url.to_string()),
                client_id: Some(oauth2.client_id.clone()),
                scope: oauth2.scope.clone(),
                audience: oauth2.audience.clone(),
                client_authentication: Some(oauth2.client_authentication.as_str().to_owned()),
                ..shown
            },
        }
    }
}

impl OAuth2 {
    /// Body of a request for a token, as a form.
    pub fn form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        if let Some(audience) = &self.audience {
            form.append_pair("audience", audience);
        }
        if self.client_authentication == ClientAuthentication::Body {
            form.append_pair("client_id", &self.client_id);
            form.append_pair("client_secret", self.client_secret.reveal());
        }
        form.finish()
    }

    /// Value of `authorization` in a request for a token; `None` if the form has the secret.
    pub fn header(&self) -> Option<HeaderValue> {
        // Both parts are encoded as in a form (RFC 6749, 2.3.1).
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        match self.client_authentication {
            ClientAuthentication::Basic => basic(&encoded(&self.client_id), &encoded(self.client_secret.reveal())),
            ClientAuthentication::Body => None,
        }
    }

    /// Host of the token server.
    pub fn host(&self) -> &str {
        self.token_url.host_str().unwrap_or_default()
    }
}

/// Authentication as people see it, without secrets. Members of other types are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownAuthentication {
    /// `basic`, `bearer` or `oauth2`.
    pub r#type: String,
    /// User name of `basic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// URL of the token server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// Id of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Scope of the tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Audience of the tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// `basic` or `body`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_authentication: Option<String>,
}

/// Authentication of an endpoint, ready for attempts.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Settings with secrets.
    pub settings: Authentication,
    /// Number of the settings. Grows with each change.
    pub version: i64,
    /// Value of `authorization`; `None` for OAuth 2.0.
    pub header: Option<HeaderValue>,
}

impl Credentials {
    /// Prepares stored settings.
    pub fn new(settings: Authentication, version: i64) -> Self {
        let header = settings.header();
        Self { settings, version, header }
    }

    /// The client credentials of OAuth 2.0.
    pub fn oauth2(&self) -> Option<&OAuth2> {
        match &self.settings {
            Authentication::OAuth2(oauth2) => Some(oauth2),
            Authentication::Basic { .. } | Authentication::Bearer { .. } => None,
        }
    }
}

/// A client certificate with its private key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// Certificates in PEM, the client's certificate first.
    pub chain: String,
    /// Private key in PEM.
    pub private_key: HiddenText,
    /// The part without secrets.
    pub shown: ShownCertificate,
}

/// A client certificate as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownCertificate {
    /// Subject of the certificate.
    pub subject: String,
    /// Issuer of the certificate.
    pub issuer: String,
    /// End of the certificate.
    pub not_after: Timestamp,
    /// SHA-256 of the certificate in DER, in hex.
    pub sha256: String,
}

/// Value of `authorization` with a bearer token. `None` for a text that is no token.
pub fn bearer(token: &str) -> Option<HeaderValue> {
    hidden_value(format!("Bearer {token}"))
}

fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    hidden_value(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

/// A value that lists of headers hide.
fn hidden_value(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Checks that a bearer token can be sent in a header.
///
/// # Errors
/// If the token is empty, too long, or has other characters than visible ASCII.
pub fn check_token(member: &'static str, token: &str) -> Result<(), AuthenticationFault> {
    if (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let message = format!("must have 1 to {MAX_TOKEN} characters of visible ASCII, without spaces");
    Err(AuthenticationFault { member, message })
}

fn check_text(member: &'static str, text: &str) -> Result<(), AuthenticationFault> {
    if (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("must have 1 to {MAX_TEXT} bytes, without control characters such as line breaks");
    Err(AuthenticationFault { member, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oauth2(client_authentication: ClientAuthentication) -> OAuth2 {
        OAuth2 {
            token_url: "https://login.example.com/token".parse().expect("URL"),
            client_id: "shop:1".to_owned(),
            client_secret: "s&cret".to_owned().into(),
            scope: Some("events.write all".to_owned()),
            audience: None,
            client_authentication,
        }
    }

    #[test]
    fn the_header_of_basic_is_that_of_the_rfc() {
        let authentication =
            Authentication::Basic { username: "Aladdin".to_owned(), password: "open sesame".to_owned().into() };
        let header = authentication.header().expect("a header");
        assert_eq!(header, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(header.is_sensitive(), "lists of headers hide the value");
    }

    #[test]
    fn the_secret_of_a_client_is_in_the_header_or_in_the_form() {
        let basic = oauth2(ClientAuthentication::Basic);
        assert_eq!(basic.form(), "grant_type=client_credentials&scope=events.write+all");
        let header = basic.header().expect("a header");
        let decoded = STANDARD.decode(&header.as_bytes()[6..]).expect("base64");
        assert_eq!(decoded, b"shop%3A1:s%26cret");
        let body = oauth2(ClientAuthentication::Body);
        assert!(body.form().ends_with("&client_id=shop%3A1&client_secret=s%26cret"));
        assert_eq!(body.header(), None);
    }

    #[test]
    fn no_secret_is_in_debug_or_in_the_shown_part() {
        let settings = Authentication::OAuth2(oauth2(ClientAuthentication::Basic));
        let shown = serde_json::to_string(&settings.shown()).expect("JSON");
        for text in [format!("{settings:?}"), format!("{:?}", Credentials::new(settings.clone(), 1)), shown] {
            assert!(!text.contains("s&cret") && text.contains("shop:1"), "{text}");
        }
        let stored = serde_json::to_string(&settings).expect("JSON");
        assert_eq!(serde_json::from_str::<Authentication>(&stored).ok(), Some(settings));
    }

    #[test]
    fn refuses_members_that_a_request_cannot_carry() {
        let basic = |username: &str, password: &str| Authentication::Basic {
            username: username.to_owned(),
            password: password.to_owned().into(),
        };
        let member = |authentication: &Authentication| authentication.check().map_err(|fault| fault.member);
        assert_eq!(member(&basic("user", "pass word ü")), Ok(()));
        assert_eq!(member(&basic("us:er", "x")), Err("username"));
        assert_eq!(member(&basic("user", "a\nb")), Err("password"));
        assert_eq!(member(&basic("user", "")), Err("password"));
        for token in ["", "a b", "a\n", "ü", "2shorty", &"x".repeat(MAX_TOKEN + 1)] {
            assert_eq!(member(&Authentication::Bearer { token: token.to_owned().into() }), Err("token"), "{token:?}");
        }
    }
}

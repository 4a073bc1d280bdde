//! `/api/v1/portal-links`: links that open the portal for a customer.

use std::{ops::RangeInclusive, time::Duration};

use axum::extract::State;
use fanfare_domain::{
    access::session::{Face, Right, Rights, SessionToken, SignIn},
    ids::{SessionId, is_id},
    theme::{Color, Density, Font, Radius, Scheme, Theme},
};
use fanfare_store::NewSession;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use crate::{
    http::{
        answer::{Answer, Created},
        authentication::{AuthorizedApplication, Creator},
        body::JsonBody,
        error::{ApiError, ErrorCode, Failures},
        parameters::check_display_name,
    },
    state::ApiState,
};

/// Time in which a link opens.
const OPENS_WITHIN: Duration = Duration::from_secs(60);

/// Time from the last request of a portal's session to its end.
const IDLE: Duration = Duration::from_secs(3600);

/// Lifetimes that a portal's session may have, in seconds.
const LIFETIMES: RangeInclusive<u64> = 60..=12 * 3600;

/// The longest address to return to, in bytes.
const MAX_BACK: usize = 2048;

/// Rights of a link that names no rights.
const USUAL_RIGHTS: [Right; 4] = [Right::View, Right::Payloads, Right::Test, Right::Resend];

/// A link to the portal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPortalLink)]
pub struct New {
    /// The person who gets the link, for the audit log and the list of sessions. Not an id.
    #[schema(example = "Ada of Acme")]
    pub name: String,
    /// `view`, `payloads`, `keys`, `test`, `resend`, `endpoints`, `replay` and `cancel`. Every session may view.
    /// Default: `view`, `payloads`, `test`, `resend`.
    #[schema(example = json!(["view", "payloads", "test", "resend", "endpoints"]))]
    pub rights: Option<Vec<String>>,
    /// The time from the opening to the end of the session, in seconds: 60 to 43200. Default: 43200 (12 hours). A
    /// session also ends after an hour without a request.
    pub expires_in_seconds: Option<u64>,
    /// The look of the portal.
    pub theme: Option<NewTheme>,
    /// The address of the link *Back* on the portal's pages: a URL with https.
    #[schema(example = "https://app.example.com/settings")]
    pub back: Option<String>,
}

/// The look of the portal. All members are optional.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PortalTheme)]
pub struct NewTheme {
    /// The colour of links and buttons. A colour without enough contrast (WCAG 2.2, 4.5:1) is darkened for light
    /// grounds and lightened for dark grounds.
    #[schema(example = "#0b57c2")]
    pub accent: Option<String>,
    /// The radius of corners, in pixels: 0 to 12. Default: 6.
    #[schema(example = 6)]
    pub radius: Option<u64>,
    /// `system`, `serif` or `mono`. Default: `system`.
    pub font: Option<String>,
    /// `auto`, `light` or `dark`. The visitor may choose another. Default: `auto`.
    pub scheme: Option<String>,
    /// `usual` or `compact`. Default: `usual`.
    pub density: Option<String>,
}

/// A link that opens the portal once.
#[derive(Debug, Serialize, ToSchema)]
pub struct PortalLink {
    /// The session that the link opens. `DELETE /sessions/{id}` revokes the link, and ends the session.
    #[schema(value_type = String, example = "ses_01h455vb4pex5vsknk084sn02q")]
    pub id: SessionId,
    /// The link, shown only in this answer.
    pub url: String,
    /// The link opens until this time.
    #[schema(value_type = String, format = DateTime)]
    pub opens_until: Timestamp,
}

/// Creates a link that opens the portal of an application once, within a minute. Programs that fetch the link in
/// advance do not use the link up. The session ends early if the key of the request is revoked or expires.
#[utoipa::path(post, path = "/portal-links", operation_id = "create_portal_link", tag = "web pages",
    request_body = New, responses((status = 201, body = Answer<PortalLink>), Failures))]
pub async fn create(
    State(api): State<ApiState>,
    AuthorizedApplication { application, .. }: AuthorizedApplication,
    creator: Creator,
    JsonBody(new): JsonBody<New>,
) -> Result<Created<PortalLink>, ApiError> {
    let pages = api.console_url.as_ref().ok_or_else(pages_off)?;
    check_display_name("name", &new.name)?;
    // The audit log and the list of sessions show a key by its id.
    if is_id(new.name.trim()) {
        return Err(ApiError::invalid("name", "must be the name of a person, not an id"));
    }
    let seconds = new.expires_in_seconds.unwrap_or(*LIFETIMES.end());
    if !LIFETIMES.contains(&seconds) {
        let message = format!("must be between {} and {}", LIFETIMES.start(), LIFETIMES.end());
        return Err(ApiError::invalid("expires_in_seconds", message));
    }
    let session = NewSession {
        face: Face::Portal,
        application: Some(application),
        rights: rights(new.rights.as_deref())?,
        key: creator.key,
        creator: creator.session,
        name: new.name,
        sign_in: SignIn::Link,
        lifetime: Duration::from_secs(seconds),
        idle: IDLE,
        back: new.back.as_deref().map(|back| address(back, pages)).transpose()?,
        theme: new.theme.as_ref().map(theme).transpose()?,
    };
    if api.store.application(application).await?.is_none() {
        return Err(ApiError::not_found("application", "no application has this id"));
    }
    let now = api.store.now();
    let token = SessionToken::from_random(SessionId::new(now, rand::random()), rand::random());
    api.store.create_session(&token, &session, Some(OPENS_WITHIN)).await?;
    let url = format!("{}/portal/open/{}", pages.origin().ascii_serialization(), token.reveal());
    Ok(Created(PortalLink { id: token.session, url, opens_until: now + OPENS_WITHIN }))
}

fn pages_off() -> ApiError {
    let message = "the portal is off: the operator sets FANFARE_CONSOLE_URL of ingest to the address of the web pages";
    ApiError::new(ErrorCode::PagesOff, message)
}

fn rights(names: Option<&[String]>) -> Result<Rights, ApiError> {
    let Some(names) = names else { return Ok(USUAL_RIGHTS.into_iter().collect()) };
    let known = Right::OF_PORTAL.map(Right::as_str).join(", ");
    let right = |(index, name): (usize, &String)| {
        let right = Right::OF_PORTAL.into_iter().find(|right| right.as_str() == name);
        right.ok_or_else(|| ApiError::invalid(&format!("rights[{index}]"), format!("must be one of {known}")))
    };
    names.iter().enumerate().map(right).collect()
}

fn theme(new: &NewTheme) -> Result<Theme, ApiError> {
    fn word<T: Default>(field: &str, given: Option<&str>, parse: fn(&str) -> Option<T>) -> Result<T, ApiError> {
        let invalid = || ApiError::invalid(field, "must be a word that the API's documentation lists");
        given.map_or_else(|| Ok(T::default()), |text| parse(text).ok_or_else(invalid))
    }
    let accent = |text: &String| text.parse::<Color>().map_err(|error| ApiError::invalid("theme.accent", error));
    let radius = |pixels: u64| Radius::try_from(pixels).map_err(|error| ApiError::invalid("theme.radius", error));
    Ok(Theme {
        accent: new.accent.as_ref().map(accent).transpose()?,
        radius: new.radius.map(radius).transpose()?,
        font: word("theme.font", new.font.as_deref(), Font::parse)?,
        scheme: word("theme.scheme", new.scheme.as_deref(), Scheme::parse)?,
        density: word("theme.density", new.density.as_deref(), Density::parse)?,
    })
}

/// Checks the address to return to. Pages over http may return to http: a link between them shows nothing more.
fn address(text: &str, pages: &Url) -> Result<String, ApiError> {
    let invalid = |message: &str| ApiError::invalid("back", message);
    if text.len() > MAX_BACK {
        return Err(ApiError::new(ErrorCode::FieldTooLong, format!("`back` has more than {MAX_BACK} bytes")).at("back"));
    }
    let url: Url = text.parse().map_err(|error| ApiError::invalid("back", format!("is no URL: {error}")))?;
    if url.scheme() != "https" && (url.scheme() != "http" || pages.scheme() != "http") {
        return Err(invalid("must be a URL with https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("must be a URL without user and password"));
    }
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_return_to_is_a_page_over_https() {
        let pages = |text: &str| text.parse::<Url>().expect("a URL");
        let (private, open) = (pages("https://fanfare.example.com"), pages("http://127.0.0.1:8080"));
        assert!(address("https://app.example.com/a?b#c", &private).is_ok());
        assert!(address("http://app.example.com/", &private).is_err());
        assert!(address("http://app.example.com/", &open).is_ok());
        for wrong in ["javascript:alert(1)", "data:text/html,x", "//app.example.com", "https://a:b@c.example", "/a"] {
            assert!(address(wrong, &open).is_err(), "{wrong}");
        }
        assert!(address(&format!("https://a.example/{}", "a".repeat(MAX_BACK)), &private).is_err());
    }

    #[test]
    fn a_link_gives_only_rights_of_the_portal() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(rights(None).map(Rights::names).ok(), Some(vec!["view", "payloads", "test", "resend"]));
        assert_eq!(rights(Some(&[])).map(Rights::names).ok(), Some(vec!["view"]));
        assert_eq!(rights(Some(&names(&["replay"]))).map(Rights::names).ok(), Some(vec!["view", "replay"]));
        let error = rights(Some(&names(&["view", "operate"]))).expect_err("not of the portal");
        assert_eq!(error.field.as_deref(), Some("rights[1]"));
    }

    #[test]
    fn a_theme_names_the_wrong_member() {
        let of = |accent: &str, radius: u64, font: &str| NewTheme {
            accent: Some(accent.to_owned()),
            radius: Some(radius),
            font: Some(font.to_owned()),
            ..NewTheme::default()
        };
        let field = |new: &NewTheme| theme(new).err().and_then(|error| error.field);
        assert_eq!(field(&of("#ffcc00", 12, "serif")), None);
        assert_eq!(field(&of("yellow", 12, "serif")).as_deref(), Some("theme.accent"));
        assert_eq!(field(&of("#ffcc00", 300, "serif")).as_deref(), Some("theme.radius"));
        assert_eq!(field(&of("#ffcc00", 12, "Arial")).as_deref(), Some("theme.font"));
    }
}

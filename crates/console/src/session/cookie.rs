//! Cookies: the session's token, and the visitor's preferences.

use axum::http::{HeaderMap, header};
use fanfare_domain::access::session::{CONSOLE_LIFETIME, Face, SessionToken};

use crate::{Settings, session::home::Home};

/// Name of the cookie of the visitor's preferences.
const PREFERENCES: &str = "fanfare-view";

/// Name of the cookie that shows whether a browser keeps cookies of the portal. A link is not used up without the
/// cookie.
const TRIAL: &str = "fanfare-trial";

/// Name of a session's cookie. Browsers take a cookie with the prefix `__Host-` only over https, for this host alone.
fn name(settings: &Settings, home: Home) -> String {
    let prefix = if settings.is_secure() { "__Host-" } else { "" };
    format!("{prefix}{}", home.cookie())
}

/// The session's token in the request's cookies.
pub(crate) fn token(settings: &Settings, home: Home, headers: &HeaderMap) -> Option<SessionToken> {
    cookies(headers, &name(settings, home)).find_map(|value| value.parse().ok())
}

/// The header that gives the browser a session's token. Each portal has a cookie of its own: the browser removes the
/// cookies of ended sessions, or the header of requests would grow.
pub(crate) fn of_token(settings: &Settings, home: Home, token: &SessionToken) -> String {
    let (name, site) = (name(settings, home), site(settings, home.face()));
    let lifetime = match home {
        Home::Console => String::new(),
        Home::Portal(_) => format!("Max-Age={}; ", CONSOLE_LIFETIME.as_secs()),
    };
    format!("{name}={}; Path=/; {lifetime}HttpOnly; {site}", token.reveal())
}

/// The header that takes the session's token away.
pub(crate) fn without_token(settings: &Settings, home: Home) -> String {
    format!("{}=; Path=/; Max-Age=0; HttpOnly; {}", name(settings, home), site(settings, home.face()))
}

/// The header that tries whether the browser keeps cookies of the portal.
pub(crate) fn trial(settings: &Settings) -> String {
    format!("{TRIAL}=kept; Path={}/open; Max-Age=300; HttpOnly; {}", Face::Portal.root(), site(settings, Face::Portal))
}

/// True if the browser has kept the cookie of [`trial`].
pub(crate) fn passed_trial(headers: &HeaderMap) -> bool {
    cookies(headers, TRIAL).next().is_some()
}

/// Attributes that tell on which sites' pages the browser sends a cookie.
fn site(settings: &Settings, face: Face) -> &'static str {
    match (settings.is_secure(), face) {
        (true, Face::Console) => "Secure; SameSite=Lax",
        // A frame of another site sends a cookie only with these attributes.
        (true, Face::Portal) => "Secure; SameSite=None; Partitioned",
        (false, _) => "SameSite=Lax",
    }
}

/// Preferences of a visitor, kept in the browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Preferences {
    /// `auto`, `light` or `dark`. `auto` leaves the choice to the portal's theme, and then to the system.
    pub(crate) scheme: &'static str,
    /// True for the browser's time zone, false for UTC.
    pub(crate) is_local_time: bool,
    /// True if single letters are shortcuts.
    pub(crate) has_shortcuts: bool,
}

pub(crate) const SCHEMES: [&str; 3] = ["auto", "light", "dark"];

impl Preferences {
    /// Reads the preferences from the request's cookies. Unknown words mean the defaults.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let text = cookies(headers, PREFERENCES).next().unwrap_or_default();
        let mut words = text.split('.');
        let scheme = words.next().unwrap_or_default();
        Self {
            scheme: SCHEMES.into_iter().find(|known| *known == scheme).unwrap_or("auto"),
            is_local_time: words.next() == Some("local"),
            has_shortcuts: words.next() != Some("off"),
        }
    }

    /// The header that keeps the preferences of the console or of the portal for a year. The script writes the same.
    pub(crate) fn header(self, settings: &Settings, face: Face) -> String {
        let zone = if self.is_local_time { "local" } else { "utc" };
        let shortcuts = if self.has_shortcuts { "on" } else { "off" };
        let (root, site) = (face.root(), site(settings, face));
        format!("{PREFERENCES}={}.{zone}.{shortcuts}; Path={root}; Max-Age=31536000; {site}", self.scheme)
    }
}

/// The values of the cookies with a name.
pub(super) fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let name = name.to_owned();
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(move |(known, _)| *known == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn preferences_round_trip() {
        for scheme in SCHEMES {
            for (is_local_time, has_shortcuts) in [(false, false), (false, true), (true, false), (true, true)] {
                let preferences = Preferences { scheme, is_local_time, has_shortcuts };
                let mut headers = HeaderMap::new();
                let settings = Settings {
                    url: "https://fanfare.example.com".parse().expect("a URL"),
                    portal_origins: Vec::new(),
                    broker_console: None,
                    proxy: None,
                    provider: None,
                };
                let sent = preferences.header(&settings, Face::Portal);
                let pair = format!("a=b; {}", sent.split(';').next().expect("a pair"));
                headers.insert(header::COOKIE, HeaderValue::from_str(&pair).expect("a header"));
                assert_eq!(Preferences::of(&headers), preferences);
            }
        }
        let usual = Preferences { scheme: "auto", is_local_time: false, has_shortcuts: true };
        assert_eq!(Preferences::of(&HeaderMap::new()), usual);
    }
}

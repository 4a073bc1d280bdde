//! The sign-in by the header of an authenticating proxy.
//!
//! The header counts only in a request that comes from a proxy of the settings itself. The session lives only while the
//! proxy names the same visitor with the same access: a change of groups takes effect at the next request.

use axum::http::{HeaderMap, HeaderName, request::Parts};
use fanfare_api::http::error::{ApiError, ErrorCode};
use fanfare_domain::{
    access::{
        Access, access,
        session::{Session, SessionToken, SignIn},
    },
    display_name::check_display_name,
    ids::is_id,
};
use fanfare_service::Peer;
use fanfare_store::NewSession;

use crate::{Console, ProxySignIn, session::sign_in::begin};

/// A visitor whom a proxy names.
pub(crate) struct Named {
    name: String,
    access: Access,
}

impl Named {
    /// True if the session belongs to the visitor, with the same access.
    pub(crate) fn owns(&self, session: &Session) -> bool {
        session.sign_in == SignIn::Proxy
            && session.name == self.name
            && session.application == self.access.application()
            && session.rights == self.access.rights()
    }

    /// Begins a session of the visitor.
    pub(crate) async fn begin(self, console: &Console, parts: &Parts) -> Result<SessionToken, ApiError> {
        let (application, rights) = (self.access.application(), self.access.rights());
        begin(console, parts, NewSession::of_console(self.name, SignIn::Proxy, application, rights)).await
    }
}

/// The visitor whom a proxy of the settings names in the request. `None` for another peer, or without the header.
///
/// # Errors
/// 403 for a header that is given twice or is no name, and for a visitor without access.
pub(crate) fn named(console: &Console, parts: &Parts) -> Result<Option<Named>, ApiError> {
    let Some(settings) = &console.settings.proxy else { return Ok(None) };
    let peer = parts.extensions.get().map(|Peer(peer)| peer.ip().to_canonical());
    if !peer.is_some_and(|peer| settings.proxies.iter().any(|network| network.contains(&peer))) {
        return Ok(None);
    }
    of_headers(settings, &parts.headers)
}

fn of_headers(settings: &ProxySignIn, headers: &HeaderMap) -> Result<Option<Named>, ApiError> {
    let Some(name) = only(headers, &settings.user)? else { return Ok(None) };
    // The audit log shows a key by its id.
    if check_display_name(name).is_err() || is_id(name) {
        return Err(forbidden(format!("the proxy's header {} is no name of a person", settings.user)));
    }
    let words: Vec<&str> = match &settings.groups {
        Some(groups) => only(headers, groups)?.unwrap_or_default().split([',', '|']).map(str::trim).collect(),
        None => vec![name],
    };
    let access = access(&settings.rules, &words).ok_or_else(|| {
        forbidden(format!("{name} has no access: the operator names a group of yours in FANFARE_CONSOLE_ROLES"))
    })?;
    Ok(Some(Named { name: name.to_owned(), access }))
}

/// The only value of a header. A second value may be the client's, which the proxy forgot to remove.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).into_iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(forbidden(format!("the header {name} is given twice: the proxy must replace the client's header")));
    }
    let text = first.map(|value| std::str::from_utf8(value.as_bytes())).transpose();
    let text = text.map_err(|_| forbidden(format!("the header {name} is not UTF-8")))?;
    Ok(text.map(str::trim).filter(|text| !text.is_empty()))
}

fn forbidden(message: String) -> ApiError {
    ApiError::new(ErrorCode::Forbidden, message)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn settings(groups: Option<&'static str>) -> ProxySignIn {
        ProxySignIn {
            user: HeaderName::from_static("x-user"),
            groups: groups.map(HeaderName::from_static),
            proxies: Vec::new(),
            rules: ["ops=admin", "ada=look"].map(|rule| rule.parse().expect("a rule")).to_vec(),
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn found(groups: Option<&'static str>, pairs: &[(&'static str, &'static str)]) -> Result<Option<Access>, ()> {
        of_headers(&settings(groups), &headers(pairs)).map(|named| named.map(|named| named.access)).map_err(|_| ())
    }

    #[test]
    fn groups_decide_if_the_proxy_sends_groups() {
        let groups = Some("x-groups");
        assert_eq!(found(groups, &[("x-user", "bob"), ("x-groups", "staff, ops")]), Ok(Some(Access::Administrator)));
        assert_eq!(found(groups, &[("x-user", "bob"), ("x-groups", "staff|ops")]), Ok(Some(Access::Administrator)));
        // A name is no group.
        assert_eq!(found(groups, &[("x-user", "ada"), ("x-groups", "staff")]), Err(()));
        assert_eq!(found(groups, &[("x-user", "ada")]), Err(()));
        assert_eq!(found(None, &[("x-user", "ada"), ("x-groups", "ops")]), Ok(Some(Access::Look)));
    }

    #[test]
    fn a_missing_or_doubtful_name_signs_nobody_in() {
        assert_eq!(found(None, &[]), Ok(None));
        assert_eq!(found(None, &[("x-user", " ")]), Ok(None));
        assert_eq!(found(None, &[("x-user", "ada"), ("x-user", "ops")]), Err(()));
        assert_eq!(
            found(Some("x-groups"), &[("x-user", "key_01h455vb4pex5vsknk084sn02q"), ("x-groups", "ops")]),
            Err(())
        );
        let twice = [("x-user", "ada"), ("x-groups", "ops"), ("x-groups", "staff")];
        assert_eq!(found(Some("x-groups"), &twice), Err(()));
    }
}

//! Form of URI references ([RFC 3986](https://www.rfc-editor.org/rfc/rfc3986), 4.1).

/// True for a URI reference that is not empty.
pub(super) fn is_reference(text: &str) -> bool {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (hierarchy, query) = rest.split_once('?').unwrap_or((rest, ""));
    let hierarchy = match hierarchy.split('/').next().and_then(|first| first.split_once(':')) {
        Some((scheme, _)) if !is_scheme(scheme) => return false,
        Some((scheme, _)) => &hierarchy[scheme.len() + 1..],
        None => hierarchy,
    };
    let (authority, path) = match hierarchy.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", hierarchy),
    };
    !text.is_empty()
        && is_authority(authority)
        && has_characters(path, b"/")
        && has_characters(query, b"/?")
        && has_characters(fragment, b"/?")
}

/// True for a URI reference with a scheme.
pub(super) fn is_absolute(text: &str) -> bool {
    is_reference(text) && text.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':'))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// True for `host`, `host:port` and `user@host:port`; a host may be an address in brackets.
fn is_authority(text: &str) -> bool {
    let (user, place) = text.rsplit_once('@').unwrap_or(("", text));
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_place = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            has_characters(address, b"") && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        }
        None => {
            let (host, port) = place.rsplit_once(':').unwrap_or((place, ""));
            has_characters(host, b"") && !host.contains([':', '@']) && is_port(port)
        }
    };
    is_place && has_characters(user, b"") && !user.contains('@')
}

/// True for `pchar` of RFC 3986, and `more`.
fn has_characters(text: &str, more: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
        byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(byte) || more.contains(byte),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_specifications_are_uri_references() {
        for text in [
            "https://github.com/cloudevents",
            "mailto:cncf-wg-serverless@lists.cncf.io",
            "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "cloudevents/spec/pull/123",
            "/sensors/tn-1234567/alerts",
            "1-555-123-4567",
            "ldap://[2001:db8::7]/c=GB?objectClass?one",
            "http://user:pass@[::1]:80/a%20b?c/d?e#f/g?h",
            "//host:80",
            "#f",
            ".",
            "./1a:b",
        ] {
            assert!(is_reference(text), "{text}");
        }
        for text in
            ["", "a b", "/a%2", "/a%zz", "ä", "1a:b", "a#b#c", "[a]", "/a[b]", "http://[::1]x", "//a:b:c", "<a>", "{a}"]
        {
            assert!(!is_reference(text), "{text}");
        }
        assert!(is_absolute("urn:a") && is_absolute("https://example.com/a?b#c"));
        assert!(!is_absolute("/a:b") && !is_absolute("a") && !is_absolute("?a:b"));
    }

    proptest! {
        /// What the library for URLs accepts as a relative reference without changes is a reference here.
        #[test]
        fn paths_of_urls_are_references(path in "/[a-z0-9._~!$&'()*+,;=:@-]{0,10}(\\?[a-z/?]{0,5})?(#[a-z/?]{0,5})?") {
            prop_assert!(is_reference(&path));
            let url = url::Url::parse("https://example.com").and_then(|base| base.join(&path)).expect("a URL");
            prop_assert!(is_absolute(url.as_str()));
        }

        #[test]
        fn other_characters_are_refused(before in "[a-z/]{0,5}", other in "[^!-~]|[\"<>\\\\^`{|}]", after in "[a-z/]{0,5}") {
            let text = format!("{before}{other}{after}");
            prop_assert!(!is_reference(&text));
        }
    }
}

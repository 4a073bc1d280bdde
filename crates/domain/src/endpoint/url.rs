//! Texts that may be saved as an endpoint's URL.
//!
//! A URL is parsed here, once, by the WHATWG rules (crate `url`). The normalised form is stored and dialled:
//! `http://127.1/`, `http://0x7f000001/` and `http://①②⑦.0.0.1/` all become `http://127.0.0.1/`. No second parser can
//! then read another host out of the same text.
//!
//! A name that resolves to a forbidden address passes this check, which only reports mistakes early. The protection is
//! [`AddressPolicy`], applied to the dialled address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use url::{Host, Url};

use crate::endpoint::address::AddressPolicy;

/// Maximum length of a URL, in bytes of the normalised form.
pub const MAX_URL_LENGTH: usize = 2048;

/// Host of a saved URL, in ASCII; `None` for a text that is no URL.
pub fn host_of(url: &str) -> Option<String> {
    Url::parse(url).ok()?.host_str().map(str::to_owned)
}

/// The deployment's rules for URLs: the same for a saved URL, a tested URL and every attempt.
#[derive(Debug, Clone, Default)]
pub struct UrlPolicy {
    /// True if `http://` is refused.
    pub https_only: bool,
    /// Permitted addresses.
    pub addresses: AddressPolicy,
    /// Permitted ports.
    pub ports: Ports,
}

/// Permitted ports. A service that expects no HTTP may read a request as a command. Below 1024, nearly all services are
/// of that kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    /// [`Ports::default`] as text.
    pub const DEFAULT: &str = "80,443,1024-65535";

    fn contain(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self(vec![80..=80, 443..=443, 1024..=65535])
    }
}

/// The text is not a list of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected ports and port ranges, separated by commas, such as {}", Ports::DEFAULT)]
pub struct NotPorts;

impl FromStr for Ports {
    type Err = NotPorts;

    fn from_str(text: &str) -> Result<Self, NotPorts> {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|&port| port > 0).ok_or(NotPorts);
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let range = port(first)?..=port(last)?;
            if range.is_empty() { Err(NotPorts) } else { Ok(range) }
        };
        text.split(',').map(range).collect::<Result<_, _>>().map(Self)
    }
}

/// The fault in a text that is refused as an endpoint's URL. The message includes the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// Longer than [`MAX_URL_LENGTH`].
    #[error("the URL is longer than {MAX_URL_LENGTH} bytes: shorten its path or query")]
    TooLong,
    /// A space or control character. A parser would silently drop or encode the character, and change the URL.
    #[error("the URL has a space or a control character in it: remove it, or write it as %20")]
    Whitespace,
    /// Not a URL.
    #[error("this is not a URL ({0}): write it like https://example.com/webhooks")]
    Unreadable(#[from] url::ParseError),
    /// Neither https nor http.
    #[error("the scheme {0} cannot be called: use https")]
    Scheme(String),
    /// Plain http, where the deployment requires https.
    #[error("http is not encrypted and not permitted here: use https")]
    HttpsRequired,
    /// `https://user:password@…`: would be stored and shown as plain text.
    #[error("the URL has a user name or password in it: remove it, and set an Authorization header instead")]
    Credentials,
    /// `…#fragment`: never sent.
    #[error("the URL has a fragment (#…), which is never sent: remove it")]
    Fragment,
    /// Port 0, which accepts no connection, or a port that the deployment does not permit.
    #[error("port {0} may not be called: let the endpoint listen on 443, or on a port above 1023")]
    Port(u16),
    /// No host to connect to.
    #[error("the URL has no host: write it like https://example.com/webhooks")]
    NoHost,
    /// A name with a meaning only inside a network.
    #[error("{0} is a name of a local network: use a host name that is known on the internet")]
    LocalName(String),
    /// A forbidden address literal.
    #[error("the address {address} may not be called, as it is {reason}: use a host that is reachable on the internet")]
    AddressForbidden {
        /// The address, parsed from any spelling.
        address: IpAddr,
        /// The rest of the sentence "it is …".
        reason: &'static str,
    },
}

/// Checks and normalises an endpoint's URL. Store the result's [`Url::as_str`].
///
/// # Errors
/// The first fault found.
pub fn check_url(text: &str, policy: &UrlPolicy) -> Result<Url, UrlFault> {
    if text.len() > MAX_URL_LENGTH {
        return Err(UrlFault::TooLong);
    }
    if text.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(UrlFault::Whitespace);
    }
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::EmptyHost => UrlFault::NoHost,
        other => UrlFault::Unreadable(other),
    })?;
    policy.check(&url)?;
    // Percent-encoding may have lengthened the text.
    if url.as_str().len() > MAX_URL_LENGTH {
        return Err(UrlFault::TooLong);
    }
    Ok(url)
}

impl UrlPolicy {
    /// Checks a URL as far as the text alone allows. Settings change: a saved URL may have to be refused later.
    ///
    /// Local names (a single label, or below `.local`, `.internal` and the like) are accepted if the operator has
    /// excepted any network from the denial, since their addresses can only be there. `localhost` and names below are
    /// accepted if a loopback address is excepted.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self, url: &Url) -> Result<(), UrlFault> {
        match url.scheme() {
            "https" => {}
            "http" if self.https_only => return Err(UrlFault::HttpsRequired),
            "http" => {}
            other => return Err(UrlFault::Scheme(other.to_owned())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlFault::Credentials);
        }
        if url.fragment().is_some() {
            return Err(UrlFault::Fragment);
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.ports.contain(port) {
            return Err(UrlFault::Port(port));
        }
        check_host(url.host().ok_or(UrlFault::NoHost)?, &self.addresses)
    }
}

fn check_host(host: Host<&str>, addresses: &AddressPolicy) -> Result<(), UrlFault> {
    let address = match host {
        Host::Domain(name) => return check_name(name, addresses),
        Host::Ipv4(address) => IpAddr::from(address),
        Host::Ipv6(address) => IpAddr::from(address),
    };
    match addresses.refusal(address) {
        Some(reason) => Err(UrlFault::AddressForbidden { address, reason }),
        None => Ok(()),
    }
}

/// Domains that do not exist on the internet (RFC 6762, RFC 8375, and domains that ICANN has reserved or declined), but
/// are used inside networks.
const LOCAL: [&str; 8] = ["local", "localdomain", "internal", "home.arpa", "corp", "home", "lan", "intranet"];

fn check_name(name: &str, addresses: &AddressPolicy) -> Result<(), UrlFault> {
    // A URL's host may have characters, such as a backtick, that a request's host and a name on the internet never
    // have.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(url::ParseError::InvalidDomainCharacter.into());
    }
    let labels = name.strip_suffix('.').unwrap_or(name);
    let is_below =
        |domain: &str| labels.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let permitted = if labels.is_empty() {
        return Err(UrlFault::NoHost);
    } else if is_below("localhost") {
        addresses.permits(Ipv4Addr::LOCALHOST.into()) || addresses.permits(Ipv6Addr::LOCALHOST.into())
    } else if !labels.contains('.') || LOCAL.into_iter().any(is_below) {
        addresses.has_exceptions()
    } else {
        true
    };
    if permitted { Ok(()) } else { Err(UrlFault::LocalName(labels.to_owned())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str) -> Result<Url, UrlFault> {
        check_url(text, &UrlPolicy::default())
    }

    fn check_allowing(text: &str, nets: &[&str]) -> Result<Url, UrlFault> {
        let allow = nets.iter().map(|net| net.parse().expect("network")).collect();
        check_url(text, &UrlPolicy { addresses: AddressPolicy::new(allow, Vec::new()), ..UrlPolicy::default() })
    }

    #[test]
    fn takes_and_normalises_ordinary_urls() {
        for (text, stored) in [
            ("https://example.com", "https://example.com/"),
            ("HTTPS://Example.COM:443/Hooks?token=a%20b", "https://example.com/Hooks?token=a%20b"),
            ("http://hooks.example.com:8080/a/../b", "http://hooks.example.com:8080/b"),
            ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
            ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
            ("https://134744072/", "https://8.8.8.8/"),
            ("https://example.com./", "https://example.com./"),
        ] {
            assert_eq!(check(text).expect(text).as_str(), stored);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let https_only = UrlPolicy { https_only: true, ..UrlPolicy::default() };
        assert_eq!(check_url("http://example.com/", &https_only), Err(UrlFault::HttpsRequired));
        assert_eq!(check(&format!("https://example.com/{}", "a".repeat(2048))), Err(UrlFault::TooLong));
        assert_eq!(check(&format!("https://example.com/{}", "ü".repeat(900))), Err(UrlFault::TooLong));
        for text in [
            " https://example.com",
            "https://example.com/\t",
            "https://exa\nmple.com",
            "https://example.com/a b",
            "https://example.com/\u{a0}",
            "https://example.com/\0",
        ] {
            assert_eq!(check(text), Err(UrlFault::Whitespace), "{text:?}");
        }
        for text in [
            "",
            "example.com",
            "/hooks",
            "https://[::1",
            "https://exa<mple.com/",
            "https://exa`mple.com/",
            "https://1.2.3.4.5/",
            "https://[fe80::1%25eth0]/",
        ] {
            assert!(matches!(check(text), Err(UrlFault::Unreadable(_))), "{text}: {:?}", check(text));
        }
        assert_eq!(check("ftp://example.com/"), Err(UrlFault::Scheme("ftp".to_owned())));
        assert_eq!(check("example.com:8080/hooks"), Err(UrlFault::Scheme("example.com".to_owned())));
        assert_eq!(check("https://user@example.com/"), Err(UrlFault::Credentials));
        assert_eq!(check("https://:secret@example.com/"), Err(UrlFault::Credentials));
        assert_eq!(check("https://example.com/#top"), Err(UrlFault::Fragment));
        for port in [0, 1, 22, 25, 79, 81, 444, 1023] {
            assert_eq!(check(&format!("https://example.com:{port}/")), Err(UrlFault::Port(port)));
        }
        assert_eq!(check("https://"), Err(UrlFault::NoHost));
        assert_eq!(check("https://./"), Err(UrlFault::NoHost));
    }

    #[test]
    fn ports_are_parsed_as_written() {
        assert_eq!(Ports::DEFAULT.parse(), Ok(Ports::default()));
        assert_eq!(" 25, 8000 - 8999".parse(), Ok(Ports(vec![25..=25, 8000..=8999])));
        for text in ["", "0", "80,", "http", "90-80", "65536", "-80", "80-"] {
            assert_eq!(text.parse::<Ports>(), Err(NotPorts), "{text}");
        }
        let policy = UrlPolicy { ports: "25".parse().expect("ports"), ..UrlPolicy::default() };
        assert!(check_url("https://example.com:25/", &policy).is_ok());
        assert_eq!(check_url("https://example.com/", &policy), Err(UrlFault::Port(443)));
    }

    #[test]
    fn local_names_need_an_exception() {
        for name in ["localhost", "LOCALHOST.", "app.localhost"] {
            let text = format!("http://{name}/");
            assert!(matches!(check(&text), Err(UrlFault::LocalName(_))), "{name}");
            assert!(check_allowing(&text, &["10.0.0.0/8"]).is_err(), "{name}");
            assert!(
                check_allowing(&text, &["127.0.0.0/8"]).is_ok() && check_allowing(&text, &["::1/128"]).is_ok(),
                "{name}"
            );
        }
        for name in [
            "receiver",
            "printer.local",
            "metadata.google.internal",
            "nas.home.arpa",
            "local",
            "localhost.localdomain",
            "wiki.corp.",
        ] {
            let text = format!("http://{name}/");
            assert!(matches!(check(&text), Err(UrlFault::LocalName(_))), "{name}");
            assert!(check_allowing(&text, &["10.0.0.0/8"]).is_ok(), "{name}");
        }
        assert!(check("https://notlocal.example/").is_ok() && check("https://mylocalhost.example/").is_ok());
    }

    #[test]
    fn other_spellings_of_an_address_are_seen_through() {
        for text in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.0.0.1./",
            "http://①②⑦.0.0.1/",
            "http://127。0。0。1/",
            "http:127.0.0.1/",
            "http:///127.0.0.1/",
            "http://127.0.0.1?@evil.example/",
            "http:\\\\127.0.0.1\\",
            "http://%31%32%37.0.0.1/",
        ] {
            let forbidden = UrlFault::AddressForbidden { address: Ipv4Addr::LOCALHOST.into(), reason: "loopback" };
            assert_eq!(check(text), Err(forbidden), "{text}");
            assert_eq!(
                check_allowing(text, &["127.0.0.0/8"]).map(|url| url.host_str().map(str::to_owned)),
                Ok(Some("127.0.0.1".to_owned())),
                "{text}"
            );
        }
        assert_eq!(check("http://evil.example\\@127.0.0.1/").expect("a path").host_str(), Some("evil.example"));
        assert!(check("http://[::ffff:127.0.0.1]/").is_err() && check("http://[::1]/").is_err());
    }

    proptest! {
        #[test]
        fn never_panics_and_is_stable(text in "(https?://)?\\PC{0,60}") {
            if let Ok(url) = check(&text) {
                prop_assert_eq!(check(url.as_str()), Ok(url));
            }
        }

        #[test]
        fn a_literal_is_judged_as_its_address_in_every_spelling(bits: u32) {
            let address = Ipv4Addr::from(bits);
            let [a, b, c, d] = address.octets();
            let permitted = AddressPolicy::default().permits(address.into());
            for host in [format!("{address}"), format!("{bits}"), format!("{bits:#x}"), format!("{bits:#o}").replacen("0o", "0", 1),
                format!("{a}.{b}.{}", u32::from(c) << 8 | u32::from(d)), format!("{a:#x}.{b}.{c}.{d}"), format!("[::ffff:{address}]"), format!("{address}.")] {
                prop_assert_eq!(check(&format!("http://{host}/")).is_ok(), permitted, "{}", host);
            }
            for carrier in [format!("http://[64:ff9b::{address}]/"), format!("http://[::{address}]/")] {
                prop_assert!(check(&carrier).is_err(), "{}", carrier);
            }
        }
    }
}

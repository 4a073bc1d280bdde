//! Which text may be saved as an endpoint's URL.
//!
//! It is parsed here, once, by the WHATWG rules (crate `url`), and what is stored and dialled is the
//! normalised form: `http://127.1/`, `http://0x7f000001/` and `http://①②⑦.0.0.1/` all become
//! `http://127.0.0.1/`, so that no second parser can read another host out of the same text.
//!
//! A name that resolves to a forbidden address cannot be seen here. This check tells people of a mistake
//! early; what protects is [`AddressPolicy`], applied to the address that is dialled.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use url::{Host, Url};

use crate::address::AddressPolicy;

/// The longest URL that is taken, in bytes of its normalised form.
pub const MAX_URL_LENGTH: usize = 2048;

/// What the deployment permits. The same for a URL that is saved, one that is tested, and every attempt.
#[derive(Debug, Clone, Default)]
pub struct UrlPolicy {
    /// Whether `http://` is refused.
    pub https_only: bool,
    /// Which addresses may be called.
    pub addresses: AddressPolicy,
    /// Which ports may be called.
    pub ports: Ports,
}

/// The ports that may be called. A request to a port where no HTTP is expected can be read as a command by what listens
/// there; below 1024 nearly nothing else is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    /// [`Ports::default`], as it is written.
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

/// Why a text is no list of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected ports and ranges of them, separated by commas, such as {}", Ports::DEFAULT)]
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

/// What is wrong with a text that is not taken as an endpoint's URL, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// Longer than [`MAX_URL_LENGTH`].
    #[error("the URL is longer than {MAX_URL_LENGTH} bytes: shorten its path or query")]
    TooLong,
    /// A parser would silently drop or encode it, and the URL would not be the one that was meant.
    #[error("the URL has a space or a control character in it: remove it, or write it as %20")]
    Whitespace,
    /// Not a URL.
    #[error("this is not a URL ({0}): write it like https://example.com/webhooks")]
    Unreadable(#[from] url::ParseError),
    /// Neither https nor http.
    #[error("the scheme {0} cannot be called: use https")]
    Scheme(String),
    /// Plain http where the deployment wants https.
    #[error("http is not encrypted and not permitted here: use https")]
    HttpsRequired,
    /// `https://user:password@…`: it would be stored and shown as plain text.
    #[error("the URL has a user name or password in it: remove it, and set an Authorization header instead")]
    Credentials,
    /// `…#fragment`: never sent.
    #[error("the URL has a fragment (#…), which is never sent: remove it")]
    Fragment,
    /// Port 0, which cannot be connected to, or one that the deployment does not permit.
    #[error("port {0} may not be called: let the endpoint listen on 443, or on a port above 1023")]
    Port(u16),
    /// Nothing to connect to.
    #[error("the URL has no host: write it like https://example.com/webhooks")]
    NoHost,
    /// A name that means something only inside a network.
    #[error("{0} is a name of a local network: use a host name that is known on the internet")]
    LocalName(String),
    /// An address literal that may not be called.
    #[error("the address {address} may not be called, as it is {reason}: use a host that is reachable on the internet")]
    AddressForbidden {
        /// The address, however it was written.
        address: IpAddr,
        /// The rest of the sentence "it is …".
        reason: &'static str,
    },
}

/// Takes a text as an endpoint's URL and gives it back normalised; [`Url::as_str`] is what to store.
///
/// # Errors
/// With the first fault that it finds.
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
    // Percent-encoding may have made it longer than what was given.
    if url.as_str().len() > MAX_URL_LENGTH {
        return Err(UrlFault::TooLong);
    }
    Ok(url)
}

impl UrlPolicy {
    /// Whether a URL may be called, as far as the URL says. Settings change: one that was saved may have to be refused.
    ///
    /// Local names (of one label, or below `.local`, `.internal` and the like) are taken where the operator
    /// has excepted any network from the denial, as their addresses can only lie there; `localhost`, and
    /// what is below it, where that holds for a loopback address.
    ///
    /// # Errors
    /// With the first fault that it finds.
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

/// Domains that there are not on the internet (RFC 6762, RFC 8375, and what ICANN has set aside or declined), and that
/// networks use inside.
const LOCAL: [&str; 8] = ["local", "localdomain", "internal", "home.arpa", "corp", "home", "lan", "intranet"];

fn check_name(name: &str, addresses: &AddressPolicy) -> Result<(), UrlFault> {
    // Those of a URL may hold what no request's may, such as a backtick, and no name on the internet has.
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
    fn ports_are_read_as_they_are_written() {
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

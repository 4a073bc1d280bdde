//! The broker's nodes, and the order of connection attempts.

use std::{fmt, path::Path, str::FromStr, sync::Arc};

use fanfare_credentials::{Credentials, Secret};
use fanfare_tls::{add_roots, client_config, system_roots};
use lapin::uri::{AMQPScheme, AMQPUri, AMQPUserInfo};
use rustls::{ClientConfig, pki_types::ServerName};

/// URL of the broker: `amqp://user:password@host:port/vhost`, or the URLs of a cluster's nodes, separated by commas.
/// With `amqps:`, the parameter `cacertfile` (RabbitMQ's own name) names a PEM file of certificates to trust in
/// addition to the system's.
#[derive(Clone)]
pub struct BrokerUrls(Vec<Node>);

/// A node of the broker.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) url: AMQPUri,
    /// For `amqps:`.
    pub(crate) tls: Option<Tls>,
}

/// TLS to a node.
#[derive(Clone)]
pub(crate) struct Tls {
    /// The name in the node's certificate.
    pub(crate) name: ServerName<'static>,
    pub(crate) settings: Arc<ClientConfig>,
}

impl FromStr for BrokerUrls {
    type Err = String;

    /// Parses the URLs. An error names a URL by position and never shows the text, which contains a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let texts = split(text);
        let (mut urls, mut complaints) = (Vec::new(), Vec::new());
        for (index, text) in texts.iter().enumerate() {
            match parse(text) {
                Ok(url) => urls.push(url),
                Err(complaint) if texts.len() == 1 => complaints.push(complaint),
                Err(complaint) => complaints.push(format!("URL {} of {}: {complaint}", index + 1, texts.len())),
            }
        }
        if texts.is_empty() {
            complaints.push("no URL is given".to_owned());
        }
        if complaints.is_empty() { Ok(Self(urls)) } else { Err(complaints.join("; ")) }
    }
}

impl fmt::Debug for BrokerUrls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(Node::address)).finish()
    }
}

impl BrokerUrls {
    /// Number of nodes.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// All nodes in turn, again and again, from `first` on.
    pub(crate) fn turns(&self, first: usize) -> impl Iterator<Item = &Node> + Send {
        self.0.iter().cycle().skip(first)
    }
}

impl Node {
    /// Host and port, without the password.
    pub(crate) fn address(&self) -> String {
        let (host, port) = (&self.url.authority.host, self.url.authority.port);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// User and password for the next login. The file of the URLs may have changed since the start.
    pub(crate) fn login(&self, credentials: &Credentials) -> AMQPUserInfo {
        let (username, password) = credentials.apart();
        let of_url = &self.url.authority.userinfo;
        let of_file = || self.login_in(&credentials.url).unwrap_or_else(|| of_url.clone());
        let of_url = if credentials.url.is_in_file() { of_file() } else { of_url.clone() };
        AMQPUserInfo { username: username.unwrap_or(of_url.username), password: password.unwrap_or(of_url.password) }
    }

    /// User and password of this node in a file of URLs.
    fn login_in(&self, urls: &Secret) -> Option<AMQPUserInfo> {
        let nodes = split(&urls.text()).into_iter().filter_map(|url| read_uri(&url).ok());
        let found = nodes
            .map(|(url, _)| url.authority)
            .find(|authority| (&authority.host, authority.port) == (&self.url.authority.host, self.url.authority.port));
        if found.is_none() {
            tracing::warn!(node = self.address(), "the file of AMQP_URL_FILE has lost this node; keeping the login");
        }
        Some(found?.userinfo)
    }
}

/// Splits a text into URLs. A comma without a URL behind belongs to the URL before, since a password may contain
/// commas.
fn split(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for piece in text.split(',') {
        match urls.last_mut() {
            Some(url) if !begins_url(piece) => url.extend([",", piece]),
            _ => urls.push(piece.to_owned()),
        }
    }
    let bare = |url: String| url.trim_matches(|letter: char| letter == ',' || letter.is_whitespace()).to_owned();
    urls.into_iter().map(bare).filter(|url| !url.is_empty()).collect()
}

/// True for the beginning of any URL, malformed URLs included.
fn begins_url(piece: &str) -> bool {
    piece.contains("://") || piece.trim_start().to_lowercase().starts_with("amqp")
}

/// Parses a URL. The scheme is checked first, since the parser's error about any other text would show the text.
fn parse(text: &str) -> Result<Node, String> {
    match text.split_once("://") {
        Some((scheme, _)) if ["amqp", "amqps"].contains(&scheme.to_lowercase().as_str()) => {}
        _ => return Err("it begins with neither amqp:// nor amqps://".to_owned()),
    }
    let (url, file) = read_uri(text)?;
    let tls = match (&url.scheme, file) {
        (AMQPScheme::AMQPS, file) => Some(tls(&url.authority.host, file.as_deref())?),
        (AMQPScheme::AMQP, None) => None,
        (AMQPScheme::AMQP, Some(_)) => return Err("its cacertfile needs amqps://".to_owned()),
    };
    Ok(Node { url, tls })
}

/// Reads a URL, and the path of its `cacertfile`.
fn read_uri(text: &str) -> Result<(AMQPUri, Option<String>), String> {
    let (text, file) = without_file(text)?;
    let mut url: AMQPUri = text.parse()?;
    if let Some(host) = ipv6_host(&text) {
        url.authority.host = host.to_owned();
    }
    Ok((url, file))
}

/// Splits off the value of `cacertfile`, unknown to lapin.
fn without_file(text: &str) -> Result<(String, Option<String>), String> {
    const NAME: &str = "cacertfile=";
    let Some((address, query)) = text.split_once('?') else { return Ok((text.to_owned(), None)) };
    let (ours, others): (Vec<&str>, Vec<&str>) = query.split('&').partition(|parameter| parameter.starts_with(NAME));
    let rest = if others.is_empty() { address.to_owned() } else { format!("{address}?{}", others.join("&")) };
    let Some(file) = ours.last() else { return Ok((rest, None)) };
    let file = percent_encoding::percent_decode_str(&file[NAME.len()..]).decode_utf8();
    Ok((rest, Some(file.map_err(|_| "its cacertfile is not UTF-8")?.into_owned())))
}

/// The IPv6 address of a URL. lapin's parser takes such a host for no host, and connects to localhost.
fn ipv6_host(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(host.strip_prefix('[')?.split_once(']')?.0)
}

/// TLS that trusts the system's root certificates and the certificates in the file.
fn tls(host: &str, file: Option<&str>) -> Result<Tls, String> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| format!("its host {host} cannot be the name of a certificate"))?;
    let mut roots = system_roots();
    if let Some(file) = file {
        add_roots(&mut roots, Path::new(file)).map_err(|error| format!("its cacertfile cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("this system has no root certificates: name a file by cacertfile".to_owned());
    }
    let settings = client_config(roots).map_err(|error| error.to_string())?;
    Ok(Tls { name, settings: Arc::new(settings) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hosts(text: &str) -> Vec<String> {
        text.parse::<BrokerUrls>().expect("URLs").0.iter().map(Node::address).collect()
    }

    #[test]
    fn a_file_of_certificates_is_taken_out_and_must_be_one() {
        let (url, file) = without_file("amqps://h/v?heartbeat=5&cacertfile=%2Fa%20b&x=1").expect("a URL");
        assert_eq!((url.as_str(), file.as_deref()), ("amqps://h/v?heartbeat=5&x=1", Some("/a b")));
        for (scheme, file, complaint) in [
            ("amqps", "/nowhere", "cannot be used: cannot read root certificates from /nowhere"),
            ("amqps", "/dev/null", "/dev/null holds no PEM certificate"),
            ("amqp", "/dev/null", "needs amqps://"),
        ] {
            let fault =
                format!("{scheme}://u:secret@h/v?cacertfile={file}").parse::<BrokerUrls>().expect_err("no file");
            assert!(fault.contains(complaint) && !fault.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn an_ipv6_address_is_a_host() {
        assert_eq!(hosts("amqp://u:p@[2001:db8::1]:5673/v,amqp://[::1]"), ["[2001:db8::1]:5673", "[::1]:5672"]);
        assert_eq!(hosts("amqp://u:p%5B@host/[v]"), ["host:5672"]);
    }

    #[test]
    fn settings_beat_the_login_of_the_url() {
        let node = &"amqp://u:p@host".parse::<BrokerUrls>().expect("a URL").0[0];
        let login = |credentials: &Credentials| {
            let AMQPUserInfo { username, password } = node.login(credentials);
            (username, password)
        };
        let mut credentials = Credentials::of_url("amqp://u:p@host");
        assert_eq!(login(&credentials), ("u".to_owned(), "p".to_owned()));
        credentials.password = Some(Secret::new("p@ss/w"));
        assert_eq!(login(&credentials), ("u".to_owned(), "p@ss/w".to_owned()));
        credentials.username = Some(Secret::new("us er"));
        assert_eq!(login(&credentials), ("us er".to_owned(), "p@ss/w".to_owned()));
    }

    #[test]
    fn the_file_of_the_urls_is_read_at_each_login() {
        let path = std::env::temp_dir().join(format!("fanfare-urls-{}", std::process::id()));
        std::fs::write(&path, "amqp://u:first@a,amqp://u:other@b\n").expect("a file");
        let credentials = Credentials { url: Secret::in_file(&path).expect("a file"), username: None, password: None };
        let urls: BrokerUrls = credentials.url.text().parse().expect("URLs");
        assert_eq!(urls.0[0].login(&credentials).password, "first");
        std::fs::write(&path, "amqp://u:second@a").expect("a file");
        assert_eq!(urls.0[0].login(&credentials).password, "second");
        // The node is missing in the file.
        assert_eq!(urls.0[1].login(&credentials).password, "other");
        std::fs::remove_file(&path).expect("a file");
    }

    #[test]
    fn a_url_without_a_list_is_a_single_node() {
        for text in
            ["amqp://", "amqp://u:a,b@host/v", "AMQPS://host:1/a,b?heartbeat=5", " amqp://u:p@127.0.0.1:5672/%2f\n"]
        {
            let urls: BrokerUrls = text.parse().expect("a URL");
            let urls: Vec<AMQPUri> = urls.0.into_iter().map(|node| node.url).collect();
            assert_eq!(urls, [text.parse::<AMQPUri>().expect("a URL")], "{text}");
        }
    }

    #[test]
    fn several_are_separated_by_commas() {
        let expected = ["a:5672", "b:5671", "c:1"];
        assert_eq!(hosts("amqp://u:p@a/v,amqps://u:p@b/v,amqp://u:p@c:1/v"), expected);
        assert_eq!(hosts("amqp://u:p@a/v,\n  amqps://u:p,q@b/v , ,amqp://u:p@c:1/v,\n"), expected);
    }

    #[test]
    fn a_complaint_tells_which_and_shows_no_password() {
        let cases = [
            ("user:hunter2@host", "it begins with neither amqp:// nor amqps://"),
            ("amqp:user:hunter2@host", "it begins with neither amqp:// nor amqps://"),
            ("amqp://a,amqp:u:hunter2@b", "URL 2 of 2: it begins with neither amqp:// nor amqps://"),
            ("amqp://a,http://u:hunter2@b", "URL 2 of 2: it begins with neither amqp:// nor amqps://"),
            (
                "amqp://u:hunter2@:none,amqp://b,amqp://u:hunter2@c:x/v",
                "URL 1 of 3: empty host; URL 3 of 3: invalid port number",
            ),
            (",", "no URL is given"),
        ];
        for (text, complaint) in cases {
            assert_eq!(text.parse::<BrokerUrls>().expect_err(text), complaint, "{text}");
        }
        let shown = format!("{:?}", "amqp://u:hunter2@a,amqp://u:hunter2@b:1".parse::<BrokerUrls>().expect("URLs"));
        assert_eq!(shown, r#"["a:5672", "b:1"]"#);
    }

    proptest! {
        #[test]
        fn what_was_joined_is_split(
            nodes in prop::collection::vec(("[a-z]{1,8}", "[a-z,]{0,8}", 1_u16.., "[a-z0-9]{1,5}"), 1..6),
            between in prop::sample::select(vec![",", ", ", " ,\n", ",,"]),
        ) {
            let urls: Vec<String> =
                nodes.iter().map(|(user, password, port, host)| format!("amqp://{user}:{password}@{host}:{port}/v")).collect();
            prop_assert_eq!(split(&urls.join(between)), urls);
        }

        #[test]
        fn each_round_has_all_of_them(count in 1_usize..6, first in 0_usize..6, past in 0_usize..20) {
            let texts: Vec<String> = (1..=count).map(|port| format!("amqp://host:{port}")).collect();
            let urls: BrokerUrls = texts.join(",").parse().expect("URLs");
            let mut turns = urls.turns(first).map(|node| usize::from(node.url.authority.port));
            prop_assert_eq!(turns.next(), Some(first % count + 1));
            let mut round: Vec<usize> = turns.skip(past).take(count).collect();
            round.sort_unstable();
            prop_assert_eq!(round, (1..=count).collect::<Vec<_>>());
        }
    }
}

//! Forbidden addresses, ports and schemes are never called.

use fanfare_domain::delivery::outcome::Outcome;
use fanfare_outbound::{Client, Settings};

use crate::receiver::{AMPLE, Receiver, allowing, https_only, request};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn no_spelling_reaches_the_loopback() {
    let receiver = Receiver::answering(OK).await;
    let client = Client::new(&Settings::default()).expect("client");
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "①②⑦.0.0.1",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2606:4700::5efe:127.0.0.1]",
    ] {
        let url = format!("http://{host}:{}/", receiver.address.port());
        let exchange = client.post(request(&url, AMPLE)).await.expect("our egress works");
        assert_eq!(exchange.outcome, Outcome::AddressForbidden, "{host}");
        let error = exchange.error.expect("a text");
        let is_name = host.eq_ignore_ascii_case("localhost");
        assert!(!is_name || !error.contains("127") && !error.contains("::"), "shows no address: {error}");
    }
    assert_eq!(receiver.accepted(), 0);
}

#[tokio::test]
async fn an_allowed_network_permits_only_its_addresses() {
    let receiver = Receiver::answering(OK).await;
    let only = |net: &str| Client::new(&allowing(&[net])).expect("client");
    let url = format!("http://127.1:{}/", receiver.address.port());
    assert_eq!(
        only("127.0.0.2/32").post(request(&url, AMPLE)).await.expect("our egress works").outcome,
        Outcome::AddressForbidden
    );
    let exchange = only("127.0.0.1/32").post(request(&url, AMPLE)).await.expect("our egress works");
    assert_eq!(exchange.outcome.status(), Some(200));
    assert_eq!(receiver.accepted(), 1);
}

#[tokio::test]
async fn only_https_where_the_deployment_wants_it() {
    let receiver = Receiver::answering(OK).await;
    let client = Client::new(&https_only(allowing(&["127.0.0.0/8"]))).expect("client");
    let exchange = client.post(request(&receiver.url(), AMPLE)).await.expect("our egress works");
    assert_eq!(exchange.outcome, Outcome::NotSendable);
    assert_eq!(
        client.post(request("ftp://example.com/", AMPLE)).await.expect("our egress works").outcome,
        Outcome::NotSendable
    );
    assert_eq!(receiver.accepted(), 0);
}

#[tokio::test]
async fn only_ports_that_the_deployment_permits() {
    let receiver = Receiver::answering(OK).await;
    let mut settings = allowing(&["127.0.0.0/8"]);
    settings.policy.ports = "80,443".parse().expect("ports");
    let client = Client::new(&settings).expect("client");
    let exchange = client.post(request(&receiver.url(), AMPLE)).await.expect("our egress works");
    assert_eq!(exchange.outcome, Outcome::NotSendable);
    assert!(exchange.error.is_some_and(|error| error.contains(&receiver.address.port().to_string())));
    assert_eq!(receiver.accepted(), 0);
}

/// The addresses of a name are also checked before a URL is saved.
#[tokio::test]
async fn a_name_of_a_forbidden_address_is_refused_ahead() {
    let ahead = async |settings: &Settings, url: &str| {
        Client::new(settings).expect("client").refusal(&url.parse().expect("URL")).await
    };
    let strict = Settings::default();
    let refused = ahead(&strict, "https://localhost/").await.expect("a reason");
    assert!(refused.contains("loopback") && !refused.contains("127"), "{refused}");
    assert_eq!(ahead(&allowing(&["127.0.0.0/8", "::1/128"]), "https://localhost/").await, None);
    assert_eq!(ahead(&strict, "https://no-such-host.invalid/").await, None);
}

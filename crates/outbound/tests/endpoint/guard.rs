//! What may not be called is not called.

use fanfare_domain::outcome::Outcome;
use fanfare_outbound::{Client, Settings};

use crate::receiver::{AMPLE, Receiver, request};

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
    ] {
        let url = format!("http://{host}:{}/", receiver.address.port());
        let exchange = client.post(request(&url, AMPLE)).await;
        assert_eq!(exchange.outcome, Outcome::AddressForbidden, "{host}");
        let error = exchange.error.expect("a text");
        assert!(!error.contains("127") && !error.contains("::"), "tells no address: {error}");
    }
    assert_eq!(receiver.accepted(), 0);
}

#[tokio::test]
async fn an_exception_opens_what_it_names() {
    let receiver = Receiver::answering(OK).await;
    let only = |net: &str| {
        Client::new(&Settings { allow: vec![net.parse().expect("network")], ..Settings::default() }).expect("client")
    };
    let url = format!("http://127.1:{}/", receiver.address.port());
    assert_eq!(only("127.0.0.2/32").post(request(&url, AMPLE)).await.outcome, Outcome::AddressForbidden);
    let exchange = only("127.0.0.1/32").post(request(&url, AMPLE)).await;
    assert_eq!(exchange.outcome.status(), Some(200));
    assert_eq!(receiver.accepted(), 1);
}

#[tokio::test]
async fn only_https_where_the_deployment_wants_it() {
    let receiver = Receiver::answering(OK).await;
    let settings =
        Settings { allow: vec!["127.0.0.0/8".parse().expect("network")], https_only: true, extra_roots: None };
    let client = Client::new(&settings).expect("client");
    let exchange = client.post(request(&receiver.url(), AMPLE)).await;
    assert_eq!(exchange.outcome, Outcome::NotSendable);
    assert_eq!(client.post(request("ftp://example.com/", AMPLE)).await.outcome, Outcome::NotSendable);
    assert_eq!(receiver.accepted(), 0);
}

//! Requests through the operator's egress proxy.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fanfare_credentials::Secret;
use fanfare_domain::delivery::outcome::Outcome;
use fanfare_outbound::{Client, Proxy, Settings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional, sink},
    net::TcpStream,
    time::sleep,
};

use crate::{
    receiver::{AMPLE, Receiver, SHORT, allowing, request, status},
    tls::{receiver_named, trusting_in},
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A proxy with a fixed answer, and the requests that the proxy received. An answer with status 200 opens a tunnel.
async fn proxy(answer: &'static str) -> (Receiver, Arc<Mutex<Vec<String>>>) {
    proxy_by(move |_| answer).await
}

/// Starts a proxy that chooses the answer by the head of the request.
async fn proxy_by(
    answer: impl Fn(&str) -> &'static str + Clone + Send + 'static,
) -> (Receiver, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&asked);
    let proxy = Receiver::start(move |mut stream| {
        let (heads, answer) = (Arc::clone(&heads), answer.clone());
        async move {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                head.push(char::from(stream.read_u8().await?));
            }
            let authority = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = answer(&head);
            heads.lock().expect("heads").push(head);
            stream.write_all(answer.as_bytes()).await?;
            if answer.contains(" 200 ") {
                let mut onward = TcpStream::connect(authority).await?;
                copy_bidirectional(&mut stream, &mut onward).await?;
            }
            stream.shutdown().await
        }
    })
    .await;
    (proxy, asked)
}

fn with_proxy(proxy: &Receiver, gives_names: bool, settings: Settings) -> Settings {
    let url = format!("http://user:word@{}", proxy.address);
    let address = url.parse().expect("a proxy");
    Settings { proxy: Some(Proxy { address, url: Secret::new(url), gives_names }), ..settings }
}

fn through(proxy: &Receiver, gives_names: bool, settings: Settings) -> Client {
    Client::new(&with_proxy(proxy, gives_names, settings)).expect("client")
}

const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n";

#[tokio::test]
async fn the_proxy_gets_the_address_that_was_vetted() {
    let receiver = Receiver::answering(OK).await;
    let (proxy, asked) = proxy(ESTABLISHED).await;
    let client = through(&proxy, false, allowing(&["127.0.0.0/8", "::1/128"]));
    let port = receiver.address.port();
    // `localhost` has two addresses; the receiver listens on one, in any order of dialling.
    let exchange =
        client.post(request(&format!("http://localhost:{port}/hook"), AMPLE)).await.expect("our egress works");
    assert_eq!(exchange.outcome, status(200), "{:?}", exchange.error);
    assert_eq!(receiver.accepted(), 1);
    let asked = asked.lock().expect("heads").clone();
    assert!(asked.iter().any(|head| head.starts_with(&format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n"))), "{asked:?}");
    assert!(asked.iter().all(|head| head.contains("\r\nProxy-Authorization: Basic dXNlcjp3b3Jk\r\n")), "{asked:?}");
    assert!(asked.iter().all(|head| !head.contains("localhost")), "{asked:?}");
}

#[tokio::test]
async fn changed_credentials_are_read_again_when_the_proxy_refuses() {
    let receiver = Receiver::answering(OK).await;
    // `user:next` in base64.
    let is_next = |head: &str| head.contains("Basic dXNlcjpuZXh0\r\n");
    let refused = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
    let (proxy, asked) = proxy_by(move |head| if is_next(head) { ESTABLISHED } else { refused }).await;
    let path = std::env::temp_dir().join(format!("fanfare-proxy-{}", std::process::id()));
    fs::write(&path, format!("http://user:word@{}\n", proxy.address)).expect("a file");
    let url = Secret::in_file(&path).expect("a file");
    let address = url.text().parse().expect("a proxy");
    let proxy_settings = Proxy { address, url, gives_names: false };
    let client = Client::new(&Settings { proxy: Some(proxy_settings), ..allowing(&["127.0.0.0/8"]) }).expect("client");
    let send = async || client.post(request(&format!("http://{}/", receiver.address), AMPLE)).await;

    assert!(send().await.is_err(), "the proxy refuses us");
    assert_eq!(asked.lock().expect("heads").len(), 1);
    fs::write(&path, format!("http://user:next@{}\n", proxy.address)).expect("a file");
    assert_eq!(send().await.expect("our egress works").outcome, status(200));
    assert_eq!(asked.lock().expect("heads").len(), 3);
    fs::remove_file(&path).expect("a file");
}

#[tokio::test]
async fn a_forbidden_address_is_not_requested_from_the_proxy() {
    let receiver = Receiver::answering(OK).await;
    let (proxy, asked) = proxy(ESTABLISHED).await;
    let client = through(&proxy, false, Settings::default());
    for host in ["localhost", "127.0.0.1", "[::ffff:7f00:1]"] {
        let url = format!("http://{host}:{}/", receiver.address.port());
        assert_eq!(
            client.post(request(&url, AMPLE)).await.expect("our egress works").outcome,
            Outcome::AddressForbidden,
            "{host}"
        );
    }
    // A proxy that looks up names does not replace the check of the URL itself.
    let client = through(&proxy, true, Settings::default());
    let url = format!("http://127.1:{}/", receiver.address.port());
    assert_eq!(client.post(request(&url, AMPLE)).await.expect("our egress works").outcome, Outcome::AddressForbidden);
    assert_eq!((asked.lock().expect("heads").len(), receiver.accepted()), (0, 0));
}

#[tokio::test]
async fn the_proxy_may_be_given_names() {
    let receiver = Receiver::answering(OK).await;
    let (proxy, asked) = proxy(ESTABLISHED).await;
    let client = through(&proxy, true, allowing(&["127.0.0.0/8"]));
    let url = format!("http://localhost:{}/", receiver.address.port());
    assert_eq!(client.post(request(&url, AMPLE)).await.expect("our egress works").outcome, status(200));
    let asked = asked.lock().expect("heads").join("");
    assert!(asked.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", receiver.address.port())), "{asked}");
}

/// TLS hides the exchange from the proxy, and the certificate must be the endpoint's.
#[tokio::test]
async fn tls_goes_from_end_to_end() {
    let (receiver, roots) = receiver_named("127.0.0.1").await;
    let (proxy, _) = proxy(ESTABLISHED).await;
    let client = trusting_in(&roots, with_proxy(&proxy, false, allowing(&["127.0.0.0/8"]))).expect("client");
    let exchange =
        client.post(request(&format!("https://{}/", receiver.address), AMPLE)).await.expect("our egress works");
    assert_eq!(exchange.outcome, status(200), "{:?}", exchange.error);
    let strangers = through(&proxy, false, allowing(&["127.0.0.0/8"]));
    let exchange =
        strangers.post(request(&format!("https://{}/", receiver.address), AMPLE)).await.expect("our egress works");
    assert_eq!(exchange.outcome, Outcome::TlsFailed);
}

/// A proxy that reaches no other endpoint either is ours. Without another endpoint, the endpoint is at fault.
#[tokio::test]
async fn a_proxy_that_gives_no_tunnel_is_told_from_an_endpoint_that_fails() {
    let flood: &'static str =
        Box::leak(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(10_000)).into_boxed_str());
    for answer in ["HTTP/1.1 502 Bad Gateway\r\n\r\n", "220 smtp.example ESMTP\r\n\r\n", "", flood] {
        let receiver = Receiver::answering(OK).await;
        let good = format!("CONNECT {} ", receiver.address);
        let fails = Arc::new(AtomicBool::new(false));
        let ordered = Arc::clone(&fails);
        let is_good = move |head: &str| head.starts_with(&good) && !ordered.load(Ordering::Acquire);
        let (proxy, _) = proxy_by(move |head| if is_good(head) { ESTABLISHED } else { answer }).await;
        let client = through(&proxy, false, allowing(&["127.0.0.0/8"]));
        let send = async |url: &str| client.post(request(url, AMPLE)).await;
        let (dead, healthy) = ("http://127.0.0.1:65000/", format!("http://{}/", receiver.address));
        let exchange = send(dead).await.expect("nothing shows that the proxy fails");
        assert_eq!(exchange.outcome, Outcome::ConnectionFailed, "{answer:?}");
        assert_eq!(send(&healthy).await.expect("our egress works").outcome, status(200));
        let exchange = send(dead).await.expect("the proxy reaches the receiver");
        assert!(exchange.error.is_some_and(|error| error.contains("egress proxy")), "{answer:?}");
        fails.store(true, Ordering::Release);
        // The last answer of the proxy holds for a second.
        sleep(Duration::from_millis(1100)).await;
        let error = send(dead).await.expect_err("the proxy reaches no endpoint");
        assert!(error.to_string().contains("egress proxy"), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_away_or_refuses_us_is_ours() {
    let dead = async |client: Client| client.post(request("http://127.0.0.1:65000/", AMPLE)).await;
    let (proxy, _) = proxy("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    assert!(dead(through(&proxy, false, allowing(&["127.0.0.0/8"]))).await.is_err());
    let address = "http://127.0.0.1:1".to_owned();
    let away = Proxy { address: address.parse().expect("a proxy"), url: Secret::new(address), gives_names: false };
    let settings = Settings { proxy: Some(away), ..allowing(&["127.0.0.0/8"]) };
    assert!(dead(Client::new(&settings).expect("client")).await.is_err());
    let (proxy, _) = self::proxy("HTTP/1.1 403 Forbidden\r\n\r\n").await;
    let exchange = dead(through(&proxy, false, allowing(&["127.0.0.0/8"]))).await.expect("an answer on the endpoint");
    assert_eq!(exchange.outcome, Outcome::AddressForbidden);
}

/// A proxy that does not answer about an endpoint may wait for the endpoint.
#[tokio::test]
async fn a_silent_proxy_is_ours_only_if_it_is_silent_about_others() {
    let receiver = Receiver::answering(OK).await;
    let silent = Arc::new(AtomicBool::new(false));
    let ordered = Arc::clone(&silent);
    let proxy = Receiver::start(move |mut stream| {
        let ordered = Arc::clone(&ordered);
        async move {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                head.push(char::from(stream.read_u8().await?));
            }
            if ordered.load(Ordering::Acquire) || head.starts_with("CONNECT 127.0.0.1:65000 ") {
                return copy(&mut stream, &mut sink()).await.map(drop);
            }
            stream.write_all(ESTABLISHED.as_bytes()).await?;
            let mut onward = TcpStream::connect(head.split(' ').nth(1).unwrap_or_default()).await?;
            copy_bidirectional(&mut stream, &mut onward).await.map(drop)
        }
    })
    .await;
    let client = through(&proxy, false, allowing(&["127.0.0.0/8"]));
    let send = async |url: &str, deadline| client.post(request(url, deadline)).await;
    let healthy = format!("http://{}/", receiver.address);
    assert_eq!(send(&healthy, AMPLE).await.expect("our egress works").outcome, status(200));
    // Less than, and more than, the limit of an address.
    for deadline in [SHORT, AMPLE] {
        let exchange = send("http://127.0.0.1:65000/", deadline).await.expect("the proxy reaches the receiver");
        assert_eq!(exchange.outcome, Outcome::TimedOut);
    }
    silent.store(true, Ordering::Release);
    for deadline in [SHORT, AMPLE] {
        sleep(Duration::from_millis(1100)).await;
        assert!(send("http://127.0.0.1:65000/", deadline).await.is_err(), "{deadline:?}");
    }
}

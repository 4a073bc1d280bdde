//! A probe makes a POST, and reports the finished phases and the sent headers.

use std::time::Duration;

use fanfare_domain::delivery::outcome::Outcome;
use fanfare_outbound::{Client, Probe, Settings};
use http::HeaderValue;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc::unbounded_channel,
    time::timeout,
};

use crate::{
    receiver::{AMPLE, Receiver, SHORT, allowing, client, closed_port, https_only, read_request, request, status},
    tls::{reading, receiver_named, trusting},
};

const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

async fn probe(url: &str, deadline: Duration) -> Probe {
    client().probe(request(url, deadline)).await.expect("our egress works")
}

/// The finished phases.
fn reached(probe: &Probe) -> Vec<&'static str> {
    let timings = probe.timings;
    let phases = [timings.dns, timings.connect, timings.tls, timings.first_byte];
    let taken: Duration = phases.iter().flatten().sum();
    assert!(taken <= probe.exchange.duration, "{timings:?} within {:?}", probe.exchange.duration);
    let names = ["dns", "connect", "tls", "first_byte"];
    names.into_iter().zip(phases).filter_map(|(name, phase)| phase.map(|_| name)).collect()
}

#[tokio::test]
async fn a_probe_over_http_has_all_steps_except_tls() {
    let receiver =
        Receiver::answering("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok").await;
    let probe = probe(&receiver.url(), AMPLE).await;
    assert_eq!(reached(&probe), ["dns", "connect", "first_byte"]);
    assert_eq!((probe.exchange.outcome, &probe.exchange.response_body[..]), (status(200), &b"ok"[..]));
    assert_eq!(probe.exchange.response_headers, [("content-type".to_owned(), "text/plain".to_owned())]);
    assert_eq!(probe.exchange.error, None);
}

#[tokio::test]
async fn a_probe_over_https_has_all_steps() {
    let (receiver, roots) = receiver_named("127.0.0.1").await;
    let client = trusting(&roots).expect("client");
    let probe =
        client.probe(request(&format!("https://{}/", receiver.address), AMPLE)).await.expect("our egress works");
    assert_eq!(reached(&probe), ["dns", "connect", "tls", "first_byte"]);
    assert_eq!((probe.exchange.outcome, &probe.exchange.response_body[..]), (status(200), &b"ok"[..]));
}

#[tokio::test]
async fn tells_the_headers_that_the_receiver_gets() {
    let (heard, mut requests) = unbounded_channel();
    let receiver = Receiver::start(move |mut stream| {
        let heard = heard.clone();
        async move {
            heard.send(read_request(&mut stream).await?).expect("the test listens");
            stream.write_all(NO_CONTENT).await
        }
    })
    .await;
    let mut request = request(&receiver.url(), AMPLE);
    for (name, value) in
        [("X-Team", "b"), ("x-team", "a"), ("webhook-id", "evt_1"), ("content-type", "text/evil"), ("expect", "1")]
    {
        request.headers.append(name.parse::<http::HeaderName>().expect("name"), HeaderValue::from_static(value));
    }
    let probe = client().probe(request).await.expect("our egress works");
    let headers = probe.request_headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let headers: Vec<_> = headers.collect();
    let agent = concat!("Fanfare/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        headers,
        [
            ("content-type", "application/json"),
            ("user-agent", agent),
            ("webhook-id", "evt_1"),
            ("x-team", "b"),
            ("x-team", "a")
        ]
    );

    let text = requests.recv().await.expect("a request");
    let (head, _) = text.split_once("\r\n\r\n").expect("a head");
    let mut sent: Vec<_> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    sent.retain(|(name, _)| !["host", "content-length"].contains(name));
    sent.sort_by_key(|&(name, _)| name);
    assert_eq!(sent, headers);
}

#[tokio::test]
async fn a_probe_of_a_closed_port_has_the_lookup_only() {
    let (_held, address) = closed_port();
    let probe = probe(&format!("http://{address}/"), AMPLE).await;
    assert_eq!(probe.exchange.outcome, Outcome::ConnectionFailed);
    assert_eq!(reached(&probe), ["dns"]);
    assert!(!probe.request_headers.is_empty(), "headers that would have been sent");
}

#[tokio::test]
async fn a_forbidden_address_is_not_called() {
    let receiver = Receiver::answering(NO_CONTENT).await;
    let client = Client::new(&Settings::default()).expect("client");
    for host in ["127.0.0.1", "127.1", "localhost", "[::ffff:127.0.0.1]"] {
        let probe = client
            .probe(request(&format!("http://{host}:{}/", receiver.address.port()), AMPLE))
            .await
            .expect("our egress works");
        assert_eq!(probe.exchange.outcome, Outcome::AddressForbidden, "{host}");
        assert_eq!(reached(&probe), [""; 0], "{host}: refused by the URL alone");
    }
    // The name passes if a loopback address is permitted; each address is then judged.
    let client = Client::new(&allowing(&["::1/128"])).expect("client");
    let probe = client
        .probe(request(&format!("http://localhost:{}/", receiver.address.port()), AMPLE))
        .await
        .expect("our egress works");
    assert_eq!((probe.exchange.outcome, reached(&probe)), (Outcome::AddressForbidden, vec!["dns"]));
    assert_eq!(receiver.accepted(), 0);
}

#[tokio::test]
async fn a_probe_of_a_name_without_an_address_ends_at_the_lookup() {
    // A label of more than 63 characters is refused without a resolver.
    let probe = probe(&format!("http://{}.example/", "a".repeat(64)), AMPLE).await;
    assert_eq!(probe.exchange.outcome, Outcome::NameNotResolved, "{:?}", probe.exchange.error);
    assert_eq!(reached(&probe), [""; 0]);
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_in_tls() {
    let (receiver, _) = receiver_named("127.0.0.1").await;
    let client = reading(None).expect("client");
    let probe =
        client.probe(request(&format!("https://{}/", receiver.address), AMPLE)).await.expect("our egress works");
    assert_eq!(probe.exchange.outcome, Outcome::TlsFailed);
    assert_eq!(reached(&probe), ["dns", "connect"]);
}

#[tokio::test]
async fn a_receiver_that_never_answers_has_no_first_byte() {
    // Over https, the receiver does not even begin TLS.
    for scheme in ["http", "https"] {
        let receiver = Receiver::start(|mut stream| async move {
            while stream.read(&mut [0; 1024]).await? > 0 {}
            Ok(())
        })
        .await;
        let probe = probe(&format!("{scheme}://{}/", receiver.address), SHORT).await;
        assert_eq!(probe.exchange.outcome, Outcome::TimedOut, "{scheme}");
        assert_eq!(reached(&probe), ["dns", "connect"], "{scheme}");
    }
}

#[tokio::test]
async fn the_deadline_is_over_the_body_too() {
    let receiver = Receiver::start(|mut stream| async move {
        read_request(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").await?;
        stream.read(&mut [0]).await.map(drop)
    })
    .await;
    let probe = probe(&receiver.url(), SHORT).await;
    assert_eq!((probe.exchange.outcome, &probe.exchange.response_body[..]), (status(200), &b"o"[..]));
    assert!(probe.exchange.error.is_some());
    assert_eq!(reached(&probe), ["dns", "connect", "first_byte"]);
}

#[tokio::test]
async fn a_probe_of_an_unsendable_url_has_no_steps() {
    let client = Client::new(&https_only(Settings::default())).expect("client");
    let probe = client.probe(request("http://127.0.0.1/", AMPLE)).await.expect("our egress works");
    assert_eq!(probe.exchange.outcome, Outcome::NotSendable);
    assert_eq!(reached(&probe), [""; 0]);
    assert_eq!(probe.request_headers, []);
}

/// A probe neither uses a connection of the deliveries nor leaves a connection for them. A single thread, for the same
/// reason as in `reuse`.
#[tokio::test(flavor = "current_thread")]
async fn each_probe_has_a_connection_of_its_own() {
    let (left, mut leavings) = unbounded_channel();
    let receiver = Receiver::start(move |mut stream| {
        let left = left.clone();
        async move {
            while read_request(&mut stream).await.is_ok() {
                stream.write_all(NO_CONTENT).await?;
            }
            left.send(()).expect("the test listens");
            Ok(())
        }
    })
    .await;
    let client = client();
    assert_eq!(client.post(request(&receiver.url(), AMPLE)).await.expect("our egress works").outcome, status(204));
    for connections in [2, 3] {
        let probe = client.probe(request(&receiver.url(), AMPLE)).await.expect("our egress works");
        assert_eq!(probe.exchange.outcome, status(204));
        assert_eq!(reached(&probe), ["dns", "connect", "first_byte"]);
        assert_eq!(receiver.accepted(), connections);
        timeout(AMPLE, leavings.recv()).await.expect("the connection is closed after the probe");
    }
    assert_eq!(client.post(request(&receiver.url(), AMPLE)).await.expect("our egress works").outcome, status(204));
    assert_eq!(receiver.accepted(), 3, "the first connection still serves");
}

/// The receiver accepts only full handshakes.
#[tokio::test]
async fn each_probe_looks_at_the_certificate() {
    let (receiver, roots) = receiver_named("127.0.0.1").await;
    let client = trusting(&roots).expect("client");
    for _ in 0..2 {
        let probe =
            client.probe(request(&format!("https://{}/", receiver.address), AMPLE)).await.expect("our egress works");
        assert_eq!(probe.exchange.outcome, status(200), "{:?}", probe.exchange.error);
        assert_eq!(reached(&probe), ["dns", "connect", "tls", "first_byte"]);
    }
}

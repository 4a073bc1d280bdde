//! Connections are reused, and a POST is never made twice.
//!
//! The runtime has a single thread: each task runs until idle, so that the order of steps between two requests is
//! fixed.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use fanfare_domain::delivery::outcome::Outcome;
use fanfare_outbound::{Client, Settings};
use tokio::{
    io::AsyncWriteExt,
    sync::mpsc::unbounded_channel,
    time::{Instant, sleep},
};

use crate::receiver::{AMPLE, Receiver, allowing, client, read_request, request, status};

const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

#[tokio::test(flavor = "current_thread")]
async fn two_posts_share_a_connection() {
    let receiver = Receiver::answering(NO_CONTENT).await;
    let client = client();
    for _ in 0..2 {
        assert_eq!(client.post(request(&receiver.url(), AMPLE)).await.expect("our egress works").outcome, status(204));
    }
    assert_eq!(receiver.accepted(), 1);
}

/// The connection is closed while idle, and taken from the pool before the client could notice. The untouched request
/// goes out over a new connection.
#[tokio::test(flavor = "current_thread")]
async fn a_stale_connection_costs_no_attempt() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
    let url = format!("http://{}/", listener.local_addr().expect("address"));
    let (close, closes) = mpsc::channel();
    let (closed, closings) = mpsc::channel();
    let receiver = thread::spawn(move || {
        let first = answer_one(&listener);
        closes.recv().expect("the test signals the time");
        drop(first);
        closed.send(()).expect("the test listens");
        answer_one(&listener);
    });
    let client = client();
    assert_eq!(client.post(request(&url, AMPLE)).await.expect("our egress works").outcome, status(204));

    // Blocks the only thread until the kernel has the end of the connection. Yielding lets the runtime fetch the end,
    // and returns here before the connection's task has run.
    close.send(()).expect("the receiver listens");
    closings.recv().expect("closed");
    tokio::task::yield_now().await;
    let exchange = client.post(request(&url, AMPLE)).await.expect("our egress works");
    assert_eq!(exchange.outcome, status(204), "{:?}", exchange.error);
    receiver.join().expect("two requests on two connections");
}

/// Accepts a connection, answers a request there and leaves the connection open.
fn answer_one(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut request = Vec::new();
    while !request.ends_with(br#"{"event":"X"}"#) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        request.push(byte[0]);
    }
    stream.write_all(NO_CONTENT).expect("written");
    stream
}

/// A receiver that reads a request on a reused connection and then dies may have accepted the event.
#[tokio::test(flavor = "current_thread")]
async fn a_request_that_was_sent_is_not_repeated_on_another_connection() {
    let (heard, mut requests) = unbounded_channel();
    let receiver = Receiver::start(move |mut stream| {
        let heard = heard.clone();
        async move {
            read_request(&mut stream).await?;
            stream.write_all(NO_CONTENT).await?;
            read_request(&mut stream).await?;
            heard.send(()).expect("the test listens");
            Ok(())
        }
    })
    .await;
    let client = client();
    assert_eq!(client.post(request(&receiver.url(), AMPLE)).await.expect("our egress works").outcome, status(204));
    assert_eq!(
        client.post(request(&receiver.url(), AMPLE)).await.expect("our egress works").outcome,
        Outcome::ConnectionClosed
    );
    assert_eq!(requests.recv().await, Some(()));
    assert_eq!(receiver.accepted(), 1);
}

/// Beyond the limit of unused connections, a request closes its connection.
#[tokio::test]
async fn unused_connections_are_bounded_in_total() {
    let receivers = [Receiver::answering(NO_CONTENT).await, Receiver::answering(NO_CONTENT).await];
    let client = Client::new(&Settings { max_idle: 1, ..allowing(&["127.0.0.0/8"]) }).expect("client");
    for _ in 0..3 {
        for receiver in &receivers {
            let exchange = client.post(request(&receiver.url(), AMPLE)).await.expect("our egress works");
            assert_eq!(exchange.outcome, status(204));
        }
    }
    // The second and the third request of each receiver meet the other's unused connection in turn.
    assert_eq!(receivers.map(|receiver| receiver.accepted()), [2, 2]);
}

/// With steady requests, only the age ends a connection.
#[tokio::test]
async fn an_old_connection_serves_no_new_request() {
    let receiver = Receiver::answering(NO_CONTENT).await;
    let max_age = Duration::from_millis(300);
    let client = Client::new(&Settings { max_age, ..allowing(&["127.0.0.0/8"]) }).expect("client");
    let started = Instant::now();
    while started.elapsed() < 2 * max_age {
        let exchange = client.post(request(&receiver.url(), AMPLE)).await.expect("our egress works");
        assert_eq!(exchange.outcome, status(204));
        sleep(max_age / 10).await;
    }
    assert!((2..=4).contains(&receiver.accepted()), "{}", receiver.accepted());
}

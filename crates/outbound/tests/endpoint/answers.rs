//! Endpoints with good and bad responses.

use std::time::Duration;

use fanfare_domain::delivery::{answer::RetryAfter, outcome::Outcome};
use fanfare_outbound::MAX_RESPONSE_BODY;
use http::HeaderValue;
use tokio::{io::AsyncWriteExt, sync::mpsc, time::timeout};

use crate::receiver::{AMPLE, Receiver, SHORT, client, post, read_request, request, status};

#[tokio::test]
async fn a_200_is_success_and_is_recorded_with_what_helps() {
    let receiver = Receiver::answering(
        "HTTP/1.1 200 OK\r\nserver: test\r\nset-cookie: a=b\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhe\0l\u{1}",
    )
    .await;
    let exchange = post(&receiver.url(), AMPLE).await;
    assert_eq!(exchange.outcome, status(200));
    assert_eq!(exchange.response_body, "he\0l\u{1}");
    let headers = [("content-type", "text/plain"), ("server", "test")];
    assert_eq!(exchange.response_headers, headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(exchange.error, None);
    assert!(exchange.duration < AMPLE);
}

#[tokio::test]
async fn the_request_has_the_expected_method_headers_and_body() {
    let (heard, mut requests) = mpsc::unbounded_channel();
    let receiver = Receiver::start(move |mut stream| {
        let heard = heard.clone();
        async move {
            let request = read_request(&mut stream).await?;
            heard.send(request).expect("the test listens");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await
        }
    })
    .await;
    let mut request = request(&receiver.url(), AMPLE);
    request.headers.insert("webhook-id", HeaderValue::from_static("evt_1"));
    request.headers.insert("content-type", HeaderValue::from_static("text/evil"));
    assert_eq!(client().post(request).await.expect("our egress works").outcome, status(204));

    let text = requests.recv().await.expect("a request").to_lowercase();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<&str> = head.lines().collect();
    lines[1..].sort_unstable();
    let host = format!("host: {}", receiver.address);
    let agent = format!("user-agent: fanfare/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        lines,
        [
            "post /hooks?a=1 http/1.1",
            "content-length: 13",
            "content-type: application/json",
            &host,
            &agent,
            "webhook-id: evt_1"
        ]
    );
    assert_eq!(body, r#"{"event":"x"}"#);
}

#[tokio::test]
async fn other_statuses_are_answers_too() {
    let receiver = Receiver::answering("HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\nsad!").await;
    let exchange = post(&receiver.url(), AMPLE).await;
    assert_eq!((exchange.outcome, &exchange.response_body[..]), (status(500), &b"sad!"[..]));

    let receiver = Receiver::answering("HTTP/1.1 503 Busy\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n").await;
    let outcome = post(&receiver.url(), AMPLE).await.outcome;
    assert_eq!(
        outcome,
        Outcome::Answered { status: 503, retry_after: Some(RetryAfter::Wait(Duration::from_secs(120))), action: None }
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Receiver::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for code in [301, 302, 303, 307, 308] {
        let response = format!("HTTP/1.1 {code} Moved\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", target.url());
        let receiver = Receiver::answering(response).await;
        assert_eq!(post(&receiver.url(), AMPLE).await.outcome, status(code));
    }
    assert_eq!(target.accepted(), 0);
}

#[tokio::test]
async fn an_interim_answer_is_not_the_answer() {
    let receiver = Receiver::answering("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(post(&receiver.url(), AMPLE).await.outcome, status(202));
}

#[tokio::test]
async fn a_body_that_drips_is_success_at_the_deadline() {
    let receiver = Receiver::start(|mut stream| async move {
        read_request(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await?;
        loop {
            stream.write_all(b"x").await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let exchange = post(&receiver.url(), SHORT).await;
    assert_eq!((exchange.outcome, &exchange.response_body[..]), (status(200), &b"x"[..]));
    assert!(exchange.error.is_some());
    assert!((SHORT..AMPLE).contains(&exchange.duration), "{:?}", exchange.duration);
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_the_status() {
    for reset in [false, true] {
        let receiver = Receiver::start(move |mut stream| async move {
            read_request(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhello").await?;
            if reset {
                stream.set_zero_linger()?;
            }
            Ok(())
        })
        .await;
        let exchange = post(&receiver.url(), AMPLE).await;
        assert_eq!((exchange.outcome, &exchange.response_body[..]), (status(200), &b"hello"[..]), "reset: {reset}");
        assert!(exchange.error.is_some_and(|error| error.starts_with("the response body broke off")));
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_and_its_connection_dropped() {
    let heads = ["content-length: 1000000000000", "transfer-encoding: chunked", "connection: close"];
    for head in heads {
        let (dropped, mut drops) = mpsc::unbounded_channel();
        let receiver = Receiver::start(move |mut stream| {
            let dropped = dropped.clone();
            async move {
                read_request(&mut stream).await?;
                stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes()).await?;
                let chunk = format!("fff\r\n{}\r\n", "x".repeat(0xfff));
                while stream.write_all(chunk.as_bytes()).await.is_ok() {}
                dropped.send(()).expect("the test listens");
                Ok(())
            }
        })
        .await;
        let client = client();
        let exchange = client.post(request(&receiver.url(), AMPLE)).await.expect("our egress works");
        assert_eq!((exchange.outcome, exchange.response_body.len()), (status(200), MAX_RESPONSE_BODY), "{head}");
        assert_eq!(exchange.error, None);
        timeout(AMPLE, drops.recv()).await.expect("the connection is dropped, not drained");
    }
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_whole() {
    let body = "x".repeat(MAX_RESPONSE_BODY);
    let receiver =
        Receiver::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    let exchange = post(&receiver.url(), AMPLE).await;
    assert_eq!((exchange.response_body, exchange.error), (body.into(), None));
}

//! Endpoints without a response.

use fanfare_domain::delivery::outcome::Outcome;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use crate::receiver::{AMPLE, Receiver, SHORT, closed_port, post, read_request};

#[tokio::test]
async fn nobody_listens() {
    let (_held, address) = closed_port();
    let exchange = post(&format!("http://{address}/"), AMPLE).await;
    assert_eq!(exchange.outcome, Outcome::ConnectionFailed);
    assert!(exchange.error.is_some_and(|error| error.starts_with("cannot connect")));
}

#[tokio::test]
async fn a_name_without_an_address() {
    // A label of more than 63 characters is refused without a resolver.
    let exchange = post(&format!("http://{}.example/", "a".repeat(64)), AMPLE).await;
    assert_eq!(exchange.outcome, Outcome::NameNotResolved, "{:?}", exchange.error);
}

#[tokio::test]
async fn closed_or_reset_before_the_head() {
    for reset in [false, true] {
        for read_first in [false, true] {
            for beginning in ["", "HTTP/1.1 200 OK\r\ncontent-"] {
                let receiver = Receiver::start(move |mut stream| async move {
                    if read_first {
                        read_request(&mut stream).await?;
                    }
                    if reset {
                        stream.set_zero_linger()?;
                    }
                    // The beginning of a response is HTTP only after a request.
                    if read_first {
                        stream.write_all(beginning.as_bytes()).await?;
                    }
                    Ok(())
                })
                .await;
                let exchange = post(&receiver.url(), AMPLE).await;
                let case = (reset, read_first, beginning, exchange.error);
                assert_eq!(exchange.outcome, Outcome::ConnectionClosed, "{case:?}");
                assert_eq!(receiver.accepted(), 1, "{case:?}");
            }
        }
    }
}

#[tokio::test]
async fn no_answer_within_the_deadline() {
    for beginning in ["", "HTTP/1.1 200 OK\r\nserver: sl"] {
        let (left, mut leavings) = mpsc::unbounded_channel();
        let receiver = Receiver::start(move |mut stream| {
            let left = left.clone();
            async move {
                read_request(&mut stream).await?;
                stream.write_all(beginning.as_bytes()).await?;
                let end = stream.read(&mut [0]).await;
                left.send(end.ok()).expect("the test listens");
                Ok(())
            }
        })
        .await;
        let exchange = post(&receiver.url(), SHORT).await;
        assert_eq!(exchange.outcome, Outcome::TimedOut);
        assert!((SHORT..AMPLE).contains(&exchange.duration), "{:?}", exchange.duration);
        assert_eq!(exchange.error.as_deref(), Some("no complete response head within 300ms"));
        let end = timeout(AMPLE, leavings.recv()).await.expect("the connection is closed at the deadline");
        assert_eq!(end, Some(Some(0)));
    }
}

#[tokio::test]
async fn an_endless_or_huge_head_is_not_read() {
    let filler = format!("x-filler: {}\r\n", "x".repeat(10_000));
    for head in [filler.repeat(90), "x-many: 1\r\n".repeat(1000), format!("x-long: {}\r\n", "x".repeat(1_000_000))] {
        let receiver = Receiver::answering(format!("HTTP/1.1 200 OK\r\n{head}content-length: 0\r\n\r\n")).await;
        assert_eq!(post(&receiver.url(), AMPLE).await.outcome, Outcome::NotHttp);
    }
    let receiver = Receiver::start(|mut stream| async move {
        read_request(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
        while stream.write_all(b"x-more: and more\r\n").await.is_ok() {}
        Ok(())
    })
    .await;
    assert_eq!(post(&receiver.url(), AMPLE).await.outcome, Outcome::NotHttp);
}

#[tokio::test]
async fn something_else_than_http() {
    for answer in
        ["SSH-2.0-OpenSSH_9.2\r\n", "\0\u{1}\u{2}binary", "HTTP/9.9 200 OK\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n"]
    {
        let after = Receiver::answering(answer).await;
        let exchange = post(&after.url(), AMPLE).await;
        assert_eq!(exchange.outcome, Outcome::NotHttp, "{answer:?}: {:?}", exchange.error);

        let unasked = Receiver::start(move |mut stream| async move {
            stream.write_all(answer.as_bytes()).await?;
            while stream.read(&mut [0; 1024]).await? > 0 {}
            Ok(())
        })
        .await;
        let exchange = post(&unasked.url(), AMPLE).await;
        assert_eq!(exchange.outcome, Outcome::NotHttp, "{answer:?}, unasked: {:?}", exchange.error);
    }
}

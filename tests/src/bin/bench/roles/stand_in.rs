//! Stand-in for another webhook server, to test `bench foreign`: takes events over HTTP, and posts each at once, from
//! memory. Not a comparison: the stand-in stores, signs and repeats nothing.

use std::io;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::roles::{child::Parent, receiver::Request};

const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";

/// Serves until the parent ends. The parent's request names the receiver: `{"to": "127.0.0.1:9071", "webhooks": 1}`.
pub(crate) async fn run() {
    let mut parent = Parent::new();
    let Some(request) = parent.next_request().await else { return };
    let (to, webhooks) = (text(&request["to"]), request["webhooks"].as_u64().expect("a number"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    parent.respond(&json!({ "address": listener.local_addr().expect("an address").to_string() })).await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, to.clone(), webhooks));
        }
    });
    while parent.next_request().await.is_some() {}
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Accepts the events of a connection, and posts each over another connection.
async fn serve(mut stream: TcpStream, to: String, webhooks: u64) -> io::Result<()> {
    let mut onward = TcpStream::connect(&to).await?;
    let (mut buffer, mut answer) = (Vec::new(), vec![0; 1024]);
    loop {
        let Some(request) = Request::find(&buffer) else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        // Other servers print bodies anew, and write the names of headers in any case.
        let event: Value = serde_json::from_slice(&buffer[request.body.clone()]).map_err(io::Error::other)?;
        let end = request.end;
        buffer.drain(..end);
        stream.write_all(ACCEPTED).await?;
        let body = serde_json::to_string_pretty(&event["payload"])?;
        for webhook in 0..webhooks {
            let head =
                format!("POST /all/ok?{webhook} HTTP/1.1\r\nHost: {to}\r\nContent-Length: {}\r\n\r\n", body.len());
            onward.write_all(format!("{head}{body}").as_bytes()).await?;
            // The receiver answers with less than a packet.
            if onward.read(&mut answer).await? == 0 {
                return Ok(());
            }
        }
    }
}

//! A token server of OAuth 2.0 (client credentials) that counts its requests, and answers badly by script.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// The answer of a token server.
#[derive(Debug, Clone)]
pub enum TokenAnswer {
    /// A token that lives for this number of milliseconds, and says so in seconds.
    Token(u64),
    /// A status with this body.
    Status(u16, String),
    /// No answer.
    Hang,
    /// An endless body, sent slowly.
    Drip,
}

/// A request for a token.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// Time of arrival.
    pub at: Timestamp,
    /// The header `authorization`; empty if absent.
    pub authorization: String,
    /// The form.
    pub form: String,
}

#[derive(Default)]
struct State {
    requests: Vec<TokenRequest>,
    /// Tokens, with the end of each.
    tokens: Vec<(String, Timestamp)>,
    answer: Option<TokenAnswer>,
}

/// A token server on a free port. Cheap to clone.
#[derive(Clone)]
pub struct TokenServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl TokenServer {
    /// Starts a token server.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(answer: TokenAnswer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a local address");
        let server = Self { address, state: Arc::default() };
        server.answer(answer);
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let serving = serving.clone();
                // A client that leaves first ends the exchange.
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        server
    }

    /// The URL for tokens.
    pub fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// Sets the answer to all further requests.
    pub fn answer(&self, answer: TokenAnswer) {
        self.state().answer = Some(answer);
    }

    /// All requests.
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.state().requests.clone()
    }

    /// All tokens.
    pub fn tokens(&self) -> Vec<String> {
        self.state().tokens.iter().map(|(token, _)| token.clone()).collect()
    }

    /// True if the value of `authorization` has a token of this server that lived at this time.
    pub fn accepts(&self, authorization: &str, at: Timestamp) -> bool {
        let tokens = &self.state().tokens;
        tokens.iter().any(|(token, end)| authorization.strip_prefix("Bearer ") == Some(token) && at < *end)
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let (head, form) = read(&mut stream).await?;
        let authorization = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        });
        let answer = {
            let mut state = self.state();
            let authorization = authorization.unwrap_or_default();
            state.requests.push(TokenRequest { at: Timestamp::now(), authorization, form });
            state.answer.clone()
        };
        match answer {
            Some(TokenAnswer::Token(milliseconds)) => {
                let text = self.issue(milliseconds);
                respond(&mut stream, 200, &text).await
            }
            Some(TokenAnswer::Status(status, body)) => respond(&mut stream, status, &body).await,
            Some(TokenAnswer::Drip) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{").await?;
                loop {
                    stream.write_all(b" ").await?;
                    sleep(Duration::from_millis(300)).await;
                }
            }
            Some(TokenAnswer::Hang) | None => {
                sleep(Duration::from_secs(600)).await;
                Ok(())
            }
        }
    }

    fn issue(&self, milliseconds: u64) -> String {
        let mut state = self.state();
        let token = format!("secret-token-{}", state.tokens.len());
        let life = SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
        state.tokens.push((token.clone(), Timestamp::now() + life));
        let seconds = milliseconds / 1000;
        format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{seconds}}}"#)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a request: the head, and the body.
async fn read(stream: &mut TcpStream) -> std::io::Result<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Ok((head.to_owned(), body.to_owned()));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn respond(stream: &mut TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.shutdown().await
}

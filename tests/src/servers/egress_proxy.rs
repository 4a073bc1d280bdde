//! An egress proxy of a test, which may fail.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Answers of the proxy to CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// A tunnel to the address.
    Tunnels,
    /// The end of the connection.
    Nobody,
    /// 503.
    Errors,
    /// 407.
    Strangers,
}

/// A proxy on a free port. Its tunnels end on drop.
pub struct EgressProxy {
    address: SocketAddr,
    serves: watch::Sender<Serves>,
    _accepting: JoinSet<()>,
}

impl EgressProxy {
    /// Starts a proxy that makes tunnels.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a local address");
        let serves = watch::Sender::new(Serves::Tunnels);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, serves.subscribe()));
        Self { address, serves, _accepting: accepting }
    }

    /// The proxy's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Orders the answers from now on. Open tunnels stay: a request in a tunnel that ends may have reached the
    /// receiver.
    pub fn serve(&self, serves: Serves) {
        self.serves.send_replace(serves);
    }
}

async fn accept(listener: TcpListener, serves: watch::Receiver<Serves>) {
    let mut tunnels = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    let answers = *serves.borrow();
                    tunnels.spawn(serve(client, answers));
                }
            }
            _ = tunnels.join_next(), if !tunnels.is_empty() => {}
        }
    }
}

/// Serves a connection. The client notices a failing tunnel.
async fn serve(mut client: TcpStream, serves: Serves) {
    let _ = match serves {
        Serves::Tunnels => tunnel(&mut client).await,
        Serves::Nobody => Ok(()),
        Serves::Errors => refuse(&mut client, "503 Service Unavailable").await,
        Serves::Strangers => refuse(&mut client, "407 Proxy Authentication Required").await,
    };
}

async fn tunnel(client: &mut TcpStream) -> io::Result<()> {
    let head = read_head(client).await?;
    let authority = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let Ok(mut server) = TcpStream::connect(&authority).await else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(client, &mut server).await.map(drop)
}

async fn refuse(client: &mut TcpStream, status: &str) -> io::Result<()> {
    read_head(client).await?;
    client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await
}

/// Reads to the end of the request's head. The client sends nothing behind before the answer.
async fn read_head(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

//! A TCP proxy of a test that delays, silences or resets connections.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// Time in which a connection to be reset waits for data to cut in the middle.
const MIDDLE: Duration = Duration::from_millis(300);

/// Faults for connections. Connections are numbered in order of acceptance.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    delay: Duration,
    silent_before: u64,
    reset_before: u64,
    next: u64,
}

/// A proxy on a free port. All connections through the proxy end on drop.
pub struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy in front of a server of this machine.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a local address");
        let orders = watch::Sender::new(Orders::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, server, orders.clone()));
        Self { address, orders, _accepting: accepting }
    }

    /// Starts a proxy in front of a URL's server. Returns the proxy and the URL through the proxy.
    ///
    /// # Panics
    /// If the URL names no address and port.
    pub async fn before(url: &str) -> (Self, String) {
        let (_, rest) = url.split_once('@').expect("a URL with a user");
        let (server, _) = rest.split_once('/').expect("a URL with a path");
        let proxy = Self::start(server.parse().expect("an address and a port")).await;
        let through = url.replacen(server, &proxy.address.to_string(), 1);
        (proxy, through)
    }

    /// Address of the proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Delays all further data by `delay`.
    pub fn delay(&self, delay: Duration) {
        self.orders.send_modify(|orders| orders.delay = delay);
    }

    /// Drops all data of the open connections; both sides stay connected. New connections work.
    pub fn silence(&self) {
        self.orders.send_modify(|orders| orders.silent_before = orders.next);
    }

    /// Drops all data of all connections, including new connections; both sides stay connected.
    pub fn partition(&self) {
        self.orders.send_modify(|orders| orders.silent_before = u64::MAX);
    }

    /// Ends [`Self::partition`] and resets all open connections, like a machine that returns without the old
    /// connections.
    pub fn heal(&self) {
        self.orders.send_modify(|orders| (orders.silent_before, orders.reset_before) = (0, orders.next));
    }

    /// Resets the next connection in the middle of the carried data.
    pub fn reset_next(&self) {
        self.orders.send_modify(|orders| orders.reset_before = orders.next + 1);
    }

    /// Resets all open connections in the middle of the carried data.
    pub fn reset(&self) {
        self.orders.send_modify(|orders| orders.reset_before = orders.next);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, orders: watch::Sender<Orders>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let mut number = 0;
        orders.send_modify(|orders| {
            number = orders.next;
            orders.next += 1;
        });
        connections.spawn(carry(number, client, server, orders.subscribe()));
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(number: u64, mut client: TcpStream, server: SocketAddr, orders: watch::Receiver<Orders>) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let is_reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            up = pass(number, from_client, to_server, orders.clone()) => up.is_err(),
            down = pass(number, from_server, to_client, orders.clone()) => down.is_err(),
            () = reset(number, orders.clone()) => true,
        }
    };
    if is_reset {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Returns [`MIDDLE`] after a reset was ordered, for a connection without data to cut.
async fn reset(number: u64, mut orders: watch::Receiver<Orders>) {
    let ordered = orders.wait_for(|orders| number < orders.reset_before).await.is_ok();
    if ordered {
        sleep(MIDDLE).await;
    }
}

/// Copies data under the current orders. Fails if the connection is to be reset.
async fn pass(
    number: u64,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    orders: watch::Receiver<Orders>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await;
        if number < orders.borrow().silent_before {
            match count {
                Ok(1..) => continue,
                _ => std::future::pending().await,
            }
        }
        let count = count?;
        if count == 0 {
            return Ok(());
        }
        let delay = orders.borrow().delay;
        if !delay.is_zero() {
            // The delay that the test ordered.
            sleep(delay).await;
        }
        if number < orders.borrow().reset_before {
            to.write_all(&buffer[..count / 2]).await?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        to.write_all(&buffer[..count]).await?;
    }
}

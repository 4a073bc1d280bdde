//! A TCP proxy of a test's own, which harms what passes through it as it is told.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// How long a connection that is to be reset waits for something to break off in the middle.
const MIDDLE: Duration = Duration::from_millis(300);

/// What is done to connections; they are numbered in the order in which they came.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    delay: Duration,
    silent_before: u64,
    reset_before: u64,
    next: u64,
}

/// A proxy on a port of its own. What passes through it ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Starts one before a server of this machine.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let orders = watch::Sender::new(Orders::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, server, orders.clone()));
        Self { address, orders, _accepting: accepting }
    }

    /// Starts one before the server of a URL, and gives the URL that leads through it.
    ///
    /// # Panics
    /// When the URL names no address and port.
    pub async fn before(url: &str) -> (Self, String) {
        let (_, rest) = url.split_once('@').expect("a URL with a user");
        let (server, _) = rest.split_once('/').expect("a URL with a path");
        let proxy = Self::start(server.parse().expect("an address and a port")).await;
        let through = url.replacen(server, &proxy.address.to_string(), 1);
        (proxy, through)
    }

    /// From now on everything is late by so much.
    pub fn delay(&self, delay: Duration) {
        self.orders.send_modify(|orders| orders.delay = delay);
    }

    /// Nothing passes any more through the connections that there are, and neither side hears of it. New ones work.
    pub fn silence(&self) {
        self.orders.send_modify(|orders| orders.silent_before = orders.next);
    }

    /// The same for all connections, new ones, too.
    pub fn part(&self) {
        self.orders.send_modify(|orders| orders.silent_before = u64::MAX);
    }

    /// The end of that. As after the return of a machine that knows nothing of them, the connections which there
    /// are end with a reset.
    pub fn join(&self) {
        self.orders.send_modify(|orders| (orders.silent_before, orders.reset_before) = (0, orders.next));
    }

    /// Resets the connections that there are, in the middle of what they carry.
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

/// Ends when the connection is to be reset, and nothing came that could be broken off.
async fn reset(number: u64, mut orders: watch::Receiver<Orders>) {
    let ordered = orders.wait_for(|orders| number < orders.reset_before).await.is_ok();
    if ordered {
        sleep(MIDDLE).await;
    }
}

/// Passes on what comes, as the orders are. An error where the connection is to be reset.
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
            sleep(delay).await;
        }
        if number < orders.borrow().reset_before {
            to.write_all(&buffer[..count / 2]).await?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        to.write_all(&buffer[..count]).await?;
    }
}

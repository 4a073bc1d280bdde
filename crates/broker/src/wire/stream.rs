//! The stream between the transport and lapin. The stream sanitizes the bytes that the broker writes.

use std::{
    future::{Future, ready},
    io::{self, IoSlice, Read, Write},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    pin::Pin,
    sync::Arc,
    task::{self, Context, Poll},
    time::{Duration, Instant},
};

use async_rs::{
    Runtime, Tokio,
    traits::{Executor, Reactor, RuntimeKit},
    util::Task,
};
use futures_util::{
    Stream,
    io::{AsyncRead, AsyncWrite},
};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, uri::AMQPUri};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{
    compat::{Compat, TokioAsyncReadCompatExt},
    either::Either,
};

use super::frames::Frames;
use crate::{
    connection::answered,
    nodes::{Node, Tls},
};

/// Opens a connection to a node whose messages lapin can parse. Bodies of more than `max_body` bytes are cut.
pub(crate) async fn open(
    node: &Node,
    url: AMQPUri,
    properties: ConnectionProperties,
    max_body: usize,
) -> lapin::Result<Connection> {
    let tls = node.tls.clone();
    let connect = async move |url: AMQPUri, _: Runtime<Kit>| {
        let address = (url.authority.host.as_str(), url.authority.port);
        // lapin runs the connector on a thread. The end of the caller's wait does not end the thread.
        let transport = answered(async { Ok(connect(address, tls.as_ref()).await?) }).await?;
        Ok(AsyncTcpStream::Plain(Sanitized::new(transport.compat(), max_body)))
    };
    Connection::connector(url, Runtime::new(Kit(Tokio::current())), connect, properties).await
}

/// A transport, with or without TLS.
type Transport = Either<TcpStream, TlsStream<TcpStream>>;

async fn connect(address: (&str, u16), tls: Option<&Tls>) -> io::Result<Transport> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(Tls { name, settings }) = tls else { return Ok(Either::Left(stream)) };
    Ok(Either::Right(TlsConnector::from(Arc::clone(settings)).connect(name.clone(), stream).await?))
}

/// A stream of frames in which every short string of a message is UTF-8, and no body is too long.
pub(crate) struct Sanitized<S> {
    transport: S,
    frames: Frames,
}

impl<S> Sanitized<S> {
    fn new(transport: S, max_body: usize) -> Self {
        Self { transport, frames: Frames::new(max_body) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sanitized<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let given = this.frames.give(into);
            if given > 0 || into.is_empty() {
                return Poll::Ready(Ok(given));
            }
            match task::ready!(Pin::new(&mut this.transport).poll_read(context, this.frames.room()))? {
                // lapin cannot use the beginning of a frame.
                0 => return Poll::Ready(Ok(0)),
                count => this.frames.fill(count),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sanitized<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(context, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_close(context)
    }
}

/// Tokio with Fanfare's stream type. lapin takes the stream type from the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Kit(Tokio);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Sanitized<Compat<Transport>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        // lapin calls this function only without a connector.
        ready(Err(io::Error::new(io::ErrorKind::Unsupported, format!("the connector does not connect to {address}"))))
    }
}

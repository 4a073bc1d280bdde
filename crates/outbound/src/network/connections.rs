//! Open connections, and the number of connections without a request.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Counts of a client. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections {
    open: Count,
    in_use: Count,
}

/// Number of connections or requests.
type Count = Arc<AtomicUsize>;

/// Part of a count until dropped.
#[derive(Debug)]
pub(crate) struct Counted(Count);

impl Connections {
    /// Counts a connection.
    pub(crate) fn open(&self, stream: TcpStream) -> Counting {
        Counting { stream, _open: Counted::new(&self.open) }
    }

    /// Counts a request that uses a connection.
    pub(crate) fn begin(&self) -> Counted {
        Counted::new(&self.in_use)
    }

    /// Number of connections without a request. Requests that wait for a connection make the number smaller.
    pub(crate) fn idle(&self) -> usize {
        self.open.load(Ordering::Relaxed).saturating_sub(self.in_use.load(Ordering::Relaxed))
    }
}

impl Counted {
    fn new(count: &Count) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A counted connection.
#[derive(Debug)]
pub(crate) struct Counting {
    stream: TcpStream,
    _open: Counted,
}

impl Connection for Counting {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

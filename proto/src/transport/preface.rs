//! HTTP/2's first 24 bytes, in time. The HTTP library waits for them for ever, and pings only after they came.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::timeout,
};

use super::flood::FrameMeter;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose preface came. Reading starts with the preface again, and fails when what follows is a flood.
#[derive(Debug)]
pub(super) struct Prefaced<T> {
    io: T,
    replayed: usize,
    meter: FrameMeter,
}

/// Reads the preface off `io`.
///
/// # Errors
/// `TimedOut` when it didn't come within `limit`, `InvalidData` when something else came.
pub(super) async fn expect<T: AsyncRead + Unpin>(mut io: T, limit: Duration) -> io::Result<Prefaced<T>> {
    let mut got = [0; PREFACE.len()];
    timeout(limit, io.read_exact(&mut got)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if got != *PREFACE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Prefaced { io, replayed: 0, meter: FrameMeter::new(Instant::now()) })
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefaced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &PREFACE[self.replayed..];
        if rest.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            return Poll::Ready(self.meter.pass(&buf.filled()[before..], Instant::now()));
        }
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.replayed += count;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefaced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

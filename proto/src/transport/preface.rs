//! HTTP/2's first 24 bytes, in time. The HTTP library waits for them for ever, and pings only after they came.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::timeout,
};

use super::{
    flood::FrameMeter,
    limits::Limits,
    write_ahead::{LetWait, WriteAhead},
};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose preface came. Reading starts with the preface again, and fails when what follows is a flood. What
/// may wait to be written follows the rate.
#[derive(Debug)]
pub(super) struct Prefaced<T> {
    io: T,
    replayed: usize,
    meter: FrameMeter,
    ahead: WriteAhead,
}

/// Reads the preface off `io`.
///
/// # Errors
/// `TimedOut` when it didn't come within [`Limits::preface`], `InvalidData` when something else came.
pub(super) async fn expect<T: AsyncRead + Unpin>(mut io: T, limits: &Limits) -> io::Result<Prefaced<T>> {
    let mut got = [0; PREFACE.len()];
    timeout(limits.preface, io.read_exact(&mut got)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if got != *PREFACE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let now = Instant::now();
    let ahead = WriteAhead::new(limits.write_ahead.clone(), now);
    Ok(Prefaced { io, replayed: 0, meter: FrameMeter::new(now), ahead })
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

impl<T: LetWait> Prefaced<T> {
    fn taken(&mut self, bytes: usize) -> Poll<io::Result<usize>> {
        if let Some(ahead) = self.ahead.taken(bytes, Instant::now()) {
            self.io.let_wait(ahead);
        }
        Poll::Ready(Ok(bytes))
    }
}

impl<T: AsyncWrite + LetWait + Unpin> AsyncWrite for Prefaced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.taken(bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        self.taken(bytes)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Takes everything, and notes what may wait.
    struct Sink(Vec<usize>);

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl LetWait for Sink {
        fn let_wait(&mut self, bytes: usize) {
            self.0.push(bytes);
        }
    }

    #[tokio::test]
    async fn a_connection_that_carries_much_may_hold_more() {
        let now = Instant::now();
        let a_while_ago = now.checked_sub(Duration::from_secs(1)).unwrap();
        let ahead = WriteAhead::new(32 << 10..=64 << 10, a_while_ago);
        let mut io = Prefaced { io: Sink(Vec::new()), replayed: 0, meter: FrameMeter::new(now), ahead };
        // 40 MB and more in a second or a little more; then all at once, which is not measured yet.
        io.write_all(&vec![0; 40_000_000]).await.unwrap();
        io.write_all(&[0; 100]).await.unwrap();
        assert_eq!(io.io.0, [64 << 10]);
    }
}

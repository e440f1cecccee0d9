//! Timeouts for opening HTTP/2 and for the headers of requests. The HTTP library waits for them forever. Its
//! pings start only after the first 24 bytes, and half a minute later.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until, timeout_at},
};

use super::{
    flood::FrameMeter,
    limits::Limits,
    write_ahead::{SetWriteAhead, WriteAhead},
};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose preface has arrived. Reading returns the preface again first. Reading fails if what
/// follows is a flood, or arrives too slowly. The bytes that may wait to be written depend on the send rate.
#[derive(Debug)]
pub(super) struct Prefaced<T> {
    io: T,
    replayed: usize,
    meter: FrameMeter,
    pace: Pace,
    ahead: WriteAhead,
}

/// The deadline for input that has begun and must arrive whole.
#[derive(Debug)]
struct Pace {
    /// The deadline of the settings, which belong to the preface.
    opened_by: Instant,
    /// The time limit for anything else.
    limit: Duration,
    /// Set only while something is incomplete.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Fails after the deadline. Before it, registers the task to be woken at the deadline.
    fn poll(&mut self, meter: &FrameMeter, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(since) = meter.unfinished() else {
            self.timer = None;
            return Poll::Pending;
        };
        let due = if meter.has_begun() { since + self.limit } else { self.opened_by };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "a frame or header did not arrive completely in time",
        )))
    }
}

/// Reads the preface from `io`. The preface and the settings after it must arrive by `opened_by`.
///
/// # Errors
/// `TimedOut` if the preface does not arrive in time, `InvalidData` if other bytes arrive.
pub(super) async fn expect<T: AsyncRead + Unpin>(
    mut io: T,
    limits: &Limits,
    opened_by: Instant,
) -> io::Result<Prefaced<T>> {
    let mut got = [0; PREFACE.len()];
    timeout_at(opened_by, io.read_exact(&mut got)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if got != *PREFACE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let now = Instant::now();
    let ahead = WriteAhead::new(limits.write_ahead.clone(), now.into_std());
    let pace = Pace { opened_by, limit: limits.headers, timer: None };
    Ok(Prefaced { io, replayed: 0, meter: FrameMeter::new(now), pace, ahead })
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefaced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &PREFACE[self.replayed..];
        if rest.is_empty() {
            let this = &mut *self;
            let before = buf.filled().len();
            if Pin::new(&mut this.io).poll_read(cx, buf)?.is_pending() {
                return this.pace.poll(&this.meter, cx);
            }
            return Poll::Ready(this.meter.pass(&buf.filled()[before..], Instant::now()));
        }
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.replayed += count;
        Poll::Ready(Ok(()))
    }
}

impl<T: SetWriteAhead> Prefaced<T> {
    fn taken(&mut self, bytes: usize) -> Poll<io::Result<usize>> {
        if let Some(ahead) = self.ahead.taken(bytes, std::time::Instant::now()) {
            self.io.set_write_ahead(ahead);
        }
        Poll::Ready(Ok(bytes))
    }
}

impl<T: AsyncWrite + SetWriteAhead + Unpin> AsyncWrite for Prefaced<T> {
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

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Accepts every write, and records the amounts that may wait.
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

    impl SetWriteAhead for Sink {
        fn set_write_ahead(&mut self, bytes: usize) {
            self.0.push(bytes);
        }
    }

    #[tokio::test]
    async fn a_connection_that_carries_much_may_hold_more() {
        let now = Instant::now();
        let a_while_ago = now.into_std().checked_sub(Duration::from_secs(1)).unwrap();
        let ahead = WriteAhead::new(32 << 10..=64 << 10, a_while_ago);
        let pace = Pace { opened_by: now, limit: Duration::ZERO, timer: None };
        let mut io = Prefaced { io: Sink(Vec::new()), replayed: 0, meter: FrameMeter::new(now), pace, ahead };
        // At least 40 MB in about a second. The write after it is too soon to be measured.
        io.write_all(&vec![0; 40_000_000]).await.unwrap();
        io.write_all(&[0; 100]).await.unwrap();
        assert_eq!(io.io.0, [64 << 10]);
    }

    /// How long the server listens to a client that sends these frames after the preface, one byte a second.
    async fn listened(frames: &[u8]) -> (io::ErrorKind, Duration) {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(PREFACE).await.unwrap();
        let limits = Limits {
            opening: Duration::from_secs(10),
            headers: Duration::from_secs(20),
            ..Limits::tracker()
        };
        let start = Instant::now();
        let mut server = expect(server, &limits, start + limits.opening).await.unwrap();
        let frames = frames.to_vec();
        let trickling = tokio::spawn(async move {
            for byte in frames {
                // The clock is paused, and advances by itself when all tasks wait.
                tokio::time::sleep(Duration::from_secs(1)).await;
                if client.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        });
        let error = loop {
            match server.read(&mut [0; 64]).await {
                Ok(0) => break io::ErrorKind::UnexpectedEof,
                Ok(_) => {}
                Err(error) => break error.kind(),
            }
        };
        drop(server);
        trickling.await.unwrap();
        (error, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_trickles_in_is_given_up() {
        let frame = |kind: u8, flags: u8, length: u8| {
            [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], &vec![0; length.into()]].concat()
        };
        let seconds = Duration::from_secs;
        // The settings belong to the preface.
        assert_eq!(listened(&frame(4, 0, 6)).await, (io::ErrorKind::TimedOut, seconds(10)));
        let settings = frame(4, 0, 0);
        let after = |frames: &[u8]| [&settings[..], frames].concat();
        // Headers in one frame, and in several: 20 s from their first byte.
        let whole = frame(1, 4, 100);
        let parts = [frame(1, 0, 1), frame(9, 0, 1).repeat(10)].concat();
        for headers in [whole, parts] {
            assert_eq!(listened(&after(&headers)).await, (io::ErrorKind::TimedOut, seconds(30)));
        }
        // The payload of DATA has no time limit here.
        let data = after(&frame(0, 1, 200));
        let all = seconds(data.len() as u64);
        assert_eq!(listened(&data).await, (io::ErrorKind::UnexpectedEof, all));
    }
}

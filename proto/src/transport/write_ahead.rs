//! How far a connection writes ahead of the network.
//!
//! What TLS and the kernel have taken of an upload can't be taken back or reordered, so a thin uplink must hold little of
//! it. Each write costs the same however little goes with it, so a fast one should hold more: what goes out in [`SPAN`],
//! within bounds. On loopback, where that is the most there may be, 1 GiB from daemon to daemon takes a twentieth less
//! time than with the least (interleaved runs on two cores, 2026-11-26).

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// What goes out in this time may wait: the least for a peer, 32 KiB, up to 170 Mbit/s. That short, a thin uplink whose
/// queue swallows a burst is not taken for a fast one. With 13 ms, eight on uplinks of 20 Mbit/s took 1.35 of the least
/// time, and with 3 ms 1.19 (`xtask bench crowd`).
const SPAN: Duration = Duration::from_millis(3);
/// How long the rate is measured before it counts.
const MEASURED: Duration = Duration::from_millis(50);

/// Decides how much may wait, by what goes out.
#[derive(Debug)]
pub(super) struct WriteAhead {
    range: RangeInclusive<usize>,
    now: usize,
    since: Instant,
    bytes: usize,
}

impl WriteAhead {
    /// Begins with the least.
    pub(super) fn new(range: RangeInclusive<usize>, now: Instant) -> Self {
        Self { now: *range.start(), range, since: now, bytes: 0 }
    }

    /// Takes note of bytes that were taken, and returns how many may wait from now on if that changes. In powers of two,
    /// so that it seldom does.
    pub(super) fn taken(&mut self, bytes: usize, now: Instant) -> Option<usize> {
        self.bytes += bytes;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < MEASURED {
            return None;
        }
        let in_span = self.bytes as f64 * SPAN.div_duration_f64(elapsed);
        (self.since, self.bytes) = (now, 0);
        // Fits: a rate in bytes, and too large a one is the largest.
        let power = 1 << (in_span as usize).max(1).ilog2();
        let wanted = power.clamp(*self.range.start(), *self.range.end());
        (std::mem::replace(&mut self.now, wanted) != wanted).then_some(wanted)
    }
}

/// A connection that can be told how many bytes may wait in it.
pub(super) trait LetWait {
    /// So many bytes may wait from now on, in each place where some do.
    fn let_wait(&mut self, bytes: usize);
}

impl LetWait for TcpStream {
    fn let_wait(&mut self, bytes: usize) {
        // Fits: a few hundred KiB. Where it can't be set, all goes on as it is.
        let _ = SockRef::from(&*self).set_tcp_notsent_lowat(bytes as u32);
    }
}

impl LetWait for UnixStream {
    fn let_wait(&mut self, _: usize) {}
}

impl LetWait for TlsStream<TcpStream> {
    fn let_wait(&mut self, bytes: usize) {
        let (socket, session) = self.get_mut();
        session.set_buffer_limit(Some(bytes));
        socket.let_wait(bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        socket.let_wait(192 << 10);
        assert_eq!(SockRef::from(&socket).tcp_notsent_lowat().unwrap(), 192 << 10);
    }

    #[test]
    fn what_goes_out_in_3_ms_may_wait() {
        let start = Instant::now();
        let mut ahead = WriteAhead::new(32 << 10..=256 << 10, start);
        let mut now = start;
        // For a tenth of a second each, in writes 5 ms apart: bits a second, and what may wait then.
        for (mbit, kib) in [(20, 32), (160, 32), (200, 64), (500, 128), (10_000, 256), (200, 64), (1, 32)] {
            let mut last = None;
            for _ in 0..20 {
                now += Duration::from_millis(5);
                last = ahead.taken(mbit * 125 * 5, now).or(last);
            }
            assert_eq!(ahead.now, kib << 10, "{mbit} Mbit/s");
            assert!(last.is_none_or(|told| told == ahead.now));
        }
        // Half a megabyte at once, as a deep queue may take it.
        now += MEASURED;
        assert_eq!(ahead.taken(500_000, now), None);
        // A pause is part of the time that what comes after it took.
        assert_eq!(ahead.taken(1 << 20, now + Duration::from_secs(9)), None);
        assert_eq!(
            WriteAhead::new(7..=7, start).taken(1 << 30, start + MEASURED),
            None,
            "there is no choice"
        );
    }
}

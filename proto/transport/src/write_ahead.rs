//! Limits how far a connection writes ahead of the network.
//!
//! Upload data that TLS or the kernel has accepted cannot be withdrawn or reordered, so a slow uplink must
//! hold little of it. Each write has a fixed cost, so a fast uplink should hold more: the data that is sent
//! in [`SPAN`], within bounds. On loopback the amount is at its maximum. There, 1 GiB from daemon to daemon
//! takes a twentieth less time than with the minimum (interleaved runs on two cores, 2026-11-26).

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// The data that is sent in this time may wait. Up to 170 Mbit/s that is a peer's minimum, 32 KiB. The time
/// is so short that a slow uplink whose queue absorbs a burst is not mistaken for a fast one. With 13 ms,
/// eight peers on uplinks of 20 Mbit/s took 1.35 of the minimum time, and with 3 ms 1.19 (`xtask bench
/// crowd`).
const SPAN: Duration = Duration::from_millis(3);
/// Length of one measurement of the rate.
const MEASURED: Duration = Duration::from_millis(50);

/// Decides how much data may wait, by the send rate.
#[derive(Debug)]
pub(super) struct WriteAhead {
    range: RangeInclusive<usize>,
    now: usize,
    since: Instant,
    bytes: usize,
}

impl WriteAhead {
    /// Starts with the minimum.
    pub(super) fn new(range: RangeInclusive<usize>, now: Instant) -> Self {
        Self { now: *range.start(), range, since: now, bytes: 0 }
    }

    /// Records accepted bytes. If the number of bytes that may wait changes, returns the new number. The
    /// number is a power of two, so that it rarely changes.
    pub(super) fn taken(&mut self, bytes: usize, now: Instant) -> Option<usize> {
        self.bytes += bytes;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < MEASURED {
            return None;
        }
        let in_span = self.bytes as f64 * SPAN.div_duration_f64(elapsed);
        (self.since, self.bytes) = (now, 0);
        // The cast saturates: a rate that is too large becomes the maximum.
        let power = 1 << (in_span as usize).max(1).ilog2();
        let wanted = power.clamp(*self.range.start(), *self.range.end());
        (std::mem::replace(&mut self.now, wanted) != wanted).then_some(wanted)
    }
}

/// A connection whose amount of waiting data can be limited.
pub(super) trait SetWriteAhead {
    /// Sets how many bytes may wait from now on, in each layer that holds some.
    fn set_write_ahead(&mut self, bytes: usize);
}

#[cfg(fuzzing)]
impl SetWriteAhead for tokio::io::DuplexStream {
    fn set_write_ahead(&mut self, _: usize) {}
}

impl SetWriteAhead for TcpStream {
    fn set_write_ahead(&mut self, bytes: usize) {
        // The cast cannot overflow: the value is a few hundred KiB. If the option cannot be set, the old
        // value stays.
        let _ = SockRef::from(&*self).set_tcp_notsent_lowat(bytes as u32);
    }
}

impl SetWriteAhead for UnixStream {
    fn set_write_ahead(&mut self, _: usize) {}
}

impl<T: SetWriteAhead> SetWriteAhead for TlsStream<T> {
    fn set_write_ahead(&mut self, bytes: usize) {
        let (socket, session) = self.get_mut();
        session.set_buffer_limit(Some(bytes));
        socket.set_write_ahead(bytes);
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
        socket.set_write_ahead(192 << 10);
        assert_eq!(SockRef::from(&socket).tcp_notsent_lowat().unwrap(), 192 << 10);
    }

    #[test]
    fn what_goes_out_in_3_ms_may_wait() {
        let start = Instant::now();
        let mut ahead = WriteAhead::new(32 << 10..=256 << 10, start);
        let mut now = start;
        // Each rate lasts a tenth of a second, with a write every 5 ms: Mbit/s, and KiB that may wait then.
        for (mbit, kib) in [(20, 32), (160, 32), (200, 64), (500, 128), (10_000, 256), (200, 64), (1, 32)] {
            let mut last = None;
            for _ in 0..20 {
                now += Duration::from_millis(5);
                last = ahead.taken(mbit * 125 * 5, now).or(last);
            }
            assert_eq!(ahead.now, kib << 10, "{mbit} Mbit/s");
            assert!(last.is_none_or(|told| told == ahead.now));
        }
        // Half a megabyte at once, which a deep queue may absorb.
        now += MEASURED;
        assert_eq!(ahead.taken(500_000, now), None);
        // A pause counts as part of the measured time.
        assert_eq!(ahead.taken(1 << 20, now + Duration::from_secs(9)), None);
        assert_eq!(
            WriteAhead::new(7..=7, start).taken(1 << 30, start + MEASURED),
            None,
            "there is no choice"
        );
    }
}

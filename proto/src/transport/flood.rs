//! Ends connections that send frames which cost work and bring nothing: the HTTP library takes any number of them.
//!
//! Resets, header blocks without end and calls that nobody reads are the library's and [`stall`](super::stall)'s to end.

use std::{
    io,
    time::{Duration, Instant},
};

/// Such frames that may come in [`SPAN`]: far more than pings and settings of any client come to.
const MOST: u32 = 1_000;
const SPAN: Duration = Duration::from_secs(1);

/// Bytes before a frame's payload: RFC 9113, section 4.1.
const HEADER: usize = 9;

/// Follows the frames of a connection, as their bytes come in.
#[derive(Debug)]
pub(super) struct FrameMeter {
    header: [u8; HEADER],
    filled: usize,
    /// Bytes left of the payload.
    payload: usize,
    useless: u32,
    since: Instant,
}

impl FrameMeter {
    /// The next byte is a frame's first.
    pub(super) fn new(now: Instant) -> Self {
        Self { header: [0; HEADER], filled: 0, payload: 0, useless: 0, since: now }
    }

    /// Takes note of bytes that came.
    ///
    /// # Errors
    /// When too many of the frames were of no use.
    pub(super) fn pass(&mut self, mut bytes: &[u8], now: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER {
                self.filled = 0;
                self.begin(now)?;
            }
        }
        Ok(())
    }

    /// A frame begins.
    fn begin(&mut self, now: Instant) -> io::Result<()> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if !is_useless(kind, flags, self.payload) {
            return Ok(());
        }
        if now.duration_since(self.since) >= SPAN {
            (self.since, self.useless) = (now, 0);
        }
        self.useless += 1;
        if self.useless > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many frames of no use"));
        }
        Ok(())
    }
}

/// Whether a frame of that kind brings no call further.
fn is_useless(kind: u8, flags: u8, length: usize) -> bool {
    /// The same bit: the last frame of a stream, and an answer to settings or a ping.
    const LAST_OR_ANSWER: u8 = 1;
    match kind {
        // DATA
        0 => length == 0 && flags & LAST_OR_ANSWER == 0,
        // HEADERS, RST_STREAM, GOAWAY, WINDOW_UPDATE, CONTINUATION
        1 | 3 | 7 | 8 | 9 => false,
        // SETTINGS, PING
        4 | 6 => flags & LAST_OR_ANSWER == 0,
        // PRIORITY, which counts for nothing any more, PUSH_PROMISE, which no client may send, and all unknown ones.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).expect("short").to_be_bytes();
        // A payload that looks like frames of no use.
        [&[size[1], size[2], size[3], kind, flags, 0, 0, 0, 1][..], &vec![0; length]].concat()
    }

    #[test]
    fn a_flood_is_told_from_calls_however_it_is_cut() {
        let start = Instant::now();
        let many = |kind, flags, length| frame(kind, flags, length).repeat(2 * MOST as usize);
        for (what, bytes, ends) in [
            ("calls", [frame(1, 4, 50), frame(0, 1, 700)].concat().repeat(2 * MOST as usize), false),
            ("ends of streams", many(0, 1, 0), false),
            ("windows", many(8, 0, 4), false),
            ("answers to pings", many(6, 1, 8), false),
            ("empty data", many(0, 0, 0), true),
            ("pings", many(6, 0, 8), true),
            ("settings", many(4, 0, 6), true),
            ("unknown frames", many(77, 0, 100), true),
        ] {
            for cut in [1, 8, 9, 10, 4_096, bytes.len()] {
                let mut meter = FrameMeter::new(start);
                let ended = bytes.chunks(cut).any(|part| meter.pass(part, start).is_err());
                assert_eq!(ended, ends, "{what} in parts of {cut}");
            }
        }
    }

    #[test]
    fn pings_now_and_then_go_on_for_ever() {
        let (start, ping) = (Instant::now(), frame(6, 0, 8));
        let mut meter = FrameMeter::new(start);
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            assert!(meter.pass(&ping.repeat(100), now).is_ok());
        }
    }
}

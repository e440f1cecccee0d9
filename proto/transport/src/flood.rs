//! Detects floods of useless frames, and frames or headers that arrive too slowly. A useless frame costs work
//! and advances no call. The HTTP library accepts any number of them. It also waits forever for the rest of a
//! frame or of a request's headers.
//!
//! The library itself handles floods of resets and endless header blocks. [`stall`](super::stall) ends calls
//! whose client does not read.

use std::{io, time::Duration};

use tokio::time::Instant;

/// Maximum number of useless frames in [`SPAN`]: far more than any client's pings and settings.
const MOST: u32 = 1_000;
const SPAN: Duration = Duration::from_secs(1);

/// Bytes before a frame's payload: RFC 9113, section 4.1.
const HEADER: usize = 9;

/// Parses the frames of a connection as their bytes arrive.
#[derive(Debug)]
pub(super) struct FrameMeter {
    header: [u8; HEADER],
    filled: usize,
    /// Bytes of the payload that are still to come.
    payload: usize,
    useless: u32,
    since: Instant,
    /// Since when something that must arrive whole has been incomplete.
    unfinished: Option<Instant>,
    /// A frame's header has arrived, but not yet its whole payload.
    in_frame: bool,
    /// A whole frame has arrived.
    begun: bool,
}

impl FrameMeter {
    /// Starts before a frame's first byte. The expected frame is the settings.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            header: [0; HEADER],
            filled: 0,
            payload: 0,
            useless: 0,
            since: now,
            unfinished: Some(now),
            in_frame: false,
            begun: false,
        }
    }

    /// Since when something that must arrive whole has been incomplete, if anything is. That is any frame
    /// except the payload of DATA, or the headers of a request, which can span several frames.
    pub(super) fn unfinished(&self) -> Option<Instant> {
        self.unfinished
    }

    /// Whether the first frame has arrived whole. HTTP/2 is then open.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Records received bytes.
    ///
    /// # Errors
    /// Fails if there were too many useless frames.
    pub(super) fn pass(&mut self, mut bytes: &[u8], now: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            bytes = &bytes[skipped..];
            self.end_if_whole();
            if bytes.is_empty() {
                break;
            }
            self.unfinished.get_or_insert(now);
            let taken = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER {
                self.filled = 0;
                self.begin(now)?;
                self.end_if_whole();
            }
        }
        Ok(())
    }

    /// Updates the state if the frame has arrived whole.
    fn end_if_whole(&mut self) {
        const END_HEADERS: u8 = 4;
        if !self.in_frame || self.payload > 0 {
            return;
        }
        (self.in_frame, self.begun) = (false, true);
        let [_, _, _, kind, flags, ..] = self.header;
        // After HEADERS or CONTINUATION, more of the same headers may follow.
        if !matches!(kind, 1 | 9) || flags & END_HEADERS != 0 {
            self.unfinished = None;
        }
    }

    /// Handles the start of a frame.
    fn begin(&mut self, now: Instant) -> io::Result<()> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.in_frame = true;
        if kind == 0 {
            // DATA: the deadlines limit the time that a request's body may take.
            self.unfinished = None;
        }
        if !is_useless(kind, flags, self.payload) {
            return Ok(());
        }
        if now.duration_since(self.since) >= SPAN {
            (self.since, self.useless) = (now, 0);
        }
        self.useless += 1;
        if self.useless > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many useless frames"));
        }
        Ok(())
    }
}

/// Whether a frame of this kind advances no call.
fn is_useless(kind: u8, flags: u8, length: usize) -> bool {
    /// One bit with two meanings: END_STREAM of a stream, and ACK of settings or a ping.
    const LAST_OR_ANSWER: u8 = 1;
    match kind {
        // DATA
        0 => length == 0 && flags & LAST_OR_ANSWER == 0,
        // HEADERS, RST_STREAM, GOAWAY, WINDOW_UPDATE, CONTINUATION
        1 | 3 | 7 | 8 | 9 => false,
        // SETTINGS, PING
        4 | 6 => flags & LAST_OR_ANSWER == 0,
        // PRIORITY, which no longer has an effect; PUSH_PROMISE, which no client may send; and all unknown
        // kinds.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).expect("short").to_be_bytes();
        // The payload itself looks like useless frames.
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
    fn what_must_come_whole_is_unfinished_until_it_has() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut meter = FrameMeter::new(start);
        let mut pass = |bytes: &[u8], second| {
            meter.pass(bytes, at(second)).expect("no flood");
            (meter.has_begun(), meter.unfinished().map(|since| since.duration_since(start).as_secs()))
        };
        let settings = frame(4, 0, 6);
        assert_eq!(pass(&[], 1), (false, Some(0)));
        assert_eq!(pass(&settings[..12], 2), (false, Some(0)));
        assert_eq!(pass(&settings[12..], 3), (true, None));
        // Headers in three frames, one byte at a time.
        let headers = [frame(1, 0, 3), frame(9, 0, 0), frame(9, 4, 2)].concat();
        for (n, byte) in headers[..headers.len() - 1].iter().enumerate() {
            assert_eq!(pass(&[*byte], 10 + n as u64), (true, Some(10)), "byte {n}");
        }
        assert_eq!(pass(&headers[headers.len() - 1..], 99), (true, None));
        // The header of DATA must arrive whole. Its payload may take long.
        let data = frame(0, 1, 100);
        assert_eq!(pass(&data[..8], 100), (true, Some(100)));
        assert_eq!(pass(&data[8..50], 101), (true, None));
        assert_eq!(pass(&[&data[50..], &settings[..1]].concat(), 102), (true, Some(102)));
        assert_eq!(pass(&[&settings[1..], &headers[..]].concat(), 103), (true, None));
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

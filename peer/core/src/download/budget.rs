//! Decides how much to request while this peer's own rate limit decides how fast bytes arrive.
//!
//! A source sends ahead of what this peer reads, as far as its flow-control window allows. Under a limit
//! these windows are small, and few requests are open at a time. The bytes that were sent ahead are then at
//! most [`AHEAD`] of a second's bytes. More requests are opened only if the open ones do not use up the
//! limit.

use domain::PIECE_LENGTH;

use super::{
    Download, DownloadRequestId, Moment, Source,
    plan::STALL,
    request::{OpenRequest, SOON},
};

/// The bytes that may be on their way before the limit lets them through, in seconds at its rate. The rest of
/// a second is for the bytes that the limiter lets through at once after a pause.
const AHEAD: f64 = 0.75;
/// The bounds of a stream's flow-control window, in bytes.
const WINDOW: (u64, u64) = (2 << 10, 8 << 20);
/// The least and the most bytes of a DATA frame that a source may send. A whole frame is received before it
/// passes the limit.
const FRAME: (u32, u32) = (16 << 10, 512 << 10);
/// The sending sources are enough when they bring this share of the limit.
const ENOUGH: f64 = 0.95;

/// The bytes that a source may send ahead in a stream under this limit (in bytes a second; 0 for none). This
/// is what the limit lets through in a sixth to a third of a second, so a round trip of a sixth of a second
/// does not slow down a single source. It is a power of two so that it changes rarely, because connections
/// are opened with it.
pub fn window(limit: u64) -> u32 {
    let (least, most) = WINDOW;
    if limit == 0 {
        return most as u32;
    }
    // Fits: at most `most`.
    (1u64 << (limit / 3).max(1).ilog2()).clamp(least, most) as u32
}

/// The bytes of a request that may arrive before the limit lets them through: those sent ahead, and the frame
/// that waits.
fn ahead(limit: u64) -> u64 {
    let window = window(limit);
    u64::from(window) + u64::from((window / 8).clamp(FRAME.0, FRAME.1).min(window))
}

/// The bytes of all requests together that may be on their way before the limit lets them through.
fn most_ahead(limit: u64) -> u64 {
    (limit as f64 * AHEAD) as u64
}

impl Download {
    /// Handles a new limit. Requests on connections that let the source send further ahead than it now should
    /// are dropped. What they would bring was already sent, or would be at once. A piece that has arrived in part goes
    /// on if its rest is no more than what may be sent ahead.
    pub(super) fn limited(&mut self, now: Moment, limit: u64, actions: &mut Vec<super::Action>) {
        let narrower = window(limit) < window(self.limit);
        self.limit = limit;
        self.touched_all = true;
        if narrower {
            let mut room = most_ahead(limit);
            let rest = |request: &OpenRequest| {
                let owed = request.owes(|piece| self.layout.piece_length(piece));
                request.current.map_or(u64::MAX, |_| owed)
            };
            let mut open: Vec<_> = self.requests.iter().map(|(id, request)| (rest(request), id)).collect();
            open.sort_unstable();
            for (rest, id) in open {
                match room.checked_sub(rest) {
                    Some(left) => room = left,
                    None => self.cancel(now, id, actions),
                }
            }
        }
    }

    /// Notes that bytes of the request wait for this peer's limit, or for room to check them.
    pub(super) fn held(&mut self, now: Moment, id: DownloadRequestId) {
        let Some(request) = self.requests.get_mut(id).filter(|request| request.held.is_none()) else {
            return;
        };
        request.held = Some(now);
        if let Some(source) = self.sources.get_mut(&request.source) {
            source.held += 1;
            source.note_sending(now);
        }
    }

    /// Notes that they no longer wait.
    pub(super) fn freed(&mut self, now: Moment, id: DownloadRequestId) {
        let Some(request) = self.requests.get_mut(id).filter(|request| request.held.is_some()) else {
            return;
        };
        request.resume(now);
        if let Some(source) = self.sources.get_mut(&request.source) {
            source.held -= 1;
            source.note_sending(now);
        }
        // A held request asks for no wake-up. From here on its source may fall silent.
        self.wake_at(Some(now + STALL.1));
    }

    /// Whether bytes have arrived that wait for this peer's limit, or for room to check them.
    pub fn waits_for_us(&self) -> bool {
        self.requests.iter().any(|(_, request)| request.held.is_some())
    }

    /// The bytes that may be requested now in addition; `None` without a limit.
    pub(super) fn room(&self, now: Moment) -> Option<u64> {
        if self.limit == 0 {
            return None;
        }
        let ahead = ahead(self.limit);
        let piece = ahead.min(u64::from(PIECE_LENGTH));
        let owed = |request: &OpenRequest| request.owes(|piece| self.layout.piece_length(piece)).min(ahead);
        let requests = self.requests.iter().map(|(_, request)| request);
        let open: u64 = requests.filter(|request| is_live(request, now)).map(owed).sum();
        let room = most_ahead(self.limit).saturating_sub(open);
        let more = open == 0 || room >= piece || !self.is_filled(now);
        Some(if more { room.max(piece) } else { 0 })
    }

    /// Whether the open requests use up the limit, as far as is known.
    pub(super) fn is_filled(&self, now: Moment) -> bool {
        let live = |source: &Source| {
            let ids = source.waiting.iter().chain(&source.sending);
            ids.filter_map(|id| self.requests.get(*id))
                .any(|request| is_live(request, now) && request.owes(|_| 1) > 0)
        };
        // A source that was never measured may be fast.
        let speed = |source: &Source| source.speed(now).unwrap_or(f64::INFINITY);
        let supply: f64 = self.sources.values().filter(|source| live(source)).map(speed).sum();
        self.waits_for_us() || supply >= ENOUGH * self.limit as f64
    }
}

/// Whether the request may bring bytes at any moment: it is bringing some, or was sent just now.
fn is_live(request: &OpenRequest, now: Moment) -> bool {
    let asked = request.place.is_none() && request.silence(now) < SOON;
    !request.stalled && (request.held.is_some() || request.current.is_some() || asked)
}

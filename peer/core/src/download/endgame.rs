//! The endgame, in which every piece is claimed: pieces whose source is slow are also requested from faster
//! sources. The first copy to arrive is kept, and the other requests for the piece are cancelled.

use std::time::Duration;

use domain::{PIECE_LENGTH, PeerId, PieceIndex};

use super::{
    Download, DownloadRequestId, Moment, PieceState, Source,
    request::{NEAR, OpenRequest, SOON},
};

/// The assumed time of a piece before any source was measured.
const UNMEASURED: Duration = Duration::from_millis(200);
/// The assumed time that a request waits in the queue of a contended source.
const QUEUE: Duration = Duration::from_secs(1);
/// A piece is requested from a second source if that one should be faster by this factor, and by [`GAIN`].
const RACE: f64 = 2.0;
/// The least time that a second source must save.
const GAIN: Duration = Duration::from_millis(30);
/// The same under a limit, where a duplicate takes the place of a new piece.
const LIMITED_RACE: f64 = 5.0;

/// When a claimed piece should arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Arrival {
    /// It arrived and is being verified, or it is about to arrive.
    There,
    /// After this time.
    At(Duration),
    /// Its source shows no progress.
    Never,
}

/// The claimed pieces that have not arrived. Computed at most once in a round of planning.
#[derive(Default)]
pub(super) struct Races(Option<Vec<(PieceIndex, Arrival)>>);

impl Races {
    fn get(&mut self, download: &Download, now: Moment) -> &[(PieceIndex, Arrival)] {
        self.0.get_or_insert_with(|| {
            let claims = download.pieces.claims();
            claims
                .map(|(piece, state)| (piece, download.arrival(now, piece, state)))
                .filter(|(_, arrival)| *arrival != Arrival::There)
                .collect()
        })
    }
}

impl Download {
    /// The piece to request from this source because it should deliver it sooner than the source that it is
    /// requested from: the one that would come last.
    pub(super) fn worth_racing(&self, now: Moment, peer: PeerId, races: &mut Races) -> Option<PieceIndex> {
        let source = &self.sources[&peer];
        let mine = self.expected(now, source);
        let races = races.get(self, now).iter();
        let is_slower = |arrival: Arrival| self.is_slower(arrival, mine);
        let candidates = races.filter(|(piece, arrival)| source.has.contains(*piece) && is_slower(*arrival));
        let free = candidates
            .filter(|(piece, _)| !self.is_sending(peer, *piece) && !self.has_race(now, peer, *piece));
        free.max_by_key(|(_, arrival)| *arrival).map(|(piece, _)| *piece)
    }

    /// Whether another source than the one that has the claim sends the piece too, or is about to.
    fn has_race(&self, now: Moment, peer: PeerId, piece: PieceIndex) -> bool {
        let is_soon = |request: &OpenRequest| {
            request.place.is_none_or(|place| place <= NEAR) && request.silence(now) < SOON
        };
        self.requests.on(piece).filter(|(_, request)| !request.stalled).count() > 1
            || self.requests.iter().any(|(id, request)| {
                request.source != peer
                    && request.awaits(piece)
                    && self.pieces.state(piece) != PieceState::Reserved(id)
                    && is_soon(request)
            })
    }

    /// Whether this source should deliver a claimed piece sooner than the source that it is requested from.
    pub(super) fn is_late(&self, now: Moment, peer: PeerId, piece: PieceIndex) -> bool {
        let state = self.pieces.state(piece);
        let is_claimed = matches!(state, PieceState::Reserved(_) | PieceState::InFlight(_));
        let is_slower = |source| self.is_slower(self.arrival(now, piece, state), self.expected(now, source));
        is_claimed && self.sources.get(&peer).is_some_and(is_slower) && !self.is_sending(peer, piece)
    }

    /// Whether an arrival is so late that a copy which takes `mine` is worth its cost.
    fn is_slower(&self, arrival: Arrival, mine: Duration) -> bool {
        let factor = if self.limit > 0 { LIMITED_RACE } else { RACE };
        match arrival {
            Arrival::At(after) => after > mine.mul_f64(factor) + GAIN,
            Arrival::Never => true,
            Arrival::There => false,
        }
    }

    /// Whether the source is sending the piece, or has reserved it and is sending.
    fn is_sending(&self, peer: PeerId, piece: PieceIndex) -> bool {
        let sending = self.sources.get(&peer).map_or(&[][..], |source| &source.sending);
        sending.iter().any(|id| {
            self.requests.get(*id).is_some_and(|request| {
                request.is_on(piece) || self.pieces.state(piece) == PieceState::Reserved(*id)
            })
        })
    }

    /// The interval at which to look again whether a piece is worth racing for.
    pub(super) fn race_interval(&self, now: Moment) -> Duration {
        (self.mean_piece_time(now) / 2).clamp(Duration::from_millis(5), Duration::from_millis(200))
    }

    /// Whether a second request that started a piece in flight should continue, because it should finish
    /// sooner.
    pub(super) fn is_worth_racing(&self, now: Moment, id: DownloadRequestId, piece: PieceIndex) -> bool {
        if !self.is_endgame() && !self.is_raced(piece) {
            return false;
        }
        let mine = self.transfer_time(now, &self.sources[&self.requests[id].source]);
        let others: Vec<_> = self.requests.on(piece).filter(|(other, _)| *other != id).collect();
        let live = others.iter().filter(|(_, request)| !request.stalled);
        live.count() <= 1 && self.is_slower(self.soonest(now, piece, others), mine)
    }

    /// When a claimed piece should arrive.
    fn arrival(&self, now: Moment, piece: PieceIndex, state: PieceState) -> Arrival {
        if let PieceState::Reserved(id) = state {
            let request = &self.requests[id];
            let source = &self.sources[&request.source];
            if request.silence(now) < SOON && self.limit > 0 {
                return Arrival::There;
            }
            if request.silence(now) >= SOON && source.sending.is_empty() {
                return Arrival::Never;
            }
            let time = source.piece_time(now).unwrap_or_else(|| self.mean_piece_time(now));
            return Arrival::At(time * (request.set.len() as u32 + 1));
        }
        self.soonest(now, piece, self.requests.on(piece))
    }

    /// When the piece should arrive by the first of these requests, which are on it.
    fn soonest<'a>(
        &self,
        now: Moment,
        piece: PieceIndex,
        requests: impl IntoIterator<Item = (DownloadRequestId, &'a OpenRequest)>,
    ) -> Arrival {
        let mut soonest = None;
        for (_, request) in requests {
            let Some(current) = request.current.filter(|current| current.piece == piece) else {
                return Arrival::There;
            };
            let expected = self.transfer_time(now, &self.sources[&request.source]);
            let began = current.bytes >= self.layout.piece_length(piece) / 4;
            let is_early = request.elapsed(now, current.since) <= expected && !began;
            let after = if is_early { Some(expected) } else { self.remaining(now, request) };
            soonest = [soonest, after].into_iter().flatten().min();
        }
        soonest.map_or(Arrival::Never, Arrival::At)
    }

    /// How long the rest of the request's current piece takes at the pace so far; `None` before its first
    /// byte.
    fn remaining(&self, now: Moment, request: &OpenRequest) -> Option<Duration> {
        let current = request.current.filter(|current| current.bytes > 0)?;
        let left = self.layout.piece_length(current.piece) - current.bytes;
        Some(request.elapsed(now, current.since).mul_f64(f64::from(left) / f64::from(current.bytes)))
    }

    /// How long a piece should take if it were requested from the source now.
    fn expected(&self, now: Moment, source: &Source) -> Duration {
        let time = source.piece_time(now).unwrap_or_else(|| self.mean_piece_time(now));
        let wait = if source.contended { QUEUE } else { Duration::ZERO };
        wait + source.latency.unwrap_or_default() + time * (source.sending.len() as u32 + 1)
    }

    /// How long a piece takes from the source, shared with the other pieces that it is sending.
    fn transfer_time(&self, now: Moment, source: &Source) -> Duration {
        let time = source.piece_time(now).unwrap_or_else(|| self.mean_piece_time(now));
        time * source.sending.len().max(1) as u32
    }

    /// How long a piece takes on average over all sources that were measured.
    fn mean_piece_time(&self, now: Moment) -> Duration {
        let (count, speed) = self
            .sources
            .values()
            .filter_map(|source| source.speed(now))
            .fold((0u32, 0.0), |(count, sum), speed| (count + 1, sum + speed));
        if speed < 1.0 {
            return UNMEASURED;
        }
        Duration::from_secs_f64(f64::from(PIECE_LENGTH) * f64::from(count) / speed)
    }
}

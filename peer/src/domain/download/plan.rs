//! What to do next: connect, ask, ask anew, give up.

use std::time::Duration;

use proto::domain::{PeerId, PieceIndex};

use super::{
    Action, Download, Link, Moment, PieceState, RequestId, Source,
    request::{PATIENCE, Request, SOFT_SET},
};
use crate::domain::picker::Wanted;

/// Pieces in the set of a soft request where the file is wanted in order: how far ahead of the first missing one to ask.
const SEQUENTIAL_SET: usize = 16;
/// A source that has no more pieces to ask for than these is not asked for one that another will send as soon.
const FEW: usize = 16;
/// How soon to look again when a source is not asked for that reason.
const APART: Duration = Duration::from_millis(250);
/// A source of which nothing was heard for so long is not thought to be about to send.
const APART_FOR: Duration = Duration::from_secs(1);
/// Most requests that a source sends for at a time.
const MAX_STREAMS: usize = 4;
/// A request that may start any moment is asked anew no sooner than this, so that changes gather.
const REFRESH_NEAR: Duration = Duration::from_millis(10);
/// One that is far back in the queue.
const REFRESH_FAR: Duration = Duration::from_millis(1000);
/// Up to this place a request may start any moment.
const NEAR: u32 = 3;
/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// After so long without use a source may have to make room for another.
const IDLE: Duration = Duration::from_secs(10);
/// Bounds of the silence in the middle of a piece after which others are asked for it.
const STALL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(6));
/// How long a piece is thought to take where nothing was measured.
const UNMEASURED: Duration = Duration::from_millis(200);
/// How long the wait for a slot is thought to be where others want one.
const QUEUE: Duration = Duration::from_secs(1);
/// A piece is asked of a second source if that one should be faster by this factor.
const RACE: f64 = 1.5;

/// What to ask of a source.
struct Choice {
    pieces: Vec<PieceIndex>,
    max: u32,
    firm: bool,
    /// There would be more, and it is left to others.
    apart: bool,
}

impl Download {
    /// Tends the sources that need it.
    pub(super) fn plan(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.pieces.verified().is_full() {
            self.complete = true;
            actions.push(Action::Complete);
            return;
        }
        let mut races = None;
        // Tending one source may free pieces for others, but not for ever: each round has dropped a request.
        loop {
            let all = std::mem::take(&mut self.touched_all) || self.due.is_some_and(|due| due <= now);
            let mut touched = std::mem::take(&mut self.touched);
            if all {
                self.due = None;
                let mut order: Vec<_> = self
                    .sources
                    .iter()
                    .map(|(peer, source)| (source.has.count(), source.rank, *peer))
                    .collect();
                order.sort_unstable();
                touched.clear();
                touched.extend(order.into_iter().map(|(.., peer)| peer));
            }
            for peer in &touched {
                let due = self.tend(now, *peer, &mut races, actions);
                self.wake_at(due);
            }
            touched.clear();
            if self.touched.is_empty() {
                self.touched = touched;
            }
            if !self.touched_all && self.touched.is_empty() {
                break;
            }
        }
    }

    fn wake_at(&mut self, due: Option<Moment>) {
        self.due = [self.due, due].into_iter().flatten().min();
    }

    /// Does what there is to do about one source; answers when to look at it again.
    fn tend(
        &mut self,
        now: Moment,
        peer: PeerId,
        races: &mut Option<Vec<(PieceIndex, Option<Duration>)>>,
        actions: &mut Vec<Action>,
    ) -> Option<Moment> {
        match self.sources.get(&peer)?.link {
            Link::Banned => None,
            Link::Resting(until) => self.connect(now, peer, until, actions),
            Link::Connecting(since) if now >= since + CONNECT_PATIENCE => {
                actions.push(Action::Disconnect(peer));
                self.unlink(now, peer);
                None
            }
            Link::Connecting(since) => Some(since + CONNECT_PATIENCE),
            Link::Connected => {
                let patience = self.watch(now, peer, actions);
                let ask = self.keep_asked(now, peer, races, actions);
                let idle = self.note_idle(now, peer);
                [patience, ask, idle].into_iter().flatten().min()
            }
        }
    }

    fn connect(
        &mut self,
        now: Moment,
        peer: PeerId,
        until: Moment,
        actions: &mut Vec<Action>,
    ) -> Option<Moment> {
        if !self.sources.get(&peer)?.named {
            return None;
        }
        if until > now {
            return Some(until);
        }
        if self.sources.values().filter(|source| source.is_linked()).count() >= self.options.max_sources {
            self.make_room(now, actions)?;
        }
        self.sources.get_mut(&peer)?.link = Link::Connecting(now);
        actions.push(Action::Connect(peer));
        Some(now + CONNECT_PATIENCE)
    }

    /// Parts with the source that has been of no use for longest, if it was for long enough.
    fn make_room(&mut self, now: Moment, actions: &mut Vec<Action>) -> Option<()> {
        let idle = self.sources.iter().filter_map(|(peer, source)| Some((source.idle_since?, *peer)));
        let (since, peer) = idle.min()?;
        if now < since + IDLE {
            return None;
        }
        actions.push(Action::Disconnect(peer));
        self.unlink(now, peer);
        Some(())
    }

    /// Keeps the time that a source is of no use; answers when it may have to make room for another.
    fn note_idle(&mut self, now: Moment, peer: PeerId) -> Option<Moment> {
        let crowded = self.sources.len() > self.options.max_sources;
        let source = self.sources.get_mut(&peer)?;
        let idle = source.interesting == 0 && source.waiting.is_none() && source.sending.is_empty();
        source.idle_since = source.idle_since.or(Some(now)).filter(|_| idle);
        source.idle_since.filter(|_| crowded).map(|since| since + IDLE).filter(|due| *due > now)
    }

    /// Looks for requests that have fallen silent.
    fn watch(&mut self, now: Moment, peer: PeerId, actions: &mut Vec<Action>) -> Option<Moment> {
        let source = self.sources.get(&peer)?;
        let stall = source.piece_time(now).map_or(STALL.0, |time| (2 * time).clamp(STALL.0, STALL.1));
        let ids: Vec<_> = source.sending.iter().chain(&source.waiting).copied().collect();
        let mut due: Option<Moment> = None;
        for id in ids {
            let Some(source) = self.sources.get(&peer) else { return due };
            let Some(request) = self.requests.get_mut(&id) else { continue };
            let heard = request.heard.unwrap_or(request.asked);
            let queued = request.place.is_some() || !source.sending.is_empty();
            if source.waiting == Some(id) && queued {
                continue; // Behind others or behind our own, where silence is no bad sign.
            }
            if request.silence(now) >= PATIENCE || request.drips(now) {
                self.cancel(now, id, actions);
                self.blame(now, peer, super::Failure::Connection, actions);
                continue;
            }
            let mut limit = heard + PATIENCE;
            if request.current.is_some() {
                limit = limit.min(request.judged_at());
            }
            if let Some(current) = request.current.filter(|_| !request.stalled) {
                if request.silence(now) >= stall {
                    request.stalled = true;
                    let set = request.set.clone();
                    self.release(id, current.piece);
                    self.release_promised(id, &set);
                } else {
                    limit = limit.min(heard + stall);
                }
            }
            due = Some(due.map_or(limit, |due| due.min(limit)));
        }
        due
    }

    /// Sees to it that the source has a request of ours, and that what it is asked for is right.
    fn keep_asked(
        &mut self,
        now: Moment,
        peer: PeerId,
        races: &mut Option<Vec<(PieceIndex, Option<Duration>)>>,
        actions: &mut Vec<Action>,
    ) -> Option<Moment> {
        let source = self.sources.get(&peer)?;
        let waiting = source.waiting.and_then(|id| Some((id, self.requests.get(&id)?)));
        let replaces = match waiting {
            Some((_, request)) if !request.stale || request.firm => return None,
            Some((id, request)) => {
                // With nothing left in it that is wanted, it only waits to be sent something twice.
                let near = request.place.is_none_or(|place| place <= NEAR)
                    || !request.set.iter().any(|piece| self.availability.is_open(*piece));
                let due = request.asked + if near { REFRESH_NEAR } else { REFRESH_FAR };
                if now < due {
                    return Some(due);
                }
                Some(id)
            }
            None if source.interesting == 0 || source.sending.len() >= MAX_STREAMS => return None,
            None if now < source.rest_until => return Some(source.rest_until),
            None => None,
        };
        let choice = self.choose(now, peer, races);
        if choice.pieces.is_empty() {
            if let Some(id) = replaces {
                self.cancel(now, id, actions);
            }
            let apart = choice.apart.then_some(now + APART);
            return apart.or_else(|| self.is_endgame().then(|| now + self.race_interval(now)));
        }
        self.ask(now, peer, choice, replaces, actions);
        None
    }

    fn ask(
        &mut self,
        now: Moment,
        peer: PeerId,
        choice: Choice,
        replaces: Option<RequestId>,
        actions: &mut Vec<Action>,
    ) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        if choice.firm {
            for &piece in &choice.pieces {
                self.pieces.promise(piece, request);
                self.availability.close(piece);
            }
        }
        let pieces = choice.pieces.clone();
        self.requests.insert(request, Request::new(peer, now, choice.pieces, choice.max, choice.firm));
        if let Some(source) = self.sources.get_mut(&peer) {
            source.waiting = Some(request);
        }
        actions.push(Action::Request {
            source: peer,
            request,
            pieces,
            max_pieces: if choice.firm { 0 } else { choice.max },
            in_order: choice.firm && self.options.sequential,
            replaces,
        });
    }

    /// What to ask of the source: open pieces, or, where it has none, those that it could bring sooner than whoever has
    /// them.
    fn choose(
        &mut self,
        now: Moment,
        peer: PeerId,
        races: &mut Option<Vec<(PieceIndex, Option<Duration>)>>,
    ) -> Choice {
        let mut choice = Choice { pieces: Vec::new(), max: 1, firm: false, apart: false };
        let busy = self.sources.values().filter(|source| !source.sending.is_empty()).count() as u32;
        let Some(source) = self.sources.get_mut(&peer) else { return choice };
        if !source.exhausted {
            // Fewer at a time towards the end, so that all sources end together.
            let share = (self.availability.open() as u32).div_ceil(2 * busy.max(1));
            let depth = if source.contended { 1 } else { source.depth(now).min(share) };
            choice.firm = depth >= 2;
            let count = if choice.firm {
                depth as usize
            } else if self.options.sequential {
                SEQUENTIAL_SET
            } else {
                SOFT_SET
            };
            let wanted = Wanted {
                layout: self.layout,
                availability: &self.availability,
                verified: self.pieces.verified(),
            };
            let (has, finds) = (&source.has, &mut source.finds);
            self.picker.pick(&wanted, has, finds, count, &mut self.rng, &mut choice.pieces);
            source.exhausted = choice.pieces.is_empty();
            if !choice.firm {
                choice.apart = self.keep_apart(now, peer, &mut choice.pieces);
            }
            if !choice.pieces.is_empty() {
                choice.max = if choice.firm { choice.pieces.len() as u32 } else { 1 };
                return choice;
            }
            if choice.apart {
                return choice;
            }
            choice.firm = false;
        }
        if self.is_endgame() {
            let mine = self.expected(now, &self.sources[&peer]);
            let has = &self.sources[&peer].has;
            let races = races.get_or_insert_with(|| self.races(now));
            let better = |eta: Option<Duration>| eta.is_none_or(|eta| eta > mine.mul_f64(RACE));
            choice.pieces.extend(
                races
                    .iter()
                    .filter(|(piece, eta)| has.contains(*piece) && better(*eta))
                    .map(|(piece, _)| *piece),
            );
            let own = |piece: &PieceIndex| self.is_sending(peer, *piece);
            choice.pieces.retain(|piece| !own(piece));
            choice.pieces.truncate(SOFT_SET);
        }
        choice
    }

    /// Leaves out, where there are few, the pieces that are waited for at a source where our turn comes no later: both would
    /// begin the same one before either could be told that it is not wanted any more. Whether something was left out.
    fn keep_apart(&self, now: Moment, peer: PeerId, pieces: &mut Vec<PieceIndex>) -> bool {
        // A source that nobody else wants may as well send.
        let Some(source) = self.sources.get(&peer).filter(|source| source.contended) else { return false };
        if pieces.len() > FEW {
            return false;
        }
        let turn = source.last_place.max(1);
        let (before, first) = (pieces.len(), pieces.first().copied());
        let stalls = |id: &RequestId| self.requests.get(id).is_some_and(|request| request.stalled);
        let others = self.sources.iter().filter(|(other, _)| **other != peer);
        let others = others.filter(|(_, other)| !other.sending.iter().any(stalls));
        let next = others.filter_map(|(_, other)| self.requests.get(&other.waiting?));
        let soon = |request: &&Request| {
            !request.firm
                && request.place.is_none_or(|place| place <= turn)
                && request.silence(now) < APART_FOR
        };
        for request in next.filter(soon) {
            pieces.retain(|piece| !request.awaits(*piece));
        }
        // Not at the price of a turn that it waits for already.
        if pieces.is_empty() && source.waiting.is_some() {
            pieces.extend(first);
        }
        pieces.len() < before
    }

    fn is_sending(&self, peer: PeerId, piece: PieceIndex) -> bool {
        let sending = self.sources.get(&peer).map_or(&[][..], |source| &source.sending);
        sending.iter().any(|id| {
            self.requests.get(id).is_some_and(|request| {
                request.is_on(piece) || self.pieces.state(piece) == PieceState::Promised(*id)
            })
        })
    }

    /// How often to look again whether a piece is worth racing for.
    fn race_interval(&self, now: Moment) -> Duration {
        (self.mean_piece_time(now) / 2).clamp(Duration::from_millis(5), Duration::from_millis(200))
    }

    fn mean_piece_time(&self, now: Moment) -> Duration {
        let (count, speed) = self
            .sources
            .values()
            .filter_map(|source| source.speed(now))
            .fold((0u32, 0.0), |(count, sum), speed| (count + 1, sum + speed));
        if speed < 1.0 {
            return UNMEASURED;
        }
        Duration::from_secs_f64(f64::from(proto::domain::PIECE_LENGTH) * f64::from(count) / speed)
    }

    /// How long a piece should take if the source were asked for it now.
    fn expected(&self, now: Moment, source: &Source) -> Duration {
        let time = source.piece_time(now).unwrap_or_else(|| self.mean_piece_time(now));
        let wait = if source.contended { QUEUE } else { Duration::ZERO };
        wait + source.latency.unwrap_or_default() + time * (source.sending.len() as u32 + 1)
    }

    /// The claimed pieces, and when they should be there; `None` for never.
    fn races(&self, now: Moment) -> Vec<(PieceIndex, Option<Duration>)> {
        self.pieces
            .claims()
            .filter_map(|(piece, state)| Some((piece, self.arrival(now, piece, state)?)))
            .collect()
    }

    /// When a claimed piece should be there, `Some(None)` for never; `None` if it is there already.
    fn arrival(&self, now: Moment, piece: PieceIndex, state: PieceState) -> Option<Option<Duration>> {
        match state {
            PieceState::Promised(id) => {
                let request = &self.requests[&id];
                let source = &self.sources[&request.source];
                let time = source.piece_time(now).filter(|_| request.place.is_none());
                Some(time.map(|time| time * (request.set.len() as u32 + 1)))
            }
            _ => {
                let mut soonest = None;
                for request in self.requests.values().filter(|request| request.is_on(piece)) {
                    // One that came whole is as good as there.
                    let current = request.current.filter(|current| current.piece == piece)?;
                    let elapsed = now.saturating_sub(current.since);
                    let source = &self.sources[&request.source];
                    let expected = source.piece_time(now).unwrap_or_else(|| self.mean_piece_time(now))
                        * source.sending.len().max(1) as u32;
                    let length = self.layout.piece_length(piece);
                    let eta = if elapsed <= expected && current.bytes < length / 4 {
                        Some(expected)
                    } else if current.bytes == 0 {
                        None
                    } else {
                        Some(elapsed.mul_f64(f64::from(length - current.bytes) / f64::from(current.bytes)))
                    };
                    soonest = [soonest, eta].into_iter().flatten().min();
                }
                Some(soonest)
            }
        }
    }

    /// A second request started a piece that is in flight: let both run?
    pub(super) fn is_worth_racing(&self, now: Moment, id: RequestId, piece: PieceIndex) -> bool {
        if !self.is_endgame() {
            return false;
        }
        let source = &self.sources[&self.requests[&id].source];
        let mine = source.piece_time(now).unwrap_or_else(|| self.mean_piece_time(now))
            * source.sending.len().max(1) as u32;
        let others = self.requests.iter().filter(|(other, request)| **other != id && request.is_on(piece));
        let mut soonest: Option<Duration> = None;
        for (_, request) in others {
            let Some(current) = request.current.filter(|current| current.piece == piece) else {
                return false;
            };
            let elapsed = now.saturating_sub(current.since);
            let length = self.layout.piece_length(piece);
            if current.bytes > 0 {
                let eta = elapsed.mul_f64(f64::from(length - current.bytes) / f64::from(current.bytes));
                soonest = Some(soonest.map_or(eta, |soonest| soonest.min(eta)));
            }
        }
        soonest.is_none_or(|soonest| soonest > mine)
    }
}

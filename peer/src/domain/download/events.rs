//! What each event changes in a download.

use proto::domain::{Bitfield, PeerId, PieceIndex};

use super::{
    Action, Download, Failure, Link, Moment, PieceState, RequestId, STRIKES, Source, request::Request,
};
use crate::domain::picker::Finds;

/// Requests that are remembered after their end, for the piece that may still have been under way to be judged.
const REMEMBERED: usize = 256;
/// Most sources that are remembered at a time.
const MAX_KNOWN: usize = 1_000;

impl Download {
    pub(super) fn found(&mut self, peer: PeerId) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.named = true;
        } else if self.sources.len() < MAX_KNOWN {
            self.sources.insert(peer, Source::new(self.layout, self.next_rank));
            self.next_rank += 1;
        }
        self.touched.push(peer);
    }

    pub(super) fn shunned(&mut self, now: Moment, peer: PeerId, actions: &mut Vec<Action>) {
        self.found(peer);
        self.expel(now, peer, actions);
    }

    pub(super) fn gone(&mut self, peer: PeerId) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.named = false;
            self.forget(peer);
        }
    }

    /// Drops a source that is of no more use and has nothing to tell.
    fn forget(&mut self, peer: PeerId) {
        let idle = |source: &Source| !source.named && matches!(source.link, Link::Resting(_));
        let blank = |source: &Source| source.bad_pieces == 0 && source.verified_bytes == 0;
        if self.sources.get(&peer).is_some_and(|source| idle(source) && blank(source)) {
            self.sources.remove(&peer);
        }
    }

    pub(super) fn connected(&mut self, peer: PeerId, has: Bitfield) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        if !matches!(source.link, Link::Connecting(_)) || has.pieces() != self.layout.count() {
            return;
        }
        source.link = Link::Connected;
        source.seeder = has.is_full();
        source.exhausted = false;
        source.finds = Finds::default();
        let bytes = has.as_bytes().iter().zip(self.pieces.verified().as_bytes());
        source.interesting = bytes.map(|(has, verified)| (has & !verified).count_ones()).sum();
        if source.seeder {
            self.availability.add_seeder();
        } else {
            self.availability.add(self.layout, &has);
        }
        source.has = has;
        self.touched.push(peer);
    }

    pub(super) fn gained(&mut self, peer: PeerId, pieces: &[PieceIndex]) {
        let Some(source) = self.sources.get_mut(&peer).filter(|source| source.link == Link::Connected) else {
            return;
        };
        let mut open = false;
        for &piece in pieces {
            if source.has.insert(piece) {
                self.availability.gain(piece);
                source.interesting += u32::from(!self.pieces.verified().contains(piece));
                if self.availability.is_open(piece) {
                    source.can_give(piece);
                    open = true;
                }
            }
        }
        if open {
            let waiting = source.waiting.and_then(|waiting| self.requests.get_mut(&waiting));
            waiting.into_iter().for_each(Request::could_have_more);
        }
        if open || self.availability.open() == 0 {
            self.touched.push(peer);
        }
    }

    pub(super) fn lost(&mut self, peer: PeerId, pieces: &[PieceIndex]) {
        for &piece in pieces {
            self.lose(peer, piece);
        }
    }

    /// The source does not offer the piece (any more).
    fn lose(&mut self, peer: PeerId, piece: PieceIndex) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        if !source.has.contains(piece) {
            return;
        }
        if source.seeder {
            source.seeder = false;
            self.availability.remove_seeder();
            self.availability.add(self.layout, &source.has);
        }
        source.has.remove(piece);
        self.availability.lose(piece);
        source.interesting -= u32::from(!self.pieces.verified().contains(piece));
    }

    pub(super) fn disconnected(&mut self, now: Moment, peer: PeerId, failure: Failure) {
        if !self.sources.get(&peer).is_some_and(Source::is_linked) {
            return;
        }
        let struck = failure == Failure::Protocol && self.strike(peer) >= STRIKES;
        self.unlink(now, peer);
        if struck {
            self.ban(peer);
        }
        self.forget(peer);
    }

    /// The connection is no more, nor any request over it. The source rests.
    pub(super) fn unlink(&mut self, now: Moment, peer: PeerId) {
        let ids = self.requests.iter().filter(|(_, request)| request.source == peer);
        let ids: Vec<_> = ids.map(|(id, _)| *id).collect();
        for id in ids {
            self.close(now, id);
        }
        let Some(source) = self.sources.get_mut(&peer) else { return };
        if source.link == Link::Connected {
            let has = std::mem::replace(&mut source.has, Bitfield::empty(self.layout));
            source.interesting = 0;
            source.idle_since = None;
            if std::mem::take(&mut source.seeder) {
                self.availability.remove_seeder();
            } else {
                self.availability.remove(self.layout, &has);
            }
        }
        source.link = Link::Resting(now + source.pause(&mut self.rng));
        self.touched_all = true;
    }

    fn ban(&mut self, peer: PeerId) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.link = Link::Banned;
        }
    }

    /// Counts a bad piece.
    fn strike(&mut self, peer: PeerId) -> u32 {
        self.sources.get_mut(&peer).map_or(0, |source| {
            source.bad_pieces += 1;
            source.bad_pieces
        })
    }

    pub(super) fn queued(&mut self, now: Moment, id: RequestId, place: u32) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Some(source) = self.sources.get_mut(&request.source) else { return };
        if request.heard.is_none() {
            let latency = now.saturating_sub(request.asked);
            source.latency = Some(source.latency.map_or(latency, |known| known.min(latency)));
        }
        request.heard = Some(now);
        request.place = Some(place);
        source.contended = true;
        source.last_place = place;
        if request.stale {
            self.touched.push(request.source);
        }
    }

    pub(super) fn started(
        &mut self,
        now: Moment,
        id: RequestId,
        piece: PieceIndex,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let peer = request.source;
        let Ok(at) = request.set.binary_search(&piece) else { return self.violated(now, id, actions) };
        if request.current.is_some() || request.left == 0 {
            return self.violated(now, id, actions);
        }
        let first_heard = request.heard.is_none();
        request.set.remove(at);
        request.left -= 1;
        request.begin(piece, now);
        let Some(source) = self.sources.get_mut(&peer) else { return };
        if first_heard {
            let latency = now.saturating_sub(request.asked);
            source.latency = Some(source.latency.map_or(latency, |known| known.min(latency)));
        }
        if request.place.is_none() {
            source.contended = false;
        }
        if source.waiting == Some(id) {
            source.waiting = None;
        }
        if !source.sending.contains(&id) {
            source.sending.push(id);
            source.note_sending(now);
        }
        self.touched.push(peer);
        self.claim_started(now, id, piece, actions);
    }

    /// Whose is a piece that was just started by this request?
    fn claim_started(&mut self, now: Moment, id: RequestId, piece: PieceIndex, actions: &mut Vec<Action>) {
        match self.pieces.state(piece) {
            PieceState::Missing => {
                self.claim(id, piece);
                // Who sent it before and fell silent is not waited for any more.
                let silent = |other: &Request| other.stalled && other.is_on(piece);
                let silent: Vec<_> =
                    self.requests.iter().filter(|(_, other)| silent(other)).map(|(id, _)| *id).collect();
                for other in silent {
                    self.cancel(now, other, actions);
                }
            }
            PieceState::Promised(_) => self.claim(id, piece),
            PieceState::InFlight(_) if self.is_worth_racing(now, id, piece) => {}
            PieceState::InFlight(_) | PieceState::Verified => self.cancel(now, id, actions),
        }
    }

    /// The request has the piece from now on; requests that wait for it elsewhere are out of date.
    fn claim(&mut self, id: RequestId, piece: PieceIndex) {
        self.pieces.start(piece, id);
        self.availability.close(piece);
        self.outdate(piece);
    }

    fn outdate(&mut self, piece: PieceIndex) {
        for (&peer, source) in &self.sources {
            let waiting = source.waiting.and_then(|waiting| self.requests.get_mut(&waiting));
            if let Some(waiting) = waiting.filter(|waiting| !waiting.stale && waiting.awaits(piece)) {
                waiting.stale = true;
                self.touched.push(peer);
            }
        }
    }

    pub(super) fn received(&mut self, now: Moment, id: RequestId, bytes: u32) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Some(piece) = request.count(bytes, |piece| self.layout.piece_length(piece)) else { return };
        request.heard = Some(now);
        let woke = std::mem::take(&mut request.stalled);
        // Nothing is to be decided when all goes well, and this is told often.
        if woke {
            self.touched.push(request.source);
        }
        if let Some(source) = self.sources.get_mut(&request.source) {
            source.note_bytes(now, bytes);
        }
        self.rate.add(now, bytes);
        if woke && self.pieces.state(piece) == PieceState::Missing {
            self.claim(id, piece);
        }
    }

    pub(super) fn verified(
        &mut self,
        now: Moment,
        id: RequestId,
        piece: PieceIndex,
        actions: &mut Vec<Action>,
    ) {
        let peer = self.source_of(id);
        self.take_whole(now, id, piece);
        self.availability.close(piece);
        if !self.pieces.verify(piece) {
            return;
        }
        let bytes = u64::from(self.layout.piece_length(piece));
        for (&other, source) in &mut self.sources {
            source.interesting -= u32::from(source.has.contains(piece));
            if peer == Some(other) {
                source.verified_bytes += bytes;
                source.failures = 0;
            }
        }
        self.outdate(piece);
        let late = self.requests.iter().filter(|(_, other)| other.is_on(piece));
        let late: Vec<_> = late.map(|(id, _)| *id).collect();
        for other in late {
            self.cancel(now, other, actions);
        }
    }

    pub(super) fn bad(&mut self, now: Moment, id: RequestId, piece: PieceIndex, actions: &mut Vec<Action>) {
        self.take_whole(now, id, piece);
        self.release(id, piece);
        let Some(peer) = self.source_of(id) else { return };
        self.lose(peer, piece);
        if self.strike(peer) >= STRIKES {
            self.expel(now, peer, actions);
        }
    }

    /// The source of a request, also of one that has ended lately.
    fn source_of(&self, id: RequestId) -> Option<PeerId> {
        let ended = || self.ended.iter().find(|(ended, _)| *ended == id).map(|(_, peer)| *peer);
        self.requests.get(&id).map(|request| request.source).or_else(ended)
    }

    /// The piece has come whole by this request and was judged.
    fn take_whole(&mut self, now: Moment, id: RequestId, piece: PieceIndex) {
        if let Some(request) = self.requests.get_mut(&id).filter(|request| request.is_on(piece)) {
            request.leave(piece);
            request.whole += 1;
            request.heard = Some(now);
            self.touched.push(request.source);
        }
    }

    /// It broke the protocol.
    fn violated(&mut self, now: Moment, id: RequestId, actions: &mut Vec<Action>) {
        let Some(peer) = self.requests.get(&id).map(|request| request.source) else { return };
        self.cancel(now, id, actions);
        self.blame(now, peer, Failure::Protocol, actions);
    }

    /// The source is not to be used any more.
    fn expel(&mut self, now: Moment, peer: PeerId, actions: &mut Vec<Action>) {
        if self.sources.get(&peer).is_some_and(Source::is_linked) {
            actions.push(Action::Disconnect(peer));
            self.unlink(now, peer);
        }
        self.ban(peer);
    }

    pub(super) fn ended(
        &mut self,
        now: Moment,
        id: RequestId,
        result: Result<(), Failure>,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get(&id) else { return };
        let peer = request.source;
        let (cut, fruitless) = (request.current.is_some(), request.whole == 0);
        let excused = request.stale || request.left == 0;
        let had_more = request.left > 0 && !request.set.is_empty();
        if let Some(source) = self.sources.get_mut(&peer) {
            let replaced = source.waiting != Some(id) && !source.sending.contains(&id);
            // It had more to send and did not: others wait there.
            source.contended |= had_more && !fruitless && result.is_ok();
            self.close(now, id);
            match result {
                Ok(()) if cut => self.blame(now, peer, Failure::Connection, actions),
                Ok(()) if fruitless && !excused && !replaced => {
                    self.blame(now, peer, Failure::NotShared, actions);
                }
                Ok(()) => {}
                Err(failure) => self.blame(now, peer, failure, actions),
            }
        }
        self.touched.push(peer);
    }

    /// A request failed: the source is left alone for a while, or for good.
    pub(super) fn blame(&mut self, now: Moment, peer: PeerId, failure: Failure, actions: &mut Vec<Action>) {
        if failure == Failure::Protocol && self.strike(peer) >= STRIKES {
            return self.expel(now, peer, actions);
        }
        if let Some(source) = self.sources.get_mut(&peer) {
            source.rest_until = now + source.pause(&mut self.rng);
        }
        self.touched.push(peer);
    }

    /// Has the request's stream dropped.
    pub(super) fn cancel(&mut self, now: Moment, id: RequestId, actions: &mut Vec<Action>) {
        actions.push(Action::Cancel(id));
        self.close(now, id);
    }

    /// The request's stream is no more: what it had and did not finish can be asked of others.
    fn close(&mut self, now: Moment, id: RequestId) {
        let Some(request) = self.requests.remove(&id) else { return };
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((id, request.source));
        if let Some(source) = self.sources.get_mut(&request.source) {
            if source.waiting == Some(id) {
                source.waiting = None;
            }
            source.sending.retain(|other| *other != id);
            source.note_sending(now);
            self.touched.push(request.source);
        }
        for piece in request.current.map(|current| current.piece).into_iter().chain(request.judged) {
            self.release(id, piece);
        }
        self.release_promised(id, &request.set);
    }

    /// Gives up what the request promised of these pieces.
    pub(super) fn release_promised(&mut self, id: RequestId, set: &[PieceIndex]) {
        for &piece in set {
            if self.pieces.state(piece) == PieceState::Promised(id) {
                self.release(id, piece);
            }
        }
    }

    /// Gives up the request's claim to a piece: whoever else is sending it has it now, or it is missing again.
    pub(super) fn release(&mut self, id: RequestId, piece: PieceIndex) {
        let claim = self.pieces.state(piece);
        if claim != PieceState::InFlight(id) && claim != PieceState::Promised(id) {
            return;
        }
        let heir = self
            .requests
            .iter()
            .find(|(other, request)| **other != id && !request.stalled && request.is_on(piece));
        if let Some((&heir, _)) = heir {
            self.pieces.start(piece, heir);
        } else {
            self.pieces.release(piece);
            self.availability.reopen(piece);
            self.touched_all = true;
            for source in self.sources.values_mut().filter(|source| source.has.contains(piece)) {
                source.can_give(piece);
                let waiting = source.waiting.and_then(|waiting| self.requests.get_mut(&waiting));
                waiting.into_iter().for_each(Request::could_have_more);
            }
        }
    }
}

//! Decides what to request from a source. Keeps one request waiting at every source that has a wanted piece.

use std::time::Duration;

use domain::{PIECE_LENGTH, PeerId, PieceIndex};

use super::{
    Action, Download, Moment,
    endgame::Races,
    request::{NEAR, OpenRequest, SOON, SPECULATIVE_SET},
};
use crate::picker::Wanted;

/// The number of pieces in a speculative set when the file is wanted in order. This is how far ahead of the
/// first missing piece to request.
const SEQUENTIAL_SET: usize = 16;
/// Duplicates are avoided only while a source has at most this many pieces to be requested.
const FEW: usize = 16;
/// How soon to look again at a source that is not asked because others will send its pieces.
const DUPLICATES_RECHECK: Duration = Duration::from_millis(250);
/// How soon to look again when the limit leaves no room for another request.
const ROOM_RECHECK: Duration = Duration::from_millis(50);
/// The number of pieces in a speculative set under a limit. It is small so that the sets of different sources
/// are kept apart.
const LIMITED_SET: usize = 16;
/// While at most this many pieces for each linked source are open, a piece that comes twice is a large part of
/// what is left.
const FEW_EACH: usize = 16;
/// The most requests that a source sends for at a time.
const MAX_STREAMS: usize = 4;
/// A waiting request that may be served at any moment is renewed no sooner than this after it was made, so
/// that changes gather.
const RENEW_NEAR: Duration = Duration::from_millis(10);
/// The same for a request that is far back in the queue.
const RENEW_FAR: Duration = Duration::from_millis(1000);

/// What to request from a source.
struct Choice {
    pieces: Vec<PieceIndex>,
    max: u32,
    reserved: bool,
    /// Those of the pieces that are urgent.
    urgent: Vec<PieceIndex>,
    /// Pieces were left out because other sources will send them.
    avoided: bool,
}

impl Download {
    /// Makes or renews the waiting request at a source. Returns when to look again.
    pub(super) fn keep_asked(
        &mut self,
        now: Moment,
        peer: PeerId,
        races: &mut Races,
        actions: &mut Vec<Action>,
    ) -> Option<Moment> {
        let source = self.sources.get(&peer)?;
        let waiting = source.waiting.and_then(|id| Some((id, self.requests.get(id)?)));
        let replaced = match waiting {
            Some((_, request)) if !request.stale || request.reserved => return None,
            Some((id, request)) => {
                // A request without an open piece in its set can only bring a piece a second time.
                let near = self.urgent.is_waiting()
                    || request.place.is_none_or(|place| place <= NEAR)
                    || !request.set.iter().any(|piece| self.availability.is_open(*piece));
                let due = request.asked + if near { RENEW_NEAR } else { RENEW_FAR };
                if now < due {
                    return Some(due);
                }
                Some(id)
            }
            None if source.interesting == 0 || source.sending.len() >= MAX_STREAMS => return None,
            None if now < source.rest_until => return Some(source.rest_until),
            None if self.room(now) == Some(0) => return Some(now + ROOM_RECHECK),
            None => None,
        };
        let choice = self.choose(now, peer, races);
        if choice.pieces.is_empty() {
            if let Some(id) = replaced {
                self.cancel(now, id, actions);
            }
            let recheck = choice.avoided.then_some(now + DUPLICATES_RECHECK);
            return recheck.or_else(|| self.is_endgame().then(|| now + self.race_interval(now)));
        }
        self.ask(now, peer, choice, actions);
        None
    }

    fn ask(&mut self, now: Moment, peer: PeerId, choice: Choice, actions: &mut Vec<Action>) {
        let Choice { pieces, max, reserved, urgent, .. } = choice;
        let in_order = reserved && (self.options.sequential || !urgent.is_empty());
        let is_urgent = self.urgent.is_waiting() && !urgent.is_empty();
        let mut open = OpenRequest::new(peer, now, pieces.clone(), max, reserved);
        open.urgent = urgent;
        let request = self.requests.add(open);
        if reserved {
            for &piece in &pieces {
                self.pieces.reserve(piece, request);
                self.availability.close(piece);
            }
        }
        if let Some(source) = self.sources.get_mut(&peer) {
            source.waiting = Some(request);
        }
        actions.push(Action::Request {
            source: peer,
            request,
            pieces,
            max_pieces: if reserved { 0 } else { max },
            in_order,
            urgent: is_urgent,
        });
    }

    /// Chooses open pieces; in the endgame, pieces that the source should deliver sooner than others.
    fn choose(&mut self, now: Moment, peer: PeerId, races: &mut Races) -> Choice {
        let mut choice =
            Choice { pieces: Vec::new(), max: 1, reserved: false, urgent: Vec::new(), avoided: false };
        let may_race = |download: &Self| download.limit == 0 || !download.is_filled(now);
        if let Some(late) = self.late_urgent(now, peer).filter(|_| may_race(self)) {
            (choice.pieces, choice.urgent) = (vec![late], vec![late]);
            return choice;
        }
        if !self.sources.get(&peer).is_none_or(|source| source.exhausted) {
            self.choose_open(now, peer, &mut choice);
            if !choice.pieces.is_empty() || choice.avoided {
                return choice;
            }
        }
        if self.is_endgame() && self.sources.contains_key(&peer) && may_race(self) {
            choice.pieces = self.worth_racing(now, peer, races).into_iter().collect();
        }
        choice
    }

    /// Chooses among the open pieces of the source: a few to reserve if it is fast and has no queue,
    /// otherwise a large set of which the source sends one.
    fn choose_open(&mut self, now: Moment, peer: PeerId, choice: &mut Choice) {
        let busy = self.sources.values().filter(|source| !source.sending.is_empty()).count() as u32;
        let most = SPECULATIVE_SET as u64;
        let room = self.room(now).map(|bytes| (bytes / u64::from(PIECE_LENGTH)).clamp(1, most) as u32);
        let Some(source) = self.sources.get(&peer) else { return };
        // Fewer at a time towards the end, so that all sources end together.
        let share = (self.availability.open() as u32).div_ceil(2 * busy.max(1));
        let depth = if source.contended { 1 } else { source.depth(now).min(share) };
        let depth = room.map_or(depth, |room| depth.clamp(1, room));
        // Under a limit, a duplicate takes the place of a new piece, so each piece is requested from one
        // source only.
        let firm = depth >= 2 || (room.is_some() && !source.contended);
        let reserved = firm || (!source.contended && self.has_few_open());
        let count = if reserved {
            depth.max(1) as usize
        } else if room.is_some() {
            LIMITED_SET
        } else if self.options.sequential {
            SEQUENTIAL_SET
        } else {
            SPECULATIVE_SET
        };
        choice.urgent = self.urgent_for(now, peer, if reserved { count.div_ceil(2) } else { 1 });
        if !firm && !choice.urgent.is_empty() {
            choice.pieces.clone_from(&choice.urgent);
            return;
        }
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let wanted = Wanted {
            layout: self.layout,
            availability: &self.availability,
            verified: self.pieces.verified(),
        };
        let (has, finds) = (&source.has, &mut source.finds);
        self.picker.pick(&wanted, has, finds, count, &mut self.rng, &mut choice.pieces);
        source.exhausted = choice.pieces.is_empty();
        if !choice.urgent.is_empty() {
            choice.pieces.retain(|piece| !choice.urgent.contains(piece));
            choice.pieces.splice(..0, choice.urgent.iter().copied());
            choice.pieces.truncate(count);
        }
        if !reserved {
            choice.avoided = self.avoid_duplicates(now, peer, &mut choice.pieces);
        } else if !choice.pieces.is_empty() {
            (choice.reserved, choice.max) = (true, choice.pieces.len() as u32);
        }
    }

    fn has_few_open(&self) -> bool {
        let linked = self.sources.values().filter(|source| source.is_linked()).count();
        self.availability.open() <= FEW_EACH * linked
    }

    /// If the source has few pieces, or under a limit, leaves out the pieces that another source is about to
    /// send. Otherwise both sources would start the same piece before either could be told to stop. Returns
    /// whether a piece was left out.
    fn avoid_duplicates(&self, now: Moment, peer: PeerId, pieces: &mut Vec<PieceIndex>) -> bool {
        // A source without a queue loses nothing by sending.
        let Some(source) = self.sources.get(&peer).filter(|source| source.contended) else { return false };
        if pieces.len() > FEW && self.limit == 0 {
            return false;
        }
        let turn = source.last_place.max(1);
        let (before, first) = (pieces.len(), pieces.first().copied());
        let is_stalled = |id| self.requests.get(id).is_some_and(|request: &OpenRequest| request.stalled);
        let others = self.sources.iter().filter(|(other, _)| **other != peer);
        let others = others.filter(|(_, other)| !other.sending.iter().any(|id| is_stalled(*id)));
        let next = others.filter_map(|(_, other)| self.requests.get(other.waiting?));
        let is_soon = |request: &&OpenRequest| {
            !request.reserved
                && request.place.is_none_or(|place| place <= turn)
                && request.silence(now) < SOON
        };
        for request in next.filter(is_soon) {
            pieces.retain(|piece| !request.awaits(*piece));
        }
        // A request that already waits has a place in the queue, and that is worth more than a duplicate
        // costs.
        if pieces.is_empty() && source.waiting.is_some() {
            pieces.extend(first);
        }
        pieces.len() < before
    }
}

//! The sources of a download: how they are found, connected, banned and forgotten, and which pieces they
//! offer.

use std::time::Duration;

use domain::{Bitfield, PeerId, PieceIndex};

use super::{Action, Download, Failure, LinkState, MAX_BAD_PIECES, Moment, Source, request::OpenRequest};
use crate::picker::Finds;

/// The most sources that are remembered at a time.
const MAX_KNOWN: usize = 1_000;
/// The time that a connection attempt may take.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// A source that was of no use for this long may have to make room for another.
const IDLE: Duration = Duration::from_secs(10);

impl Download {
    /// The tracker names the source.
    pub(super) fn found(&mut self, peer: PeerId) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.named = true;
        } else if self.sources.len() < MAX_KNOWN {
            self.sources.insert(peer, Source::new(self.layout, self.next_rank));
            self.next_rank += 1;
        }
        self.touched.push(peer);
    }

    /// The tracker names a source that is banned already.
    pub(super) fn banned(&mut self, now: Moment, peer: PeerId, actions: &mut Vec<Action>) {
        self.found(peer);
        self.ban(now, peer, actions);
    }

    /// The tracker no longer names the source.
    pub(super) fn gone(&mut self, peer: PeerId) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.named = false;
            self.forget(peer);
        }
    }

    /// Forgets a source that is not named, not connected, and never delivered anything, good or bad.
    fn forget(&mut self, peer: PeerId) {
        let unused = |source: &Source| !source.named && matches!(source.link, LinkState::Resting(_));
        let blank = |source: &Source| source.bad_pieces == 0 && source.verified_bytes == 0;
        if self.sources.get(&peer).is_some_and(|source| unused(source) && blank(source)) {
            self.sources.remove(&peer);
        }
    }

    /// The source is connected and has these pieces.
    pub(super) fn connected(&mut self, peer: PeerId, has: Bitfield) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        if !matches!(source.link, LinkState::Connecting(_)) || has.pieces() != self.layout.count() {
            return;
        }
        source.link = LinkState::Connected;
        source.seeder = has.is_full();
        source.exhausted = false;
        source.finds = Finds::default();
        source.interesting = self.pieces.sought(&has);
        if source.seeder {
            self.availability.add_seeder();
        } else {
            self.availability.add(self.layout, &has);
        }
        source.has = has;
        self.touched.push(peer);
    }

    /// The source has more pieces.
    pub(super) fn gained(&mut self, peer: PeerId, pieces: &[PieceIndex]) {
        let Some(source) = self.sources.get_mut(&peer).filter(|source| source.link == LinkState::Connected)
        else {
            return;
        };
        let mut open = false;
        for &piece in pieces {
            if source.has.insert(piece) {
                self.availability.gain(piece);
                source.interesting += u32::from(self.pieces.is_sought(piece));
                if self.availability.is_open(piece) {
                    source.can_give(piece);
                    open = true;
                }
            }
        }
        if open {
            let waiting = source.waiting.and_then(|waiting| self.requests.get_mut(waiting));
            waiting.into_iter().for_each(OpenRequest::could_have_more);
        }
        if open || self.availability.open() == 0 {
            self.touched.push(peer);
        }
    }

    /// The source no longer offers these pieces.
    pub(super) fn lost(&mut self, peer: PeerId, pieces: &[PieceIndex]) {
        for &piece in pieces {
            self.lose(peer, piece);
        }
    }

    /// The source does not offer the piece, or no longer offers it.
    pub(super) fn lose(&mut self, peer: PeerId, piece: PieceIndex) {
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
        source.interesting -= u32::from(self.pieces.is_sought(piece));
    }

    /// The connection ended, or could not be made.
    pub(super) fn disconnected(&mut self, now: Moment, peer: PeerId, failure: Failure) {
        if !self.sources.get(&peer).is_some_and(Source::is_linked) {
            return;
        }
        let is_over = failure == Failure::Protocol && self.count_bad_piece(peer) >= MAX_BAD_PIECES;
        self.unlink(now, peer);
        if is_over {
            self.mark_banned(peer);
        }
        self.forget(peer);
    }

    /// Ends the connection's state and all requests over it. The source rests.
    pub(super) fn unlink(&mut self, now: Moment, peer: PeerId) {
        for id in self.requests.of(peer) {
            self.close(now, id);
        }
        let Some(source) = self.sources.get_mut(&peer) else { return };
        if source.link == LinkState::Connected {
            let has = std::mem::replace(&mut source.has, Bitfield::empty(self.layout));
            source.interesting = 0;
            source.idle_since = None;
            if std::mem::take(&mut source.seeder) {
                self.availability.remove_seeder();
            } else {
                self.availability.remove(self.layout, &has);
            }
        }
        source.link = LinkState::Resting(now + source.pause(&mut self.rng));
        self.touched_all = true;
    }

    /// Connects the source if it is time and there is room. Returns when to look again.
    pub(super) fn connect(
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
        self.sources.get_mut(&peer)?.link = LinkState::Connecting(now);
        actions.push(Action::Connect(peer));
        Some(now + CONNECT_PATIENCE)
    }

    /// Disconnects the source that was of no use for the longest time, if that is at least [`IDLE`].
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

    /// Notes since when the source has been of no use. Returns when it may have to make room for another.
    pub(super) fn note_idle(&mut self, now: Moment, peer: PeerId) -> Option<Moment> {
        let crowded = self.sources.len() > self.options.max_sources;
        let source = self.sources.get_mut(&peer)?;
        let idle = source.interesting == 0 && source.waiting.is_none() && source.sending.is_empty();
        source.idle_since = source.idle_since.or(Some(now)).filter(|_| idle);
        source.idle_since.filter(|_| crowded).map(|since| since + IDLE).filter(|due| *due > now)
    }

    /// Counts a bad piece. Returns how many the source has sent.
    pub(super) fn count_bad_piece(&mut self, peer: PeerId) -> u32 {
        self.sources.get_mut(&peer).map_or(0, |source| {
            source.bad_pieces += 1;
            source.bad_pieces
        })
    }

    /// A request failed: the source rests for a while, or is banned.
    pub(super) fn penalize(
        &mut self,
        now: Moment,
        peer: PeerId,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        if failure == Failure::Protocol && self.count_bad_piece(peer) >= MAX_BAD_PIECES {
            return self.ban(now, peer, actions);
        }
        if let Some(source) = self.sources.get_mut(&peer) {
            source.rest_until = now + source.pause(&mut self.rng);
        }
        self.touched.push(peer);
    }

    /// Disconnects the source and bans it.
    pub(super) fn ban(&mut self, now: Moment, peer: PeerId, actions: &mut Vec<Action>) {
        if self.sources.get(&peer).is_some_and(Source::is_linked) {
            actions.push(Action::Disconnect(peer));
            self.unlink(now, peer);
        }
        self.mark_banned(peer);
    }

    fn mark_banned(&mut self, peer: PeerId) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.link = LinkState::Banned;
        }
    }
}

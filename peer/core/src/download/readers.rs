//! Which urgent pieces to request from which source.

use domain::{PeerId, PieceIndex};

use super::{
    Download, Moment,
    request::{NEAR, SOON},
};

/// The number of urgent pieces, from the first, that are also requested from a second source if the first one
/// is slow.
const RACED: usize = 2;

impl Download {
    /// Replaces the urgent pieces. If the first missing one was not urgent before, the reader went elsewhere: then
    /// all waiting requests are made anew.
    pub(super) fn set_urgent(&mut self, mut pieces: Vec<PieceIndex>) {
        pieces.retain(|piece| piece.get() < self.layout.count());
        let before = self.urgent.replace(pieces);
        let Some(first) = self.first_urgent().next().filter(|first| !before.contains(first)) else { return };
        self.urgent.note_jump();
        for source in self.sources.values().filter(|source| source.has.contains(first)) {
            let waiting = source.waiting.and_then(|waiting| self.requests.get_mut(waiting));
            waiting.into_iter().for_each(|waiting| waiting.stale = true);
        }
        self.touched_all = true;
    }

    /// The urgent pieces that are missing, the most urgent one first.
    fn first_urgent(&self) -> impl Iterator<Item = PieceIndex> {
        self.urgent.pieces.iter().copied().filter(|piece| self.pieces.is_sought(*piece))
    }

    /// The urgent pieces to request from the source now: at most `most`, the most urgent one first.
    pub(super) fn urgent_for(&self, now: Moment, peer: PeerId, most: usize) -> Vec<PieceIndex> {
        let room = self.urgent_room(peer).min(most);
        let Some(source) = self.sources.get(&peer).filter(|_| room > 0) else { return Vec::new() };
        let open = |piece: &PieceIndex| self.availability.is_open(*piece) && source.has.contains(*piece);
        self.first_urgent().filter(open).filter(|piece| !self.is_due(now, peer, *piece)).take(room).collect()
    }

    /// An urgent piece that this source should deliver sooner than the one that it is requested from.
    pub(super) fn late_urgent(&self, now: Moment, peer: PeerId) -> Option<PieceIndex> {
        let source = self.sources.get(&peer).filter(|_| self.urgent_room(peer) > 0)?;
        let mut raced = self.first_urgent().take(RACED).filter(|piece| source.has.contains(*piece));
        raced.find(|piece| self.is_late(now, peer, *piece) && !self.is_due(now, peer, *piece))
    }

    /// Whether the piece is so urgent that it may be requested from two sources.
    pub(super) fn is_raced(&self, piece: PieceIndex) -> bool {
        self.first_urgent().take(RACED).any(|urgent| urgent == piece)
    }

    /// How many urgent pieces may be requested now in addition. The request that waits at the source does not
    /// count, because a new one replaces it.
    fn urgent_room(&self, peer: PeerId) -> usize {
        let room = self.urgent.room();
        if room == 0 {
            return 0;
        }
        let replaced = self.sources.get(&peer).and_then(|source| source.waiting);
        let others = self.requests.iter().filter(|(id, _)| Some(*id) != replaced);
        let asked: usize = others.map(|(_, request)| request.urgent.len()).sum();
        room.saturating_sub(asked)
    }

    /// Whether a request to another source, which may be served at any moment, asks for the urgent piece.
    fn is_due(&self, now: Moment, peer: PeerId, piece: PieceIndex) -> bool {
        self.requests.iter().any(|(_, request)| {
            request.source != peer
                && request.urgent.contains(&piece)
                && request.place.is_none_or(|place| place <= NEAR)
                && request.silence(now) < SOON
        })
    }
}

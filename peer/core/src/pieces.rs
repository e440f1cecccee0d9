//! The state of each piece of a download.

use std::collections::BTreeMap;

use domain::{Bitfield, PieceIndex, PieceLayout};

use super::request_id::DownloadRequestId;

/// The one state that a piece is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceState {
    /// No source sends it, and it may be requested.
    Missing,
    /// An earlier run wrote it, and it is being rechecked. It may not be requested unless the recheck fails.
    Unchecked,
    /// The download does not want it.
    Unwanted,
    /// Reserved: in the set of this request, which shares no piece with other requests. The source has not
    /// started it.
    Reserved(DownloadRequestId),
    /// The request's source is sending it, or it has arrived in full and is being verified.
    InFlight(DownloadRequestId),
    /// Verified and written.
    Verified,
}

/// The states of a download's pieces.
///
/// Invariant: each piece is verified, or unchecked, or unwanted, or has an entry in `claims`, or none of these;
/// never two of them.
pub struct Pieces {
    layout: PieceLayout,
    verified: Bitfield,
    unchecked: Bitfield,
    unwanted: Bitfield,
    claims: BTreeMap<PieceIndex, PieceState>,
    done_bytes: u64,
    unchecked_bytes: u64,
    unwanted_bytes: u64,
}

impl Pieces {
    /// Starts with these pieces verified.
    pub fn new(layout: PieceLayout, verified: Bitfield) -> Self {
        let done_bytes = verified.iter(layout).map(|piece| u64::from(layout.piece_length(piece))).sum();
        Self {
            layout,
            verified,
            unchecked: Bitfield::empty(layout),
            unwanted: Bitfield::empty(layout),
            claims: BTreeMap::new(),
            done_bytes,
            unchecked_bytes: 0,
            unwanted_bytes: 0,
        }
    }

    /// The piece's state.
    pub fn state(&self, piece: PieceIndex) -> PieceState {
        if self.verified.contains(piece) {
            PieceState::Verified
        } else if self.unchecked.contains(piece) {
            PieceState::Unchecked
        } else if self.unwanted.contains(piece) {
            PieceState::Unwanted
        } else {
            self.claims.get(&piece).copied().unwrap_or(PieceState::Missing)
        }
    }

    /// The pieces that are reserved or in flight, with their states.
    pub fn claims(&self) -> impl Iterator<Item = (PieceIndex, PieceState)> {
        self.claims.iter().map(|(piece, state)| (*piece, *state))
    }

    /// The verified pieces.
    pub fn verified(&self) -> &Bitfield {
        &self.verified
    }

    /// The bytes of the verified pieces.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes
    }

    /// The bytes of the unchecked pieces.
    pub fn unchecked_bytes(&self) -> u64 {
        self.unchecked_bytes
    }

    /// The bytes of the unwanted pieces.
    pub fn unwanted_bytes(&self) -> u64 {
        self.unwanted_bytes
    }

    /// Whether the piece is wanted and not verified.
    pub fn is_sought(&self, piece: PieceIndex) -> bool {
        !self.verified.contains(piece) && !self.unwanted.contains(piece)
    }

    /// The number of pieces of this set that are wanted and not verified.
    pub fn sought(&self, among: &Bitfield) -> u32 {
        let bytes = among.as_bytes().iter().zip(self.verified.as_bytes()).zip(self.unwanted.as_bytes());
        bytes.map(|((among, verified), unwanted)| (among & !verified & !unwanted).count_ones()).sum()
    }

    /// Whether every wanted piece is verified.
    pub fn is_done(&self) -> bool {
        self.verified.count() + self.unwanted.count() == self.layout.count()
    }

    /// Marks a missing piece as unwanted. Returns false if it was not missing.
    pub fn exclude(&mut self, piece: PieceIndex) -> bool {
        let missing = self.state(piece) == PieceState::Missing && self.unwanted.insert(piece);
        if missing {
            self.unwanted_bytes += u64::from(self.layout.piece_length(piece));
        }
        missing
    }

    /// Marks a missing piece as unchecked: an earlier run wrote it, and it is being rechecked. Returns false
    /// if it was not missing.
    pub fn await_check(&mut self, piece: PieceIndex) -> bool {
        let missing = self.state(piece) == PieceState::Missing && self.unchecked.insert(piece);
        if missing {
            self.unchecked_bytes += u64::from(self.layout.piece_length(piece));
        }
        missing
    }

    /// Ends the recheck of the piece. It is missing until it is verified. Returns false if it was not
    /// unchecked.
    pub fn end_check(&mut self, piece: PieceIndex) -> bool {
        let ended = self.unchecked.remove(piece);
        if ended {
            self.unchecked_bytes -= u64::from(self.layout.piece_length(piece));
        }
        ended
    }

    /// Marks a missing piece as reserved for the request.
    pub fn reserve(&mut self, piece: PieceIndex, request: DownloadRequestId) {
        debug_assert_eq!(self.state(piece), PieceState::Missing);
        self.claims.insert(piece, PieceState::Reserved(request));
    }

    /// Marks the piece as in flight for this request, whatever request had it before. It must not be verified,
    /// unchecked or unwanted.
    pub fn start(&mut self, piece: PieceIndex, request: DownloadRequestId) {
        debug_assert!(!matches!(
            self.state(piece),
            PieceState::Verified | PieceState::Unchecked | PieceState::Unwanted
        ));
        self.claims.insert(piece, PieceState::InFlight(request));
    }

    /// Marks the piece as missing again, unless it is verified.
    pub fn release(&mut self, piece: PieceIndex) {
        self.claims.remove(&piece);
    }

    /// Marks a wanted piece as verified and written. Returns false if it already was.
    pub fn verify(&mut self, piece: PieceIndex) -> bool {
        self.claims.remove(&piece);
        self.end_check(piece);
        let new = self.verified.insert(piece);
        if new {
            self.done_bytes += u64::from(self.layout.piece_length(piece));
        }
        new
    }

    /// Panics if the invariant does not hold. For tests.
    pub fn check_invariant(&self) {
        for (piece, state) in &self.claims {
            assert!(!self.verified.contains(*piece), "{piece:?} is verified and {state:?}");
            assert!(!self.unchecked.contains(*piece), "{piece:?} is unchecked and {state:?}");
            assert!(!self.unwanted.contains(*piece), "{piece:?} is unwanted and {state:?}");
            assert!(matches!(state, PieceState::Reserved(_) | PieceState::InFlight(_)));
        }
        let bytes = |set: &Bitfield| -> u64 {
            set.iter(self.layout).map(|piece| u64::from(self.layout.piece_length(piece))).sum()
        };
        assert!(self.unchecked.iter(self.layout).all(|piece| !self.verified.contains(piece)));
        let is_free = |piece| !self.verified.contains(piece) && !self.unchecked.contains(piece);
        assert!(self.unwanted.iter(self.layout).all(is_free));
        assert_eq!(bytes(&self.unwanted), self.unwanted_bytes);
        assert_eq!(bytes(&self.verified), self.done_bytes);
        assert_eq!(bytes(&self.unchecked), self.unchecked_bytes);
    }
}

//! What is known of each piece of a download.

use std::collections::BTreeMap;

use proto::domain::{Bitfield, PieceIndex, PieceLayout};

use super::request_id::RequestId;

/// The one state that a piece is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceState {
    /// Nobody sends it, and it may be asked for.
    Missing,
    /// In the set of this request, which asks for no piece that others are asked for; not started.
    Promised(RequestId),
    /// This request's source is sending it, or it came whole and is being verified.
    InFlight(RequestId),
    /// Verified and written.
    Verified,
}

/// The states of a download's pieces.
///
/// Invariant: a piece is verified or has an entry in `claims` or neither, never both.
pub struct Pieces {
    layout: PieceLayout,
    verified: Bitfield,
    claims: BTreeMap<PieceIndex, PieceState>,
    done_bytes: u64,
}

impl Pieces {
    /// With these verified already.
    pub fn new(layout: PieceLayout, verified: Bitfield) -> Self {
        let done_bytes = verified.iter(layout).map(|piece| u64::from(layout.piece_length(piece))).sum();
        Self { layout, verified, claims: BTreeMap::new(), done_bytes }
    }

    /// The piece's state.
    pub fn state(&self, piece: PieceIndex) -> PieceState {
        if self.verified.contains(piece) {
            PieceState::Verified
        } else {
            self.claims.get(&piece).copied().unwrap_or(PieceState::Missing)
        }
    }

    /// The pieces that are promised or in flight.
    pub fn claims(&self) -> impl Iterator<Item = (PieceIndex, PieceState)> {
        self.claims.iter().map(|(piece, state)| (*piece, *state))
    }

    /// The verified ones.
    pub fn verified(&self) -> &Bitfield {
        &self.verified
    }

    /// Bytes in the verified ones.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes
    }

    /// The missing piece is promised by the request.
    pub fn promise(&mut self, piece: PieceIndex, request: RequestId) {
        debug_assert_eq!(self.state(piece), PieceState::Missing);
        self.claims.insert(piece, PieceState::Promised(request));
    }

    /// The request claims the piece, from whoever had it; not from the verified.
    pub fn start(&mut self, piece: PieceIndex, request: RequestId) {
        debug_assert_ne!(self.state(piece), PieceState::Verified);
        self.claims.insert(piece, PieceState::InFlight(request));
    }

    /// The piece is missing again, unless it is verified.
    pub fn release(&mut self, piece: PieceIndex) {
        self.claims.remove(&piece);
    }

    /// The piece is verified and written. False if it was before.
    pub fn verify(&mut self, piece: PieceIndex) -> bool {
        self.claims.remove(&piece);
        let new = self.verified.insert(piece);
        if new {
            self.done_bytes += u64::from(self.layout.piece_length(piece));
        }
        new
    }

    /// Panics where the invariant does not hold. For tests.
    pub fn check_invariant(&self) {
        for (piece, state) in &self.claims {
            assert!(!self.verified.contains(*piece), "{piece:?} is verified and {state:?}");
            assert!(matches!(state, PieceState::Promised(_) | PieceState::InFlight(_)));
        }
        let bytes: u64 =
            self.verified.iter(self.layout).map(|piece| u64::from(self.layout.piece_length(piece))).sum();
        assert_eq!(bytes, self.done_bytes);
    }
}

//! Decides which request has the claim to which piece.

use domain::PieceIndex;

use super::{Action, Download, DownloadRequestId, Moment, PieceState, request::OpenRequest};

impl Download {
    /// Decides whether a request that has just started a piece gets the claim to it, races for it, or is
    /// cancelled.
    pub(super) fn claim_started(
        &mut self,
        now: Moment,
        id: DownloadRequestId,
        piece: PieceIndex,
        actions: &mut Vec<Action>,
    ) {
        match self.pieces.state(piece) {
            PieceState::Missing => {
                self.claim(id, piece);
                // The sources that fell silent in the middle of it are not waited for any longer.
                let stalled: Vec<_> = self.requests.stalled_on(piece).map(|(id, _)| id).collect();
                for other in stalled {
                    self.cancel(now, other, actions);
                }
            }
            PieceState::Reserved(other) => {
                self.claim(id, piece);
                if other != id && self.requests.get(other).is_some_and(|other| other.asks_only_for(piece)) {
                    self.cancel(now, other, actions);
                }
            }
            PieceState::InFlight(_) if self.is_worth_racing(now, id, piece) => {}
            PieceState::InFlight(_) | PieceState::Verified | PieceState::Unchecked | PieceState::Unwanted => {
                self.cancel(now, id, actions);
            }
        }
    }

    /// Gives the request the claim to the piece. Waiting requests for it become stale.
    pub(super) fn claim(&mut self, id: DownloadRequestId, piece: PieceIndex) {
        self.pieces.start(piece, id);
        self.availability.close(piece);
        self.mark_stale(piece);
    }

    /// Marks the waiting requests that have the piece in their set as stale.
    pub(super) fn mark_stale(&mut self, piece: PieceIndex) {
        for (&peer, source) in &self.sources {
            let waiting = source.waiting.and_then(|waiting| self.requests.get_mut(waiting));
            if let Some(waiting) = waiting.filter(|waiting| !waiting.stale && waiting.awaits(piece)) {
                waiting.stale = true;
                self.touched.push(peer);
            }
        }
    }

    /// Notes that the piece arrived by this request and that its verification is over.
    pub(super) fn mark_arrived(&mut self, now: Moment, id: DownloadRequestId, piece: PieceIndex) {
        if let Some(request) = self.requests.get_mut(id).filter(|request| request.is_on(piece)) {
            request.leave(piece);
            request.arrived += 1;
            request.heard = Some(now);
            self.touched.push(request.source);
        }
    }

    /// Notes that the piece is verified and written. Returns false if it already was.
    pub(super) fn mark_verified(&mut self, piece: PieceIndex) -> bool {
        let new = self.pieces.verify(piece);
        if new {
            for source in self.sources.values_mut() {
                source.interesting -= u32::from(source.has.contains(piece));
            }
        }
        new
    }

    /// Releases the request's reservations among these pieces.
    pub(super) fn release_reserved(&mut self, id: DownloadRequestId, set: &[PieceIndex]) {
        for &piece in set {
            if self.pieces.state(piece) == PieceState::Reserved(id) {
                self.release(id, piece);
            }
        }
    }

    /// Ends the request's claim to a piece. Another request on the piece takes the claim; else the piece is
    /// missing again.
    pub(super) fn release(&mut self, id: DownloadRequestId, piece: PieceIndex) {
        let claim = self.pieces.state(piece);
        if claim != PieceState::InFlight(id) && claim != PieceState::Reserved(id) {
            return;
        }
        let is_other =
            |(other, request): &(DownloadRequestId, &OpenRequest)| *other != id && !request.stalled;
        let other = self.requests.on(piece).find(is_other).map(|(other, _)| other);
        if let Some(other) = other {
            self.pieces.start(piece, other);
        } else {
            self.pieces.release(piece);
            self.reopen(piece);
        }
    }

    /// Makes the piece available for requests again.
    pub(super) fn reopen(&mut self, piece: PieceIndex) {
        self.availability.reopen(piece);
        self.touched_all = true;
        for source in self.sources.values_mut().filter(|source| source.has.contains(piece)) {
            source.can_give(piece);
            let waiting = source.waiting.and_then(|waiting| self.requests.get_mut(waiting));
            waiting.into_iter().for_each(OpenRequest::could_have_more);
        }
    }
}

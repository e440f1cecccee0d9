//! Handles the events of a download's requests.

use domain::PieceIndex;

use super::{Action, Download, DownloadRequestId, Failure, MAX_BAD_PIECES, Moment, PieceState};

impl Download {
    /// The request waits for an upload slot at its source.
    pub(super) fn queued(&mut self, now: Moment, id: DownloadRequestId, place: u32) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let Some(source) = self.sources.get_mut(&request.source) else { return };
        if request.heard.is_none() {
            let latency = now.saturating_sub(request.asked);
            source.latency = Some(source.latency.map_or(latency, |known| known.min(latency)));
        }
        request.heard = Some(now);
        request.place = Some(place);
        source.contended = true;
        source.last_place = place;
        // When its turn comes is not known, so its pieces may come from elsewhere meanwhile.
        if source.waiting == Some(id) && std::mem::take(&mut request.reserved) {
            request.stale = true;
            let set = request.set.clone();
            self.release_reserved(id, &set);
        }
        let request = &self.requests[id];
        if request.stale {
            self.touched.push(request.source);
        }
    }

    /// The first chunk of a piece arrived.
    pub(super) fn started(
        &mut self,
        now: Moment,
        id: DownloadRequestId,
        piece: PieceIndex,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let peer = request.source;
        let Ok(at) = request.set.binary_search(&piece) else { return self.violated(now, id, actions) };
        if request.current.is_some() || request.left == 0 {
            return self.violated(now, id, actions);
        }
        let first_heard = request.heard.is_none();
        request.set.remove(at);
        request.left -= 1;
        let was_urgent = request.urgent.contains(&piece);
        request.urgent.retain(|urgent| *urgent != piece);
        self.urgent.note_started(was_urgent);
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

    /// Bytes of the current piece arrived.
    pub(super) fn received(&mut self, now: Moment, id: DownloadRequestId, bytes: u32) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let Some(piece) = request.count(bytes, |piece| self.layout.piece_length(piece)) else { return };
        request.heard = Some(now);
        let woke = std::mem::take(&mut request.stalled);
        // This event is frequent. While a transfer goes on as expected, nothing has to be decided.
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

    /// The piece was verified and written.
    pub(super) fn verified(
        &mut self,
        now: Moment,
        id: DownloadRequestId,
        piece: PieceIndex,
        actions: &mut Vec<Action>,
    ) {
        let peer = self.requests.source_of(id);
        self.mark_arrived(now, id, piece);
        self.availability.close(piece);
        if !self.mark_verified(piece) {
            return;
        }
        if let Some(source) = peer.and_then(|peer| self.sources.get_mut(&peer)) {
            source.verified_bytes += u64::from(self.layout.piece_length(piece));
            source.failures = 0;
        }
        self.mark_stale(piece);
        let late: Vec<_> = self.requests.on(piece).map(|(id, _)| id).collect();
        for other in late {
            self.cancel(now, other, actions);
        }
    }

    /// A piece of an earlier run was rechecked.
    pub(super) fn checked(&mut self, piece: PieceIndex, good: bool) {
        if self.pieces.state(piece) != PieceState::Unchecked {
            return;
        }
        if good {
            self.mark_verified(piece);
        } else {
            self.pieces.end_check(piece);
            self.reopen(piece);
        }
    }

    /// The piece does not match the manifest.
    pub(super) fn bad(
        &mut self,
        now: Moment,
        id: DownloadRequestId,
        piece: PieceIndex,
        actions: &mut Vec<Action>,
    ) {
        self.mark_arrived(now, id, piece);
        self.release(id, piece);
        let Some(peer) = self.requests.source_of(id) else { return };
        self.lose(peer, piece);
        if self.count_bad_piece(peer) >= MAX_BAD_PIECES {
            self.ban(now, peer, actions);
        }
    }

    /// The source broke the protocol.
    fn violated(&mut self, now: Moment, id: DownloadRequestId, actions: &mut Vec<Action>) {
        let Some(peer) = self.requests.get(id).map(|request| request.source) else { return };
        self.cancel(now, id, actions);
        self.penalize(now, peer, Failure::Protocol, actions);
    }

    /// The request's stream ended.
    pub(super) fn ended(
        &mut self,
        now: Moment,
        id: DownloadRequestId,
        result: Result<(), Failure>,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get(id) else { return };
        let peer = request.source;
        let (cut, fruitless) = (request.current.is_some(), request.arrived == 0);
        let excused = request.stale || request.left == 0;
        let had_more = request.left > 0 && !request.set.is_empty();
        if let Some(source) = self.sources.get_mut(&peer) {
            let replaced = source.waiting != Some(id) && !source.sending.contains(&id);
            // The source stopped before the end of the set, so other peers wait for it.
            source.contended |= had_more && !fruitless && result.is_ok();
            self.close(now, id);
            match result {
                Ok(()) if cut => self.penalize(now, peer, Failure::Connection, actions),
                Ok(()) if fruitless && !excused && !replaced => {
                    self.penalize(now, peer, Failure::NotShared, actions);
                }
                Ok(()) => {}
                Err(failure) => self.penalize(now, peer, failure, actions),
            }
        }
        self.touched.push(peer);
    }

    /// Drops the request's stream.
    pub(super) fn cancel(&mut self, now: Moment, id: DownloadRequestId, actions: &mut Vec<Action>) {
        actions.push(Action::Cancel(id));
        self.close(now, id);
    }

    /// Ends the request's state: its unfinished pieces may be requested from other sources.
    pub(super) fn close(&mut self, now: Moment, id: DownloadRequestId) {
        let Some(request) = self.requests.remove(id) else { return };
        if let Some(source) = self.sources.get_mut(&request.source) {
            source.held -= u32::from(request.held.is_some());
            if source.waiting == Some(id) {
                source.waiting = None;
            }
            source.sending.retain(|other| *other != id);
            source.note_sending(now);
            // The request that waited behind this one has its turn now.
            if source.sending.is_empty()
                && let Some(next) = source.waiting.and_then(|next| self.requests.get_mut(next))
            {
                next.due = now;
            }
            self.touched.push(request.source);
        }
        for piece in request.current.map(|current| current.piece).into_iter().chain(request.verifying) {
            self.release(id, piece);
        }
        self.release_reserved(id, &request.set);
    }
}

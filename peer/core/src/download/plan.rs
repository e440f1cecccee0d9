//! What to do next: the round of planning that follows each event.

use std::time::Duration;

use domain::PeerId;

use super::{
    Action, Download, Failure, LinkState, Moment, connections::CONNECT_PATIENCE, endgame::Races,
    request::PATIENCE,
};

/// The bounds of the silence in the middle of a piece after which the piece is also requested from others.
pub(super) const STALL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(6));

impl Download {
    /// Plans for the sources that had events, or for all sources.
    pub(super) fn plan(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.pieces.is_done() {
            self.complete = true;
            actions.push(Action::Complete);
            return;
        }
        let mut races = Races::default();
        // Planning for one source may free pieces for others. This ends, because each further round means
        // that a request was dropped.
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
                let due = self.plan_source(now, *peer, &mut races, actions);
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

    pub(super) fn wake_at(&mut self, due: Option<Moment>) {
        self.due = [self.due, due].into_iter().flatten().min();
    }

    /// Plans for one source. Returns when to look at it again.
    fn plan_source(
        &mut self,
        now: Moment,
        peer: PeerId,
        races: &mut Races,
        actions: &mut Vec<Action>,
    ) -> Option<Moment> {
        match self.sources.get(&peer)?.link {
            LinkState::Banned => None,
            LinkState::Resting(until) => self.connect(now, peer, until, actions),
            LinkState::Connecting(since) if now >= since + CONNECT_PATIENCE => {
                actions.push(Action::Disconnect(peer));
                self.unlink(now, peer);
                None
            }
            LinkState::Connecting(since) => Some(since + CONNECT_PATIENCE),
            LinkState::Connected => {
                let patience = self.watch_requests(now, peer, actions);
                let ask = self.keep_asked(now, peer, races, actions);
                let idle = self.note_idle(now, peer);
                [patience, ask, idle].into_iter().flatten().min()
            }
        }
    }

    /// Finds requests that have fallen silent. Returns when to look again.
    fn watch_requests(&mut self, now: Moment, peer: PeerId, actions: &mut Vec<Action>) -> Option<Moment> {
        let source = self.sources.get(&peer)?;
        let stall = source.piece_time(now).map_or(STALL.0, |time| (2 * time).clamp(STALL.0, STALL.1));
        let ids: Vec<_> = source.sending.iter().chain(&source.waiting).copied().collect();
        let mut due: Option<Moment> = None;
        for id in ids {
            let Some(source) = self.sources.get(&peer) else { return due };
            let Some(request) = self.requests.get_mut(id) else { continue };
            let heard = request.heard.unwrap_or(request.due);
            let queued = request.place.is_some() || !source.sending.is_empty();
            if source.waiting == Some(id) && queued {
                continue; // It waits behind other peers or behind our own requests: silence is expected.
            }
            if request.held.is_some() || request.is_ours_to_end() {
                continue; // It waits for us.
            }
            if request.silence(now) >= PATIENCE || request.drips(now) {
                self.cancel(now, id, actions);
                self.penalize(now, peer, Failure::Connection, actions);
                continue;
            }
            let mut limit = heard + PATIENCE;
            if request.current.is_some() {
                limit = limit.min(request.drip_check_at());
            }
            if let Some(current) = request.current.filter(|_| !request.stalled) {
                if request.silence(now) >= stall {
                    request.stalled = true;
                    let set = request.set.clone();
                    self.release(id, current.piece);
                    self.release_reserved(id, &set);
                } else {
                    limit = limit.min(heard + stall);
                }
            }
            due = Some(due.map_or(limit, |due| due.min(limit)));
        }
        due
    }
}

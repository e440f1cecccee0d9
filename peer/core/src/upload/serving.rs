//! Decides how many peers are served at a time, which request is next, and which places the waiting requests
//! are told.

use std::time::Duration;

use domain::{PIECE_LENGTH, PeerId};

use super::{
    Action, End, Moment, Upload, UploadRequestId,
    draining::LOOK,
    request::{PieceInProgress, ReceivedRequest},
};

/// A slot whose receiver took nothing for this long is given to another.
const STALL: Duration = Duration::from_secs(30);
/// A receiver that has taken nothing for this long is quiet. Its slot does not count, because it leaves the
/// uplink to others.
pub(super) const QUIET: Duration = Duration::from_secs(2);
/// The most slots that are given away in place of quiet ones. Few, because their receivers may all wake up.
pub(super) const MAX_QUIET: usize = 8;
/// When nothing at all was handed over for this long, the uplink has room, whatever was started.
const ROOM_AFTER: Duration = Duration::from_millis(250);
/// The last free slot is given away when a piece that is being sent has at most this many bytes left. The
/// next piece then starts before the uplink falls idle. It does not start earlier, because two pieces that
/// share an uplink both arrive late.
const NEARLY_SENT: u32 = PIECE_LENGTH / 8;
/// The rate in bytes a second from which on an uplink is fast, not thin.
const FAST: f64 = 25e6;
/// A peer that is served alone gets one more stream for each multiple of this rate that its uplink carries.
/// In bytes a second.
const STREAM_RATE: f64 = 25e6;
/// The most streams of one peer at a time.
const MAX_STREAMS: f64 = 8.0;
/// A request near its turn gets a new place no sooner than this after the last one.
const TELL_NEAR: Duration = Duration::from_millis(50);
/// The same for a request further back.
const TELL_FAR: Duration = Duration::from_secs(1);
/// A place up to this one is near its turn.
const NEAR: u32 = 4;

impl Upload {
    pub(super) fn end_stalled(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let stalled = |request: &ReceivedRequest| {
            request.sending.as_ref().is_some_and(|sending| sending.quiet_for(now) >= STALL)
        };
        let stalled: Vec<_> =
            self.requests.iter().filter(|(_, request)| stalled(request)).map(|(id, _)| *id).collect();
        for id in stalled {
            self.remove(id);
            actions.push(Action::End(id, End::Stalled));
        }
    }

    /// Gives free slots to the requests next in turn, and further streams to a peer that is served alone.
    pub(super) fn serve(&mut self, now: Moment, actions: &mut Vec<Action>) {
        while let Some((id, early)) = self.next_to_serve(now) {
            let request = &self.requests[&id];
            let peer = request.peer;
            self.turns.take(&request.user, peer, early);
            if self.send(now, id, actions) {
                *self.served.entry(peer).or_insert(0) += 1;
                self.rate.begin(now);
                self.moved = now;
            } else {
                // Other requests of the same peer are already sending everything in its set.
                self.requests.remove(&id);
                actions.push(Action::End(id, End::Done));
            }
            self.changed = true;
        }
    }

    /// The request to serve now, and by how many turns it is early.
    fn next_to_serve(&self, now: Moment) -> Option<(UploadRequestId, u64)> {
        if self.requests.len() == self.running() {
            return None;
        }
        if self.others_wait() {
            if !self.has_free_slot(now) {
                return None;
            }
            let mut order = self.turns.order(&self.requests, &self.served).into_iter();
            return order.find(|(id, _)| self.can_serve(now, &self.requests[id]));
        }
        let streams = (self.pace(now) / STREAM_RATE).clamp(1.0, MAX_STREAMS) as u32;
        let own = self.requests.iter().filter(|(_, request)| request.sending.is_none());
        let own = own.filter(|(_, request)| self.can_serve(now, request));
        own.filter(|(_, request)| self.served.get(&request.peer).is_some_and(|count| *count < streams))
            .min_by_key(|(_, request)| request.arrived)
            .map(|(id, _)| (*id, 0))
    }

    fn has_free_slot(&self, now: Moment) -> bool {
        let (taken, slots) = (self.taken_slots(now), self.slot_count(now));
        taken + 1 < slots
            || taken == 0
            || (taken < slots && self.is_nearly_sent(now))
            || (taken < slots.max(self.options.slots) && now.saturating_sub(self.moved) >= ROOM_AFTER)
    }

    fn slot_count(&self, now: Moment) -> usize {
        let fast = self.pace(now) >= FAST;
        self.slots.count().max(if fast { self.options.slots.min(self.options.max_slots) } else { 0 })
    }

    /// The number of slots that count as taken. Up to [`MAX_QUIET`] slots of quiet receivers don't count.
    fn taken_slots(&self, now: Moment) -> usize {
        let moves = |(_, sending): &(PeerId, &PieceInProgress)| sending.quiet_for(now) < QUIET;
        let mut moving: Vec<_> = self.sending().filter(moves).map(|(peer, _)| peer).collect();
        moving.sort_unstable();
        moving.dedup();
        moving.len().max(self.served.len().saturating_sub(MAX_QUIET))
    }

    fn is_nearly_sent(&self, now: Moment) -> bool {
        let nearly = |sending: &PieceInProgress| {
            sending.handed >= PIECE_LENGTH - NEARLY_SENT && sending.quiet_for(now) < QUIET
        };
        self.sending().any(|(_, sending)| nearly(sending))
    }

    /// The pieces that are being sent, with their receivers.
    fn sending(&self) -> impl Iterator<Item = (PeerId, &PieceInProgress)> {
        self.requests.values().filter_map(|request| Some((request.peer, request.sending.as_ref()?)))
    }

    /// Tells waiting requests their places if these are new to them, and sets the next wake-up.
    pub(super) fn tell_places(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let order = self.turns.order(&self.requests, &self.served);
        // A slot may become quiet, which matters if a request waits, and it may stall later.
        let turns = |quiet: Duration| if quiet < QUIET && !order.is_empty() { QUIET } else { STALL };
        let due = self.sending().map(|(_, sending)| sending.quiet_for(now));
        let mut due = due.map(|quiet| now + turns(quiet).saturating_sub(quiet)).min();
        let can_serve = order.iter().any(|(id, _)| self.can_serve(now, &self.requests[id]));
        if can_serve && self.taken_slots(now) < self.slot_count(now).max(self.options.slots) {
            due = due.into_iter().chain([self.moved + ROOM_AFTER]).min();
        }
        if !order.is_empty() && !self.draining.is_empty() {
            due = due.into_iter().chain([now + LOOK]).min();
        }
        for ((id, _), place) in order.into_iter().zip(1..) {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            let gap = if place <= NEAR { TELL_NEAR } else { TELL_FAR };
            match request.told {
                Some((told, _)) if told == place => {}
                Some((_, when)) if now < when + gap => due = due.into_iter().chain([when + gap]).min(),
                _ => {
                    request.told = Some((place, now));
                    actions.push(Action::Queue(id, place));
                }
            }
        }
        self.due = due;
    }
}

//! Decides which request to serve next, and which of its pieces to send.
//!
//! [`Upload`] receives events and answers with actions. Its owner carries the actions out in order. The owner
//! never passes an event in while doing so, and wakes the machine with [`Event::Tick`] at
//! [`Upload::next_wakeup`].

mod chunk;
mod draining;
mod invariant;
mod protocol;
mod queue;
mod request;
mod sent;
mod serving;
mod slot_count;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use domain::{FileId, PeerId, PieceIndex, Username};

pub use self::{
    chunk::{MAX_CHUNK, ReaderPace, chunk_length},
    protocol::{Action, End, Event, Options},
    request::UploadRequestId,
};
use self::{
    draining::Draining,
    queue::Turns,
    request::{PieceInProgress, ReceivedRequest},
    sent::SentCounts,
    slot_count::SlotCount,
};
use super::{Moment, meter::Meter};

/// The state machine of all uploads of a peer.
///
/// A slot is a peer's right to receive data. It carries several requests of that peer only while no other
/// peer waits. While others wait, a turn lasts one piece. Turns go round by user, then by peer; the one
/// served longest ago comes first. A peer whose reader waits may take its next turn early, once.
///
/// Of the pieces that a request accepts, the one that this peer has sent least often comes first. Among equals,
/// the one that the request names first comes first.
///
/// ```
/// use std::time::Duration;
/// use domain::{FileId, PIECE_LENGTH, PieceLayout};
/// use peer_core::upload::{Action, Event, Options, UploadRequestId, Upload};
///
/// let layout = PieceLayout::new(4 * u64::from(PIECE_LENGTH)).unwrap();
/// let piece = layout.index(2).unwrap();
/// let request = UploadRequestId(1);
/// let asked = Event::Asked {
///     request,
///     peer: [7; 32].into(),
///     user: "bob".parse().unwrap(),
///     file: FileId::try_from(&[1; 16][..]).unwrap(),
///     wanted: vec![piece],
///     max_pieces: 1,
///     in_order: false,
///     urgent: false,
/// };
/// let (mut upload, mut actions) = (Upload::new(Options::default(), 1), Vec::new());
/// upload.handle(Duration::ZERO, asked, &mut actions);
/// assert_eq!(actions, [Action::Send(request, piece)], "a slot is free");
/// ```
pub struct Upload {
    options: Options,
    requests: BTreeMap<UploadRequestId, ReceivedRequest>,
    /// The number of requests that are being sent, by receiving peer. These peers have the slots.
    served: BTreeMap<PeerId, u32>,
    turns: Turns,
    sent: SentCounts,
    draining: Draining,
    slots: SlotCount,
    rate: Meter,
    /// The same rate over a shorter time, for decisions.
    pace: Meter,
    moved: Moment,
    arrivals: u64,
    changed: bool,
    due: Option<Moment>,
}

impl Upload {
    /// Starts without uploads. All random choices follow from `seed`.
    pub fn new(options: Options, seed: u64) -> Self {
        // Measured from the very start: buffers take much of a first piece at once, and that must not look
        // like a fast uplink.
        let mut pace = Meter::new(Duration::from_millis(100));
        pace.begin(Moment::ZERO);
        Self {
            options,
            requests: BTreeMap::new(),
            served: BTreeMap::new(),
            turns: Turns::new(seed),
            sent: SentCounts::default(),
            draining: Draining::default(),
            slots: SlotCount::new(options.thin_slots, options.max_slots),
            rate: Meter::new(Duration::from_millis(500)),
            pace,
            moved: Moment::ZERO,
            arrivals: 0,
            changed: false,
            due: None,
        }
    }

    /// Handles an event, and appends the actions that it requires.
    pub fn handle(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        self.draining.forget(now);
        match event {
            Event::Asked { request, peer, user, file, wanted, max_pieces, in_order, urgent } => {
                let left = if max_pieces == 0 { u32::MAX } else { max_pieces };
                let (arrived, told, sending) = (self.arrivals, None, None);
                self.arrivals += 1;
                let asked = ReceivedRequest {
                    peer,
                    user,
                    file,
                    wanted,
                    left,
                    in_order,
                    urgent,
                    arrived,
                    told,
                    sending,
                };
                self.asked(request, asked, actions);
            }
            Event::Wants(id) => self.wants(id),
            Event::Sent(id) => self.piece_sent(now, id, actions),
            Event::Left(id) => self.remove(id),
            Event::Progress(id, bytes) => self.progress(now, id, bytes),
            Event::Drain(file, until) => self.draining.note(now, file, until),
            Event::Tick => self.end_stalled(now, actions),
        }
        self.slots.note_demand(now, self.others_wait());
        self.serve(now, actions);
        if std::mem::take(&mut self.changed) || self.due.is_some_and(|due| due <= now) {
            self.tell_places(now, actions);
        }
    }

    /// When to pass in the next [`Event::Tick`], unless another event comes first.
    pub fn next_wakeup(&self) -> Option<Moment> {
        self.due
    }

    /// The number of requests that are being served.
    pub fn running(&self) -> usize {
        self.served.values().sum::<u32>() as usize
    }

    /// The number of requests that wait.
    pub fn waiting(&self) -> usize {
        self.requests.len() - self.running()
    }

    /// The number of peers that are served or wait.
    pub fn readers(&self) -> usize {
        self.requests.values().map(|request| request.peer).collect::<BTreeSet<_>>().len()
    }

    /// The present number of upload slots.
    pub fn slots(&self) -> usize {
        self.slots.count()
    }

    /// The rate at which bytes are handed to the transport now, by all requests, in bytes a second.
    pub fn rate(&self, now: Moment) -> f64 {
        self.rate.rate(now)
    }

    /// The same rate over the last tenth of a second.
    pub fn pace(&self, now: Moment) -> f64 {
        self.pace.rate(now)
    }

    fn asked(&mut self, id: UploadRequestId, mut asked: ReceivedRequest, actions: &mut Vec<Action>) {
        let same = |other: &ReceivedRequest| {
            other.sending.is_none() && other.peer == asked.peer && other.file == asked.file
        };
        let older = self.requests.iter().find(|(_, other)| same(other)).map(|(older, _)| *older);
        // The order of turns does not change when a request only replaces another.
        self.changed |= older.is_none() || asked.urgent;
        if let Some(replaced) = older.and_then(|older| self.requests.remove(&older)) {
            actions.extend(older.map(|older| Action::End(older, End::Replaced)));
            asked.arrived = replaced.arrived;
            asked.told = replaced.told;
            // A replacement is answered in any case: to the client, silence would look like a fault.
            if let Some((place, _)) = asked.told {
                actions.push(Action::Queue(id, place));
            }
        } else if self.waiting() >= self.options.queue && !self.make_room(&asked.user, actions) {
            actions.push(Action::End(id, End::QueueFull));
            return;
        }
        self.requests.insert(id, asked);
    }

    /// Makes room in a full queue: the user with the most waiting requests loses the last of them to a user
    /// with fewer.
    fn make_room(&mut self, user: &Username, actions: &mut Vec<Action>) -> bool {
        let mut waiting: BTreeMap<&Username, (usize, UploadRequestId)> = BTreeMap::new();
        for (id, request) in self.requests.iter().filter(|(_, request)| request.sending.is_none()) {
            let (count, last) = waiting.entry(&request.user).or_insert((0, *id));
            *count += 1;
            *last = (*last).max(*id);
        }
        let own = waiting.get(user).map_or(0, |(count, _)| *count);
        let Some((most, last)) = waiting.into_values().max() else { return false };
        if most <= own + 1 {
            return false;
        }
        self.requests.remove(&last);
        actions.push(Action::End(last, End::QueueFull));
        true
    }

    fn piece_sent(&mut self, now: Moment, id: UploadRequestId, actions: &mut Vec<Action>) {
        let others_wait = self.others_wait();
        let Some(request) = self.requests.get_mut(&id).filter(|request| request.sending.is_some()) else {
            return;
        };
        request.sending = None;
        self.moved = now;
        if others_wait || !self.send(now, id, actions) {
            actions.push(Action::End(id, End::Done));
            if let Some(request) = self.requests.remove(&id) {
                self.leave_slot(request.peer);
            }
        }
    }

    /// Starts the next piece of the request. Returns false if none is left.
    fn send(&mut self, now: Moment, id: UploadRequestId, actions: &mut Vec<Action>) -> bool {
        let Some(request) = self.requests.get(&id).filter(|request| request.left > 0) else { return false };
        let mut busy =
            self.requests.values().filter(|other| other.peer == request.peer && other.file == request.file);
        let on_its_way: Vec<_> =
            busy.by_ref().filter_map(|other| Some(other.sending.as_ref()?.piece)).collect();
        let may_send = |piece| !on_its_way.contains(&piece) && self.may_send(now, request.file, piece);
        let mut candidates = request.wanted.iter().enumerate().filter(|(_, piece)| may_send(**piece));
        let choice = if request.in_order {
            candidates.next()
        } else {
            candidates.min_by_key(|(at, piece)| (self.sent.count(request.file, **piece), *at))
        };
        let Some((at, &piece)) = choice else { return false };
        self.sent.add(request.file, piece);
        self.draining.note_sent(now, request.file, piece);
        if let Some(request) = self.requests.get_mut(&id) {
            request.wanted.remove(at);
            request.left -= 1;
            request.sending = Some(PieceInProgress { piece, handed: 0, moved: now, wants: false });
        }
        actions.push(Action::Send(id, piece));
        true
    }

    /// Whether the piece may be sent: always, unless the file is drained and the piece is left to others.
    fn may_send(&self, now: Moment, file: FileId, piece: PieceIndex) -> bool {
        self.sent.count(file, piece) == 0 || !self.draining.is_left_to_others(now, file, piece)
    }

    /// Whether the request has a piece that may be sent.
    fn can_serve(&self, now: Moment, request: &ReceivedRequest) -> bool {
        self.draining.is_empty()
            || request.wanted.iter().any(|piece| self.may_send(now, request.file, *piece))
    }

    fn remove(&mut self, id: UploadRequestId) {
        if let Some(request) = self.requests.remove(&id) {
            self.changed = true;
            if let Some(sending) = request.sending {
                // Nobody has it to pass on.
                self.sent.take_back(request.file, sending.piece);
                self.leave_slot(request.peer);
            }
        }
    }

    fn leave_slot(&mut self, peer: PeerId) {
        self.changed = true;
        if let Some(streams) = self.served.get_mut(&peer) {
            *streams -= 1;
            if *streams == 0 {
                self.served.remove(&peer);
            }
        }
    }

    fn wants(&mut self, id: UploadRequestId) {
        if let Some(sending) = self.requests.get_mut(&id).and_then(|request| request.sending.as_mut()) {
            sending.wants = true;
        }
    }

    fn progress(&mut self, now: Moment, id: UploadRequestId, bytes: u32) {
        self.moved = now;
        self.rate.add(now, bytes);
        self.pace.add(now, bytes);
        self.slots.note_bytes(bytes);
        if let Some(sending) = self.requests.get_mut(&id).and_then(|request| request.sending.as_mut()) {
            sending.handed = sending.handed.saturating_add(bytes);
            sending.moved = now;
            sending.wants = false;
        }
    }

    /// Whether a peer without a slot waits.
    fn others_wait(&self) -> bool {
        self.requests
            .values()
            .any(|request| request.sending.is_none() && !self.served.contains_key(&request.peer))
    }
}

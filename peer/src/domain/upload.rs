//! Whom to serve next, and which of the pieces it wants.
//!
//! [`Upload`] is fed what happened and answers what to do about it. Its owner carries the actions out in order, never
//! feeds it while doing so, and wakes it with [`Event::Tick`] at [`Upload::next_wakeup`].

mod chunk;
mod queue;
mod sent;
mod slots;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use proto::domain::{FileId, PIECE_LENGTH, PeerId, PieceIndex, Username};

pub use self::chunk::{MAX_CHUNK, chunk_length};
use self::{queue::Turns, sent::SentCounts, slots::Slots};
use super::{Moment, meter::Meter};

/// A slot that took nothing for so long is given to another.
const STALL: Duration = Duration::from_secs(30);
/// The slot of a receiver that has taken nothing for so long does not count: it leaves the uplink to others.
const QUIET: Duration = Duration::from_secs(2);
/// Most slots that are given away in place of such ones. Few, for their receivers may all wake up.
const MAX_QUIET: usize = 8;
/// While nothing at all was handed over for so long, the uplink has room whatever was begun.
const ROOM_AFTER: Duration = Duration::from_millis(250);
/// The last free slot is given away when a piece that is being sent has no more than this left, so that the next is under
/// way before the uplink falls idle; not earlier, for two pieces that share an uplink both come late.
const NEARLY_SENT: u32 = PIECE_LENGTH / 8;
/// Bytes a second from which on an uplink is not thin.
const FAST: f64 = 25e6;
/// A peer that is served alone gets one stream more for each time that its uplink carries so many bytes a second.
const STREAM_RATE: f64 = 25e6;
/// Most streams of one peer at a time.
const MAX_STREAMS: f64 = 8.0;
/// A request is told a new place no sooner than this after the last one, when its turn is near.
const TELL_NEAR: Duration = Duration::from_millis(50);
/// The same further back.
const TELL_FAR: Duration = Duration::from_secs(1);
/// Up to this place a turn is near.
const NEAR: u32 = 4;

/// Names a request that came in; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// All that can happen to the uploads of a peer. One machine decides for all files, since they share the uplink.
#[derive(Clone, Debug)]
pub enum Event {
    /// An admitted request. `wanted` holds only pieces that this peer has verified, at least one, each once.
    ///
    /// It is answered at once, in the same call: by [`Action::Send`], by [`Action::Queue`] or by [`Action::End`]; or not
    /// yet, when all that it waits for is this peer's own earlier requests.
    Asked {
        /// The request's name in later events.
        request: RequestId,
        /// Who asks.
        peer: PeerId,
        /// Whose peer it is: slots go round by user.
        user: Username,
        /// For which file.
        file: FileId,
        /// The pieces it would take.
        wanted: Vec<PieceIndex>,
        /// At most so many; 0 for all.
        max_pieces: u32,
        /// In the order of `wanted`.
        in_order: bool,
    },
    /// The transport has room for more of the request's piece. What is waited for from here to the next `Progress` is this
    /// peer's own doing, its limit or its disk, and not held against the receiver.
    Wants(RequestId),
    /// The last byte of the piece that was being sent is with the transport.
    Sent(RequestId),
    /// The request's stream is gone without this machine having ended it: the client left, the file is no longer shared,
    /// membership ended. Harmless for a request that has ended.
    Left(RequestId),
    /// Bytes were handed to the transport, by any request: what the uplink carries is measured by it. Best told per chunk
    /// as it is taken, before the piece's `Sent`.
    Progress(RequestId, u32),
    /// Time has passed.
    Tick,
}

/// All that the uploads can want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the request its place; 1 is next in turn.
    Queue(RequestId, u32),
    /// Send the piece now, then report [`Event::Sent`].
    Send(RequestId, PieceIndex),
    /// End the request's stream. It is forgotten; no event of it is needed.
    End(RequestId, End),
}

/// Why a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its set or its number is used up, or others wait: the stream ends with OK.
    Done,
    /// A newer request of the peer for the file took its place: ABORTED.
    Replaced,
    /// The queue is full: RESOURCE_EXHAUSTED.
    QueueFull,
    /// It took nothing for 30 seconds: DEADLINE_EXCEEDED.
    Stalled,
}

/// How much is served at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Upload slots to begin with: peers served at a time. One fills a thin uplink, and a piece that has it alone is there
    /// to be passed on in half the time of two that share it.
    pub thin_slots: usize,
    /// At least so many while the uplink shows to be fast: one stream might not fill it.
    pub slots: usize,
    /// Most slots that there can be, once the uplink shows to have room for more.
    pub max_slots: usize,
    /// Most requests that wait.
    pub queue: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { thin_slots: 1, slots: 2, max_slots: 32, queue: 64 }
    }
}

/// What is known of a request.
struct Request {
    peer: PeerId,
    user: Username,
    file: FileId,
    wanted: Vec<PieceIndex>,
    left: u32,
    in_order: bool,
    arrived: u64,
    told: Option<(u32, Moment)>,
    sending: Option<Sending>,
}

/// The piece that is being sent.
struct Sending {
    piece: PieceIndex,
    handed: u32,
    /// When the receiver last took something.
    moved: Moment,
    /// The receiver has room, and is made to wait.
    wants: bool,
}

impl Sending {
    /// How long the receiver has taken nothing.
    fn quiet_for(&self, now: Moment) -> Duration {
        if self.wants { Duration::ZERO } else { now.saturating_sub(self.moved) }
    }
}

/// The state machine of all uploads of a peer.
///
/// A slot is a peer's right to be sent to; it carries several requests of that peer only while nobody else waits. A turn
/// lasts a piece while others wait. Turns go round by user, then by peer, whoever was served longest ago first. Of the
/// pieces that a request would take, the one comes first that this peer has sent the least often; of equals the one that
/// the request names first.
pub struct Upload {
    options: Options,
    requests: BTreeMap<RequestId, Request>,
    /// Requests that are sending, by the peer that they go to: these peers have the slots.
    served: BTreeMap<PeerId, u32>,
    turns: Turns,
    sent: SentCounts,
    slots: Slots,
    rate: Meter,
    /// The same over a shorter time, for decisions.
    pace: Meter,
    moved: Moment,
    arrivals: u64,
    changed: bool,
    due: Option<Moment>,
}

impl Upload {
    /// No upload. All that is left to chance follows from `seed`.
    pub fn new(options: Options, seed: u64) -> Self {
        // It measures from the very start on: what buffers take at once of a first piece must not look like a fast uplink.
        let mut pace = Meter::new(Duration::from_millis(100));
        pace.begin(Moment::ZERO);
        Self {
            options,
            requests: BTreeMap::new(),
            served: BTreeMap::new(),
            turns: Turns::new(seed),
            sent: SentCounts::default(),
            slots: Slots::new(options.thin_slots, options.max_slots),
            rate: Meter::new(Duration::from_millis(500)),
            pace,
            moved: Moment::ZERO,
            arrivals: 0,
            changed: false,
            due: None,
        }
    }

    /// Takes in what happened, and appends what is to be done.
    pub fn handle(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Asked { request, peer, user, file, wanted, max_pieces, in_order } => {
                let left = if max_pieces == 0 { u32::MAX } else { max_pieces };
                let (arrived, told, sending) = (self.arrivals, None, None);
                self.arrivals += 1;
                let asked = Request { peer, user, file, wanted, left, in_order, arrived, told, sending };
                self.asked(request, asked, actions);
            }
            Event::Wants(id) => self.wants(id),
            Event::Sent(id) => self.piece_sent(now, id, actions),
            Event::Left(id) => self.remove(id),
            Event::Progress(id, bytes) => self.progress(now, id, bytes),
            Event::Tick => self.end_stalled(now, actions),
        }
        self.slots.note_demand(now, self.others_wait());
        self.serve(now, actions);
        if std::mem::take(&mut self.changed) || self.due.is_some_and(|due| due <= now) {
            self.tell_places(now, actions);
        }
    }

    /// When to hand in the next [`Event::Tick`] unless something else happens before.
    pub fn next_wakeup(&self) -> Option<Moment> {
        self.due
    }

    /// Requests that are being served.
    pub fn running(&self) -> usize {
        self.served.values().sum::<u32>() as usize
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.requests.len() - self.running()
    }

    /// Upload slots at present.
    pub fn slots(&self) -> usize {
        self.slots.count()
    }

    /// Bytes a second handed to the transport now, by all requests.
    pub fn rate(&self, now: Moment) -> f64 {
        self.rate.rate(now)
    }

    /// Bytes a second handed to the transport in the last tenth of a second, by all requests.
    pub fn pace(&self, now: Moment) -> f64 {
        self.pace.rate(now)
    }

    fn asked(&mut self, id: RequestId, mut asked: Request, actions: &mut Vec<Action>) {
        let same =
            |other: &Request| other.sending.is_none() && other.peer == asked.peer && other.file == asked.file;
        let older = self.requests.iter().find(|(_, other)| same(other)).map(|(older, _)| *older);
        // The order of turns stays as it is when a request only takes another's place.
        self.changed |= older.is_none();
        if let Some(replaced) = older.and_then(|older| self.requests.remove(&older)) {
            actions.extend(older.map(|older| Action::End(older, End::Replaced)));
            asked.arrived = replaced.arrived;
            asked.told = replaced.told;
            // It is answered in any case: the source's silence would look like a fault.
            if let Some((place, _)) = asked.told {
                actions.push(Action::Queue(id, place));
            }
        } else if self.waiting() >= self.options.queue && !self.make_room(&asked.user, actions) {
            actions.push(Action::End(id, End::QueueFull));
            return;
        }
        self.requests.insert(id, asked);
    }

    /// The queue is full: the user with the most requests in it loses the last of them to one that has fewer.
    fn make_room(&mut self, user: &Username, actions: &mut Vec<Action>) -> bool {
        let mut waiting: BTreeMap<&Username, (usize, RequestId)> = BTreeMap::new();
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

    fn piece_sent(&mut self, now: Moment, id: RequestId, actions: &mut Vec<Action>) {
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

    /// Begins the next piece of the request, if there is one left.
    fn send(&mut self, now: Moment, id: RequestId, actions: &mut Vec<Action>) -> bool {
        let Some(request) = self.requests.get(&id).filter(|request| request.left > 0) else { return false };
        let mut busy =
            self.requests.values().filter(|other| other.peer == request.peer && other.file == request.file);
        let on_its_way: Vec<_> =
            busy.by_ref().filter_map(|other| Some(other.sending.as_ref()?.piece)).collect();
        let mut candidates =
            request.wanted.iter().enumerate().filter(|(_, piece)| !on_its_way.contains(piece));
        let choice = if request.in_order {
            candidates.next()
        } else {
            candidates.min_by_key(|(at, piece)| (self.sent.count(request.file, **piece), *at))
        };
        let Some((at, &piece)) = choice else { return false };
        self.sent.add(request.file, piece);
        if let Some(request) = self.requests.get_mut(&id) {
            request.wanted.remove(at);
            request.left -= 1;
            request.sending = Some(Sending { piece, handed: 0, moved: now, wants: false });
        }
        actions.push(Action::Send(id, piece));
        true
    }

    fn remove(&mut self, id: RequestId) {
        if let Some(request) = self.requests.remove(&id) {
            self.changed = true;
            if request.sending.is_some() {
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

    fn wants(&mut self, id: RequestId) {
        if let Some(sending) = self.requests.get_mut(&id).and_then(|request| request.sending.as_mut()) {
            sending.wants = true;
        }
    }

    fn progress(&mut self, now: Moment, id: RequestId, bytes: u32) {
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

    fn end_stalled(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let stalled = |request: &Request| {
            request.sending.as_ref().is_some_and(|sending| sending.quiet_for(now) >= STALL)
        };
        let stalled: Vec<_> =
            self.requests.iter().filter(|(_, request)| stalled(request)).map(|(id, _)| *id).collect();
        for id in stalled {
            self.remove(id);
            actions.push(Action::End(id, End::Stalled));
        }
    }

    /// Somebody waits who has no slot.
    fn others_wait(&self) -> bool {
        self.requests
            .values()
            .any(|request| request.sending.is_none() && !self.served.contains_key(&request.peer))
    }

    /// Gives free slots to those next in turn, and the streams of a peer that is served alone.
    fn serve(&mut self, now: Moment, actions: &mut Vec<Action>) {
        while let Some(id) = self.next_to_serve(now) {
            let request = &self.requests[&id];
            let peer = request.peer;
            self.turns.take(&request.user, peer);
            if self.send(now, id, actions) {
                *self.served.entry(peer).or_insert(0) += 1;
                self.rate.begin(now);
                self.moved = now;
            } else {
                // All of its set is on its way to the peer by another of its requests.
                self.requests.remove(&id);
                actions.push(Action::End(id, End::Done));
            }
            self.changed = true;
        }
    }

    fn next_to_serve(&self, now: Moment) -> Option<RequestId> {
        if self.requests.len() == self.running() {
            return None;
        }
        if self.others_wait() {
            return self.has_free_slot(now).then(|| self.turns.order(&self.requests, &self.served).next())?;
        }
        let streams = (self.pace(now) / STREAM_RATE).clamp(1.0, MAX_STREAMS) as u32;
        let own = self.requests.iter().filter(|(_, request)| request.sending.is_none());
        own.filter(|(_, request)| self.served.get(&request.peer).is_some_and(|count| *count < streams))
            .min_by_key(|(_, request)| request.arrived)
            .map(|(id, _)| *id)
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

    /// Slots that count: not those of receivers that are quiet, up to a number.
    fn taken_slots(&self, now: Moment) -> usize {
        let moves = |(_, sending): &(PeerId, &Sending)| sending.quiet_for(now) < QUIET;
        let mut moving: Vec<_> = self.sending().filter(moves).map(|(peer, _)| peer).collect();
        moving.sort_unstable();
        moving.dedup();
        moving.len().max(self.served.len().saturating_sub(MAX_QUIET))
    }

    fn is_nearly_sent(&self, now: Moment) -> bool {
        let nearly = |sending: &Sending| {
            sending.handed >= PIECE_LENGTH - NEARLY_SENT && sending.quiet_for(now) < QUIET
        };
        self.sending().any(|(_, sending)| nearly(sending))
    }

    /// The pieces that are being sent, and to whom.
    fn sending(&self) -> impl Iterator<Item = (PeerId, &Sending)> {
        self.requests.values().filter_map(|request| Some((request.peer, request.sending.as_ref()?)))
    }

    /// Tells the requests that wait for a slot their places, as far as they are new to them; finds out when to look again.
    fn tell_places(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let order: Vec<_> = self.turns.order(&self.requests, &self.served).collect();
        // A slot may fall quiet, which matters to who waits for one, and at last it stalls.
        let turns = |quiet: Duration| if quiet < QUIET && !order.is_empty() { QUIET } else { STALL };
        let due = self.sending().map(|(_, sending)| sending.quiet_for(now));
        let mut due = due.map(|quiet| now + turns(quiet).saturating_sub(quiet)).min();
        if !order.is_empty() && self.taken_slots(now) < self.slot_count(now).max(self.options.slots) {
            due = due.into_iter().chain([self.moved + ROOM_AFTER]).min();
        }
        for (id, place) in order.into_iter().zip(1..) {
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

    /// Panics where an invariant does not hold. For tests.
    pub fn check_invariant(&self) {
        let mut served: BTreeMap<PeerId, u32> = BTreeMap::new();
        let mut on_their_way = std::collections::BTreeSet::new();
        for request in self.requests.values() {
            if let Some(sending) = &request.sending {
                *served.entry(request.peer).or_insert(0) += 1;
                assert!(
                    on_their_way.insert((request.peer, request.file, sending.piece)),
                    "sent twice at a time"
                );
            }
        }
        assert_eq!(served, self.served);
        assert!(self.served.len() <= self.options.max_slots + MAX_QUIET);
        assert!(self.waiting() <= self.options.queue);
        let waiting = self.requests.values().filter(|request| request.sending.is_none());
        let mut waiting: Vec<_> = waiting.map(|request| (request.peer, request.file)).collect();
        waiting.sort_unstable();
        assert!(waiting.windows(2).all(|pair| pair[0] != pair[1]), "a peer waits twice for a file");
        assert!(!self.served.is_empty() || self.waiting() == 0, "requests wait and nobody is served");
    }
}

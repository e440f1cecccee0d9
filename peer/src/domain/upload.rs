//! Whom to serve next, and which of the pieces it wants.
//!
//! [`Upload`] is fed what happened and answers what to do about it. Its owner carries the actions out in order, never
//! feeds it while doing so, and wakes it with [`Event::Tick`] at [`Upload::next_wakeup`].

use std::collections::{BTreeMap, VecDeque};

use proto::domain::{FileId, PeerId, PieceIndex, Username};

use super::Moment;

/// Names a request that came in; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// All that can happen to the uploads of a peer. One machine decides for all files, since they share the uplink.
#[derive(Clone, Debug)]
pub enum Event {
    /// An admitted request. `wanted` holds only pieces that this peer has verified, at least one, each once.
    ///
    /// It is answered at once, in the same call: by [`Action::Send`], by [`Action::Queue`], or by [`Action::End`].
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
    /// Upload slots to begin with: peers served at a time.
    pub slots: usize,
    /// Most slots that there can be, once the uplink shows to have room for more.
    pub max_slots: usize,
    /// Most requests that wait.
    pub queue: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { slots: 2, max_slots: 32, queue: 64 }
    }
}

struct Request {
    wanted: VecDeque<PieceIndex>,
    left: u32,
}

/// The state machine of all uploads of a peer.
pub struct Upload {
    options: Options,
    running: BTreeMap<RequestId, Request>,
    waiting: VecDeque<(RequestId, Request)>,
}

impl Upload {
    /// No upload. All that is left to chance follows from `seed`.
    pub fn new(options: Options, _seed: u64) -> Self {
        Self { options, running: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Takes in what happened, and appends what is to be done.
    pub fn handle(&mut self, _now: Moment, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Asked { request, wanted, max_pieces, .. } => {
                if self.waiting.len() >= self.options.queue {
                    actions.push(Action::End(request, End::QueueFull));
                    return;
                }
                let left = if max_pieces == 0 { u32::MAX } else { max_pieces };
                self.waiting.push_back((request, Request { wanted: wanted.into(), left }));
            }
            Event::Sent(request) => self.next_piece(request, actions),
            Event::Left(request) => {
                self.running.remove(&request);
                self.waiting.retain(|(id, _)| *id != request);
            }
            Event::Progress(..) | Event::Tick => {}
        }
        while self.running.len() < self.options.slots {
            let Some((id, request)) = self.waiting.pop_front() else { return };
            self.running.insert(id, request);
            self.next_piece(id, actions);
        }
        actions.extend(self.waiting.iter().zip(1..).map(|((id, _), place)| Action::Queue(*id, place)));
    }

    fn next_piece(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        let Some(request) = self.running.get_mut(&id) else { return };
        let piece = if request.left == 0 { None } else { request.wanted.pop_front() };
        request.left = request.left.saturating_sub(1);
        if let Some(piece) = piece {
            actions.push(Action::Send(id, piece));
        } else {
            self.running.remove(&id);
            actions.push(Action::End(id, End::Done));
        }
    }

    /// When to hand in the next [`Event::Tick`] unless something else happens before.
    pub fn next_wakeup(&self) -> Option<Moment> {
        None
    }

    /// Requests that are being served.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Upload slots at present.
    pub fn slots(&self) -> usize {
        self.options.slots
    }

    /// Bytes a second handed to the transport now, by all requests.
    pub fn rate(&self, _now: Moment) -> f64 {
        0.0
    }
}

//! The state of the whole simulation, and the loop that handles its events.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use domain::{Bitfield, PeerId, PieceIndex, PieceLayout, limits::HEARTBEAT};
use peer_core::{
    Moment, Rng,
    announce::{Announces, Holding},
    download::{DownloadRequestId, Failure},
    upload,
};
use rand::{RngExt as _, SeedableRng as _};
use tracker_core::swarm::SourceUpdate;

use super::{
    No,
    clock::Clock,
    host::{Draining, Host, State, Tally},
    scenario::Scenario,
    tracker::Tracker,
    uplink::{Quantum, Uplink},
};

/// Time at which the leechers come. The tracker knows the seeder by then.
pub(super) const START: Moment = Duration::from_secs(1);
/// The leechers come at random moments within this time.
const ARRIVALS: Duration = Duration::from_millis(50);
/// The run is given up after this multiple of the least time.
const PATIENCE: u32 = 100;
/// Bytes on the wire of a small message, without its payload.
const MESSAGE: u64 = 110;

/// An event of the simulation.
pub(super) enum Happening {
    /// A peer comes.
    Comes(No),
    /// A reader goes to another place in the file.
    Seeks(No),
    /// A peer leaves, with or without a message.
    Goes(No, State),
    /// The download state machine is to be woken.
    DownloadDue(No),
    /// The upload state machine is to be woken.
    UploadDue(No),
    /// The current quantum of the peer's uplink has been sent.
    Out(No),
    /// A stream of the peer may continue.
    Ready(No),
    /// A leecher's message reaches a source.
    Asked { source: No, leecher: No, call: Call },
    /// A source's message reaches a leecher.
    Answered { leecher: No, source: No, answer: Answer },
    /// The peer's next announce is due: to renew its lease, or because it gained pieces.
    AnnounceDue(No),
    /// A peer's announce reaches the tracker.
    Announced(No, Vec<Holding>),
    /// The tracker's message reaches a peer.
    Told(No, Box<SourceUpdate>),
    /// The tracker looks for peers whose lease has expired.
    Expires,
}

/// The content of a request for pieces.
#[derive(Clone, Debug)]
pub(super) struct ChunkRequest {
    pub(super) request: DownloadRequestId,
    pub(super) pieces: Vec<PieceIndex>,
    pub(super) max_pieces: u32,
    pub(super) in_order: bool,
    pub(super) urgent: bool,
}

/// A leecher's message to a source. The number in `Connect` and `Close` is that of the connection.
pub(super) enum Call {
    Connect(u64),
    Close(u64),
    Request(ChunkRequest),
    Cancel(DownloadRequestId),
}

/// A source's message to a leecher. The first number is that of the connection.
pub(super) enum Answer {
    Connected(u64, Bitfield),
    Gained(u64, PieceIndex),
    Disconnected(u64, Failure),
    Queued(DownloadRequestId, u32),
    Data(Quantum),
    Ended(DownloadRequestId, Result<(), Failure>),
}

/// The state of the whole simulation.
pub(crate) struct World {
    pub(super) scenario: Scenario,
    pub(super) layout: PieceLayout,
    pub(super) clock: Clock<Happening>,
    pub(super) hosts: Vec<Host>,
    pub(super) numbers: HashMap<PeerId, No>,
    pub(super) tracker: Tracker,
    pub(super) rng: Rng,
    /// Upload events that are to be fed to the state machines.
    pub(super) uploads: VecDeque<(No, upload::Event)>,
    pub(super) upload_actions: Vec<upload::Action>,
    pub(super) download_actions: Vec<peer_core::download::Action>,
    /// Leechers that are to finish and have not.
    pub(super) left: u32,
    /// Number of requests that leechers made.
    pub(super) requests: u64,
    /// `None` until the seeder wants to leave.
    pub(super) draining: Option<Draining>,
    end: Moment,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let layout = scenario.layout();
        let mut world = Self {
            layout,
            clock: Clock::new(),
            hosts: Vec::new(),
            numbers: HashMap::new(),
            tracker: Tracker::new(layout),
            rng: Rng::seed_from_u64(scenario.seed),
            uploads: VecDeque::new(),
            upload_actions: Vec::new(),
            download_actions: Vec::new(),
            left: scenario.peers,
            requests: 0,
            draining: None,
            end: START + scenario.least_time() * PATIENCE,
            scenario,
        };
        let seeder = world.add(Some(Bitfield::full(layout)));
        world.clock.plan(Moment::ZERO, Happening::Comes(seeder));
        for _ in 0..world.scenario.peers {
            let leecher = world.add(None);
            let at = START + ARRIVALS.mul_f64(world.rng.random());
            world.clock.plan(at, Happening::Comes(leecher));
        }
        world.add_liars();
        world.plan_churn();
        world.plan_readers();
        world.clock.plan(START, Happening::Expires);
        world
    }

    /// Adds a peer. It holds the given pieces and downloads nothing, or holds nothing and downloads the whole
    /// file.
    pub(super) fn add(&mut self, holds: Option<Bitfield>) -> No {
        // The cast is lossless: a run with more than 2^32 peers is out of reach.
        let no = self.hosts.len() as No;
        let mut id = [0; 32];
        self.rng.fill(&mut id);
        let options = self.scenario.upload();
        let leech = holds.is_none().then(|| self.leech());
        self.numbers.insert(id.into(), no);
        self.hosts.push(Host {
            id: id.into(),
            user: format!("user{no}").parse().expect("a username"),
            state: State::Away,
            lies: false,
            latency: Duration::from_secs_f64(self.scenario.latency * self.rng.random_range(0.25e-3..0.75e-3)),
            have: holds.unwrap_or_else(|| Bitfield::empty(self.layout)),
            leech,
            upload: upload::Upload::new(options, self.rng.random()),
            upload_tick: None,
            uplink: Uplink::new(),
            downlink_busy: Moment::ZERO,
            watchers: Default::default(),
            calls: Default::default(),
            callers: Default::default(),
            next_call: 0,
            announces: Announces::new(self.clock.now(), HEARTBEAT),
            tally: Tally::default(),
        });
        no
    }

    /// Handles the next event. Returns false when the run is over.
    pub(crate) fn step(&mut self) -> bool {
        if self.left == 0 || self.clock.now() > self.end {
            return false;
        }
        let Some(happening) = self.clock.next() else { return false };
        match happening {
            Happening::Comes(no) => self.come(no),
            Happening::Seeks(no) => self.seek(no),
            Happening::Goes(no, how) => self.go(no, how),
            Happening::DownloadDue(no) => self.download_due(no),
            Happening::UploadDue(no) => self.upload_due(no),
            Happening::Out(no) => self.out(no),
            Happening::Ready(no) => self.begin_quantum(no),
            Happening::Asked { source, leecher, call } => self.asked(source, leecher, call),
            Happening::Answered { leecher, source, answer } => self.answered(leecher, source, answer),
            Happening::AnnounceDue(no) => self.announce_due(no),
            Happening::Announced(no, message) => self.announced(no, message),
            Happening::Told(no, update) => self.told(no, *update),
            Happening::Expires => self.expire(),
        }
        self.feed_uploads();
        if self.scenario.check {
            self.check_invariants();
        }
        true
    }

    pub(super) fn host(&mut self, no: No) -> &mut Host {
        &mut self.hosts[no as usize]
    }

    /// The one-way latency between two peers.
    pub(super) fn latency(&self, one: No, other: No) -> Duration {
        self.hosts[one as usize].latency + self.hosts[other as usize].latency
    }

    /// Sends a small message with this many bytes of payload and returns the moment at which it leaves. The
    /// message goes ahead of data that waits for the uplink, and after the quantum that is being sent.
    pub(super) fn leave(&mut self, from: No, bytes: u64) -> Moment {
        let now = self.clock.now();
        let host = self.host(from);
        host.uplink.small += bytes + MESSAGE;
        host.tally.small += bytes + MESSAGE;
        now.max(host.uplink.busy_until)
    }

    pub(super) fn call(&mut self, leecher: No, source: No, bytes: u64, call: Call) {
        let at = self.leave(leecher, bytes) + self.latency(leecher, source);
        // A connection takes a round trip for TCP and one for TLS.
        let at = if matches!(call, Call::Connect(_)) { at + 4 * self.latency(leecher, source) } else { at };
        self.clock.plan(at, Happening::Asked { source, leecher, call });
    }

    pub(super) fn answer(&mut self, source: No, leecher: No, bytes: u64, answer: Answer) {
        let at = self.leave(source, bytes) + self.latency(leecher, source);
        // An answer arrives after the data that is on its way to the leecher.
        let at = at.max(self.hosts[leecher as usize].downlink_busy);
        self.clock.plan(at, Happening::Answered { leecher, source, answer });
    }

    /// Checks the invariants of one peer's state machines, of a different peer each time.
    ///
    /// Panics if one does not hold.
    fn check_invariants(&self) {
        let host = &self.hosts[(self.clock.planned() % self.hosts.len() as u64) as usize];
        host.upload.check_invariant();
        if let Some(leech) = &host.leech {
            leech.machine.check_invariant();
            assert!(leech.machine.have() == &host.have, "what is offered is not what is verified");
        }
    }
}

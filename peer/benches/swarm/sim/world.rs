//! All that there is, and what happens next.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use peer::domain::{
    Moment, Rng,
    download::{Failure, RequestId},
    upload,
};
use proto::domain::{Bitfield, PeerId, PieceIndex, PieceLayout};
use rand::{RngExt as _, SeedableRng as _};
use tracker_svc::domain::swarm::{Holds, News};

use super::{
    No,
    clock::Clock,
    host::{Host, State, Tally},
    outcome::Outcome,
    scenario::Scenario,
    tracker::Tracker,
    uplink::{Quantum, Uplink},
};

/// When the leechers come: by then the seeder is known to the tracker.
pub(super) const START: Moment = Duration::from_secs(1);
/// They come one after the other within so much time.
const ARRIVALS: Duration = Duration::from_millis(50);
/// Given up after so many times the least time.
const PATIENCE: u32 = 100;
/// Bytes of a small message on the wire, besides what it says.
const MESSAGE: u64 = 110;

/// Something that happens.
pub(super) enum Happening {
    /// A peer comes.
    Comes(No),
    /// A peer goes, saying so or not.
    Goes(No, State),
    /// The machine of a download wants to be woken.
    DownloadDue(No),
    /// The same of the uploads.
    UploadDue(No),
    /// What the peer's uplink had begun is out.
    Out(No),
    /// A stream of the peer's may go on.
    Ready(No),
    /// A leecher's words reach a source.
    Asked { source: No, leecher: No, call: Call },
    /// A source's words reach a leecher.
    Answered { leecher: No, source: No, answer: Answer },
    /// The peer announces: because it is time to renew its lease, or because it gained pieces.
    AnnounceDue(No),
    /// A peer's announce reaches the tracker.
    Announced(No, Option<Holds>),
    /// The tracker's words reach a peer.
    Told(No, Box<News>),
    /// The tracker looks for peers that fell silent.
    Expires,
}

/// What a leecher says to a source. The number is that of its connection.
pub(super) enum Call {
    Connect(u64),
    Close(u64),
    Request { request: RequestId, pieces: Vec<PieceIndex>, max_pieces: u32, in_order: bool },
    Cancel(RequestId),
}

/// What a source says to a leecher.
pub(super) enum Answer {
    Connected(u64, Bitfield),
    Gained(u64, PieceIndex),
    Disconnected(u64, Failure),
    Queued(RequestId, u32),
    Data(Quantum),
    Ended(RequestId, Result<(), Failure>),
}

/// See the module.
pub(crate) struct World {
    pub(super) scenario: Scenario,
    pub(super) layout: PieceLayout,
    pub(super) clock: Clock<Happening>,
    pub(super) hosts: Vec<Host>,
    pub(super) numbers: HashMap<PeerId, No>,
    pub(super) tracker: Tracker,
    pub(super) rng: Rng,
    /// Events of uploads that are to be handed in next.
    pub(super) uploads: VecDeque<(No, upload::Event)>,
    pub(super) upload_actions: Vec<upload::Action>,
    pub(super) download_actions: Vec<peer::domain::download::Action>,
    /// Leechers that are to finish and have not.
    pub(super) left: u32,
    /// Requests that were asked.
    pub(super) requests: u64,
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
        world.clock.plan(START, Happening::Expires);
        world
    }

    /// A peer more, that holds this and wants nothing else, or wants all.
    pub(super) fn add(&mut self, holds: Option<Bitfield>) -> No {
        // Fits: a run of so many peers would not end.
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
            unannounced: Vec::new(),
            announce_at: None,
            tally: Tally::default(),
        });
        no
    }

    /// Lets the next thing happen. False when all is over.
    pub(crate) fn step(&mut self) -> bool {
        if self.left == 0 || self.clock.now() > self.end {
            return false;
        }
        let Some(happening) = self.clock.next() else { return false };
        match happening {
            Happening::Comes(no) => self.come(no),
            Happening::Goes(no, how) => self.go(no, how),
            Happening::DownloadDue(no) => self.download_due(no),
            Happening::UploadDue(no) => self.upload_due(no),
            Happening::Out(no) => self.out(no),
            Happening::Ready(no) => self.begin_quantum(no),
            Happening::Asked { source, leecher, call } => self.asked(source, leecher, call),
            Happening::Answered { leecher, source, answer } => self.answered(leecher, source, answer),
            Happening::AnnounceDue(no) => self.announce_due(no),
            Happening::Announced(no, holds) => self.announced(no, holds),
            Happening::Told(no, news) => self.told(no, *news),
            Happening::Expires => self.expire(),
        }
        self.feed_uploads();
        if self.scenario.check {
            self.check_invariants();
        }
        true
    }

    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::of(self)
    }

    pub(super) fn host(&mut self, no: No) -> &mut Host {
        &mut self.hosts[no as usize]
    }

    /// The time from one peer to another.
    pub(super) fn latency(&self, one: No, other: No) -> Duration {
        self.hosts[one as usize].latency + self.hosts[other as usize].latency
    }

    /// Has a peer send a small message of so many bytes: when it leaves. It goes before what waits for the uplink, and
    /// after what has begun to go out.
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
        // Behind what is on its way to the leecher already.
        let at = at.max(self.hosts[leecher as usize].downlink_busy);
        self.clock.plan(at, Happening::Answered { leecher, source, answer });
    }

    /// Panics where an invariant does not hold at the machines of a peer, another one each time.
    fn check_invariants(&self) {
        let host = &self.hosts[(self.clock.planned() % self.hosts.len() as u64) as usize];
        host.upload.check_invariant();
        if let Some(leech) = &host.leech {
            leech.machine.check_invariant();
            assert!(leech.machine.have() == &host.have, "what is offered is not what is verified");
        }
    }
}

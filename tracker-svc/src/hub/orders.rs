//! Random orders of all events between a peer, its streams and its rights in a group.
//!
//! The hub, its mailboxes and its swarms are the real ones. The store and the peer are a few fields. A stream
//! takes the steps of `grpc::announce` one at a time, so that changes happen between any two of them. After
//! any sequence, once all pending work is done, two things must hold. The peer refuses every ticket of a
//! member that was removed. The swarm has the peer exactly if its user may announce.

use std::collections::VecDeque;

use proptest::prelude::*;
use proto::domain::PIECE_LENGTH;

use super::*;
use crate::domain::swarm::Holds;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Another member is removed, leaves, or is disabled.
    RemoveOther,
    /// The peer's user is removed.
    Remove,
    /// The peer's user is a member again.
    Readmit,
    /// The account of the peer's user is disabled.
    Disable,
    /// The account is enabled again, and its user logs in.
    Enable,
    /// The user logs out.
    LogOut,
    Unpublish,
    DeleteGroup,
    /// The hub receives the oldest pending change.
    Apply,
    /// The hub learns that it missed all changes so far.
    Miss,
    /// The connection breaks, and both ends notice.
    Break,
    /// The connection breaks, and the tracker has not noticed.
    Partition,
    /// The peer opens a stream.
    Open,
    /// The newest stream takes a step.
    Proceed,
    /// The previous stream takes a step.
    ProceedOlder,
    /// The tracker's pending reports reach the peer.
    Deliver,
    /// All leases end.
    Expire,
    RestartTracker,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::RemoveOther),
        2 => Just(Step::Remove),
        3 => Just(Step::Readmit),
        1 => Just(Step::Disable),
        2 => Just(Step::Enable),
        1 => Just(Step::LogOut),
        1 => prop_oneof![9 => Just(Step::Break), 1 => Just(Step::Unpublish), 1 => Just(Step::DeleteGroup)],
        6 => Just(Step::Apply),
        1 => Just(Step::Miss),
        2 => Just(Step::Break),
        2 => Just(Step::Partition),
        5 => Just(Step::Open),
        20 => Just(Step::Proceed),
        4 => Just(Step::ProceedOlder),
        5 => Just(Step::Deliver),
        1 => Just(Step::Expire),
        1 => Just(Step::RestartTracker),
    ]
}

/// The content of the store.
#[derive(Debug)]
struct Rows {
    /// The session of the peer's user.
    session: Option<u8>,
    last_session: u8,
    is_member: bool,
    is_listed: bool,
    epoch: u64,
    /// Changes that the hub has not received.
    changes: VecDeque<Change>,
}

/// The next step of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    CheckSession,
    ReadEpochs,
    LearnEpochs(Option<u64>),
    CompareEpochs,
    Announce,
    ReadMembership,
    LearnMembership(Option<u64>, bool),
    Enter(bool),
    CompareMembership,
    Stands,
    Over,
}

struct Stream {
    mailbox: Arc<Mailbox>,
    session: u8,
    phase: Phase,
    seen: u64,
    /// Whether the peer still receives what is sent.
    is_heard: bool,
}

struct World {
    hub: Arc<Hub>,
    rows: Rows,
    streams: VecDeque<Stream>,
    /// Whether the peer offers the file.
    shares: bool,
    /// The epoch below which the peer refuses tickets.
    min_epoch: u64,
}

fn group() -> GroupId {
    "films".parse().expect("a group")
}

fn file() -> FileId {
    FileId::try_from(&[1; 16][..]).expect("a file id")
}

fn user(name: &str) -> Username {
    name.parse().expect("a username")
}

fn announcer() -> AnnouncingPeer {
    AnnouncingPeer { id: [1; 32].into(), user: user("ann"), addresses: "192.0.2.1:1".into(), load: 0 }
}

fn layout() -> PieceLayout {
    PieceLayout::new(u64::from(PIECE_LENGTH)).expect("a valid length")
}

impl Rows {
    /// Whether the user may announce the file.
    fn allows(&self) -> bool {
        self.session.is_some() && self.is_member && self.is_listed
    }

    fn raise_epoch(&mut self, gone: &str) {
        self.epoch += 1;
        let change = Change::MemberGone { group: group(), user: user(gone), epoch: self.epoch };
        self.changes.push_back(change);
    }

    fn end_session(&mut self) {
        if let Some(session) = self.session.take() {
            self.changes.push_back(Change::SessionEnded { session: [session; 32].into() });
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::RemoveOther => self.raise_epoch("bob"),
            Step::Remove if self.is_member => {
                self.is_member = false;
                self.raise_epoch("ann");
            }
            Step::Readmit if !self.is_member => {
                self.is_member = true;
                let (group, user, epoch) = (group(), user("ann"), self.epoch);
                self.changes.push_back(Change::MemberCame { group, user, epoch });
            }
            Step::Disable => {
                self.end_session();
                if self.is_member {
                    self.raise_epoch("ann");
                }
                self.changes.push_back(Change::UserDisabled { user: user("ann") });
            }
            Step::LogOut => self.end_session(),
            Step::Unpublish if self.is_listed => {
                self.is_listed = false;
                self.changes.push_back(Change::FileGone { group: group(), file: file() });
            }
            Step::DeleteGroup => {
                (self.is_member, self.is_listed) = (false, false);
                self.epoch += 1;
                self.changes.push_back(Change::GroupGone { group: group(), epoch: self.epoch });
            }
            _ => {}
        }
    }
}

impl World {
    fn new() -> Self {
        let rows = Rows {
            session: Some(1),
            last_session: 1,
            is_member: true,
            is_listed: true,
            epoch: 1,
            changes: VecDeque::new(),
        };
        let hub = Hub::new(CancellationToken::new());
        Self { hub, rows, streams: VecDeque::new(), shares: true, min_epoch: 0 }
    }

    fn take(&mut self, step: Step) {
        self.rows.take(step);
        match step {
            Step::Enable if self.rows.session.is_none() => {
                self.rows.last_session += 1;
                self.rows.session = Some(self.rows.last_session);
                self.shares = true;
            }
            Step::LogOut => {
                self.shares = false;
                self.break_off();
            }
            Step::Apply => self.apply(),
            Step::Miss => {
                self.rows.changes.clear();
                self.hub.start_over();
            }
            Step::Break => self.break_off(),
            Step::Partition => self.streams.iter_mut().for_each(|stream| stream.is_heard = false),
            Step::Open => self.open(),
            Step::Proceed => self.proceed(0),
            Step::ProceedOlder => self.proceed(1),
            Step::Deliver => self.deliver(),
            Step::Expire => self.hub.everywhere(|swarms| swarms.expire(Duration::MAX)),
            Step::RestartTracker => {
                self.streams.clear();
                self.rows.changes.clear();
                self.hub = Hub::new(CancellationToken::new());
            }
            _ => {}
        }
    }

    fn apply(&mut self) {
        if let Some(change) = self.rows.changes.pop_front() {
            self.hub.apply(&change);
        }
    }

    fn break_off(&mut self) {
        if let Some(stream) = self.streams.front_mut() {
            self.hub.close(&stream.mailbox);
            (stream.phase, stream.is_heard) = (Phase::Over, false);
        }
    }

    fn open(&mut self) {
        let session = self.rows.last_session;
        let mailbox =
            Mailbox::new(announcer().id, user("ann"), [session; 32].into(), [127, 0, 0, 1].into(), None);
        self.hub.open(&mailbox);
        self.streams.iter_mut().for_each(|stream| stream.is_heard = false);
        self.streams.truncate(1);
        let phase = Phase::CheckSession;
        self.streams.push_front(Stream { mailbox, session, phase, seen: 0, is_heard: true });
    }

    fn proceed(&mut self, which: usize) {
        let Some(stream) = self.streams.get_mut(which) else { return };
        let (hub, rows, mailbox) = (&self.hub, &self.rows, &stream.mailbox);
        let member_of = rows.is_member.then_some(rows.epoch);
        stream.phase = match stream.phase {
            Phase::CheckSession if rows.session == Some(stream.session) => Phase::ReadEpochs,
            Phase::CheckSession => {
                mailbox.close(Over::SessionEnded);
                Phase::Stands
            }
            Phase::ReadEpochs => {
                stream.seen = hub.generation();
                Phase::LearnEpochs(member_of)
            }
            Phase::LearnEpochs(found) => {
                found.into_iter().for_each(|epoch| mailbox.learn_epoch(&group(), epoch));
                Phase::CompareEpochs
            }
            Phase::CompareEpochs if hub.changed_since(&mut stream.seen) => Phase::LearnEpochs(member_of),
            Phase::CompareEpochs => Phase::Announce,
            Phase::Announce => {
                stream.seen = hub.generation();
                match hub.admitted(mailbox, &group(), file()) {
                    Some(_) => Phase::Enter(true),
                    None => Phase::ReadMembership,
                }
            }
            Phase::ReadMembership => Phase::LearnMembership(member_of, rows.is_listed),
            Phase::LearnMembership(found, is_listed) => {
                found.into_iter().for_each(|epoch| mailbox.learn_epoch(&group(), epoch));
                Phase::Enter(found.is_some() && is_listed)
            }
            Phase::Enter(true) => {
                let (group, file, layout, holds) = (group(), file(), layout(), Holds::All);
                let announce = FileAnnounce { group, file, layout, holds, wants_sources: false };
                let announced = hub.announce(&announcer(), announce, || mailbox.over().is_some());
                assert!(announced.is_ok(), "all of the file is a baseline");
                Phase::CompareMembership
            }
            Phase::Enter(false) => {
                hub.leave_file(mailbox, file());
                mailbox.end_file(file(), group(), Reason::NotAMember);
                Phase::CompareMembership
            }
            Phase::CompareMembership if hub.changed_since(&mut stream.seen) => Phase::ReadMembership,
            Phase::CompareMembership => Phase::Stands,
            Phase::Stands if mailbox.over().is_some() => {
                hub.close(mailbox);
                // The peer is told that its session has ended, and stops.
                if stream.is_heard && mailbox.over() == Some(Over::SessionEnded) {
                    self.shares &= rows.session.is_some();
                }
                Phase::Over
            }
            Phase::Stands => Phase::Stands,
            Phase::Over => Phase::Over,
        };
    }

    /// Delivers the pending reports to the peer of the newest stream.
    fn deliver(&mut self) {
        let Some(stream) = self.streams.front_mut() else { return };
        let is_welcomed = !matches!(
            stream.phase,
            Phase::CheckSession
                | Phase::ReadEpochs
                | Phase::LearnEpochs(_)
                | Phase::CompareEpochs
                | Phase::Over
        );
        if !stream.is_heard || !is_welcomed || stream.mailbox.over().is_some() {
            return;
        }
        let letter = stream.mailbox.take(64);
        for (_, epoch) in letter.epochs {
            self.min_epoch = self.min_epoch.max(epoch);
        }
        // When the peer is told that a file ended, it requests a ticket. If it gets one, it announces the
        // file again.
        if !letter.ended.is_empty() {
            self.shares = self.rows.allows();
            if self.shares && stream.phase == Phase::Stands {
                stream.phase = Phase::Announce;
            }
        }
    }

    /// Completes all pending work.
    fn settle(&mut self) {
        while !self.rows.changes.is_empty() {
            self.apply();
        }
        for _ in 0..4 {
            let is_up = self.streams.front().is_some_and(|stream| {
                stream.is_heard && stream.phase != Phase::Over && stream.mailbox.over().is_none()
            });
            if !is_up && self.shares {
                self.open();
            }
            for _ in 0..12 {
                self.proceed(1);
                self.proceed(0);
            }
            self.deliver();
        }
    }

    fn check(&self) {
        let announced = self.hub.shard(file()).0.announced(&announcer().id, &group(), file()).is_some();
        if self.shares {
            assert!(self.rows.allows(), "the peer offers what its user may not");
            assert_eq!(self.min_epoch, self.rows.epoch, "the peer serves those who were removed");
            assert!(announced, "the peer offers what nobody is told of");
        } else if !self.rows.allows() {
            assert!(!announced || self.rows.is_member, "others are told of a peer that may not share");
        }
        assert!(self.min_epoch <= self.rows.epoch, "the peer refuses every ticket");
    }
}

fn run(steps: impl IntoIterator<Item = Step>) {
    let mut world = World::new();
    steps.into_iter().for_each(|step| world.take(step));
    world.settle();
    world.check();
}

#[test]
fn a_replaced_stream_does_not_undo_what_the_newer_one_did() {
    use Step::{Apply, DeleteGroup, Open, Proceed, ProceedOlder, RemoveOther};
    // The older stream relies on the announce of the newer one, and would make it again after its end.
    let older = [Open, Proceed, Open, Proceed, Proceed, ProceedOlder, ProceedOlder];
    let newer = [Proceed, Proceed, Proceed, Proceed, Proceed];
    let end = [RemoveOther, Apply, DeleteGroup, ProceedOlder];
    run(older.into_iter().chain(newer).chain(end));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]
    #[test]
    fn no_order_lets_a_lost_right_go_on(steps in proptest::collection::vec(step(), 1..80)) {
        run(steps);
    }
}

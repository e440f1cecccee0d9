//! One announce stream: a task that owns it from `hello` to its end.
//!
//! The task reads one message at a time, and does not read while it sends. So it does not read from a peer
//! that does not read, and the lease of that peer ends like that of a silent peer.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, SystemTime},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};
use proto::{
    convert::{self, found::split},
    domain::{FileId, GroupId, PieceLayout, limits::HEARTBEAT},
    pb::{self, file_announce::Holding},
    reason::Reason,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    rights::{Call, living_session},
    swarm_state::{SwarmState, found},
};
use crate::{
    domain::{
        Membership, Origin, Refusal,
        address::{Announced, dialable},
        swarm::{AnnouncingPeer, FileAnnounce, Holds, LEASE, SourceUpdate},
    },
    error::TrackerError,
    hub::{Letter, Mailbox, Over, Unreached, observed},
};

/// The messages to the peer.
pub(super) type NextMessages = ReceiverStream<Result<pb::AnnounceResponse, Status>>;

/// Timeout for `hello`.
const HELLO: Duration = Duration::from_secs(10);
/// Messages per second, and the maximum burst.
const RATE: (u32, u32) = (2, 20);
/// Maximum number of files in one message.
const MAX_FILES: usize = 1_000;
/// Maximum number of sources in one message that the peer could not reach. More are ignored.
const MAX_UNREACHED: usize = 16;
/// Maximum number of files in one response. With 50 sources each, a response stays under a megabyte.
const FILES_AN_ANSWER: usize = 64;
/// A peer gets a message at least this often, if only with the tracker's clock.
const SPEAK_EVERY: Duration = Duration::from_secs(20);
/// Interval at which the stream counts as a use of the session.
const TOUCH_EVERY: Duration = Duration::from_mins(10);

/// The reason why a stream ends.
enum End {
    /// The peer ended it or has gone. No status is sent.
    Quiet,
    /// The tracker ends it, and sends this status.
    Told(Status),
}

impl<E: Into<TrackerError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Told(error.into().into())
    }
}

impl From<Over> for End {
    fn from(over: Over) -> Self {
        match over {
            Over::SessionEnded => Refusal::NotLoggedIn.into(),
            Over::Replaced(from) => Self::Told(
                Reason::Replaced
                    .status(format!("a newer announce stream of this peer, from {from}, replaced this one")),
            ),
            Over::Elsewhere => Self::Told(
                Reason::Replaced
                    .status("a newer announce stream of this peer, at another tracker, replaced this one"),
            ),
            Over::Stale => TrackerError::NotServing.into(),
        }
    }
}

pub(super) struct Announce {
    state: SwarmState,
    caller: Arc<Call>,
    origin: Origin,
    answers: mpsc::Sender<Result<pb::AnnounceResponse, Status>>,
    rate: DefaultDirectRateLimiter,
    spoke: Instant,
}

/// The store's answers about the user's membership in groups.
struct Memberships {
    /// The hub's generation before the first query.
    seen: u64,
    groups: HashMap<GroupId, Option<Membership>>,
}

impl Memberships {
    fn new(seen: u64) -> Self {
        Self { seen, groups: HashMap::new() }
    }
}

fn unreached_by(report: Unreached) -> pb::UnreachedBy {
    pb::UnreachedBy {
        username: report.user.to_string(),
        address: report.address,
        obstacle: convert::to_obstacle(report.obstacle).into(),
    }
}

/// A stream after its `hello`.
struct Opened {
    mailbox: Arc<Mailbox>,
    who: AnnouncingPeer,
    /// The shards that know the peer, one bit each.
    shards: u64,
    touched: Instant,
}

impl Announce {
    pub(super) fn new(
        state: SwarmState,
        caller: Arc<Call>,
        origin: Origin,
        answers: mpsc::Sender<Result<pb::AnnounceResponse, Status>>,
    ) -> Self {
        let per_second = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(per_second(RATE.0)).allow_burst(per_second(RATE.1));
        Self { state, caller, origin, answers, rate: RateLimiter::direct(quota), spoke: Instant::now() }
    }

    pub(super) async fn run(mut self, messages: Streaming<pb::AnnounceRequest>) {
        if let Err(End::Told(status)) = self.serve(messages).await {
            // The task does not wait for a peer that does not read. The stream ends either way.
            let _ = timeout(Duration::from_secs(1), self.answers.send(Err(status))).await;
        }
    }

    async fn serve(&mut self, mut messages: Streaming<pb::AnnounceRequest>) -> Result<(), End> {
        let stopping = self.state.hub.shutdown.clone();
        let first = tokio::select! {
            () = stopping.cancelled() => return Err(TrackerError::NotServing.into()),
            first = timeout(HELLO, messages.message()) => first,
        };
        let first = first.map_err(|_| TrackerError::TooSlow("the stream sent no hello in time"))?;
        let Ok(Some(first)) = first else { return Err(End::Quiet) };
        let mut opened = self.open(&first).await?;
        let mailbox = Arc::clone(&opened.mailbox);
        let hub = Arc::clone(&self.state.hub);
        // Before the stream asks the store whether its session is alive: if that is answered later, the store is back.
        let cut_off = hub.when_cut_off();
        hub.open(&mailbox);
        let call = Arc::clone(&self.caller);
        let end = tokio::select! {
            end = self.talk(&mut opened, first, messages) => end,
            () = cut_off => Err(Over::Stale.into()),
            // The guard of the call sends the reason to the peer.
            () = call.ended() => Err(End::Quiet),
        };
        hub.close(&mailbox);
        end
    }

    async fn open(&self, first: &pb::AnnounceRequest) -> Result<Opened, TrackerError> {
        let hello = first.hello.as_ref().ok_or(TrackerError::Invalid("the first message must be hello"))?;
        let id = self.state.own_peer(&self.caller, &hello.peer_id).await?;
        let addresses = dialable(
            observed(self.origin.ip),
            &Announced {
                port: hello.port,
                listen: &hello.listen,
                advertise: &hello.advertise,
                more: &hello.addresses,
            },
        )?;
        let user = self.caller.user().clone();
        Ok(Opened {
            mailbox: Mailbox::new(
                id,
                user.clone(),
                self.caller.session(),
                observed(self.origin.ip),
                self.caller.token().cloned(),
            ),
            who: AnnouncingPeer { id, user, addresses, load: first.load },
            shards: 0,
            touched: Instant::now(),
        })
    }

    async fn talk(
        &mut self,
        opened: &mut Opened,
        first: pb::AnnounceRequest,
        mut messages: Streaming<pb::AnnounceRequest>,
    ) -> Result<(), End> {
        self.still_logged_in().await?;
        self.learn_epochs(opened).await?;
        let epochs = self.answer(opened, opened.mailbox.take(FILES_AN_ANSWER)).await?;
        self.send(opened, pb::AnnounceResponse { welcome: Some(self.welcome(opened)), ..epochs }).await?;
        self.take(opened, first).await?;
        let stopping = self.state.hub.shutdown.clone();
        loop {
            let deadline = Instant::now() + LEASE;
            tokio::select! {
                // Messages come before responses. Their rate is limited, so they cannot delay responses for
                // long. The other order could delay messages forever.
                biased;
                () = stopping.cancelled() => return Err(TrackerError::NotServing.into()),
                message = messages.message() => match message {
                    Ok(Some(message)) if message.leaving => {
                        self.state.hub.leave(&opened.mailbox);
                        return Ok(());
                    }
                    Ok(Some(message)) if message.hello.is_none() => self.take(opened, message).await?,
                    Ok(Some(_)) => return Err(TrackerError::Invalid("hello may be sent only once").into()),
                    // The changes caused by its last message are still reported.
                    Ok(None) => return self.deliver(opened).await,
                    Err(status) => return Err(crate::error::readable(&status).map_or(End::Quiet, End::Told)),
                },
                () = opened.mailbox.arrived() => self.deliver(opened).await?,
                () = sleep_until(deadline) => {
                    return Err(TrackerError::TooSlow("the stream sent no announce for 30 seconds").into());
                }
            }
        }
    }

    /// Checks the session again. If it ended between the call's authentication and the opening of the
    /// mailbox, no mailbox was told.
    async fn still_logged_in(&self) -> Result<(), TrackerError> {
        let (store, session) = (&*self.state.store, self.caller.session());
        living_session(store, session, SystemTime::now()).await.map(drop)
    }

    /// Learns the epochs of all groups that the user is in, whatever the peer announces, and whatever an
    /// earlier stream was told.
    async fn learn_epochs(&self, opened: &Opened) -> Result<(), TrackerError> {
        let mut seen = self.state.hub.generation();
        loop {
            let epochs = self.state.store.epochs(&self.caller).await?;
            for (group, epoch) in epochs.into_iter().filter(|(group, _)| self.caller.covers(group)) {
                opened.mailbox.learn_epoch(&group, epoch);
            }
            if !self.state.hub.changed_since(&mut seen) {
                return Ok(());
            }
        }
    }

    fn welcome(&self, opened: &Opened) -> pb::AnnounceWelcome {
        let observed = observed(self.origin.ip);
        let addresses = split(opened.who.addresses.given_to(observed)).map(ToOwned::to_owned);
        pb::AnnounceWelcome {
            instance_id: self.state.hub.instance().to_vec().into(),
            heartbeat_seconds: HEARTBEAT.as_secs() as u32,
            observed_ip: observed.to_string(),
            keys: self.keys(),
            addresses: addresses.collect(),
        }
    }

    fn keys(&self) -> Vec<pb::TicketKey> {
        self.state.keys.verifying_keys().borrow().iter().map(convert::to_ticket_key).collect()
    }

    /// Handles a message, and records how long that took.
    async fn take(&mut self, opened: &mut Opened, message: pb::AnnounceRequest) -> Result<(), End> {
        let since = Instant::now();
        let taken = self.take_in(opened, message).await;
        self.state.hub.latency.observe(since.elapsed().as_secs_f64());
        taken
    }

    async fn take_in(&mut self, opened: &mut Opened, message: pb::AnnounceRequest) -> Result<(), End> {
        self.rate.check().map_err(|not_until| {
            let now = governor::clock::DefaultClock::default().now();
            TrackerError::RateLimited(not_until.wait_time_from(now))
        })?;
        if message.files.len() > MAX_FILES {
            return Err(TrackerError::Invalid("a message may contain at most 1,000 files").into());
        }
        opened.who.load = message.load;
        let mut memberships = Memberships::new(self.state.hub.generation());
        for file in message.files {
            self.announce(opened, file, &mut memberships).await?;
        }
        self.pass_on(opened, message.unreached)?;
        self.renew(opened);
        if opened.touched.elapsed() >= TOUCH_EVERY {
            opened.touched = Instant::now();
            let touched = self.state.store.touch_session(self.caller.session(), SystemTime::now()).await;
            if let Err(error) = touched {
                // Swarms continue to work while the disk is full. At worst the session ends early.
                tracing::debug!(%error, "the last use of a session can't be recorded");
            }
        }
        if self.spoke.elapsed() >= SPEAK_EVERY {
            self.send(opened, pb::AnnounceResponse::default()).await?;
        }
        Ok(())
    }

    /// Tells sources that this peer could not reach them.
    fn pass_on(&self, opened: &Opened, unreached: Vec<pb::UnreachedSource>) -> Result<(), TrackerError> {
        for report in unreached.into_iter().take(MAX_UNREACHED) {
            let (_, file) = convert::file_ref(report.file.as_ref())?;
            let source = convert::peer_id(&report.peer_id)?;
            let obstacle = convert::obstacle(report.obstacle());
            let who = &opened.who;
            let report = Unreached { user: who.user.clone(), address: report.address, obstacle };
            self.state.hub.tell_unreached((&who.id, observed(self.origin.ip)), file, &source, report);
        }
        Ok(())
    }

    fn renew(&self, opened: &Opened) {
        let hub = &self.state.hub;
        let mut left = opened.shards;
        while left != 0 {
            let wakes = hub.shard_number(left.trailing_zeros() as usize).renew(hub.now(), &opened.who);
            hub.wake(&wakes);
            left &= left - 1;
        }
    }

    async fn announce(
        &mut self,
        opened: &mut Opened,
        announce: pb::FileAnnounce,
        memberships: &mut Memberships,
    ) -> Result<(), End> {
        let (group, file) = convert::file_ref(announce.file.as_ref())?;
        let hub = Arc::clone(&self.state.hub);
        let holding = match announce.holding {
            Some(Holding::Left(true)) => {
                hub.leave_file(&opened.mailbox, file);
                return Ok(());
            }
            Some(Holding::Left(false)) | Some(Holding::Complete(false)) | None => {
                return Err(TrackerError::Invalid("holding is missing").into());
            }
            Some(holding) => holding,
        };
        if hub.changed_since(&mut memberships.seen) {
            memberships.groups.clear();
        }
        let mut admitted = hub.admitted(&opened.mailbox, &group, file);
        loop {
            // A lease is trusted only the first time: afterwards it may be the one that this loop made.
            let may_announce = match admitted.take() {
                Some(layout) => Ok(layout),
                None => self.admit(opened, &group, file, &mut memberships.groups).await?,
            };
            match may_announce {
                Ok(layout) => {
                    // The peer serves nobody before it knows the group's epoch. So it is told before others are
                    // told of the peer.
                    if opened.mailbox.owes_epoch(&group) {
                        self.deliver(opened).await?;
                    }
                    self.tell_swarm(opened, &group, file, layout, &holding, announce.wants_sources)?;
                }
                Err(reason) => {
                    hub.leave_file(&opened.mailbox, file);
                    opened.mailbox.end_file(file, group.clone(), reason);
                }
            }
            if !hub.changed_since(&mut memberships.seen) {
                return Ok(());
            }
            memberships.groups.clear();
        }
    }

    /// Returns the file's layout if the peer may announce the file, or the reason why not.
    async fn admit(
        &self,
        opened: &Opened,
        group: &GroupId,
        file: FileId,
        groups: &mut HashMap<GroupId, Option<Membership>>,
    ) -> Result<Result<PieceLayout, Reason>, TrackerError> {
        if !groups.contains_key(group) {
            // The end of a session removes its leases. No lease may be made after that.
            self.still_logged_in().await?;
            let member = self.state.gate.member(&self.caller, group).await?;
            if let Some(member) = &member {
                opened.mailbox.learn_epoch(group, member.epoch());
            }
            groups.insert(group.clone(), member);
        }
        let Some(Some(member)) = groups.get(group) else { return Ok(Err(Reason::NotAMember)) };
        let row = self.state.store.file_by_id(member, file).await?;
        Ok(row.map(|row| row.header.layout).ok_or(Reason::FileNotFound))
    }

    fn tell_swarm(
        &self,
        opened: &mut Opened,
        group: &GroupId,
        file: FileId,
        layout: PieceLayout,
        holding: &Holding,
        wants_sources: bool,
    ) -> Result<(), TrackerError> {
        let holds = match holding {
            Holding::Bitfield(bits) => Holds::Exactly(convert::bitfield(layout, bits)?),
            Holding::Gained(gained) => Holds::Also(convert::piece_set(layout, &gained.pieces)?),
            Holding::Complete(_) | Holding::Left(_) => Holds::All,
        };
        let announce = FileAnnounce { group: group.clone(), file, layout, holds, wants_sources };
        let announced = self.state.hub.announce(&opened.who, announce, || opened.mailbox.over().is_some());
        let no_baseline = "the first announce of a file must list all pieces that the peer has";
        opened.shards |= 1 << announced.map_err(|_| TrackerError::Invalid(no_baseline))?;
        Ok(())
    }

    /// Sends the pending reports.
    async fn deliver(&mut self, opened: &Opened) -> Result<(), End> {
        if let Some(over) = opened.mailbox.over() {
            return Err(over.into());
        }
        let letter = opened.mailbox.take(FILES_AN_ANSWER);
        if letter.is_empty() {
            return Ok(());
        }
        let clock = letter.clock;
        let answer = self.answer(opened, letter).await?;
        if answer == pb::AnnounceResponse::default() && !clock {
            Ok(())
        } else {
            self.send(opened, answer).await
        }
    }

    /// The published files, as far as the user may know of them now.
    async fn published(
        &self,
        letter: &Letter,
    ) -> Result<(Vec<pb::PublishedFile>, Vec<String>), TrackerError> {
        let (mut files, mut groups) = (Vec::new(), Vec::new());
        for (file, group) in &letter.published {
            let Some(member) = self.state.gate.member(&self.caller, group).await? else { continue };
            // It may have been unpublished since.
            if let Some(row) = self.state.store.file_by_id(&member, *file).await? {
                let file = Some(convert::to_file_ref(group, *file));
                files.push(pb::PublishedFile { file, name: row.header.name.to_string() });
            }
        }
        for group in &letter.unlisted {
            if self.state.gate.member(&self.caller, group).await?.is_some() {
                groups.push(group.to_string());
            }
        }
        Ok((files, groups))
    }

    async fn answer(&self, opened: &Opened, letter: Letter) -> Result<pb::AnnounceResponse, TrackerError> {
        let (published, unlisted_groups) = self.published(&letter).await?;
        let ended = letter.ended.into_iter().map(|(file, group, reason)| pb::SwarmChange {
            file: Some(convert::to_file_ref(&group, file)),
            ended: true,
            reason: reason.as_str().to_owned(),
            ..Default::default()
        });
        let observed = observed(self.origin.ip);
        let updates = letter.woken.into_iter().filter_map(|file| {
            let SourceUpdate { group, sources, gone } = self.state.hub.pull(&opened.who.id, file)?;
            Some(pb::SwarmChange {
                file: Some(convert::to_file_ref(&group, file)),
                sources: sources.iter().map(|source| found(source, observed).message()).collect(),
                gone_peer_ids: gone.iter().map(ToString::to_string).collect(),
                ..Default::default()
            })
        });
        let epoch =
            |(group, min_epoch): (GroupId, u64)| pb::GroupEpoch { group_id: group.to_string(), min_epoch };
        Ok(pb::AnnounceResponse {
            published,
            unlisted_groups,
            changes: ended.chain(updates).collect(),
            epochs: letter.epochs.into_iter().map(epoch).collect(),
            keys: if letter.keys { self.keys() } else { Vec::new() },
            unreached_by: letter.unreached.into_iter().map(unreached_by).collect(),
            ..Default::default()
        })
    }

    /// Waits until there is room for the response: for at most the length of a lease, and no longer than the
    /// session lasts.
    async fn send(&mut self, opened: &Opened, mut answer: pb::AnnounceResponse) -> Result<(), End> {
        answer.now = Some(self.state.hub.clock().into());
        let sending = timeout(LEASE, self.answers.reserve());
        tokio::pin!(sending);
        let mut marked = false;
        let room = loop {
            tokio::select! {
                biased;
                room = &mut sending => break room,
                () = opened.mailbox.arrived() => {
                    if let Some(over) = opened.mailbox.over() {
                        return Err(over.into());
                    }
                    marked = true;
                }
            }
        };
        if marked {
            opened.mailbox.look_again();
        }
        match room {
            Ok(Ok(room)) => room.send(Ok(answer)),
            Ok(Err(_)) => return Err(End::Quiet),
            Err(_) => return Err(TrackerError::TooSlow("the client read nothing for 30 seconds").into()),
        }
        self.spoke = Instant::now();
        Ok(())
    }
}

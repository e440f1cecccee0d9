//! One announce stream: a task that owns it from `hello` to its end.
//!
//! It reads one message at a time, and not while it sends: who does not read is not listened to either, and loses its
//! lease like one that is silent.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, SystemTime},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};
use proto::{
    convert,
    domain::{FileId, GroupId, PieceLayout},
    pb::{self, file_announce::Holding},
    reason::Reason,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::swarm::{SwarmService, found, member_or_not};
use crate::{
    domain::{
        Caller, Membership, Origin, Refusal,
        address::dialable,
        swarm::{Announcer, Holds, LEASE, News},
    },
    error::TrackerError,
    hub::{Letter, Mailbox, Over, observed},
};

/// What the tracker sends.
pub(super) type NextMessages = ReceiverStream<Result<pb::AnnounceResponse, Status>>;

/// How often a peer is asked to renew its lease: three times in its life.
const HEARTBEAT: u32 = 10;
/// How long `hello` may take.
const HELLO: Duration = Duration::from_secs(10);
/// Messages a second, and at once.
const RATE: (u32, u32) = (2, 20);
/// Most files in one message.
const MAX_FILES: usize = 1_000;
/// Files that one answer speaks of: with 50 sources each, it stays under a megabyte.
const FILES_AN_ANSWER: usize = 64;
/// A peer hears something, the tracker's clock at least, this often.
const SPEAK_EVERY: Duration = Duration::from_secs(20);
/// How often the stream counts as a use of the session.
const TOUCH_EVERY: Duration = Duration::from_mins(10);

/// Why a stream ends.
enum End {
    /// The peer ended it, or is not there any more.
    Quiet,
    /// We do; the peer is told why.
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
            Over::Replaced => {
                Self::Told(Reason::Replaced.status("a newer announce stream of this peer took its place"))
            }
            Over::Stale => TrackerError::NotServing.into(),
        }
    }
}

pub(super) struct Announce {
    service: SwarmService,
    caller: Caller,
    origin: Origin,
    answers: mpsc::Sender<Result<pb::AnnounceResponse, Status>>,
    rate: DefaultDirectRateLimiter,
    spoke: Instant,
}

/// A stream after its `hello`.
struct Opened {
    mailbox: Arc<Mailbox>,
    who: Announcer,
    /// The shards that the peer is in, one bit each.
    shards: u64,
    touched: Instant,
}

impl Announce {
    pub(super) fn new(
        service: SwarmService,
        caller: Caller,
        origin: Origin,
        answers: mpsc::Sender<Result<pb::AnnounceResponse, Status>>,
    ) -> Self {
        let per_second = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(per_second(RATE.0)).allow_burst(per_second(RATE.1));
        Self { service, caller, origin, answers, rate: RateLimiter::direct(quota), spoke: Instant::now() }
    }

    pub(super) async fn run(mut self, messages: Streaming<pb::AnnounceRequest>) {
        if let Err(End::Told(status)) = self.serve(messages).await {
            // Who does not read is not waited for; the stream ends either way.
            let _ = timeout(Duration::from_secs(1), self.answers.send(Err(status))).await;
        }
    }

    async fn serve(&mut self, mut messages: Streaming<pb::AnnounceRequest>) -> Result<(), End> {
        let stopping = self.service.hub.shutdown.clone();
        let first = tokio::select! {
            () = stopping.cancelled() => return Err(TrackerError::NotServing.into()),
            first = timeout(HELLO, messages.message()) => first,
        };
        let first = first.map_err(|_| TrackerError::TooSlow("no hello came"))?;
        let Ok(Some(first)) = first else { return Err(End::Quiet) };
        let mut opened = self.open(&first).await?;
        let mailbox = Arc::clone(&opened.mailbox);
        self.service.hub.open(&mailbox);
        let end = self.talk(&mut opened, first, messages).await;
        self.service.hub.close(&mailbox);
        end
    }

    async fn open(&self, first: &pb::AnnounceRequest) -> Result<Opened, TrackerError> {
        let hello = first.hello.as_ref().ok_or(TrackerError::Invalid("the first message holds hello"))?;
        let id = self.service.own_peer(&self.caller, &hello.peer_id).await?;
        let address = dialable(observed(self.origin.ip), hello.port, &hello.advertise)?.into();
        let user = self.caller.user().clone();
        Ok(Opened {
            mailbox: Mailbox::new(id, user.clone(), self.caller.session()),
            who: Announcer { id, user, address, load: first.load },
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
        self.send(opened, pb::AnnounceResponse { welcome: Some(self.welcome()), ..Default::default() })
            .await?;
        self.take(opened, first).await?;
        let stopping = self.service.hub.shutdown.clone();
        let session_ends = self.session_ends();
        loop {
            let deadline = Instant::now() + LEASE;
            tokio::select! {
                // Messages before answers: their rate is bounded, so they can't hold answers up, but not the reverse.
                biased;
                () = stopping.cancelled() => return Err(TrackerError::NotServing.into()),
                message = messages.message() => match message {
                    Ok(Some(message)) if message.hello.is_none() => self.take(opened, message).await?,
                    Ok(Some(_)) => return Err(TrackerError::Invalid("hello comes once").into()),
                    // What its last words brought is still told.
                    Ok(None) => return self.deliver(opened).await,
                    Err(status) => return Err(crate::error::readable(&status).map_or(End::Quiet, End::Told)),
                },
                () = opened.mailbox.arrived() => self.deliver(opened).await?,
                () = sleep_until(deadline.min(session_ends)) => {
                    let is_over = Instant::now() >= session_ends;
                    return Err(if is_over { Over::SessionEnded.into() } else {
                        TrackerError::TooSlow("nothing was announced for 30 seconds").into()
                    });
                }
            }
        }
    }

    /// Sessions that ended between the call's authentication and the mailbox's opening were told to nobody.
    async fn still_logged_in(&self) -> Result<(), TrackerError> {
        let session = self.service.store.session(self.caller.session()).await?;
        let alive = session.is_some_and(|session| session.is_alive(SystemTime::now()));
        if alive { Ok(()) } else { Err(Refusal::NotLoggedIn.into()) }
    }

    fn session_ends(&self) -> Instant {
        let left = self.caller.session_ends().duration_since(SystemTime::now());
        Instant::now() + left.unwrap_or_default()
    }

    fn welcome(&self) -> pb::AnnounceWelcome {
        pb::AnnounceWelcome {
            instance_id: self.service.hub.instance().to_vec().into(),
            heartbeat_seconds: HEARTBEAT,
            observed_ip: observed(self.origin.ip).to_string(),
            keys: self.keys(),
        }
    }

    fn keys(&self) -> Vec<pb::TicketKey> {
        self.service.keys.verifying_keys().borrow().iter().map(convert::to_ticket_key).collect()
    }

    /// Takes a message in, and how long that took.
    async fn take(&mut self, opened: &mut Opened, message: pb::AnnounceRequest) -> Result<(), End> {
        let since = Instant::now();
        let taken = self.take_in(opened, message).await;
        self.service.hub.latency.observe(since.elapsed().as_secs_f64());
        taken
    }

    async fn take_in(&mut self, opened: &mut Opened, message: pb::AnnounceRequest) -> Result<(), End> {
        self.rate.check().map_err(|not_until| {
            let now = governor::clock::DefaultClock::default().now();
            TrackerError::RateLimited(not_until.wait_time_from(now))
        })?;
        if message.files.len() > MAX_FILES {
            return Err(TrackerError::Invalid("at most 1,000 files a message").into());
        }
        opened.who.load = message.load;
        let mut groups = HashMap::new();
        for file in message.files {
            self.announce(opened, file, &mut groups).await?;
        }
        self.renew(opened);
        if opened.touched.elapsed() >= TOUCH_EVERY {
            opened.touched = Instant::now();
            let touched = self.service.store.touch_session(self.caller.session(), SystemTime::now()).await;
            if let Err(error) = touched {
                // Swarms live on while the disk is full: at worst the session ends early.
                tracing::debug!(%error, "the use of a session can't be noted");
            }
        }
        if self.spoke.elapsed() >= SPEAK_EVERY {
            self.send(opened, pb::AnnounceResponse::default()).await?;
        }
        Ok(())
    }

    fn renew(&self, opened: &Opened) {
        let hub = &self.service.hub;
        let mut left = opened.shards;
        while left != 0 {
            let wakes = hub.shard_number(left.trailing_zeros() as usize).renew(hub.now(), &opened.who);
            hub.wake(&wakes);
            left &= left - 1;
        }
    }

    async fn announce(
        &self,
        opened: &mut Opened,
        announce: pb::FileAnnounce,
        groups: &mut HashMap<GroupId, Option<Membership>>,
    ) -> Result<(), TrackerError> {
        let (group, file) = convert::file_ref(announce.file.as_ref())?;
        let hub = &self.service.hub;
        let holding = match announce.holding {
            Some(Holding::Left(true)) => {
                let wakes = hub.shard(file).0.leave(&opened.who.id, file);
                hub.wake(&wakes);
                return Ok(());
            }
            Some(Holding::Left(false)) | Some(Holding::Complete(false)) | None => {
                return Err(TrackerError::Invalid("holding says what the peer has"));
            }
            Some(holding) => holding,
        };
        let known = hub.shard(file).0.announced(&opened.who.id, &group, file);
        if let Some(layout) = known {
            return self.tell_swarm(opened, &group, file, layout, &holding, announce.wants_sources);
        }
        loop {
            let seen = hub.generation();
            match self.admit(opened, &group, file, groups).await? {
                Ok(layout) => {
                    self.tell_swarm(opened, &group, file, layout, &holding, announce.wants_sources)?;
                }
                Err(reason) => {
                    let wakes = hub.shard(file).0.leave(&opened.who.id, file);
                    hub.wake(&wakes);
                    opened.mailbox.end_file(file, group.clone(), reason);
                }
            }
            if hub.generation() == seen {
                return Ok(());
            }
            // Access changed meanwhile: what was found may be out of date.
            groups.clear();
        }
    }

    /// Whether the peer may announce the file: its layout, or why not.
    async fn admit(
        &self,
        opened: &Opened,
        group: &GroupId,
        file: FileId,
        groups: &mut HashMap<GroupId, Option<Membership>>,
    ) -> Result<Result<PieceLayout, Reason>, TrackerError> {
        if !groups.contains_key(group) {
            let member = member_or_not(self.service.gate.enter(&self.caller, group).await)?;
            if let Some(member) = &member {
                opened.mailbox.learn_epoch(group, member.epoch());
            }
            groups.insert(group.clone(), member);
        }
        let Some(Some(member)) = groups.get(group) else { return Ok(Err(Reason::NotAMember)) };
        let row = self.service.store.file_by_id(member, file).await?;
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
        let announced = self.service.hub.announce(&opened.who, group, file, layout, holds, wants_sources);
        let no_baseline = "the first announce of a file says all that the peer holds, not what it gained";
        opened.shards |= 1 << announced.map_err(|_| TrackerError::Invalid(no_baseline))?;
        Ok(())
    }

    /// Sends what the mailbox holds.
    async fn deliver(&mut self, opened: &Opened) -> Result<(), End> {
        if let Some(over) = opened.mailbox.over() {
            return Err(over.into());
        }
        let letter = opened.mailbox.take(FILES_AN_ANSWER);
        if letter.is_empty() {
            return Ok(());
        }
        let answer = self.answer(opened, letter);
        if answer == pb::AnnounceResponse::default() { Ok(()) } else { self.send(opened, answer).await }
    }

    fn answer(&self, opened: &Opened, letter: Letter) -> pb::AnnounceResponse {
        let ended = letter.ended.into_iter().map(|(file, group, reason)| pb::SwarmChange {
            file: Some(convert::to_file_ref(&group, file)),
            ended: true,
            reason: reason.as_str().to_owned(),
            ..Default::default()
        });
        let news = letter.woken.into_iter().filter_map(|file| {
            let News { group, sources, gone } = self.service.hub.pull(&opened.who.id, file)?;
            Some(pb::SwarmChange {
                file: Some(convert::to_file_ref(&group, file)),
                sources: sources.iter().map(|source| found(source).message()).collect(),
                gone_peer_ids: gone.iter().map(ToString::to_string).collect(),
                ..Default::default()
            })
        });
        let epoch =
            |(group, min_epoch): (GroupId, u64)| pb::GroupEpoch { group_id: group.to_string(), min_epoch };
        pb::AnnounceResponse {
            changes: ended.chain(news).collect(),
            epochs: letter.epochs.into_iter().map(epoch).collect(),
            keys: if letter.keys { self.keys() } else { Vec::new() },
            ..Default::default()
        }
    }

    /// Waits for the peer to take the answer, no longer than a lease, nor than its session.
    async fn send(&mut self, opened: &Opened, mut answer: pb::AnnounceResponse) -> Result<(), End> {
        answer.now = Some(SystemTime::now().into());
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
            Err(_) => return Err(TrackerError::TooSlow("nothing was read for 30 seconds").into()),
        }
        self.spoke = Instant::now();
        Ok(())
    }
}

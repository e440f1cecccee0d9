//! Tickets: kept while they are valid, renewed long before they end, and requested many at a time.
//!
//! A ticket is renewed at its first use after a third of its life. The old one is used as long as the tracker
//! can't be reached. Requests that arrive while a call runs share the next call.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use proto::{
    convert,
    domain::{
        FileId, GroupId,
        limits::{MAX_TICKET, MAX_TICKETS_A_CALL},
    },
    pb,
    reason::Reason,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{client::TrackerClient, line::Line};
use crate::{
    error::PeerError,
    identity::Identity,
    ports::{BoxFuture, TicketRefused, TicketSource},
};

/// The most requests that wait in the queue. Further callers wait until it has room.
const QUEUE: usize = 1_024;
/// A ticket younger than this is new enough for a caller whose last ticket was refused.
const FRESH: Duration = Duration::from_millis(500);
/// The least time between two calls in the long run: half the rate that the tracker allows.
const PACE: Duration = Duration::from_millis(100);
/// The number of calls that may be made at once after a pause.
const BURST: u32 = 100;
/// The bounds of a ticket's life, whatever the tracker or a clock says. The tracker issues none for longer
/// than a day.
const LIFE: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(24);

type Answer = Result<Arc<str>, TicketRefused>;

/// A ticket that is kept.
#[derive(Clone, Debug)]
struct Kept {
    ticket: Arc<str>,
    fetched: Instant,
    renew: Instant,
    ends: Instant,
}

#[derive(Debug)]
struct TicketRequest {
    group: GroupId,
    file: FileId,
    answer: oneshot::Sender<Answer>,
}

/// The engine's source of tickets.
#[derive(Debug)]
pub(crate) struct TicketCache {
    kept: Mutex<HashMap<FileId, Kept>>,
    requests: mpsc::Sender<TicketRequest>,
}

/// The other end of [`TicketCache`], which calls the tracker.
#[derive(Debug)]
pub(crate) struct TicketFetcher {
    tickets: Arc<TicketCache>,
    requests: mpsc::Receiver<TicketRequest>,
    tracker: TrackerClient,
    identity: watch::Receiver<Option<Arc<Identity>>>,
}

impl TicketCache {
    /// Creates the source and its fetcher. The source gives no new tickets unless [`TicketFetcher::run`]
    /// runs.
    pub(crate) fn new(
        tracker: TrackerClient,
        identity: watch::Receiver<Option<Arc<Identity>>>,
    ) -> (Arc<Self>, TicketFetcher) {
        let (sender, requests) = mpsc::channel(QUEUE);
        let tickets = Arc::new(Self { kept: Mutex::default(), requests: sender });
        let fetcher = TicketFetcher { tickets: Arc::clone(&tickets), requests, tracker, identity };
        (tickets, fetcher)
    }

    /// Forgets all tickets, because another user logs in.
    pub(crate) fn forget(&self) {
        self.kept.lock().clear();
    }

    /// Forgets the ticket of a file, because the tracker says that the right to it has ended.
    pub(crate) fn forget_file(&self, file: FileId) {
        self.kept.lock().remove(&file);
    }

    async fn get(&self, group: GroupId, file: FileId, fresh: bool) -> Answer {
        let now = Instant::now();
        let kept = self.kept.lock().get(&file).cloned().filter(|kept| now < kept.ends);
        if let Some(kept) = &kept {
            let good = if fresh { now < kept.fetched + FRESH } else { now < kept.renew };
            if good {
                return Ok(Arc::clone(&kept.ticket));
            }
        }
        let answer = self.ask(group, file).await;
        match (answer, kept) {
            (Err(TicketRefused::Unavailable(_)), Some(kept)) if !fresh => Ok(kept.ticket),
            (answer, _) => answer,
        }
    }

    async fn ask(&self, group: GroupId, file: FileId) -> Answer {
        let gone = || TicketRefused::Unavailable(Reason::NotServing);
        let (sender, answer) = oneshot::channel();
        self.requests.send(TicketRequest { group, file, answer: sender }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl TicketSource for TicketCache {
    fn ticket(&self, group: &GroupId, file: FileId, fresh: bool) -> BoxFuture<'_, Answer> {
        let group = group.clone();
        Box::pin(self.get(group, file, fresh))
    }
}

impl TicketFetcher {
    /// Answers requests until `stop` is cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        let mut spent_until = Instant::now();
        while let Some(1..) =
            stop.run_until_cancelled(self.requests.recv_many(&mut batch, MAX_TICKETS_A_CALL)).await
        {
            self.serve(std::mem::take(&mut batch)).await;
            spent_until = spent_until.max(Instant::now()) + PACE;
            let burst = PACE * BURST;
            tokio::time::sleep(spent_until.saturating_duration_since(Instant::now()).saturating_sub(burst))
                .await;
        }
    }

    /// Makes one call for all of `batch`, with each file once.
    async fn serve(&self, batch: Vec<TicketRequest>) {
        let mut asked: HashMap<FileId, (GroupId, Vec<oneshot::Sender<Answer>>)> = HashMap::new();
        for TicketRequest { group, file, answer } in batch {
            asked.entry(file).or_insert_with(|| (group, Vec::new())).1.push(answer);
        }
        let refs = asked.iter().map(|(file, (group, _))| convert::to_file_ref(group, *file)).collect();
        let answers = self.call(refs, |file| asked.contains_key(file)).await;
        for (file, (_, waiting)) in asked {
            let answer = match &answers {
                Ok(answers) => {
                    answers.get(&file).cloned().unwrap_or(Err(TicketRefused::Unavailable(Reason::Internal)))
                }
                Err(refused) => Err(refused.clone()),
            };
            for sender in waiting {
                // This fails if the caller no longer waits for the answer.
                let _ = sender.send(answer.clone());
            }
        }
    }

    async fn call(
        &self,
        files: Vec<pb::FileRef>,
        is_asked: impl Fn(&FileId) -> bool,
    ) -> Result<HashMap<FileId, Answer>, TicketRefused> {
        let Some(identity) = self.identity.borrow().clone() else {
            return Err(TicketRefused::Unavailable(Reason::NotLoggedIn));
        };
        let request = pb::IssueTicketsRequest { peer_id: identity.peer.to_string(), files };
        let ask = async |line: Line| {
            let mut client = line.swarm().await?;
            line.within(client.issue_tickets(request.clone())).await
        };
        let answer = self.tracker.patiently(ask).await.map_err(|error| refused(&error))?;
        let (now, clock) = (Instant::now(), SystemTime::now());
        let asked = |file: Option<&pb::FileRef>| {
            let (_, file) = convert::file_ref(file).ok()?;
            is_asked(&file).then_some(file)
        };
        let granted = answer.tickets.into_iter().filter_map(|ticket| {
            let file = asked(ticket.file.as_ref())?;
            let kept = keep(ticket, now, clock)?;
            self.tickets.kept.lock().insert(file, kept.clone());
            Some((file, Ok(kept.ticket)))
        });
        let mut answers: HashMap<_, Answer> = granted.collect();
        answers.extend(answer.refusals.into_iter().filter_map(|refusal| {
            let file = asked(refusal.file.as_ref())?;
            let reason = Reason::from_text(&refusal.reason).unwrap_or(Reason::NotAMember);
            self.tickets.kept.lock().remove(&file);
            Some((file, Err(TicketRefused::Denied(reason))))
        }));
        Ok(answers)
    }
}

/// The ticket with the times of its renewal and its end; `None` if it is not usable.
fn keep(ticket: pb::Ticket, now: Instant, clock: SystemTime) -> Option<Kept> {
    if ticket.ticket.is_empty() || ticket.ticket.len() > MAX_TICKET {
        return None;
    }
    let ends = SystemTime::try_from(ticket.expires_at?).ok()?;
    // A clock that runs ahead of the tracker's must not make every ticket useless. Peers allow for some skew,
    // too.
    let life = ends.duration_since(clock).unwrap_or_default().clamp(*LIFE.start(), *LIFE.end());
    Some(Kept { ticket: ticket.ticket.into(), fetched: now, renew: now + life / 3, ends: now + life })
}

fn refused(error: &PeerError) -> TicketRefused {
    let reason = error.reason();
    match reason {
        Reason::NotAMember | Reason::FileNotFound | Reason::GroupNotFound | Reason::NotYourPeer => {
            TicketRefused::Denied(reason)
        }
        other => TicketRefused::Unavailable(other),
    }
}

//! Tickets: kept while they are good, renewed long before they end, asked for many at a time.
//!
//! A ticket is renewed after a third of its life, at the next use; the old one serves for as long as the tracker can't
//! be reached. Asks that come while a call runs share the next one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

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

use super::client::TrackerClient;
use crate::{
    engine::{BoxFuture, TicketRefused, TicketSource},
    error::PeerError,
    identity::Identity,
};

/// Asks that may wait; more wait outside.
const QUEUE: usize = 1_024;
/// A ticket this young is fresh enough for whoever was refused with the one before.
const FRESH: Duration = Duration::from_millis(500);
/// At most one call in so long: well below what the tracker allows.
const PACE: Duration = Duration::from_millis(150);
/// What a ticket's life is taken for, whatever the tracker or a clock says: it gives none for longer than a day.
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
struct Ask {
    group: GroupId,
    file: FileId,
    answer: oneshot::Sender<Answer>,
}

/// Where the engine gets its tickets.
#[derive(Debug)]
pub struct Tickets {
    kept: Mutex<HashMap<FileId, Kept>>,
    asks: mpsc::Sender<Ask>,
}

/// The other end of [`Tickets`]: asks the tracker.
#[derive(Debug)]
pub struct TicketFetcher {
    tickets: Arc<Tickets>,
    asks: mpsc::Receiver<Ask>,
    tracker: TrackerClient,
    identity: watch::Receiver<Option<Arc<Identity>>>,
}

impl Tickets {
    /// The source, and the fetcher whose [`TicketFetcher::run`] must run for it to give anything.
    pub fn new(
        tracker: TrackerClient,
        identity: watch::Receiver<Option<Arc<Identity>>>,
    ) -> (Arc<Self>, TicketFetcher) {
        let (sender, asks) = mpsc::channel(QUEUE);
        let tickets = Arc::new(Self { kept: Mutex::default(), asks: sender });
        let fetcher = TicketFetcher { tickets: Arc::clone(&tickets), asks, tracker, identity };
        (tickets, fetcher)
    }

    /// Forgets all tickets: somebody else logs in.
    pub fn forget(&self) {
        self.lock().clear();
    }

    async fn get(&self, group: GroupId, file: FileId, fresh: bool) -> Answer {
        let now = Instant::now();
        let kept = self.lock().get(&file).cloned().filter(|kept| now < kept.ends);
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
        self.asks.send(Ask { group, file, answer: sender }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FileId, Kept>> {
        // Every change is one map operation, so the map is right whoever panicked.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TicketSource for Tickets {
    fn ticket(&self, group: &GroupId, file: FileId, fresh: bool) -> BoxFuture<'_, Answer> {
        let group = group.clone();
        Box::pin(self.get(group, file, fresh))
    }
}

impl TicketFetcher {
    /// Answers asks until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        while let Some(1..) =
            stop.run_until_cancelled(self.asks.recv_many(&mut batch, MAX_TICKETS_A_CALL)).await
        {
            self.serve(std::mem::take(&mut batch)).await;
            tokio::time::sleep(PACE).await;
        }
    }

    /// One call for all of `batch`, each file once.
    async fn serve(&self, batch: Vec<Ask>) {
        let mut asked: HashMap<FileId, (GroupId, Vec<oneshot::Sender<Answer>>)> = HashMap::new();
        for Ask { group, file, answer } in batch {
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
                // Whoever no longer waits has no use for it.
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
        let answer = async {
            let mut client = self.tracker.swarm().await?;
            self.tracker.within(client.issue_tickets(request)).await
        };
        let answer = answer.await.map_err(|error| refused(&error))?;
        let (now, clock) = (Instant::now(), SystemTime::now());
        let asked = |file: Option<&pb::FileRef>| {
            let (_, file) = convert::file_ref(file).ok()?;
            is_asked(&file).then_some(file)
        };
        let granted = answer.tickets.into_iter().filter_map(|ticket| {
            let file = asked(ticket.file.as_ref())?;
            let kept = keep(ticket, now, clock)?;
            self.tickets.lock().insert(file, kept.clone());
            Some((file, Ok(kept.ticket)))
        });
        let mut answers: HashMap<_, Answer> = granted.collect();
        answers.extend(answer.refusals.into_iter().filter_map(|refusal| {
            let file = asked(refusal.file.as_ref())?;
            let reason = Reason::from_text(&refusal.reason).unwrap_or(Reason::NotAMember);
            self.tickets.lock().remove(&file);
            Some((file, Err(TicketRefused::Denied(reason))))
        }));
        Ok(answers)
    }
}

/// How long a ticket is used; none if it is not usable at all.
fn keep(ticket: pb::Ticket, now: Instant, clock: SystemTime) -> Option<Kept> {
    if ticket.ticket.is_empty() || ticket.ticket.len() > MAX_TICKET {
        return None;
    }
    let ends = SystemTime::try_from(ticket.expires_at?).ok()?;
    // A clock that runs ahead of the tracker's must not make every ticket useless: peers allow for some skew too.
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

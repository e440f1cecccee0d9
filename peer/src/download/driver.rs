//! The driver of pieces: one task passes events to the machine and carries out its actions.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use proto::domain::PeerId;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    context::{Context, Report},
    local::{LocalShares, processor},
    recheck,
    request::{self, ChunkRequest},
    source::{self, SourceConnection, is_usable},
    source_directory::SourceDirectory,
    view,
    wishes::Wishes,
};
use crate::{
    domain::{
        Moment,
        download::{Action, Download, DownloadRequestId, Event, Failure, Options},
        reach::unreached,
        reading,
        running::RunningClock,
    },
    observe::with_same_id,
    ports::{Attempt, DownloadState, DownloadView, Obstacle, SourceAddr, SourceState, SourceView},
    storage::StoreError,
};

/// The interval at which the view is updated and checkpoints are considered.
const BEAT: Duration = Duration::from_millis(250);
/// A checkpoint is made after this time or this number of bytes. A crash can cost that much.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// A download is stalled when nothing has arrived for this long.
const STALLED: Duration = Duration::from_secs(5);

/// After a gap in which this program did not run, there is no estimate for this long.
const FRESH: Duration = Duration::from_secs(3);
/// A difference between the clocks with and without suspends that means a suspend.
const SUSPENDED: Duration = Duration::from_secs(2);

/// The result of a transfer.
pub(super) enum Outcome {
    /// Every wanted piece is verified and written.
    Complete,
    /// It was stopped.
    Stopped,
    /// The store failed.
    Trouble(StoreError),
}

/// The state of a transfer.
pub(super) struct Driver<'a> {
    context: Arc<Context>,
    directory: &'a SourceDirectory,
    view: &'a watch::Sender<DownloadView>,
    wishes: &'a Wishes,
    machine: Download,
    start: Instant,
    clock: RunningClock,
    /// The download limit that the machine was last told.
    limit: u64,
    tasks: JoinSet<()>,
    sources: HashMap<PeerId, Used>,
    /// The sources of the transfers before this one, with what they sent.
    earlier: Vec<SourceView>,
    /// The requests whose reports the machine still wants.
    requests: HashMap<DownloadRequestId, (PeerId, CancellationToken)>,
    found: HashSet<PeerId>,
    /// The sources that are banned, for the machine and in the engine's memory.
    banned: HashSet<PeerId>,
    generation: u64,
    actions: Vec<Action>,
    complete: bool,
    /// The bytes of an earlier run's pieces that were rechecked and found good.
    rechecked_bytes: u64,
    last_bytes: Moment,
    /// When this program last ran again after a gap, if there was one.
    resumed: Option<Moment>,
    /// The time that the system was suspended since it started, as last seen.
    suspended: Duration,
    local: LocalShares,
    checkpoint: Checkpoint,
}

struct Used {
    source: Arc<SourceConnection>,
    cancelled: CancellationToken,
}

struct Checkpoint {
    at: Instant,
    written_bytes: u64,
    running: Option<JoinHandle<Result<(), StoreError>>>,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        context: Arc<Context>,
        directory: &'a SourceDirectory,
        view: &'a watch::Sender<DownloadView>,
        wishes: &'a Wishes,
        seed: u64,
    ) -> Self {
        let options = Options { sequential: context.spec.sequential, ..Options::default() };
        let layout = context.spec.manifest.layout();
        let store = &context.store;
        let machine = Download::new(layout, store.have(), options, seed)
            .with_wanted(&store.wanted())
            .with_unchecked(&store.unverified());
        let now = Instant::now();
        Self {
            checkpoint: Checkpoint { at: now, written_bytes: machine.done_bytes(), running: None },
            context,
            directory,
            view,
            wishes,
            machine,
            start: now,
            clock: RunningClock::default(),
            limit: 0,
            tasks: JoinSet::new(),
            sources: HashMap::new(),
            earlier: view.borrow().sources.clone(),
            requests: HashMap::new(),
            found: HashSet::new(),
            banned: HashSet::new(),
            generation: 0,
            actions: Vec::new(),
            complete: false,
            rechecked_bytes: 0,
            last_bytes: Moment::ZERO,
            resumed: None,
            suspended: suspended(),
            local: LocalShares::new(now),
        }
    }

    /// Runs until the file is complete, the store fails, or `stop` is cancelled. When it returns, all its
    /// tasks have ended, and nothing more is written.
    pub(super) async fn run(
        mut self,
        mut reports: mpsc::Receiver<Report>,
        stop: &CancellationToken,
    ) -> Outcome {
        let outcome = self.go(&mut reports, stop).await;
        self.tasks.shutdown().await;
        // Later reports are not read. The verified pieces that they report are in the store.
        reports.close();
        self.context.checks.done().await;
        if let Some(running) = self.checkpoint.running.take() {
            let _ = running.await;
        }
        self.show(None);
        outcome
    }

    async fn go(&mut self, reports: &mut mpsc::Receiver<Report>, stop: &CancellationToken) -> Outcome {
        let mut beat = interval(BEAT);
        recheck::start(&self.context);
        self.feed(Event::Tick);
        self.follow_limit();
        self.follow_readers();
        self.sync_sources();
        while !self.complete {
            let wakeup = self.machine.next_wakeup().map(|at| self.start + self.clock.elapsed_at(at));
            let due = async {
                match wakeup {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Outcome::Stopped,
                Some(first) = reports.recv() => {
                    if let Err(error) = self.take_reports(Some(first), reports) {
                        return Outcome::Trouble(error);
                    }
                }
                () = due => {
                    // Reports that arrived earlier must be handled before the tick.
                    if let Err(error) = self.take_reports(None, reports) {
                        return Outcome::Trouble(error);
                    }
                    self.feed(Event::Tick);
                }
                () = self.directory.changed.notified() => self.sync_sources(),
                () = self.wishes.changed.notified() => self.follow_readers(),
                _ = beat.tick() => if let Err(error) = self.beat().await {
                    return Outcome::Trouble(error);
                },
            }
        }
        Outcome::Complete
    }

    /// The time that this program has run since the start.
    fn now(&mut self) -> Moment {
        let missed = self.clock.missed();
        let now = self.clock.at(self.start.elapsed());
        if self.clock.missed() > missed {
            self.resumed = Some(now);
        }
        now
    }

    /// Notes whether the system was suspended.
    fn note_suspend(&mut self) {
        let suspended = suspended();
        if suspended > self.suspended + SUSPENDED {
            self.resumed = Some(self.now());
        }
        self.suspended = suspended;
    }

    /// Handles this report and all that wait.
    fn take_reports(
        &mut self,
        first: Option<Report>,
        reports: &mut mpsc::Receiver<Report>,
    ) -> Result<(), StoreError> {
        let mut next = first.or_else(|| reports.try_recv().ok());
        while let Some(news_item) = next.take() {
            self.on_report(news_item)?;
            next = reports.try_recv().ok();
        }
        Ok(())
    }

    fn follow_limit(&mut self) {
        let limit = self.context.limiter.rate();
        if std::mem::replace(&mut self.limit, limit) != limit {
            self.feed(Event::Limit(limit));
        }
    }

    fn follow_readers(&mut self) {
        let layout = self.context.spec.manifest.layout();
        self.feed(Event::Urgent(reading::urgent(layout, self.wishes.all())));
    }

    fn feed(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        let now = self.now();
        self.machine.handle(now, event, &mut actions);
        for action in actions.drain(..) {
            self.carry_out(action);
        }
        self.actions = actions;
    }

    /// Carries out one action of the machine.
    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Connect(peer) => self.connect(peer),
            Action::Request { source, request, pieces, max_pieces, in_order, urgent } => {
                self.request(source, ChunkRequest { request, pieces, max_pieces, in_order, urgent });
            }
            Action::Cancel(request) => {
                if let Some((_, cancelled)) = self.requests.remove(&request) {
                    cancelled.cancel();
                }
            }
            Action::Disconnect(peer) => {
                self.note_silence(peer);
                self.disconnect(peer);
            }
            Action::Complete => self.complete = true,
        }
    }

    fn connect(&mut self, peer: PeerId) {
        let Some(address) = self.directory.address(peer) else { return };
        self.generation += 1;
        let source = Arc::new(SourceConnection {
            link: std::sync::OnceLock::new(),
            generation: self.generation,
            address,
        });
        let cancelled = CancellationToken::new();
        let task = source::run(self.context.clone(), source.clone());
        self.tasks.spawn(with_same_id(until(cancelled.clone(), task)));
        self.sources.insert(peer, Used { source, cancelled });
    }

    fn request(&mut self, peer: PeerId, ask: ChunkRequest) {
        let cancelled = CancellationToken::new();
        let request = ask.request;
        let link = self.sources.get(&peer).and_then(|used| used.source.link.get().cloned());
        self.requests.insert(request, (peer, cancelled.clone()));
        let context = self.context.clone();
        self.tasks.spawn(with_same_id(async move {
            match link {
                Some(link) => request::run(context, link, ask, cancelled).await,
                None => context.report(Event::Ended(request, Err(Failure::Connection))).await,
            }
        }));
    }

    /// Notes that a source which is given up has not answered, if it has not.
    fn note_silence(&self, peer: PeerId) {
        let silent = self.sources.get(&peer).filter(|used| used.source.link.get().is_none());
        if let Some(SourceAddr { addresses, username, .. }) = silent.map(|used| &used.source.address) {
            let attempt = |address: &String| Attempt {
                address: address.clone(),
                obstacle: Obstacle::Silent,
                error: "no answer".to_owned(),
            };
            let attempts: Vec<_> = addresses.iter().map(attempt).collect();
            self.directory.set_trouble(peer, Some((unreached(username.as_str(), &attempts), false)));
        }
    }

    fn disconnect(&mut self, peer: PeerId) {
        if let Some(used) = self.sources.remove(&peer) {
            used.cancelled.cancel();
        }
        self.requests.retain(|_, (source, cancelled)| {
            if *source == peer {
                cancelled.cancel();
            }
            *source != peer
        });
    }

    /// Passes a report to the machine, unless it is of a request or a connection that the machine no longer
    /// knows.
    fn on_report(&mut self, report: Report) -> Result<(), StoreError> {
        match report {
            Report::Trouble(error) => return Err(error),
            Report::Gone(peer, generation, gone) => {
                if self.is_current(peer, generation) {
                    self.directory.set_trouble(peer, Some((gone.cause, gone.is_clock)));
                    self.disconnect(peer);
                    self.feed(Event::Disconnected(peer, gone.failure));
                }
            }
            Report::Source(peer, generation, event) => {
                if self.is_current(peer, generation) {
                    if let Event::Connected(..) = event {
                        self.directory.set_trouble(peer, None);
                        self.view.send_modify(|view| view.had_source = true);
                    }
                    self.feed(event);
                }
            }
            Report::Request(event) => {
                let wanted = match &event {
                    Event::Verified(..) | Event::Bad(..) => true,
                    Event::Checked(piece, good) => {
                        if *good {
                            let length = self.context.spec.manifest.layout().piece_length(*piece);
                            self.rechecked_bytes += u64::from(length);
                        }
                        true
                    }
                    Event::Ended(request, _) => self.requests.remove(request).is_some(),
                    Event::Queued(request, _) | Event::Started(request, _) => {
                        self.requests.contains_key(request)
                    }
                    // Bytes that wait for this peer have arrived, too.
                    Event::Received(request, _) | Event::Held(request) | Event::Freed(request) => {
                        self.last_bytes = self.now();
                        self.requests.contains_key(request)
                    }
                    _ => false,
                };
                if wanted {
                    self.feed(event);
                }
            }
        }
        Ok(())
    }

    /// Whether this is the number of the source's present connection.
    fn is_current(&self, peer: PeerId, generation: u64) -> bool {
        self.sources.get(&peer).is_some_and(|used| used.source.generation == generation)
    }

    fn sync_sources(&mut self) {
        let own = self.context.links.own_id();
        let (there, gone) = self.directory.all();
        for peer in gone {
            if self.found.remove(&peer) {
                self.feed(Event::SourceGone(peer));
            }
        }
        for peer in there {
            let Some(source) = self.directory.address(peer).filter(|source| is_usable(source, own)) else {
                continue;
            };
            let is_new = self.found.insert(peer);
            // This also covers a source that is already in use: a user is banned when another of its peers
            // is.
            if self.context.memory.is_banned(peer, &source.username) && self.banned.insert(peer) {
                self.feed(Event::SourceBanned(peer));
            } else if is_new {
                self.feed(Event::SourceFound(peer));
            }
        }
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        while self.tasks.try_join_next().is_some() {}
        self.follow_limit();
        self.note_suspend();
        self.local.note(Instant::now(), self.context.spent.all(), processor());
        let stalled = self.now().saturating_sub(self.last_bytes) >= STALLED && !self.machine.waits_for_us();
        self.show(Some(stalled));
        if let Some(running) = self.checkpoint.running.take_if(|running| running.is_finished()) {
            running.await.map_err(|error| StoreError::Io(std::io::Error::other(error)))??;
        }
        let new_bytes = self.written_bytes().saturating_sub(self.checkpoint.written_bytes);
        let due = self.checkpoint.at.elapsed() >= CHECKPOINT_EVERY || new_bytes >= CHECKPOINT_BYTES;
        if due && new_bytes > 0 && self.checkpoint.running.is_none() {
            let store = self.context.store.clone();
            self.checkpoint = Checkpoint {
                at: Instant::now(),
                written_bytes: self.written_bytes(),
                running: Some(tokio::task::spawn_blocking(move || store.checkpoint(false))),
            };
        }
        Ok(())
    }

    /// The bytes that were verified at the start and those written since, without those that were only
    /// rechecked.
    fn written_bytes(&self) -> u64 {
        self.machine.done_bytes().saturating_sub(self.rechecked_bytes)
    }

    /// Updates the view. `Some` also sets whether the download is stalled.
    fn show(&mut self, stalled: Option<bool>) {
        let layout = self.context.spec.manifest.layout();
        let mut new = self.view.borrow().clone();
        let now = self.now();
        let uploads = |peer: PeerId| {
            let link = self.sources.get(&peer).and_then(|used| used.source.link.get());
            link.map_or((0, 0), |link| link.uploads())
        };
        view::update(&mut new, &self.machine, now, self.directory, layout, &uploads);
        view::add_earlier(&mut new.sources, &self.earlier);
        new.local = self.local.shown();
        new.files = self.context.store.files_in(self.machine.have()).or(new.files);
        for source in new.sources.iter().filter(|source| source.state == SourceState::Banned) {
            if self.banned.insert(source.peer) {
                self.context.memory.ban(source.peer, self.directory.username(source.peer).as_ref());
                self.directory.changed.notify_one();
            }
        }
        match stalled {
            // Perhaps all missing pieces are only being rechecked, and none has to arrive.
            Some(true) if self.machine.unchecked_bytes() > 0 => {
                new.state = DownloadState::Verifying;
                new.problem = None;
            }
            Some(true) => {
                new.state = DownloadState::Stalled;
                let ticket = self.context.tickets.trouble().map(|refused| refused.problem());
                new.problem = Some(ticket.unwrap_or_else(|| view::why_stalled(&new, self.directory)));
                view::no_rate(&mut new);
            }
            Some(false) => {
                new.state = DownloadState::Downloading;
                new.problem = None;
                // After a suspend or a freeze the rate is old.
                new.eta = new.eta.filter(|_| self.resumed.is_none_or(|at| now.saturating_sub(at) >= FRESH));
            }
            None => {}
        }
        self.view.send_if_modified(|view| {
            let changed = *view != new;
            *view = new;
            changed
        });
    }
}

/// The time that the system was suspended since it started.
fn suspended() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    };
    let running = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(running)
}

async fn until(cancelled: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = task => {}
    }
}

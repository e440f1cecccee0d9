//! The time in which pieces come: one task feeds the machine with what happens and does what it says.

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
    book::Book,
    context::{Context, News},
    request::{self, Ask},
    source::{self, Source, is_usable},
    view,
};
use crate::{
    domain::{
        Moment,
        download::{Action, Download, Event, Failure, Options, RequestId},
    },
    engine::{DownloadState, DownloadView, SourceState},
    observe::with_same_id,
    storage::StoreError,
};

/// How often the view is renewed, and checkpoints are thought of.
const BEAT: Duration = Duration::from_millis(250);
/// A checkpoint is made after so long, or so many bytes: what a crash can cost.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// A download is stalled when nothing came for so long.
const STALLED: Duration = Duration::from_secs(5);

/// How the transfer ended.
pub(super) enum Outcome {
    /// Every piece is verified and written.
    Complete,
    /// It was told to stop.
    Stopped,
    /// The store failed.
    Trouble(StoreError),
}

/// What a transfer works with.
pub(super) struct Transfer<'a> {
    context: Arc<Context>,
    book: &'a Book,
    view: &'a watch::Sender<DownloadView>,
    machine: Download,
    start: Instant,
    tasks: JoinSet<()>,
    sources: HashMap<PeerId, Used>,
    /// Requests of which the machine still wants to hear.
    requests: HashMap<RequestId, (PeerId, CancellationToken)>,
    found: HashSet<PeerId>,
    /// Those that were found to send bad pieces, and are remembered for it.
    banned: HashSet<PeerId>,
    generation: u64,
    actions: Vec<Action>,
    complete: bool,
    last_bytes: Instant,
    checkpoint: Checkpoint,
}

struct Used {
    source: Arc<Source>,
    cancelled: CancellationToken,
}

struct Checkpoint {
    at: Instant,
    done_bytes: u64,
    running: Option<JoinHandle<Result<(), StoreError>>>,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        context: Arc<Context>,
        book: &'a Book,
        view: &'a watch::Sender<DownloadView>,
        seed: u64,
    ) -> Self {
        let options = Options { sequential: context.spec.sequential, ..Options::default() };
        let layout = context.spec.manifest.layout();
        let machine = Download::new(layout, context.store.have(), options, seed);
        let now = Instant::now();
        Self {
            checkpoint: Checkpoint { at: now, done_bytes: machine.done_bytes(), running: None },
            context,
            book,
            view,
            machine,
            start: now,
            tasks: JoinSet::new(),
            sources: HashMap::new(),
            requests: HashMap::new(),
            found: HashSet::new(),
            banned: HashSet::new(),
            generation: 0,
            actions: Vec::new(),
            complete: false,
            last_bytes: now,
        }
    }

    /// Runs until the file is complete, the store fails or `stop`. No task of it is left when it returns, and nothing is
    /// written any more.
    pub(super) async fn run(mut self, mut news: mpsc::Receiver<News>, stop: &CancellationToken) -> Outcome {
        let outcome = self.go(&mut news, stop).await;
        self.tasks.shutdown().await;
        // Nobody hears of those any more: what they would tell is in the store.
        news.close();
        self.context.checks.done().await;
        if let Some(running) = self.checkpoint.running.take() {
            let _ = running.await;
        }
        self.show(None);
        outcome
    }

    async fn go(&mut self, news: &mut mpsc::Receiver<News>, stop: &CancellationToken) -> Outcome {
        let mut beat = interval(BEAT);
        self.feed(Event::Tick);
        self.look_into_book();
        while !self.complete {
            let wakeup = self.machine.next_wakeup().map(|at| self.start + at);
            let due = async {
                match wakeup {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Outcome::Stopped,
                Some(first) = news.recv() => {
                    let mut next = Some(first);
                    while let Some(news_item) = next.take() {
                        if let Err(error) = self.hear(news_item) {
                            return Outcome::Trouble(error);
                        }
                        next = news.try_recv().ok();
                    }
                }
                () = due => self.feed(Event::Tick),
                () = self.book.changed.notified() => self.look_into_book(),
                _ = beat.tick() => if let Err(error) = self.beat().await {
                    return Outcome::Trouble(error);
                },
            }
        }
        Outcome::Complete
    }

    fn now(&self) -> Moment {
        self.start.elapsed()
    }

    fn feed(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.machine.handle(self.now(), event, &mut actions);
        for action in actions.drain(..) {
            self.carry_out(action);
        }
        self.actions = actions;
    }

    /// The table of what is done.
    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Connect(peer) => self.connect(peer),
            Action::Request { source, request, pieces, max_pieces, in_order, replaces: _ } => {
                self.request(source, Ask { request, pieces, max_pieces, in_order });
            }
            Action::Cancel(request) => {
                if let Some((_, cancelled)) = self.requests.remove(&request) {
                    cancelled.cancel();
                }
            }
            Action::Disconnect(peer) => self.disconnect(peer),
            Action::Complete => self.complete = true,
        }
    }

    fn connect(&mut self, peer: PeerId) {
        let Some(address) = self.book.address(peer) else { return };
        self.generation += 1;
        let source =
            Arc::new(Source { link: std::sync::OnceLock::new(), generation: self.generation, address });
        let cancelled = CancellationToken::new();
        let task = source::run(self.context.clone(), source.clone());
        self.tasks.spawn(with_same_id(until(cancelled.clone(), task)));
        self.sources.insert(peer, Used { source, cancelled });
    }

    fn request(&mut self, peer: PeerId, ask: Ask) {
        let cancelled = CancellationToken::new();
        let request = ask.request;
        let link = self.sources.get(&peer).and_then(|used| used.source.link.get().cloned());
        self.requests.insert(request, (peer, cancelled.clone()));
        let context = self.context.clone();
        self.tasks.spawn(with_same_id(async move {
            match link {
                Some(link) => request::run(context, link, ask, cancelled).await,
                None => context.tell(Event::Ended(request, Err(Failure::Connection))).await,
            }
        }));
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

    /// Passes on what a task told, unless the machine was promised to hear no more of it.
    fn hear(&mut self, news: News) -> Result<(), StoreError> {
        match news {
            News::Trouble(error) => return Err(error),
            News::Source(peer, generation, event) => {
                let current =
                    self.sources.get(&peer).is_some_and(|used| used.source.generation == generation);
                if current {
                    match event {
                        Event::Disconnected(..) => self.disconnect(peer),
                        Event::Connected(..) => self.view.send_modify(|view| view.had_source = true),
                        _ => {}
                    }
                    self.feed(event);
                }
            }
            News::Request(event) => {
                let wanted = match &event {
                    Event::Verified(..) | Event::Bad(..) => true,
                    Event::Ended(request, _) => self.requests.remove(request).is_some(),
                    Event::Queued(request, _) | Event::Started(request, _) => {
                        self.requests.contains_key(request)
                    }
                    Event::Received(request, _) => {
                        self.last_bytes = Instant::now();
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

    fn look_into_book(&mut self) {
        let own = self.context.links.own_id();
        let (there, gone) = self.book.all();
        for peer in gone {
            if self.found.remove(&peer) {
                self.feed(Event::SourceGone(peer));
            }
        }
        for peer in there {
            let usable = self.book.address(peer).is_some_and(|source| is_usable(&source, own));
            if usable && self.found.insert(peer) {
                let banned = self.context.memory.is_banned(peer) && self.banned.insert(peer);
                self.feed(if banned { Event::SourceShunned(peer) } else { Event::SourceFound(peer) });
            }
        }
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        while self.tasks.try_join_next().is_some() {}
        let stalled = self.last_bytes.elapsed() >= STALLED;
        self.show(Some(stalled));
        if let Some(running) = self.checkpoint.running.take_if(|running| running.is_finished()) {
            running.await.map_err(|error| StoreError::Io(std::io::Error::other(error)))??;
        }
        let new_bytes = self.machine.done_bytes().saturating_sub(self.checkpoint.done_bytes);
        let due = self.checkpoint.at.elapsed() >= CHECKPOINT_EVERY || new_bytes >= CHECKPOINT_BYTES;
        if due && new_bytes > 0 && self.checkpoint.running.is_none() {
            let store = self.context.store.clone();
            self.checkpoint = Checkpoint {
                at: Instant::now(),
                done_bytes: self.machine.done_bytes(),
                running: Some(tokio::task::spawn_blocking(move || store.checkpoint(false))),
            };
        }
        Ok(())
    }

    /// Renews the view; with `Some`, also whether it is stalled.
    fn show(&mut self, stalled: Option<bool>) {
        let layout = self.context.spec.manifest.layout();
        let mut new = self.view.borrow().clone();
        view::update(&mut new, &self.machine, self.now(), self.book, layout);
        for source in new.sources.iter().filter(|source| source.state == SourceState::Banned) {
            if self.banned.insert(source.peer) {
                self.context.memory.ban(source.peer);
            }
        }
        match stalled {
            Some(true) => {
                new.state = DownloadState::Stalled;
                let ticket = self.context.tickets.trouble().map(|refused| refused.problem());
                new.problem = Some(ticket.unwrap_or_else(|| view::why_stalled(&new)));
            }
            Some(false) => {
                new.state = DownloadState::Downloading;
                new.problem = None;
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

async fn until(cancelled: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = task => {}
    }
}

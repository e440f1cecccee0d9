//! Decides whose turn it is: an asynchronous shell around the pure machine in [`crate::domain::upload`].

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proto::{
    domain::{FileId, PieceIndex},
    reason::Reason,
    ticket::Claims,
};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::admission::Admitted;
use crate::domain::{
    Moment,
    running::{BEAT, RunningClock},
    upload::{Action, End, Event, Options, Upload, UploadRequestId},
};

/// What a request must do now. A newer command replaces an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Wait. The number is the place in the queue.
    Wait(u32),
    /// Send the piece, then report it with [`Turn::sent`].
    Send(PieceIndex),
    /// End the request.
    End(End),
    /// End the request: it lost its right.
    Cut(Reason),
}

/// The upload slots of this peer and their queue.
pub(crate) struct UploadSlots {
    inner: Mutex<Inner>,
    start: Instant,
    /// Notified when the machine's next wake-up may have changed.
    rescheduled: Notify,
}

struct Inner {
    machine: Upload,
    clock: RunningClock,
    requests: BTreeMap<UploadRequestId, Entry>,
    next: u64,
    actions: Vec<Action>,
}

struct Entry {
    commands: watch::Sender<Command>,
    claims: Arc<Claims>,
}

/// A request's slot or place in the queue. Dropping it gives that up.
pub(crate) struct Turn {
    slots: Arc<UploadSlots>,
    request: UploadRequestId,
    commands: watch::Receiver<Command>,
}

/// The content of a request.
pub(crate) struct PieceRequest {
    pub(crate) wanted: Vec<PieceIndex>,
    pub(crate) max_pieces: u32,
    pub(crate) in_order: bool,
    pub(crate) urgent: bool,
}

impl UploadSlots {
    pub(crate) fn new(options: Options, seed: u64) -> Arc<Self> {
        let inner = Inner {
            machine: Upload::new(options, seed),
            clock: RunningClock::default(),
            requests: BTreeMap::new(),
            next: 0,
            actions: Vec::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner), start: Instant::now(), rescheduled: Notify::new() })
    }

    /// Puts a request in the queue. Its first command is available at once.
    pub(crate) fn ask(self: &Arc<Self>, who: &Admitted, ask: PieceRequest) -> Turn {
        let (sender, commands) = watch::channel(Command::Wait(0));
        let request = {
            let mut inner = self.inner.lock();
            let request = UploadRequestId(inner.next);
            inner.next += 1;
            inner.requests.insert(request, Entry { commands: sender, claims: who.claims.clone() });
            let event = Event::Asked {
                request,
                peer: who.claims.peer,
                user: who.claims.user.clone(),
                file: who.file(),
                wanted: ask.wanted,
                max_pieces: ask.max_pieces,
                in_order: ask.in_order,
                urgent: ask.urgent,
            };
            inner.handle(self.start, event);
            request
        };
        self.rescheduled.notify_one();
        Turn { slots: self.clone(), request, commands }
    }

    fn report(&self, event: Event) {
        let mut inner = self.inner.lock();
        let before = inner.machine.next_wakeup();
        inner.handle(self.start, event);
        // Rarely true: most events only report that one more chunk was sent.
        if inner.machine.next_wakeup() != before {
            self.rescheduled.notify_one();
        }
    }

    /// Ends every request for which `why` returns a reason.
    pub(crate) fn cut(&self, why: impl Fn(&Claims) -> Option<Reason>) {
        let mut inner = self.inner.lock();
        let cut: Vec<(UploadRequestId, Reason)> =
            inner.requests.iter().filter_map(|(id, entry)| Some((*id, why(&entry.claims)?))).collect();
        for (request, reason) in cut {
            if let Some(entry) = inner.requests.remove(&request) {
                entry.commands.send_replace(Command::Cut(reason));
            }
            inner.handle(self.start, Event::Left(request));
        }
    }

    /// Hands the file over for this long.
    pub(crate) fn drain(&self, file: FileId, time: Duration) {
        let mut inner = self.inner.lock();
        let until = inner.now(self.start) + time;
        inner.handle(self.start, Event::Drain(file, until));
        drop(inner);
        self.rescheduled.notify_one();
    }

    /// The number of requests that are served, and the number that wait.
    pub(crate) fn load(&self) -> (u32, u32) {
        let inner = self.inner.lock();
        (inner.machine.running() as u32, inner.machine.waiting() as u32)
    }

    /// The number of peers that are served or wait.
    pub(crate) fn readers(&self) -> u32 {
        self.inner.lock().machine.readers() as u32
    }

    /// The present upload rate, in bytes a second.
    pub(crate) fn rate(&self) -> u64 {
        let mut inner = self.inner.lock();
        let now = inner.now(self.start);
        inner.machine.rate(now) as u64
    }

    /// The upload rate of the last tenth of a second, in bytes a second.
    pub(crate) fn pace(&self) -> u64 {
        let mut inner = self.inner.lock();
        let now = inner.now(self.start);
        inner.machine.pace(now) as u64
    }

    /// Wakes the machine when it is due. Never returns.
    pub(crate) async fn keep_time(&self) {
        loop {
            // The clock must be read at least every [`BEAT`], whatever the machine waits for.
            let due = {
                let mut inner = self.inner.lock();
                let now = inner.now(self.start);
                inner.machine.next_wakeup().map_or(BEAT, |at| at.saturating_sub(now).min(BEAT))
            };
            tokio::select! {
                () = sleep(due) => {
                    let mut inner = self.inner.lock();
                    let now = inner.now(self.start);
                    if inner.machine.next_wakeup().is_some_and(|at| at <= now) {
                        inner.handle(self.start, Event::Tick);
                    }
                }
                () = self.rescheduled.notified() => {}
            }
        }
    }
}

impl Inner {
    /// The time that this program has run since `start`.
    fn now(&mut self, start: Instant) -> Moment {
        self.clock.at(start.elapsed())
    }

    fn handle(&mut self, start: Instant, event: Event) {
        let now = self.now(start);
        let mut actions = std::mem::take(&mut self.actions);
        self.machine.handle(now, event, &mut actions);
        for action in actions.drain(..) {
            let (request, command) = match action {
                Action::Queue(request, place) => (request, Command::Wait(place)),
                Action::Send(request, piece) => (request, Command::Send(piece)),
                Action::End(request, end) => (request, Command::End(end)),
            };
            if let Some(entry) = self.requests.get(&request) {
                entry.commands.send_replace(command);
            }
            if matches!(command, Command::End(_)) {
                self.requests.remove(&request);
            }
        }
        self.actions = actions;
    }
}

impl Turn {
    /// Waits for the next command.
    pub(crate) async fn next(&mut self) -> Command {
        // The sender is dropped only with the slots, or with the request after a last command.
        let _ = self.commands.changed().await;
        *self.commands.borrow_and_update()
    }

    /// The present command, if it ends the request.
    pub(crate) fn ended(&self) -> Option<Command> {
        let command = *self.commands.borrow();
        matches!(command, Command::End(_) | Command::Cut(_)).then_some(command)
    }

    /// The first command.
    pub(crate) fn first(&mut self) -> Command {
        *self.commands.borrow_and_update()
    }

    /// Reports that the transport takes more of the piece. From now on the reader waits for this peer.
    pub(crate) fn wants(&self) {
        self.slots.report(Event::Wants(self.request));
    }

    /// Reports that this number of bytes was sent.
    pub(crate) fn progress(&self, bytes: u32) {
        self.slots.report(Event::Progress(self.request, bytes));
    }

    /// Reports that the whole piece was sent.
    pub(crate) fn sent(&self) {
        self.slots.report(Event::Sent(self.request));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut inner = self.slots.inner.lock();
        inner.requests.remove(&self.request);
        inner.handle(self.slots.start, Event::Left(self.request));
        drop(inner);
        self.slots.rescheduled.notify_one();
    }
}

//! Whose turn it is: an asynchronous shell around the pure machine in [`crate::domain::upload`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use proto::{domain::PieceIndex, reason::Reason, ticket::Claims};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::admission::Admitted;
use crate::domain::{
    Moment,
    upload::{Action, End, Event, Options, RequestId, Upload},
};

/// What a request is to do now. A newer one takes the place of an older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Wait; its place in the queue.
    Wait(u32),
    /// Send the piece, then say so.
    Send(PieceIndex),
    /// End.
    End(End),
    /// End: it may not go on.
    Cut(Reason),
}

/// The uploads of this peer.
pub(crate) struct Slots {
    inner: Mutex<Inner>,
    start: Instant,
    /// The machine may want to be woken at another time than before.
    rescheduled: Notify,
}

struct Inner {
    machine: Upload,
    requests: BTreeMap<RequestId, Entry>,
    next: u64,
    actions: Vec<Action>,
}

struct Entry {
    commands: watch::Sender<Command>,
    claims: Arc<Claims>,
}

/// A request's place in the queue or slot; dropped, it is given up.
pub(crate) struct Turn {
    slots: Arc<Slots>,
    request: RequestId,
    commands: watch::Receiver<Command>,
}

/// What a request would take.
pub(crate) struct Ask {
    pub(crate) wanted: Vec<PieceIndex>,
    pub(crate) max_pieces: u32,
    pub(crate) in_order: bool,
}

impl Slots {
    pub(crate) fn new(options: Options, seed: u64) -> Arc<Self> {
        let inner = Inner {
            machine: Upload::new(options, seed),
            requests: BTreeMap::new(),
            next: 0,
            actions: Vec::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner), start: Instant::now(), rescheduled: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        self.start.elapsed()
    }

    /// Puts a request in the queue. Its first command is there at once.
    pub(crate) fn ask(self: &Arc<Self>, who: &Admitted, ask: Ask) -> Turn {
        let (sender, commands) = watch::channel(Command::Wait(0));
        let request = {
            let mut inner = self.lock();
            let request = RequestId(inner.next);
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
            };
            inner.handle(self.now(), event);
            request
        };
        self.rescheduled.notify_one();
        Turn { slots: self.clone(), request, commands }
    }

    fn tell(&self, event: Event) {
        let now = self.now();
        let mut inner = self.lock();
        let before = inner.machine.next_wakeup();
        inner.handle(now, event);
        // Rarely, for what is told here is mostly that a chunk more went out.
        if inner.machine.next_wakeup() != before {
            self.rescheduled.notify_one();
        }
    }

    /// Ends every request for which `why` finds a reason.
    pub(crate) fn cut(&self, why: impl Fn(&Claims) -> Option<Reason>) {
        let now = self.now();
        let mut inner = self.lock();
        let cut: Vec<(RequestId, Reason)> =
            inner.requests.iter().filter_map(|(id, entry)| Some((*id, why(&entry.claims)?))).collect();
        for (request, reason) in cut {
            if let Some(entry) = inner.requests.remove(&request) {
                entry.commands.send_replace(Command::Cut(reason));
            }
            inner.handle(now, Event::Left(request));
        }
    }

    /// Requests that are served, and requests that wait.
    pub(crate) fn load(&self) -> (u32, u32) {
        let inner = self.lock();
        (inner.machine.running() as u32, inner.machine.waiting() as u32)
    }

    /// Bytes a second that go out now.
    pub(crate) fn rate(&self) -> u64 {
        self.lock().machine.rate(self.now()) as u64
    }

    /// The same in the last tenth of a second.
    pub(crate) fn pace(&self) -> u64 {
        self.lock().machine.pace(self.now()) as u64
    }

    /// Wakes the machine when it wants to be woken. Never returns.
    pub(crate) async fn keep_time(&self) {
        loop {
            let wakeup = self.lock().machine.next_wakeup();
            let due = async {
                match wakeup {
                    Some(at) => sleep(at.saturating_sub(self.now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    let now = self.now();
                    self.lock().handle(now, Event::Tick);
                }
                () = self.rescheduled.notified() => {}
            }
        }
    }
}

impl Inner {
    fn handle(&mut self, now: Moment, event: Event) {
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
    /// The next command; waits until there is one.
    pub(crate) async fn next(&mut self) -> Command {
        // The sender goes only with the request, after a last command, or with the slots.
        let _ = self.commands.changed().await;
        *self.commands.borrow_and_update()
    }

    /// The command that holds now, if it ends the request.
    pub(crate) fn ended(&self) -> Option<Command> {
        let command = *self.commands.borrow();
        matches!(command, Command::End(_) | Command::Cut(_)).then_some(command)
    }

    /// The first command.
    pub(crate) fn first(&mut self) -> Command {
        *self.commands.borrow_and_update()
    }

    /// The transport takes more of the piece: what it waits for now is ours.
    pub(crate) fn wants(&self) {
        self.slots.tell(Event::Wants(self.request));
    }

    /// So many bytes went out.
    pub(crate) fn progress(&self, bytes: u32) {
        self.slots.tell(Event::Progress(self.request, bytes));
    }

    /// The piece went out whole.
    pub(crate) fn sent(&self) {
        self.slots.tell(Event::Sent(self.request));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = self.slots.now();
        let mut inner = self.slots.lock();
        inner.requests.remove(&self.request);
        inner.handle(now, Event::Left(self.request));
        drop(inner);
        self.slots.rescheduled.notify_one();
    }
}

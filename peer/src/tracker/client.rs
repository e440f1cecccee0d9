//! The daemon's client of its trackers: which of them is called, and what happens when it does not answer.
//!
//! The network may have several trackers, and any of them answers every call. [`Trackers`] chooses. Here its
//! choice is carried out: [`TrackerClient::ask`] makes a call over the [`Line`] to the current tracker, and
//! repeats it over another one if the first does not answer. A repeated call has the id of the first, by which
//! the trackers recognise a change that was already made.

use std::{future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use peer_core::trackers::Trackers;
use proto::reason::{Reason, retry_after};
use tokio::{sync::Notify, time::Instant};
use tonic::Status;

use super::{
    line::{Line, Network, TrackerAddress},
    list::TrackerList,
};
use crate::error::PeerError;

/// How long a call that exceeds a rate is repeated before its caller is told.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The daemon's client of its trackers. Cheap to clone: all clones share the choice and the channels.
#[derive(Clone, Debug)]
pub(crate) struct TrackerClient {
    network: Arc<Network>,
    choice: Arc<Choice>,
}

/// The choice among the trackers.
#[derive(Debug)]
struct Choice {
    trackers: Mutex<Trackers>,
    /// A tracker that had failed has answered.
    back: Notify,
    begin: Instant,
}

impl TrackerClient {
    /// Creates the client. Reads no file and connects to nothing yet.
    pub(crate) fn new(address: TrackerAddress) -> Self {
        let trackers = Trackers::new(address.trackers.urls().len(), rand::random());
        let choice = Choice { trackers: Mutex::new(trackers), back: Notify::new(), begin: Instant::now() };
        Self { network: Network::new(address), choice: Arc::new(choice) }
    }

    /// The trackers of the network.
    pub(crate) fn trackers(&self) -> &TrackerList {
        &self.network.address().trackers
    }

    /// The line to the current tracker.
    pub(crate) fn line(&self) -> Line {
        Line::new(&self.network, self.choice.trackers.lock().current())
    }

    /// The lines to all trackers.
    pub(crate) fn lines(&self) -> Vec<Line> {
        (0..self.trackers().urls().len()).map(|which| Line::new(&self.network, which)).collect()
    }

    /// Sets the token of all later calls.
    pub(crate) fn set_token(&self, token: Option<&str>) {
        self.network.set_token(token);
    }

    /// Makes a call over the line to the current tracker. If that tracker does not answer, or no longer serves,
    /// the call is repeated over the lines to the others, each once.
    ///
    /// # Errors
    /// Those of the last call, and why the other trackers did not answer.
    pub(crate) async fn ask<T, F>(&self, mut call: impl FnMut(Line) -> F) -> Result<T, PeerError>
    where
        F: Future<Output = Result<T, PeerError>>,
    {
        let (mut line, mut tried) = (self.line(), Vec::new());
        loop {
            let error = match call(line.clone()).await {
                Err(error) if error.is_tracker_away() => error,
                outcome => {
                    if matches!(&outcome, Ok(_) | Err(PeerError::Tracker(_))) {
                        self.answered(&line);
                    }
                    return outcome;
                }
            };
            self.failed(&line);
            tried.push((line.number(), error));
            let is_new = |line: &Line| tried.iter().all(|(number, _)| *number != line.number());
            let mut others = std::iter::once(self.line()).chain(self.lines());
            line = match others.find(is_new) {
                Some(other) => other,
                // A name that stands for several trackers is dialled a second time.
                None if tried.len() == 1 && self.has_spares() => line,
                None => return Err(PeerError::no_tracker(tried.into_iter().map(|(_, error)| error))),
            };
        }
    }

    /// As [`Self::ask`], and repeats the call for as long as the tracker asks for a pause and [`PATIENCE`] allows
    /// it.
    ///
    /// # Errors
    /// Those of the last call.
    pub(crate) async fn patiently<T, F>(&self, mut call: impl FnMut(Line) -> F) -> Result<T, PeerError>
    where
        F: Future<Output = Result<T, PeerError>>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.ask(&mut call).await;
            match &outcome {
                Err(PeerError::Tracker(status)) if pause(status, deadline).await => {}
                _ => return outcome,
            }
        }
    }

    /// The CA that certifies the trackers and all peers.
    ///
    /// # Errors
    /// [`PeerError::TrackerUnreachable`] or [`PeerError::AuthorityUnknown`] while it is not known.
    pub(crate) async fn ca_pem(&self) -> Result<Arc<str>, PeerError> {
        self.ask(async |line| line.ca_pem().await).await
    }

    /// Whether a call that fails may reach another tracker when it is repeated.
    pub(crate) fn has_spares(&self) -> bool {
        self.network.has_spares()
    }

    /// Notes that a tracker has answered.
    pub(crate) fn answered(&self, line: &Line) {
        if self.choice.trackers.lock().answered(line.number()) {
            self.choice.back.notify_waiters();
        }
    }

    /// Notes that a tracker does not answer, and closes the channel to it. Another one is the current one from now
    /// on.
    pub(crate) fn failed(&self, line: &Line) {
        let (now, trackers) = (self.choice.begin.elapsed(), self.trackers().urls());
        let next = {
            let mut choice = self.choice.trackers.lock();
            let before = choice.current();
            choice.failed(now, line.number(), rand::random());
            trackers.get(choice.current()).filter(|_| choice.current() != before)
        };
        if let Some(next) = next {
            tracing::warn!(
                tracker = line.url(),
                next,
                "the tracker does not answer; going on with another one"
            );
        }
        if self.has_spares() {
            line.close();
        }
    }

    /// Waits until the current tracker may be tried without a user who asks for it, or until a tracker answers.
    pub(crate) async fn due(&self) {
        let back = self.choice.back.notified();
        let wait = self.choice.trackers.lock().due().saturating_sub(self.choice.begin.elapsed());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = back => {}
        }
    }
}

/// If the tracker refused a call because of its rate, waits for as long as it asks. Returns whether the call
/// should be repeated now: that is so if the wait ends before `deadline`.
pub(crate) async fn pause(status: &Status, deadline: Instant) -> bool {
    let wait = retry_after(status).filter(|_| Reason::of(status) == Some(Reason::RateLimited));
    // Several callers that were refused together don't come back together.
    let Some(until) = wait.map(|wait| Instant::now() + wait + wait.mul_f64(rand::random_range(0.0..0.5)))
    else {
        return false;
    };
    if until > deadline {
        return false;
    }
    tokio::time::sleep_until(until).await;
    true
}

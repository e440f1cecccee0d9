//! Counts guesses of passwords: in the database if other trackers share it, else in memory.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    domain::{
        Refusal,
        throttle::{Counts, Key, Login, Step, Throttle, Wait, for_account},
    },
    error::TrackerError,
    store::Store,
};

/// The database is not asked again about a key for this long after it refused a guess, so that guesses that are refused
/// anyway are no load for it. No longer, because a right password at another tracker ends the wait.
const REMEMBERED: Duration = Duration::from_secs(1);
/// The most keys that are remembered.
const MOST_REMEMBERED: usize = 10_000;

/// The counts of all guesses.
pub(super) struct Guesses {
    store: Arc<dyn Store>,
    /// The lock is held for a few map operations at a time.
    here: Mutex<Throttle>,
    /// What the database refused lately: until when to wait, and when it was refused.
    refused: Mutex<HashMap<Key, (Instant, Instant)>>,
    began: Instant,
}

impl Guesses {
    /// No guess is counted yet. The counts of trackers that share the store are in it.
    pub(super) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, here: Mutex::default(), refused: Mutex::default(), began: Instant::now() })
    }

    /// Counts a guess before the password is checked.
    ///
    /// # Errors
    /// [`Refusal::Throttled`]; store errors.
    pub(super) async fn start(guesses: &Arc<Self>, login: Login) -> Result<Guess, TrackerError> {
        guesses.recall(&login)?;
        let counts = guesses.step(&login, Step::Start).await?;
        let for_account = for_account(&counts);
        Ok(Guess { guesses: Arc::clone(guesses), login, for_account, is_open: true })
    }

    async fn step(&self, login: &Login, step: Step) -> Result<Counts, TrackerError> {
        let counted = match self.store.shared() {
            Some(shared) => shared.count_login(login, step).await?,
            None => self.step_here(login, step),
        };
        counted.map_err(|Wait { key, time }| {
            self.remember(key, time);
            Refusal::Throttled(time).into()
        })
    }

    /// Refuses a login that the database refused just before.
    fn recall(&self, login: &Login) -> Result<(), TrackerError> {
        let (refused, now) = (self.refused.lock(), Instant::now());
        let recent = |(until, at): &(Instant, Instant)| {
            let wait = until.saturating_duration_since(now);
            (now.duration_since(*at) < REMEMBERED && !wait.is_zero()).then_some(wait)
        };
        let wait = login.keys().iter().flatten().find_map(|key| refused.get(key).and_then(recent));
        wait.map_or(Ok(()), |wait| Err(Refusal::Throttled(wait).into()))
    }

    fn remember(&self, key: Key, wait: Duration) {
        // A network that is known to the account is let in whatever the account's own count is.
        if self.store.shared().is_none() || matches!(key, Key::Account(_)) {
            return;
        }
        let (mut refused, now) = (self.refused.lock(), Instant::now());
        if refused.len() >= MOST_REMEMBERED {
            refused.retain(|_, (_, at)| now.duration_since(*at) < REMEMBERED);
        }
        if refused.len() < MOST_REMEMBERED {
            refused.insert(key, (now + wait, now));
        }
    }

    fn step_here(&self, login: &Login, step: Step) -> Result<Counts, Wait> {
        self.here.lock().step(login, step, self.began.elapsed())
    }
}

/// A counted guess. It is taken back if it is dropped before its outcome is known.
pub(super) struct Guess {
    guesses: Arc<Guesses>,
    login: Login,
    for_account: bool,
    is_open: bool,
}

impl Guess {
    /// The password was wrong. The failure stays counted.
    pub(super) fn was_wrong(mut self) {
        self.is_open = false;
    }

    /// The password was right.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) async fn was_right(mut self) -> Result<(), TrackerError> {
        let right = Step::Right { for_account: self.for_account };
        self.guesses.step(&self.login, right).await?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for Guess {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        let undone = Step::Undone { for_account: self.for_account };
        if self.guesses.store.shared().is_none() {
            // Only the start of a login can be refused.
            let _ = self.guesses.step_here(&self.login, undone);
            return;
        }
        let (guesses, login) = (Arc::clone(&self.guesses), self.login.clone());
        // Outside a runtime, or if the store does not answer, it stays counted.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { guesses.step(&login, undone).await });
        }
    }
}

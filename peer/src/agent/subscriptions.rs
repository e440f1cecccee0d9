//! Subscriptions: what is published in a group is downloaded by itself.
//!
//! The announce stream brings news of single files, and says when the group must be listed: after each opening of
//! the stream, because files may have been published before. [`Seen`] decides what is started. Nothing is polled; only
//! what failed for a reason that may pass, such as a full disk, is tried again after [`AGAIN`].

use std::{collections::BTreeSet, mem, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future;
use proto::{convert, domain::GroupId, pb, reason::Reason};
use tokio::sync::watch::Receiver;

use super::{Agent, DownloadOptions, Login, news::Told};
use crate::{
    domain::subscription::{Listed, Seen},
    engine::{DownloadState, DownloadView},
    error::PeerError,
    library::Entry,
    patterns::{Exceptions, Patterns},
    storage,
    subscriptions::Subscription,
    tracker::line::Line,
};

/// The time between two tries of what failed for a reason that may pass.
const AGAIN: Duration = Duration::from_secs(30);
/// The number of downloads that may be under way when a subscription starts another one. More would only share the
/// same bandwidth.
const AT_ONCE: usize = 32;
/// The most patterns of a subscription.
const MOST_PATTERNS: usize = 64;
/// The most pages of a group's list that are fetched, of 1,000 files each. A group has 10,000 files at most.
const PAGES: u32 = 100;

/// What a subscription is to be.
pub(crate) struct NewSubscription {
    pub group: GroupId,
    /// Made if missing.
    pub directory: PathBuf,
    pub patterns: Vec<String>,
    /// Also what is published already.
    pub existing: bool,
    /// Also new versions.
    pub update: bool,
    pub umask: u32,
    /// Runs after each download. Empty for none.
    pub exec: Vec<String>,
}

/// Whether a download that could not be started may be startable later.
fn may_pass(error: &PeerError) -> bool {
    error.is_tracker_away()
        || matches!(
            error.reason(),
            Reason::RateLimited
                | Reason::Busy
                | Reason::TooSlow
                | Reason::Deadline
                | Reason::DiskFull
                | Reason::Io
                | Reason::PathNotFound
                | Reason::NotPermitted
                | Reason::NotLoggedIn
        )
}

impl Agent {
    /// Subscribes to a group: downloads what is published in it from now on.
    ///
    /// # Errors
    /// Fails when a pattern is malformed, when the tracker refuses or can't be reached, or when the directory can't be
    /// made.
    pub(crate) async fn subscribe(&self, new: NewSubscription) -> Result<(), PeerError> {
        let login = self.login_now()?;
        if new.patterns.len() > MOST_PATTERNS {
            return Err(PeerError::Pattern(format!("a subscription has at most {MOST_PATTERNS} patterns")));
        }
        Patterns::new(&new.patterns, Exceptions::Allowed).map_err(PeerError::Pattern)?;
        let NewSubscription { group, directory, patterns, existing, update, umask, exec } = new;
        let work = async {
            let _turn = login.news.turn.lock().await;
            let listed = self.listed(&group).await?;
            storage::make_directories(&directory, umask)
                .map_err(|error| PeerError::Io { path: directory.clone(), error })?;
            let seen = if existing { Seen::default() } else { listed.into_iter().collect() };
            let group = group.clone();
            let (started, problem) = (0, None);
            let new =
                Subscription { group, directory, patterns, update, umask, exec, started, seen, problem };
            login.subscriptions.put(new).map_err(|error| self.home_error(error))
        };
        login.within(work).await?;
        login.news.unlisted([group]);
        Ok(())
    }

    /// Returns all subscriptions.
    ///
    /// # Errors
    /// Fails when nobody is logged in.
    pub(crate) fn subscriptions(&self) -> Result<Vec<Subscription>, PeerError> {
        Ok(self.login_now()?.subscriptions.all())
    }

    /// Ends the subscription of a group. Its downloads go on.
    ///
    /// # Errors
    /// Fails when there is none.
    pub(crate) fn unsubscribe(&self, group: &GroupId) -> Result<(), PeerError> {
        let removed = self.login_now()?.subscriptions.remove(group);
        if removed.map_err(|error| self.home_error(error))? {
            Ok(())
        } else {
            Err(PeerError::NotSubscribed(group.clone()))
        }
    }

    /// Handles the news of a login's subscriptions, for as long as it lasts.
    pub(super) async fn follow_subscriptions(self: &Arc<Self>, login: &Login) {
        let mut failed = BTreeSet::new();
        loop {
            let again = async {
                if failed.is_empty() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(AGAIN).await;
            };
            let told = tokio::select! {
                () = login.news.arrived.notified() => mem::take(&mut *login.news.told.lock()),
                () = again => Told { groups: mem::take(&mut failed), ..Told::default() },
            };
            for subscription in login.subscriptions.all() {
                let group = &subscription.group;
                let lists = told.everything || told.groups.contains(group);
                let of_group = told.published.iter().filter(|(of, _)| of == group);
                let named: Vec<_> = of_group.map(|(_, listed)| listed.clone()).collect();
                if !lists && named.is_empty() {
                    continue;
                }
                failed.remove(group);
                let taken = self.take_news(login, &subscription, (!lists).then_some(named)).await;
                if let Err(error) = taken {
                    tracing::warn!(%group, %error, "a subscription does not get what it should");
                    login.note_subscription(group, |kept| kept.problem = Some(error.to_string()));
                    if may_pass(&error) {
                        failed.insert(group.clone());
                    }
                }
            }
        }
    }

    /// Starts what a subscription wants of the files that were `named`, or of all of its group.
    ///
    /// # Errors
    /// Fails with what keeps the rest from being started.
    async fn take_news(
        self: &Arc<Self>,
        login: &Login,
        subscription: &Subscription,
        named: Option<Vec<Listed>>,
    ) -> Result<(), PeerError> {
        let group = &subscription.group;
        let patterns =
            Patterns::new(&subscription.patterns, Exceptions::Allowed).map_err(PeerError::Pattern)?;
        let turn = login.news.turn.lock().await;
        let is_whole = named.is_none();
        let mut listed = match named {
            Some(named) => named,
            None => self.listed(group).await?,
        };
        let wanted = login.note_subscription(group, |kept| {
            if is_whole {
                kept.seen.keep_listed(&listed);
                kept.problem = None;
            }
            listed.retain(|listed| !login.news.is_publishing(group, &listed.name));
            let has = |file| login.library.find_file(file).is_some();
            kept.seen.sift(listed, kept.update, |name| patterns.pick(name.as_str(), false), has)
        });
        drop(turn);
        for listed in wanted.unwrap_or_default() {
            self.wait_for_others(login).await;
            let stands = |kept: Subscription| kept.directory == subscription.directory;
            if !login.subscriptions.find(group).is_some_and(stands) {
                return Ok(());
            }
            let options = DownloadOptions {
                only: Vec::new(),
                destination: subscription.directory.join(listed.name.as_str()),
                make_parents: false,
                sequential: false,
                verify: false,
                repair: false,
                umask: subscription.umask,
                exec: subscription.exec.clone(),
            };
            // A copy elsewhere is not this subscription's to change.
            let here = std::fs::canonicalize(&subscription.directory).ok();
            let entry = login.library.find(group, &listed.name);
            let is_here = entry.is_some_and(|entry| entry.path.parent() == here.as_deref());
            let begun = match is_here && subscription.update {
                true => self.update(group, &listed.name, subscription.umask).await.map(drop),
                false => self.download(group, &listed.name, options).await,
            };
            let problem = match begun {
                Ok(()) => None,
                // It was unpublished meanwhile.
                Err(error) if error.reason() == Reason::FileNotFound => continue,
                Err(error) if may_pass(&error) || error.reason() == Reason::NotAMember => return Err(error),
                Err(error) => Some(format!("{}: {error}", listed.name)),
            };
            match &problem {
                None => tracing::info!(%group, name = %listed.name, "a subscription downloads a file"),
                Some(problem) => tracing::warn!(%group, problem, "a subscription leaves a file out"),
            }
            login.note_subscription(group, |kept| {
                kept.started += u64::from(problem.is_none());
                kept.problem = problem;
                kept.seen.note(listed);
            });
        }
        Ok(())
    }

    /// Waits until fewer than [`AT_ONCE`] downloads are under way. One without sources does not count.
    async fn wait_for_others(&self, login: &Login) {
        let is_busy = |view: &DownloadView| {
            matches!(
                view.state,
                DownloadState::Queued | DownloadState::Downloading | DownloadState::Verifying
            )
        };
        loop {
            let unfinished = login.library.entries_where(Entry::is_unfinished);
            let views = unfinished.into_iter().filter_map(|entry| self.engine().watch(entry.file));
            // The view of a download that has ended is closed.
            let is_going_on = |view: &Receiver<_>| view.has_changed().is_ok() && is_busy(&view.borrow());
            let busy: Vec<_> = views.filter(is_going_on).collect();
            if busy.len() < AT_ONCE {
                return;
            }
            let ends = busy.into_iter().map(|mut view| {
                Box::pin(async move { view.wait_for(|view| !is_busy(view)).await.map(drop) })
            });
            // Whichever it was, they are counted again.
            let _ = future::select_all(ends).await;
        }
    }

    /// The files that a group lists. Entries that are not valid are left out.
    async fn listed(&self, group: &GroupId) -> Result<Vec<Listed>, PeerError> {
        let listed = |file: pb::File| {
            let name = convert::file_name(&file.header?.name).ok()?;
            Some(Listed { name, file: convert::file_id(&file.file_id).ok()? })
        };
        Ok(self.files_of(group).await?.into_iter().filter_map(listed).collect())
    }

    /// All pages of the list of a group's files.
    pub(super) async fn files_of(&self, group: &GroupId) -> Result<Vec<pb::File>, PeerError> {
        let mut all = Vec::new();
        let mut request =
            pb::ListFilesRequest { group_id: group.to_string(), page_size: 1_000, page_token: String::new() };
        for _ in 0..PAGES {
            let ask = async |line: Line| {
                let mut files = line.files().await?;
                line.within(files.list_files(request.clone())).await
            };
            let page = self.tracker().patiently(ask).await?;
            all.extend(page.files);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
        Err(PeerError::TrackerAnswer(format!("the list of the files of {group} does not end")))
    }

    fn home_error(&self, error: std::io::Error) -> PeerError {
        PeerError::Io { path: self.parts.home.directory().to_owned(), error }
    }
}

impl Login {
    /// Changes a subscription, if it is there. If it can't be written, the error is only logged: the same files are
    /// looked at again after a restart.
    fn note_subscription<T>(
        &self,
        group: &GroupId,
        change: impl FnOnce(&mut Subscription) -> T,
    ) -> Option<T> {
        self.subscriptions.update(group, change).unwrap_or_else(|error| {
            tracing::error!(%error, "the subscriptions can't be written");
            None
        })
    }

    /// Lists the groups again whose subscriptions had a problem, if they are among these.
    pub(super) fn retry_subscriptions(&self, groups: &[GroupId]) {
        let waits = |kept: &Subscription| kept.problem.is_some() && groups.contains(&kept.group);
        let waiting: Vec<_> = self.subscriptions.all().into_iter().filter(waits).collect();
        if !waiting.is_empty() {
            self.news.unlisted(waiting.into_iter().map(|kept| kept.group));
        }
    }
}

//! The tasks of a login: renewing the certificate, announcing, and following downloads to their end.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use proto::{
    domain::{FileId, FileName, GroupId, Manifest, PIECE_LENGTH, folder::Folder},
    reason::Reason,
};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
};

use super::{Agent, Login};
use crate::{
    download::lifecycle::way_out,
    engine::{
        DownloadSpec, DownloadState, DownloadView, EngineError, LocalCopy, Problem, ShareSpec, TicketRefused,
        TicketSource as _,
    },
    error::PeerError,
    hashing::FileStamp,
    hooks::{Event, Facts},
    library::{DownloadEntry, Entry, Phase},
    paths::word,
    storage::Original,
    tracker::{
        announcer::{AnnounceEvent, Announcer},
        manifests,
        outage::Outage,
    },
};

/// The time between two questions to the tracker whether a file really ended, while it does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A download that takes longer is noted as begun: from then on, its unfinished data must be there.
const BRIEF: Duration = Duration::from_secs(1);
/// How often the progress of a long download is noted, at most. It is shown when the unfinished data is gone.
const NOTES: u64 = 16;
/// The number of files that may be hashed again at the start before their stamps are written. Writing each by
/// itself would take longer than the hashing.
const STAMPS: usize = 1_000;
/// The time between two checks of the certificate's age. It is short because the clock may be set in between.
const RENEWAL_CHECK: Duration = Duration::from_secs(30);
/// The shortest and the longest time between attempts to get a certificate.
const CERTIFY_AGAIN: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);

impl Agent {
    pub(super) fn start_tasks(self: &Arc<Self>, login: &Arc<Login>) {
        let (sender, events) = mpsc::channel(64);
        let spawn = |task: &str, work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            tracing::debug!(task, "starting");
            let stop = login.stop.clone();
            login.tasks.spawn(async move { stop.run_until_cancelled(work).await });
        };
        let (agent, for_login) = (Arc::clone(self), Arc::clone(login));
        spawn("certificate", Box::pin(async move { agent.keep_certified(&for_login).await }));
        let (agent, for_login) = (Arc::clone(self), Arc::clone(login));
        spawn("library", Box::pin(async move { agent.restore(&for_login).await }));
        let (agent, for_login) = (Arc::clone(self), Arc::clone(login));
        spawn("subscriptions", Box::pin(async move { agent.follow_subscriptions(&for_login).await }));
        // It ends by itself, after it has told the tracker that this peer leaves.
        let (agent, for_login) = (Arc::clone(self), Arc::clone(login));
        login.tasks.spawn(async move { agent.announce(&for_login, sender).await });
        // This is not one of the login's own tasks: it may have to end the login, which waits for those.
        let (agent, for_login) = (Arc::clone(self), Arc::clone(login));
        tokio::spawn(async move { agent.heed(&for_login, events).await });
    }

    /// Gets a certificate if there is none, and renews it in time.
    async fn keep_certified(&self, login: &Login) {
        let mut pause = *CERTIFY_AGAIN.start();
        let mut outage = Outage::default();
        loop {
            let renew_at = self.parts.identity.borrow().as_ref().map(|identity| identity.renew_at());
            if renew_at.is_some_and(|at| SystemTime::now() < at) {
                tokio::time::sleep(RENEWAL_CHECK).await;
                continue;
            }
            match self.certify(&login.key).await {
                Ok(identity) => {
                    tracing::info!(peer = %identity.peer, "the certificate was renewed");
                    outage.over(Instant::now());
                    self.adopt(identity);
                    pause = *CERTIFY_AGAIN.start();
                }
                Err(error) => {
                    if let Some(tries) = outage.failed(Instant::now()) {
                        tracing::warn!(%error, tries, "the certificate could not be renewed; retrying");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(*CERTIFY_AGAIN.end());
                }
            }
        }
    }

    /// Announces once there is a certificate. Without one, nobody could fetch anything from this peer.
    async fn announce(&self, login: &Login, events: mpsc::Sender<AnnounceEvent>) {
        let mut identity = self.parts.identity.subscribe();
        let certified = login.stop.run_until_cancelled(identity.wait_for(Option::is_some)).await;
        if certified.is_none_or(|certified| certified.is_err()) {
            return;
        }
        let announcer = Announcer {
            tracker: self.parts.tracker.clone(),
            engine: self.parts.engine.clone(),
            user: login.session.user.clone(),
            peer: login.key.peer(),
            listen: self.parts.listen,
            advertise: self.parts.advertise.clone(),
            state: self.announce.clone(),
            events,
            outage: Default::default(),
        };
        announcer.run(login.stop.clone()).await;
    }

    /// Carries out what the tracker demands. Ends with the announcer.
    ///
    /// Files are settled concurrently, so that the wait for an answer about one file does not delay other
    /// events.
    async fn heed(self: Arc<Self>, login: &Arc<Login>, mut events: mpsc::Receiver<AnnounceEvent>) {
        let mut settling = FuturesUnordered::new();
        // The files that are being settled, and whether the tracker has reported something about them since.
        let mut files: HashMap<FileId, bool> = HashMap::new();
        let mut known = KnownGroups::default();
        loop {
            let mut due = Vec::new();
            tokio::select! {
                event = events.recv() => match event {
                    Some(AnnounceEvent::FileEnded(group, file)) => due.push((group, file)),
                    Some(AnnounceEvent::Opened) => {
                        known.is_complete = true;
                        login.news.stream_opened();
                    }
                    Some(AnnounceEvent::Published(group, listed)) => {
                        let (group, name) = (group, Some(listed.name.clone()));
                        let facts = Facts { event: Event::Published, group: group.clone(), name, path: None };
                        self.parts.hooks.run(&facts, &[]);
                        login.news.published(group, listed);
                    }
                    Some(AnnounceEvent::Unlisted(groups)) => login.news.unlisted(groups),
                    Some(AnnounceEvent::EpochsTold(groups)) => {
                        login.retry_subscriptions(&groups);
                        for group in known.note(&groups) {
                            let facts = Facts { event: Event::Joined, group, name: None, path: None };
                            self.parts.hooks.run(&facts, &[]);
                        }
                        let waits = |entry: &Entry| {
                            groups.contains(&entry.group)
                                && (files.contains_key(&entry.file) || login.waits_for_membership(entry))
                        };
                        let entries = login.library.entries_where(waits);
                        due.extend(entries.into_iter().map(|entry| (entry.group, entry.file)));
                    }
                    Some(AnnounceEvent::SessionOver) => break,
                    None => return,
                },
                Some(settled) = settling.next() => match settled {
                    Ok((group, file)) => if files.remove(&file) == Some(true) {
                        due.push((group, file));
                    },
                    // The login is over.
                    Err(_) => return,
                },
            }
            for (group, file) in due {
                let is_known = login.library.find_file(file).is_some_and(|entry| entry.group == group);
                if let Some(again) = files.get_mut(&file) {
                    *again = true;
                } else if is_known {
                    files.insert(file, false);
                    let agent = &self;
                    settling.push(async move {
                        let settled = login.within(async {
                            agent.settle(login, &group, file).await;
                            Ok(())
                        });
                        settled.await.map(|()| (group, file))
                    });
                }
            }
        }
        // These futures are part of the login, and the end of the login waits for them.
        drop(settling);
        self.session_ended(login).await;
    }

    /// Asks the tracker whether this user may share and download the file, and acts on the answer. The
    /// tracker has reported that the right ended, in which case the engine has already stopped serving the
    /// file, or that it may have come back.
    async fn settle(&self, login: &Login, group: &GroupId, file: FileId) {
        let Some(entry) = login.library.find_file(file).filter(|entry| entry.group == *group) else { return };
        // A ticket from just before would count as a new one.
        self.parts.tickets.forget_file(file);
        let reason = loop {
            match self.parts.tickets.ticket(group, file, true).await {
                Ok(_) => return self.may_share(login, &entry).await,
                Err(TicketRefused::Denied(Reason::NotAMember)) => break Reason::NotAMember,
                // No file of this id. Another one may have its name.
                Err(TicketRefused::Denied(reason)) => {
                    match manifests::current(self.tracker(), group, &entry.name).await {
                        Ok(current) if current != file => break Reason::NewVersion,
                        Err(PeerError::Tracker(_)) => break reason,
                        Ok(_) | Err(_) => tokio::time::sleep(ASK_AGAIN).await,
                    }
                }
                Err(TicketRefused::Unavailable(_)) => tokio::time::sleep(ASK_AGAIN).await,
            }
        };
        self.may_not_share(login, &entry, reason).await;
    }

    /// Serves a file again. A share that ended because the user was no member begins anew.
    async fn may_share(&self, login: &Login, entry: &Entry) {
        let file = entry.file;
        self.parts.engine.allow(file);
        if !login.waits_for_membership(entry) {
            return;
        }
        tracing::info!(group = %entry.group, name = %entry.name, "a file is shared again, because its user is a member again");
        login.set_problem(file, None);
        // A file that has changed is hashed, which may take long. Verbs don't wait for that.
        let shared = self.run_share(login, entry).await;
        let _guard = login.files.lock().await;
        if !login.library.find_file(file).is_some_and(|entry| entry.is_whole() && entry.shared) {
            self.parts.engine.unshare(file);
            return;
        }
        match shared {
            Ok(stamp) => login.note_stamps(&stamp.map(|stamp| (file, stamp)).into_iter().collect()),
            Err(error) => {
                let problem = Problem { reason: error.reason(), message: error.to_string() };
                self.share_later(login, entry, problem).await;
            }
        }
    }

    /// Ends a file's share and download. What is on disk stays.
    async fn may_not_share(&self, login: &Login, entry: &Entry, reason: Reason) {
        let (group, file) = (&entry.group, entry.file);
        tracing::info!(%group, name = %entry.name, reason = reason.as_str(), "the tracker ended the sharing of a file");
        let _guard = login.files.lock().await;
        let is_unfinished = entry.is_unfinished();
        let (group_word, name_word) = (word(group), word(&entry.name));
        let message = match (reason, is_unfinished) {
            (Reason::NotAMember, _) => "you are not a member of the group".to_owned(),
            (Reason::NewVersion, true) if entry.replaces().is_some() => format!(
                "a new version of the file took its place; `peer update {group_word} {name_word}` goes on with that one"
            ),
            (Reason::NewVersion, true) => format!(
                "a new version of the file took its place; `peer download {group_word} {name_word}` with the same \
                 destination downloads that one"
            ),
            (Reason::NewVersion, false) => outdated(entry).message,
            _ => "the file was unpublished from the group".to_owned(),
        };
        if is_unfinished {
            // The phase is set before the stop, so that nobody takes the end for a stop by the user. It is set
            // again afterwards, with the bytes that the download ended with.
            let was_active = entry.phase() == Some(&Phase::Active);
            let fail = || {
                if was_active {
                    self.set_phase(login, file, Phase::failed(reason, message.clone()));
                }
            };
            fail();
            if let Err(error) = self.parts.engine.stop(file, false).await {
                tracing::debug!(%error, "the download has ended");
            }
            fail();
        } else {
            self.parts.engine.unshare(file);
            login.set_problem(file, Some(Problem { reason, message }));
            match reason {
                // The user can become a member again.
                Reason::NotAMember => {}
                // The copy is still this user's, and stays listed.
                Reason::NewVersion => login.update(file, |entry| entry.outdated = true),
                // An unpublished file never comes back under this id.
                _ => login.forget_share(entry),
            }
        }
    }

    /// Starts all shares and unfinished downloads of the library. Verbs may change the library meanwhile, and
    /// what they did counts: nothing is started that was stopped since.
    async fn restore(self: &Arc<Self>, login: &Arc<Login>) {
        let mut stamps = HashMap::new();
        let files: Vec<FileId> = login.library.entries().into_iter().map(|entry| entry.file).collect();
        for file in files {
            let mut guard = login.files.lock().await;
            let Some(entry) = login.library.find_file(file) else { continue };
            let taken_up = if entry.phase() == Some(&Phase::Active) {
                if self.runs(&entry) {
                    continue;
                }
                self.run_kept_download(login, &entry).await.map(|()| None)
            } else if entry.outdated {
                login.set_problem(file, Some(outdated(&entry)));
                continue;
            } else if entry.is_whole() && entry.shared {
                // A file that has changed is hashed, which may take long. Verbs don't wait for that.
                drop(guard);
                let shared = self.run_share(login, &entry).await;
                guard = login.files.lock().await;
                if !login.library.find_file(file).is_some_and(|entry| entry.is_whole() && entry.shared) {
                    self.parts.engine.unshare(file);
                    continue;
                }
                shared
            } else {
                continue;
            };
            match taken_up {
                Ok(stamp) => stamps.extend(stamp.map(|stamp| (entry.file, stamp))),
                Err(error) => {
                    tracing::warn!(group = %entry.group, name = %entry.name, %error, "an entry of the library can't be resumed");
                    let problem = Problem { reason: error.reason(), message: error.to_string() };
                    if entry.is_unfinished() {
                        let message = format!("{}; {}", problem.message, way_out(&entry.group, &entry.name));
                        self.set_phase(login, entry.file, Phase::failed(problem.reason, message));
                    } else {
                        self.share_later(login, &entry, problem).await;
                    }
                }
            }
            drop(guard);
            if stamps.len() >= STAMPS {
                login.note_stamps(&std::mem::take(&mut stamps));
            }
        }
        login.note_stamps(&stamps);
    }

    /// Shares a complete file of the library. Returns its stamp if the library has another one.
    pub(super) async fn run_share(
        &self,
        login: &Login,
        entry: &Entry,
    ) -> Result<Option<FileStamp>, PeerError> {
        let stamp = self.parts.engine.share(login.share_spec(entry).await?).await?;
        login.set_problem(entry.file, None);
        Ok(stamp.filter(|stamp| entry.stamp != Some(*stamp)))
    }

    /// Keeps a share that can't be offered now, perhaps because its drive is not attached. The engine tries it
    /// again.
    pub(super) async fn share_later(&self, login: &Login, entry: &Entry, problem: Problem) {
        match login.share_spec(entry).await {
            Ok(spec) => self.parts.engine.share_later(spec, problem),
            Err(_) => login.set_problem(entry.file, Some(problem)),
        }
    }

    /// As [`Self::run_download`], with the saved manifest.
    pub(super) async fn run_kept_download(
        self: &Arc<Self>,
        login: &Arc<Login>,
        entry: &Entry,
    ) -> Result<(), PeerError> {
        let manifest = login.manifest(entry).await?;
        self.run_download(login, entry, manifest).await
    }

    /// Starts a download of the library in the engine, and follows it to its end.
    pub(super) async fn run_download(
        self: &Arc<Self>,
        login: &Arc<Login>,
        entry: &Entry,
        manifest: Arc<Manifest>,
    ) -> Result<(), PeerError> {
        let copy = local_copy(login, entry, &manifest).await?;
        let options = entry.download.as_ref();
        let spec = DownloadSpec {
            group: entry.group.clone(),
            file: entry.file,
            manifest,
            destination: entry.path.clone(),
            sequential: options.is_some_and(|options| options.sequential),
            verify: options.is_some_and(|options| options.verify),
            umask: options.map_or(0o077, |options| options.umask),
            begun: options.is_some_and(|options| options.begun),
            done_bytes: options.map_or(0, |options| options.done_bytes),
            copy,
            only: entry.only.clone(),
        };
        let view = match self.parts.engine.download(spec).await {
            Ok(view) => view,
            Err(EngineError::DestinationExists(path)) => return Err(PeerError::DestinationExists(path)),
            Err(error) => return Err(error.into()),
        };
        let (agent, stop) = (Arc::clone(self), login.stop.clone());
        let (group, name, file) = (entry.group.clone(), entry.name.clone(), entry.file);
        login
            .tasks
            .spawn(async move { stop.run_until_cancelled(agent.find_sources(&group, &name, file)).await });
        let (agent, for_login) = (Arc::clone(self), Arc::clone(login));
        let (file, stop) = (entry.file, login.stop.clone());
        login.tasks.spawn(async move {
            let last = view.clone();
            if stop.run_until_cancelled(agent.follow(&for_login, file, view)).await.is_none() {
                let done_bytes = last.borrow().done_bytes;
                if done_bytes > 0 {
                    for_login.note_progress(file, done_bytes);
                }
            }
        });
        Ok(())
    }

    /// Asks the tracker for the sources of a download that begins. The announces, which are paced, name them
    /// too, and all that come later.
    async fn find_sources(&self, group: &GroupId, name: &FileName, file: FileId) {
        match self.sources_of(group, name, file).await {
            Ok(found) => self.parts.engine.sources(file, found, Vec::new()),
            Err(error) => {
                tracing::debug!(%error, %name, "the sources could not be fetched; the announce stream will name them");
            }
        }
    }

    /// Writes the phase and the progress of a download to the library.
    pub(super) fn set_phase(&self, login: &Login, file: FileId, phase: Phase) {
        let done = self.parts.engine.watch(file).map(|view| view.borrow().done_bytes);
        login.update(file, |entry| {
            if let Some(download) = &mut entry.download {
                let done_bytes = done.unwrap_or(download.done_bytes);
                *download = DownloadEntry { phase, done_bytes, ..download.clone() };
            }
        });
    }

    /// Writes to the library how far a download is and how it ended. A stop is written by the code that stops the
    /// download.
    async fn follow(&self, login: &Login, file: FileId, mut view: watch::Receiver<DownloadView>) {
        let mut noted = view.clone();
        let note = async {
            tokio::time::sleep(BRIEF).await;
            let moves = |view: &DownloadView| {
                view.state.is_final() || view.state == DownloadState::Downloading || view.done_bytes > 0
            };
            let mut seen = noted.wait_for(moves).await.map(|view| view.clone());
            while let Ok(now) = seen
                && !now.state.is_final()
            {
                login.note_progress(file, now.done_bytes);
                tokio::time::sleep(BRIEF).await;
                let next = now.done_bytes + (now.size / NOTES).max(1);
                let enough = |view: &DownloadView| view.state.is_final() || view.done_bytes >= next;
                seen = noted.wait_for(enough).await.map(|view| view.clone());
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = view.wait_for(|view| view.state.is_final()) => ended.map(|view| view.clone()),
            () = note => return,
        };
        // The engine was cleared before the download ended.
        if let Ok(ended) = ended {
            self.note_end(login, file, &ended);
            if let Some(folder) = self.parts.engine.folder(file) {
                login.keep_folder(file, folder).await;
            }
        }
    }

    /// Writes to the library how a download ended, unless that is there already. A caller that tells the user
    /// about the end calls this first, so that the next verb finds what this one said.
    pub(super) fn note_end(&self, login: &Login, file: FileId, ended: &DownloadView) {
        let phase = match ended.state {
            DownloadState::Complete => Phase::Complete,
            DownloadState::Failed => {
                let problem = ended.problem.clone();
                let problem =
                    problem.unwrap_or(Problem { reason: Reason::Internal, message: "it failed".into() });
                Phase::failed(problem.reason, problem.message)
            }
            _ => return,
        };
        let stamp = self.parts.engine.stamp(file);
        let is_complete = phase == Phase::Complete;
        let event = if is_complete { Event::Completed } else { Event::Failed };
        let mut told = None;
        login.update(file, |entry| {
            let Some(download) = &mut entry.download else { return };
            // Somebody has noted it and may have changed more since.
            if download.phase != Phase::Active {
                return;
            }
            told = Some((
                Facts {
                    event,
                    group: entry.group.clone(),
                    name: Some(entry.name.clone()),
                    path: Some(entry.path.clone()),
                },
                download.exec.clone(),
            ));
            if phase == Phase::Complete {
                (entry.stamp, entry.shared) = (stamp, true);
            }
            (download.phase, download.done_bytes) = (phase, ended.done_bytes);
        });
        if is_complete && let Err(error) = login.library.forget_replaced(file) {
            tracing::error!(%error, "the library can't be written");
        }
        if let Some((facts, exec)) = told {
            self.parts.hooks.run(&facts, &exec);
        }
    }
}

/// The groups that the tracker has named during a login.
#[derive(Default)]
struct KnownGroups {
    groups: HashSet<GroupId>,
    /// It has named all groups of the user once. One that it names later is new.
    is_complete: bool,
}

impl KnownGroups {
    /// Notes groups. Returns those that the user has joined.
    fn note(&mut self, named: &[GroupId]) -> Vec<GroupId> {
        let new: Vec<_> =
            named.iter().filter(|group| self.groups.insert((*group).clone())).cloned().collect();
        if self.is_complete { new } else { Vec::new() }
    }
}

/// The copy from which a download takes pieces: the older version that it replaces, or the same content elsewhere.
async fn local_copy(login: &Login, entry: &Entry, wanted: &Manifest) -> Result<Option<LocalCopy>, PeerError> {
    if let Some(old) = entry.replaces() {
        let manifest = login.manifest(old).await?;
        let folder = login.folder(old, &manifest).await;
        let original = Original { path: old.path.clone(), manifest, folder, only: old.only.clone() };
        return Ok(Some(LocalCopy { original, replaced: Some(old.stamp.unwrap_or_default()) }));
    }
    // A small file is fetched sooner than all others of its length are looked at.
    if entry.size <= u64::from(PIECE_LENGTH) {
        return Ok(None);
    }
    let is_candidate = |other: &Entry| {
        other.is_whole()
            && other.file != entry.file
            && other.size == entry.size
            && other.folder == entry.folder
    };
    for other in login.library.entries_where(is_candidate) {
        let Ok(manifest) = login.manifest(&other).await else { continue };
        if manifest.pieces() == wanted.pieces() {
            let folder = login.folder(&other, &manifest).await;
            let original = Original { path: other.path, manifest, folder, only: Vec::new() };
            return Ok(Some(LocalCopy { original, replaced: None }));
        }
    }
    Ok(None)
}

/// The reason why an older version is not offered.
pub(super) fn outdated(entry: &Entry) -> Problem {
    let error = PeerError::outdated(entry);
    Problem { reason: error.reason(), message: error.to_string() }
}

impl Login {
    /// Saves an entry with its manifest, on a blocking thread: the longest manifest has 109 MB.
    pub(super) async fn keep(&self, entry: Entry, manifest: &Arc<Manifest>) -> io::Result<()> {
        let (library, manifest) = (Arc::clone(&self.library), Arc::clone(manifest));
        spawn_blocking(move || library.put(entry, &manifest)).await.map_err(io::Error::other)?
    }

    /// Whether the entry is a share that ended because the user was no member of its group.
    fn waits_for_membership(&self, entry: &Entry) -> bool {
        let is_out = |problem: Problem| problem.reason == Reason::NotAMember;
        entry.is_whole() && entry.shared && self.problem(entry.file).is_some_and(is_out)
    }

    async fn share_spec(&self, entry: &Entry) -> Result<ShareSpec, PeerError> {
        let manifest = self.manifest(entry).await?;
        let folder = self.folder(entry, &manifest).await;
        Ok(ShareSpec {
            group: entry.group.clone(),
            file: entry.file,
            manifest,
            path: entry.path.clone(),
            stamp: entry.stamp,
            folder,
            only: entry.only.clone(),
        })
    }

    /// Reads the manifest that was saved with an entry.
    pub(super) async fn manifest(&self, entry: &Entry) -> Result<Arc<Manifest>, PeerError> {
        let (library, file, name) = (Arc::clone(&self.library), entry.file, &entry.name);
        let read = spawn_blocking(move || library.manifest(file)).await.map_err(PeerError::internal)?;
        let manifest = read.map_err(|error| {
            PeerError::Internal(format!("the saved manifest of {name} can't be used: {error}"))
        })?;
        Ok(Arc::new(manifest))
    }

    /// Saves the entries of a folder. If they can't be written, the error is only logged: the folder is then
    /// listed and hashed again after a restart.
    pub(super) async fn keep_folder(&self, file: FileId, folder: Arc<Folder>) {
        let library = Arc::clone(&self.library);
        let kept = spawn_blocking(move || library.put_folder(file, &folder)).await;
        if let Err(error) = kept.map_err(io::Error::other).flatten() {
            tracing::error!(%error, "the index of a folder can't be written");
        }
    }

    /// Reads the saved entries of a folder. `None` for a file, and if they can't be read.
    pub(super) async fn folder(&self, entry: &Entry, manifest: &Arc<Manifest>) -> Option<Arc<Folder>> {
        manifest.header().folder?;
        let (library, file, manifest) = (Arc::clone(&self.library), entry.file, Arc::clone(manifest));
        spawn_blocking(move || library.folder(file, &manifest)).await.ok().flatten().map(Arc::new)
    }

    /// Changes an entry. If it can't be written, the error is only logged: the running state is right, but a
    /// restart would not know of the change.
    pub(super) fn update(&self, file: FileId, change: impl FnOnce(&mut Entry)) {
        if let Err(error) = self.library.update(file, change) {
            tracing::error!(%error, "the library can't be written");
        }
    }

    /// Writes that a download has begun, and how far it is.
    fn note_progress(&self, file: FileId, done_bytes: u64) {
        self.update(file, |entry| {
            if let Some(download) = &mut entry.download
                && download.phase == Phase::Active
            {
                (download.begun, download.done_bytes) = (true, done_bytes);
            }
        });
    }

    /// Writes the stamps of files that were hashed again, all at once: the library is one file.
    fn note_stamps(&self, stamps: &HashMap<FileId, FileStamp>) {
        let noted = self.library.update_all(|entry| {
            if let Some(stamp) = stamps.get(&entry.file) {
                entry.stamp = Some(*stamp);
            }
        });
        if let Err(error) = noted {
            tracing::error!(%error, "the library can't be written");
        }
    }

    /// Ends the sharing of a file: an upload leaves the library, a download stays in it as complete.
    pub(super) fn forget_share(&self, entry: &Entry) {
        if entry.download.is_some() {
            self.update(entry.file, |entry| entry.shared = false);
        } else if let Err(error) = self.library.remove(entry.file) {
            tracing::error!(%error, "the library can't be written");
        }
    }
}

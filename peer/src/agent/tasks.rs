//! What runs for as long as a login: the certificate's renewal, announcing, and following downloads to their end.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::{
    domain::{FileId, GroupId, Manifest},
    reason::Reason,
};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
};

use super::{Agent, Login};
use crate::{
    engine::{
        DownloadSpec, DownloadState, DownloadView, EngineError, Problem, ShareSpec, TicketRefused,
        TicketSource as _,
    },
    error::PeerError,
    library::{DownloadEntry, Entry, Phase},
    tracker::announcer::{AnnounceEvent, Announcer, hello},
};

/// Between two looks at the certificate's age; the clock may be set meanwhile.
const RENEWAL_CHECK: Duration = Duration::from_secs(30);
/// Between tries to get a certificate.
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
        spawn("announcer", Box::pin(async move { agent.announce(&for_login, sender).await }));
        // Outside the login's own tasks: it may have to end the login, which waits for those.
        let (agent, for_login) = (Arc::clone(self), Arc::clone(login));
        tokio::spawn(async move { agent.heed(&for_login, events).await });
    }

    /// Gets a certificate if there is none, and a new one in time.
    async fn keep_certified(&self, login: &Login) {
        let mut pause = *CERTIFY_AGAIN.start();
        loop {
            let renew_at = self.parts.identity.borrow().as_ref().map(|identity| identity.renew_at());
            if renew_at.is_some_and(|at| SystemTime::now() < at) {
                tokio::time::sleep(RENEWAL_CHECK).await;
                continue;
            }
            match self.certify(&login.key).await {
                Ok(identity) => {
                    tracing::info!(peer = %identity.peer, "the certificate is new");
                    self.adopt(identity);
                    pause = *CERTIFY_AGAIN.start();
                }
                Err(error) => {
                    tracing::warn!(%error, "no new certificate yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(*CERTIFY_AGAIN.end());
                }
            }
        }
    }

    /// Announces once there is a certificate: without one, nobody could fetch anything here.
    async fn announce(&self, login: &Login, events: mpsc::Sender<AnnounceEvent>) {
        let mut identity = self.parts.identity.subscribe();
        // The sender is the agent's own.
        let _ = identity.wait_for(Option::is_some).await;
        let announcer = Announcer {
            tracker: self.parts.tracker.clone(),
            engine: self.parts.engine.clone(),
            hello: hello(login.key.peer(), self.parts.listen.port(), self.parts.advertise.as_deref()),
            state: self.announce.clone(),
            events,
        };
        announcer.run(login.stop.clone()).await;
    }

    /// Does what the tracker demands. Ends with the announcer.
    async fn heed(self: Arc<Self>, login: &Arc<Login>, mut events: mpsc::Receiver<AnnounceEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                AnnounceEvent::SessionOver => return self.session_ended(login).await,
                AnnounceEvent::FileEnded(group, file) => {
                    let ended = login.within(async {
                        self.file_ended(login, &group, file).await;
                        Ok(())
                    });
                    if ended.await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// A file was unpublished, or this user is out of its group: what runs of it ends, what is on disk stays.
    async fn file_ended(&self, login: &Login, group: &GroupId, file: FileId) {
        let Some(entry) = login.library.find_file(file).filter(|entry| entry.group == *group) else { return };
        // With a ticket the user is back in already, and without an answer announcing again tells.
        let Err(TicketRefused::Denied(reason)) = self.parts.tickets.ticket(group, file, true).await else {
            return;
        };
        tracing::info!(%group, name = %entry.name, reason = reason.as_str(), "the tracker ends sharing of a file");
        let _guard = login.files.lock().await;
        let gone = reason != Reason::NotAMember;
        let message =
            if gone { "the file was taken out of the group" } else { "you are not a member of the group" };
        if entry.is_unfinished() {
            if let Err(error) = self.parts.engine.stop(file, false).await {
                tracing::debug!(%error, "the download had ended");
            }
            if entry.phase() == Some(&Phase::Active) {
                self.set_phase(login, file, Phase::failed(reason, message));
            }
        } else {
            self.parts.engine.unshare(file);
            login.set_problem(file, Some(Problem { reason, message: message.into() }));
            // An unpublished file never comes back under this id; a member may.
            if gone {
                login.forget_share(&entry);
            }
        }
    }

    /// Takes up all shares and unfinished downloads of the library.
    async fn restore(self: &Arc<Self>, login: &Arc<Login>) {
        for entry in login.library.entries() {
            let taken_up = if entry.phase() == Some(&Phase::Active) {
                self.run_kept_download(login, &entry).await
            } else if entry.is_whole() && entry.shared {
                self.run_share(login, &entry).await
            } else {
                continue;
            };
            if let Err(error) = taken_up {
                tracing::warn!(group = %entry.group, name = %entry.name, %error, "can't be taken up");
                let problem = Problem { reason: error.reason(), message: error.to_string() };
                if entry.is_unfinished() {
                    self.set_phase(login, entry.file, Phase::failed(problem.reason, problem.message));
                } else {
                    login.set_problem(entry.file, Some(problem));
                }
            }
        }
    }

    async fn run_share(&self, login: &Login, entry: &Entry) -> Result<(), PeerError> {
        let manifest = login.manifest(entry).await?;
        let spec = ShareSpec {
            group: entry.group.clone(),
            file: entry.file,
            manifest,
            path: entry.path.clone(),
            stamp: entry.stamp,
        };
        let stamp = self.parts.engine.share(spec).await?;
        login.update(entry.file, |entry| entry.stamp = Some(stamp));
        login.set_problem(entry.file, None);
        Ok(())
    }

    /// As [`Self::run_download`], with the manifest that was kept.
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
        let options = entry.download.as_ref();
        let spec = DownloadSpec {
            group: entry.group.clone(),
            file: entry.file,
            manifest,
            destination: entry.path.clone(),
            sequential: options.is_some_and(|options| options.sequential),
            verify: options.is_some_and(|options| options.verify),
        };
        let view = match self.parts.engine.download(spec).await {
            Ok(view) => view,
            Err(EngineError::DestinationExists(path)) => return Err(PeerError::DestinationExists(path)),
            Err(error) => return Err(error.into()),
        };
        let (agent, for_login) = (Arc::clone(self), Arc::clone(login));
        let (file, stop) = (entry.file, login.stop.clone());
        login
            .tasks
            .spawn(async move { stop.run_until_cancelled(agent.follow(&for_login, file, view)).await });
        Ok(())
    }

    /// Notes in the library how far a download came.
    pub(super) fn set_phase(&self, login: &Login, file: FileId, phase: Phase) {
        let done = self.parts.engine.watch(file).map(|view| view.borrow().done_bytes);
        login.update(file, |entry| {
            if let Some(download) = &mut entry.download {
                let done_bytes = done.unwrap_or(download.done_bytes);
                *download = DownloadEntry { phase, done_bytes, ..download.clone() };
            }
        });
    }

    /// Notes in the library how a download ended. Being stopped is noted by whoever stopped it.
    async fn follow(&self, login: &Login, file: FileId, mut view: watch::Receiver<DownloadView>) {
        let ended = view.wait_for(|view| view.state.is_final()).await.map(|view| view.clone());
        // Without its end the engine was cleared.
        let Ok(ended) = ended else { return };
        match ended.state {
            DownloadState::Complete => {
                let stamp = self.parts.engine.shares().into_iter().find(|share| share.file == file);
                let stamp = stamp.and_then(|share| share.stamp);
                login.update(file, |entry| {
                    entry.stamp = stamp;
                    entry.shared = true;
                });
                self.set_phase(login, file, Phase::Complete);
            }
            DownloadState::Failed => {
                let problem = ended
                    .problem
                    .unwrap_or(Problem { reason: Reason::Internal, message: "it failed".into() });
                self.set_phase(login, file, Phase::failed(problem.reason, problem.message));
            }
            _ => {}
        }
    }
}

impl Login {
    /// Keeps an entry with its manifest, on a thread for what takes long: the longest manifest has 109 MB.
    pub(super) async fn keep(&self, entry: Entry, manifest: &Arc<Manifest>) -> io::Result<()> {
        let (library, manifest) = (Arc::clone(&self.library), Arc::clone(manifest));
        spawn_blocking(move || library.put(entry, &manifest)).await.map_err(io::Error::other)?
    }

    /// The manifest that was kept with an entry.
    pub(super) async fn manifest(&self, entry: &Entry) -> Result<Arc<Manifest>, PeerError> {
        let (library, file, name) = (Arc::clone(&self.library), entry.file, &entry.name);
        let read = spawn_blocking(move || library.manifest(file)).await.map_err(PeerError::internal)?;
        let manifest =
            read.map_err(|error| PeerError::Internal(format!("the saved manifest of {name}: {error}")))?;
        Ok(Arc::new(manifest))
    }

    /// Changes an entry. A disk that takes no more is told in the log: what runs is right, only a restart would not
    /// know.
    pub(super) fn update(&self, file: FileId, change: impl FnOnce(&mut Entry)) {
        if let Err(error) = self.library.update(file, change) {
            tracing::error!(%error, "the library can't be written");
        }
    }

    /// The file is shared no more: an upload leaves the library, a download stays as complete.
    pub(super) fn forget_share(&self, entry: &Entry) {
        if entry.download.is_some() {
            self.update(entry.file, |entry| entry.shared = false);
        } else if let Err(error) = self.library.remove(entry.file) {
            tracing::error!(%error, "the library can't be written");
        }
    }
}

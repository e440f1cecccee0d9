//! What the daemon does for the user who is logged in.
//!
//! An [`Agent`] outlives logins; a [`Login`] owns everything that must end with one: its library, its key, its tasks.
//! Ending a login cancels its tasks, waits for them, and only then clears the engine, so that nothing started before a
//! logout can share or download anything after it.
//!
//! - `login`: in, out, and taking a kept session up again.
//! - `tasks`: what runs for as long as a login.
//! - `uploads`, `downloads`: the verbs that touch files.
//! - `doctor`: what is wrong.

mod doctor;
mod downloads;
mod login;
mod tasks;
mod uploads;

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use proto::{
    convert,
    domain::{FileId, FileName, GroupId},
};
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    doctor::{Check, Finding},
    downloads::{DownloadOptions, DownloadStatus},
    uploads::{ShareStatus, UploadProgress, Uploaded},
};
use crate::{
    engine::{Engine, Problem},
    error::PeerError,
    home::Home,
    identity::{Identity, PeerKey},
    library::Library,
    session::{Session, SessionFile},
    tracker::{announcer::AnnounceState, client::TrackerClient, tickets::Tickets},
};

/// What an agent is made of. Everything here outlives logins.
pub struct AgentParts {
    /// Where state is kept.
    pub home: Home,
    /// The tracker.
    pub tracker: TrackerClient,
    /// What moves bytes.
    pub engine: Engine,
    /// Its tickets.
    pub tickets: Arc<Tickets>,
    /// Who this peer is; none while nobody is logged in.
    pub identity: watch::Sender<Option<Arc<Identity>>>,
    /// What the daemon's port serves with; none: every handshake is refused.
    pub tls: watch::Sender<Option<Arc<ServerConfig>>>,
    /// Where the daemon is bound.
    pub listen: SocketAddr,
    /// What is handed out instead of the address that the tracker sees.
    pub advertise: Option<String>,
}

/// See the module.
pub struct Agent {
    parts: AgentParts,
    session_file: SessionFile,
    announce: watch::Sender<AnnounceState>,
    /// One login or logout at a time.
    turn: tokio::sync::Mutex<()>,
    /// Locked for as long as it takes to clone an `Arc`.
    login: Mutex<Option<Arc<Login>>>,
}

/// Somebody is logged in.
pub struct Login {
    session: Session,
    key: PeerKey,
    library: Arc<Library>,
    /// Why a share is not offered, where the engine doesn't know it. Locked for map operations only.
    problems: Mutex<HashMap<FileId, Problem>>,
    /// Held while a download or share is begun or ended, so that two verbs don't do it to one file at once.
    files: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What `status` shows.
pub struct AgentStatus {
    /// The session and the certificate of the user who is logged in.
    pub session: Option<Session>,
    /// Who this peer is, once certified.
    pub identity: Option<Arc<Identity>>,
    /// The id of the user's key, certified or not.
    pub peer: Option<proto::domain::PeerId>,
    /// How announcing goes.
    pub announce: AnnounceState,
    /// Where the daemon is bound.
    pub listen: SocketAddr,
    /// What is handed out as its address, as far as is known.
    pub advertise: Option<String>,
    /// Files offered, downloads that are not finished.
    pub shares: usize,
    /// Downloads that are not finished.
    pub downloads: usize,
}

impl Agent {
    /// Nobody is logged in yet; see [`Agent::resume`].
    pub fn new(parts: AgentParts) -> Arc<Self> {
        Arc::new(Self {
            session_file: SessionFile::new(parts.home.session_file()),
            announce: watch::Sender::new(AnnounceState::default()),
            turn: tokio::sync::Mutex::default(),
            login: Mutex::default(),
            parts,
        })
    }

    /// The tracker.
    pub fn tracker(&self) -> &TrackerClient {
        &self.parts.tracker
    }

    /// What moves bytes.
    pub fn engine(&self) -> &Engine {
        &self.parts.engine
    }

    /// The login that stands.
    ///
    /// # Errors
    /// [`PeerError::NotLoggedIn`].
    fn login_now(&self) -> Result<Arc<Login>, PeerError> {
        self.current().ok_or(PeerError::NotLoggedIn)
    }

    fn current(&self) -> Option<Arc<Login>> {
        // Replaced whole, so it is right whoever panicked.
        self.login.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_current(&self, login: Option<Arc<Login>>) {
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = login;
    }

    /// What the daemon is and does.
    pub fn status(&self) -> AgentStatus {
        let login = self.current();
        let announce = self.announce.borrow().clone();
        let port = self.parts.listen.port();
        let advertise = self.parts.advertise.as_deref().or(announce.observed_ip.as_deref());
        let unfinished =
            |login: &Arc<Login>| login.library.entries().iter().filter(|entry| entry.is_unfinished()).count();
        AgentStatus {
            session: login.as_ref().map(|login| login.session.clone()),
            identity: self.parts.identity.borrow().clone(),
            peer: login.as_ref().map(|login| login.key.peer()),
            listen: self.parts.listen,
            advertise: advertise.map(|host| crate::tracker::announcer::with_port(host, port)),
            shares: self.parts.engine.shares().iter().filter(|share| share.problem.is_none()).count(),
            downloads: login.as_ref().map_or(0, unfinished),
            announce,
        }
    }

    /// This peer's certificate and key, and its TLS name, as PEM.
    ///
    /// # Errors
    /// When nobody is logged in, or the tracker could not certify the key yet.
    pub fn certificate(&self) -> Result<(String, zeroize::Zeroizing<String>, String), PeerError> {
        let login = self.login_now()?;
        let identity = self.parts.identity.borrow().clone();
        let identity = identity.ok_or_else(|| self.tracker().unreachable("there is no certificate yet"))?;
        Ok((identity.certificate_pem.clone(), login.key.pem(), identity.peer.tls_name()))
    }

    /// A fresh ticket for a group's file, and its sources as the tracker names them.
    ///
    /// # Errors
    /// What the tracker says.
    pub async fn ticket(
        &self,
        group: &GroupId,
        name: &FileName,
    ) -> Result<(FileId, Arc<str>, Vec<proto::pb::Source>), PeerError> {
        use crate::engine::{TicketRefused, TicketSource as _};
        self.login_now()?;
        let mut swarm = self.tracker().swarm().await?;
        let request = proto::pb::FindPeersRequest { group_id: group.to_string(), name: name.to_string() };
        let found = self.tracker().within(swarm.find_peers(request)).await?;
        let file =
            convert::file_id(&found.file_id).map_err(|error| PeerError::TrackerAnswer(error.to_string()))?;
        let sources = found.read().map_err(|error| PeerError::TrackerAnswer(error.to_string()))?;
        let ticket = self.parts.tickets.ticket(group, file, true).await.map_err(|refused| match refused {
            TicketRefused::Denied(reason) | TicketRefused::Unavailable(reason) => {
                PeerError::Tracker(reason.status(format!("no ticket for {name} of {group}")))
            }
        })?;
        Ok((file, ticket, sources))
    }

    /// Ends whatever runs, keeping the session and all verified pieces. For the end of the daemon.
    pub async fn close(&self) {
        let _turn = self.turn.lock().await;
        if let Some(login) = self.current() {
            login.end().await;
        }
        self.set_current(None);
        self.parts.engine.shutdown().await;
    }
}

impl Login {
    /// Cancels what runs for this login and waits until it has ended.
    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Does `work` as part of the login: it is dropped when the login ends, which waits for that.
    async fn within<T>(&self, work: impl Future<Output = Result<T, PeerError>>) -> Result<T, PeerError> {
        let work = self.tasks.track_future(self.stop.run_until_cancelled(work));
        work.await.unwrap_or(Err(PeerError::NotLoggedIn))
    }

    fn set_problem(&self, file: FileId, problem: Option<Problem>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(file, problem),
            None => problems.remove(&file),
        };
    }

    fn problem(&self, file: FileId) -> Option<Problem> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).get(&file).cloned()
    }
}

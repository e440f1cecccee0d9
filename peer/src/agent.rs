//! The daemon's operations for the user who is logged in.
//!
//! An [`Agent`] outlives logins. A [`Login`] owns everything that must end with it: its library, its key, its
//! tasks. Ending a login cancels its tasks, waits for them, and only then clears the engine. So nothing that
//! was started before a logout can share or download anything after it.
//!
//! - `login`: logging in, logging out, and resuming a saved session.
//! - `tasks`: the tasks that run for as long as a login.
//! - `uploads`, `downloads`: the operations on files.
//! - `update`: bringing a copy to the current version.
//! - `entries`: what is in a folder of a group.
//! - `reading`: reading a file before all of it is there.
//! - `subscriptions`: downloads that start by themselves.
//! - `last_copy`: what others would lose.
//! - `doctor`: diagnosis of what is wrong.

mod doctor;
mod downloads;
mod entries;
mod explain;
mod last_copy;
mod login;
mod news;
mod reading;
mod subscriptions;
mod tasks;
mod update;
mod uploads;

use std::{collections::HashMap, future::Future, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use proto::{
    convert,
    domain::{
        FileId, FileName, GroupId, Username,
        address::{Scope, scope},
    },
};
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::{
    doctor::{Check, Finding},
    downloads::{DownloadOptions, DownloadStatus},
    explain::FilePeer,
    last_copy::LastCopy,
    login::Farewell,
    subscriptions::NewSubscription,
    update::UpdatePlan,
    uploads::{ShareStatus, UploadProgress},
};
use crate::{
    engine::{Engine, Problem},
    error::PeerError,
    home::Home,
    hooks::Hooks,
    identity::{Identity, PeerKey},
    library::{Entry, Library},
    session::{Session, SessionFile},
    subscriptions::Subscriptions,
    tracker::{
        announcer::{AnnounceState, with_port},
        client::TrackerClient,
        line::Line,
        tickets::TicketCache,
    },
};

/// The parts of an agent. Everything here outlives logins.
pub(crate) struct AgentParts {
    /// The directory where state is kept.
    pub home: Home,
    /// The client of the tracker.
    pub tracker: TrackerClient,
    /// The engine that transfers the files.
    pub engine: Engine,
    /// The engine's source of tickets.
    pub tickets: Arc<TicketCache>,
    /// The identity of this peer; `None` while nobody is logged in.
    pub identity: watch::Sender<Option<Arc<Identity>>>,
    /// The TLS configuration that the daemon's port serves with. With `None`, every handshake is refused.
    pub tls: watch::Sender<Option<Arc<ServerConfig>>>,
    /// The address that the daemon is bound to.
    pub listen: SocketAddr,
    /// The addresses that other peers are told. Empty: those of this host, and the one that the tracker sees.
    pub advertise: Vec<String>,
    /// Run when something has happened.
    pub hooks: Hooks,
}

/// The daemon's operations for the user who is logged in. See the module's documentation.
pub(crate) struct Agent {
    parts: AgentParts,
    session_file: SessionFile,
    announce: watch::Sender<AnnounceState>,
    /// Serializes logins and logouts.
    turn: tokio::sync::Mutex<()>,
    /// Locked only for as long as it takes to clone an `Arc`.
    login: Mutex<Option<Arc<Login>>>,
    /// The user whose session the tracker ended, until the next login.
    session_over: Mutex<Option<Username>>,
}

/// The state of one login.
pub(crate) struct Login {
    session: Session,
    key: PeerKey,
    library: Arc<Library>,
    subscriptions: Subscriptions,
    /// What the subscriptions have not handled.
    news: news::News,
    /// Reasons why shares are not offered, where the engine doesn't know them. Locked for map operations
    /// only.
    problems: Mutex<HashMap<FileId, Problem>>,
    /// Held while a download or share is started or ended, so that two calls can't do this to one file at
    /// once.
    files: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The answer to `status`.
pub(crate) struct AgentStatus {
    /// The session of the user who is logged in.
    pub session: Option<Session>,
    /// The identity of this peer, once the tracker has certified it.
    pub identity: Option<Arc<Identity>>,
    /// The id of the user's key, whether it is certified or not.
    pub peer: Option<proto::domain::PeerId>,
    /// The state of announcing.
    pub announce: AnnounceState,
    /// The address that the daemon is bound to.
    pub listen: SocketAddr,
    /// The addresses that other peers are told, as far as they are known. Those for other hosts come first.
    pub advertise: Vec<String>,
    /// The number of files that are offered.
    pub shares: usize,
    /// The number of downloads that are not finished.
    pub downloads: usize,
}

impl Agent {
    /// An agent without a login; see [`Agent::resume`].
    pub(crate) fn new(parts: AgentParts) -> Arc<Self> {
        Arc::new(Self {
            session_file: SessionFile::new(parts.home.session_file()),
            announce: watch::Sender::new(AnnounceState::default()),
            turn: tokio::sync::Mutex::default(),
            login: Mutex::default(),
            session_over: Mutex::default(),
            parts,
        })
    }

    /// The client of the tracker.
    pub(crate) fn tracker(&self) -> &TrackerClient {
        &self.parts.tracker
    }

    /// The engine that transfers the files.
    pub(crate) fn engine(&self) -> &Engine {
        &self.parts.engine
    }

    /// Where this peer keeps its state.
    pub(crate) fn home(&self) -> Home {
        self.parts.home.clone()
    }

    /// Returns the current login.
    ///
    /// # Errors
    /// Fails with [`PeerError::NotLoggedIn`] or [`PeerError::SessionOver`].
    fn login_now(&self) -> Result<Arc<Login>, PeerError> {
        self.current().ok_or_else(|| {
            let over = self.session_over.lock().clone();
            over.map_or(PeerError::NotLoggedIn, PeerError::SessionOver)
        })
    }

    fn current(&self) -> Option<Arc<Login>> {
        // The value is only replaced as a whole, so it is valid even if a thread panicked while it held the
        // lock.
        self.login.lock().clone()
    }

    fn set_current(&self, login: Option<Arc<Login>>) {
        *self.login.lock() = login;
    }

    /// The state of the daemon.
    pub(crate) fn status(&self) -> AgentStatus {
        let login = self.current();
        let announce = self.announce.borrow().clone();
        let port = self.parts.listen.port();
        let mut advertise = announce.addresses.clone();
        if advertise.is_empty() {
            // The tracker has not answered yet, or is an older one.
            let observed = || announce.observed_ip.iter().cloned().collect();
            let asked = Some(self.parts.advertise.clone()).filter(|asked| !asked.is_empty());
            advertise = asked.unwrap_or_else(observed);
        }
        advertise.iter_mut().for_each(|host| *host = with_port(host, port));
        advertise.sort_by_key(|address| is_local(address));
        let unfinished = |login: &Arc<Login>| login.library.entries_where(Entry::is_unfinished).len();
        AgentStatus {
            session: login.as_ref().map(|login| login.session.clone()),
            identity: self.parts.identity.borrow().clone(),
            peer: login.as_ref().map(|login| login.key.peer()),
            listen: self.parts.listen,
            advertise,
            shares: self.parts.engine.shares().iter().filter(|share| share.problem.is_none()).count(),
            downloads: login.as_ref().map_or(0, unfinished),
            announce,
        }
    }

    /// This peer's certificate and key, and its TLS name, as PEM.
    ///
    /// # Errors
    /// Fails when nobody is logged in, or when the tracker has not certified the key yet.
    pub(crate) fn certificate(&self) -> Result<(String, zeroize::Zeroizing<String>, String), PeerError> {
        let login = self.login_now()?;
        let identity = self.parts.identity.borrow().clone();
        let identity =
            identity.ok_or_else(|| self.tracker().line().unreachable("this peer has no certificate yet"))?;
        Ok((identity.certificate_pem.clone(), login.key.pem(), identity.peer.tls_name()))
    }

    /// Fetches a new ticket for a group's file, and the file's sources according to the tracker.
    ///
    /// # Errors
    /// Fails with the tracker's refusal.
    pub(crate) async fn ticket(
        &self,
        group: &GroupId,
        name: &FileName,
    ) -> Result<(FileId, Arc<str>, Vec<proto::pb::Source>), PeerError> {
        use crate::engine::{TicketRefused, TicketSource as _};
        self.login_now()?;
        let request = proto::pb::FindPeersRequest {
            group_id: group.to_string(),
            name: name.to_string(),
            ..Default::default()
        };
        let ask = async |line: Line| {
            let mut swarm = line.swarm().await?;
            line.within(swarm.find_peers(request.clone())).await
        };
        let found = self.tracker().ask(ask).await?;
        let file =
            convert::file_id(&found.file_id).map_err(|error| PeerError::TrackerAnswer(error.to_string()))?;
        let sources = found.read().map_err(|error| PeerError::TrackerAnswer(error.to_string()))?;
        let ticket = self.parts.tickets.ticket(group, file, true).await.map_err(|refused| match refused {
            TicketRefused::Denied(reason) | TicketRefused::Unavailable(reason) => PeerError::Tracker(
                reason.status(format!("the tracker issued no ticket for {name} of {group}")),
            ),
        })?;
        Ok((file, ticket, sources))
    }

    /// Ends everything that runs, and keeps the session and all verified pieces. Called when the daemon ends.
    pub(crate) async fn close(&self) {
        let _turn = self.turn.lock().await;
        if let Some(login) = self.current() {
            login.end().await;
        }
        self.set_current(None);
        self.parts.engine.shutdown().await;
    }
}

/// Whether an address can be used on this host only.
fn is_local(address: &str) -> bool {
    let ip = address.parse().map(|address: SocketAddr| address.ip());
    ip.is_ok_and(|ip| scope(ip) == Scope::Host) || address.starts_with("localhost:")
}

impl Login {
    /// Cancels what runs for this login and waits until it has ended.
    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Does `work` as part of the login. The end of the login drops `work` and waits until it is dropped.
    async fn within<T>(&self, work: impl Future<Output = Result<T, PeerError>>) -> Result<T, PeerError> {
        let work = self.tasks.track_future(self.stop.run_until_cancelled(work));
        work.await.unwrap_or(Err(PeerError::NotLoggedIn))
    }

    fn set_problem(&self, file: FileId, problem: Option<Problem>) {
        let mut problems = self.problems.lock();
        match problem {
            Some(problem) => problems.insert(file, problem),
            None => problems.remove(&file),
        };
    }

    fn problem(&self, file: FileId) -> Option<Problem> {
        self.problems.lock().get(&file).cloned()
    }
}

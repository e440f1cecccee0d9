//! Logging in, logging out, and resuming a saved session.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use program::durable::{self, Readers};
use proto::{
    convert,
    domain::{PeerId, Username},
    pb,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use zeroize::Zeroizing;

use super::{Agent, Login};
use crate::{
    error::PeerError,
    identity::{Identity, IdentityError, PeerKey},
    library::Library,
    session::Session,
    subscriptions::Subscriptions,
    tracker::{announcer::AnnounceState, line::Line, list::TrackerList},
};

/// How long a logout waits for the tracker's answer.
const FAREWELL: Duration = Duration::from_secs(3);

/// What became of the session at a logout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// The tracker ended it.
    Told,
    /// The tracker could not be told.
    Untold,
    /// It goes on, because another daemon uses it.
    Shared,
}

impl Agent {
    /// Logs in, and resumes what that user shares and downloads. If the same user is logged in already,
    /// checks the password and keeps the login. With `new_key`, this home becomes another peer.
    ///
    /// # Errors
    /// Fails when somebody else is logged in, or when the tracker refuses. Nothing has changed then.
    pub(crate) async fn log_in(
        self: &Arc<Self>,
        user: Username,
        password: Zeroizing<String>,
        new_key: bool,
    ) -> Result<PeerId, PeerError> {
        let _turn = self.turn.lock().await;
        let standing = self.current();
        if let Some(login) = standing.as_ref().filter(|login| login.session.user != user) {
            return Err(PeerError::LoggedInAs(login.session.user.clone()));
        }
        let session = self.open_session(&user, password).await?;
        self.take_over(standing, session, new_key).await
    }

    /// Logs in with the token of a machine instead of a password.
    ///
    /// # Errors
    /// As [`Self::log_in`].
    pub(crate) async fn log_in_with_token(
        self: &Arc<Self>,
        token: Zeroizing<String>,
        new_key: bool,
    ) -> Result<PeerId, PeerError> {
        let _turn = self.turn.lock().await;
        let ask = async |line: Line| {
            let mut auth = line.auth_with(&token).await?;
            line.within(auth.who_am_i(pb::WhoAmIRequest {})).await
        };
        let whose = self
            .parts
            .tracker
            .ask(ask)
            .await
            .map_err(|error| if error.is_session_over() { PeerError::BadToken } else { error })?;
        if whose.token_name.is_empty() {
            return Err(PeerError::BadToken);
        }
        let session = Session {
            user: convert::username(&whose.username)?,
            token: token.to_string(),
            expires_at: whose.expires_at.map(|at| at.seconds).unwrap_or_default(),
            token_name: Some(convert::token_name(&whose.token_name)?.to_string()),
            tracker: self.parts.tracker.trackers().to_string(),
        };
        let standing = self.current();
        if let Some(login) = standing.as_ref().filter(|login| login.session.user != session.user) {
            return Err(PeerError::LoggedInAs(login.session.user.clone()));
        }
        self.take_over(standing, session, new_key).await
    }

    /// Uses a new session from now on, unless the standing one is of the same kind and still counts.
    async fn take_over(
        self: &Arc<Self>,
        standing: Option<Arc<Login>>,
        session: Session,
        new_key: bool,
    ) -> Result<PeerId, PeerError> {
        if let Some(login) = standing {
            // A login ends the quarrel with another daemon that uses the same key.
            let is_alike = match &session.token_name {
                None => login.session.token_name.is_none(),
                Some(_) => login.session.token == session.token,
            };
            let stands = is_alike && !new_key && !self.announce.borrow().evicted;
            if stands && self.counts(&login.session).await {
                self.close_session(&session).await;
                return Ok(login.key.peer());
            }
            self.leave(&login).await;
        }
        let directory = self.directory_of(&session);
        let io_error = |error| PeerError::Io { path: directory.clone(), error };
        if new_key {
            PeerKey::set_aside(&directory).map_err(io_error)?;
        }
        let entered = self.enter(&session).await;
        if entered.is_err() {
            if new_key {
                PeerKey::put_back(&directory).map_err(io_error)?;
            }
            self.parts.tracker.set_token(None);
            self.close_session(&session).await;
        }
        entered
    }

    async fn open_session(&self, user: &Username, password: Zeroizing<String>) -> Result<Session, PeerError> {
        let tracker = &self.parts.tracker;
        let request = pb::LoginRequest { username: user.to_string(), password: password.to_string() };
        let open = async |line: Line| {
            let mut auth = line.auth_without_token().await?;
            line.within(auth.login(request.clone())).await
        };
        let opened = tracker.ask(open).await?;
        Ok(Session {
            user: user.clone(),
            token: opened.session_token,
            expires_at: opened.expires_at.map(|at| at.seconds).unwrap_or_default(),
            token_name: None,
            tracker: tracker.trackers().to_string(),
        })
    }

    /// Returns true if the tracker still accepts the session, or can't be asked.
    async fn counts(&self, session: &Session) -> bool {
        let answer = self.parts.tracker.ask(async |line| {
            let mut auth = line.auth_with(&session.token).await?;
            line.within(auth.who_am_i(pb::WhoAmIRequest {})).await
        });
        !answer.await.is_err_and(|error: PeerError| error.is_session_over())
    }

    /// Asks the tracker to end a session that nobody will use. If that fails, the session expires by itself. A token
    /// goes on: it is for other machines, too.
    async fn close_session(&self, session: &Session) {
        if session.token_name.is_some() {
            return;
        }
        let farewell = self.parts.tracker.ask(async |line| {
            let mut auth = line.auth_with(&session.token).await?;
            line.within(auth.logout(pb::LogoutRequest {})).await
        });
        if let Err(error) = farewell.await {
            tracing::info!(%error, "an unused session could not be ended at the tracker");
        }
    }

    /// Prepares everything for a new session, certificate included, and only then saves the session.
    async fn enter(self: &Arc<Self>, session: &Session) -> Result<PeerId, PeerError> {
        self.parts.tracker.set_token(Some(&session.token));
        let login = self.prepare(session)?;
        // The tracker forgets the peer of a token that was revoked, whatever its certificate says. There may be another
        // token of that name now.
        let identity = match session.token_name {
            None => self.certify(&login.key).await?,
            Some(_) => self.certify_anew(&login.key).await?,
        };
        self.session_file
            .save(session)
            .map_err(|error| PeerError::Io { path: self.parts.home.session_file(), error })?;
        if let Err(error) = self.remember_tracker().await {
            tracing::warn!(%error, "the tracker is not remembered: name it again next time");
        }
        tracing::info!(user = %session.user, peer = %identity.peer, "logged in");
        self.start(login, Some(identity));
        Ok(self.login_now()?.key.peer())
    }

    /// Keeps the trackers' URLs and their CA in the home, so that later verbs need neither.
    async fn remember_tracker(&self) -> Result<(), PeerError> {
        let (home, tracker) = (&self.parts.home, &self.parts.tracker);
        let keep = |path: PathBuf, text: &str| {
            let written = match durable::read_if_there(&path) {
                Ok(Some(known)) if known == text.as_bytes() => Ok(()),
                _ => durable::write(&path, text.as_bytes(), Readers::Owner),
            };
            written.map_err(|error| PeerError::Io { path, error })
        };
        keep(home.tracker_file(), &tracker.trackers().lines())?;
        if tracker.trackers().urls().iter().any(|url| url.starts_with("https:")) {
            keep(home.trusted_ca(), &tracker.ca_pem().await?)?;
        }
        Ok(())
    }

    /// Resumes the saved session, if there is one. Works without the tracker, except for what needs it.
    pub(crate) async fn resume(self: &Arc<Self>) {
        let _turn = self.turn.lock().await;
        let session = match self.session_file.load() {
            Ok(Some(session)) => session,
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, "the saved session can't be used; log in again"),
        };
        let is_ours = |session: TrackerList| session.shares_one(self.parts.tracker.trackers());
        if !TrackerList::parse(&session.tracker).is_ok_and(is_ours) {
            return tracing::warn!(
                tracker = session.tracker,
                "the saved session belongs to another tracker; log in again"
            );
        }
        self.parts.tracker.set_token(Some(&session.token));
        match self.prepare(&session) {
            Ok(login) => {
                tracing::info!(user = %session.user, "resuming the saved session");
                let kept = self.kept_identity(&login.key).await;
                self.start(login, kept);
            }
            Err(error) => {
                self.parts.tracker.set_token(None);
                tracing::error!(%error, "the saved session can't be resumed");
            }
        }
    }

    /// Where the key, the library and the subscriptions of a session are.
    fn directory_of(&self, session: &Session) -> PathBuf {
        self.parts.home.user_dir(&session.user, session.token_name.as_deref())
    }

    fn prepare(&self, session: &Session) -> Result<Arc<Login>, PeerError> {
        let directory = self.directory_of(session);
        let io_error = |error| PeerError::Io { path: directory.clone(), error };
        let library = Library::open(&directory).map_err(io_error)?;
        let subscriptions = Subscriptions::open(&directory).map_err(io_error)?;
        let key = PeerKey::open_or_create(&session.user, &directory).map_err(identity_error)?;
        Ok(Arc::new(Login {
            session: session.clone(),
            key,
            library: Arc::new(library),
            subscriptions,
            news: Default::default(),
            problems: Mutex::new(HashMap::new()),
            files: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    fn start(self: &Arc<Self>, login: Arc<Login>, identity: Option<Identity>) {
        *self.session_over.lock() = None;
        self.set_current(Some(Arc::clone(&login)));
        if let Some(identity) = identity {
            self.adopt(identity);
        }
        self.start_tasks(&login);
    }

    /// Uses this identity from now on, for connections from and to other peers.
    pub(super) fn adopt(&self, identity: Identity) {
        let identity = Arc::new(identity);
        self.parts.engine.take_up(&identity.authorities);
        self.parts.tls.send_replace(Some(Arc::clone(&identity.server)));
        self.parts.identity.send_replace(Some(identity));
    }

    /// The identity with the certificate on disk. Returns `None` when there is no usable certificate or the
    /// CA is not known.
    async fn kept_identity(&self, key: &PeerKey) -> Option<Identity> {
        let ca_pem = self.parts.tracker.ca_pem().await.ok()?;
        key.kept(&ca_pem, SystemTime::now())
    }

    /// The identity with the certificate on disk until its renewal is due, else with a new certificate.
    pub(super) async fn certify(&self, key: &PeerKey) -> Result<Identity, PeerError> {
        let now = SystemTime::now();
        if let Some(kept) = self.kept_identity(key).await.filter(|kept| now < kept.renew_at()) {
            return Ok(kept);
        }
        self.certify_anew(key).await
    }

    async fn certify_anew(&self, key: &PeerKey) -> Result<Identity, PeerError> {
        let tracker = &self.parts.tracker;
        let ca_pem = tracker.ca_pem().await?;
        let csr_der = key.request().map_err(identity_error)?.into();
        let request = pb::IssuePeerCertRequest { csr_der };
        let certify = async |line: Line| {
            let mut auth = line.auth().await?;
            line.within(auth.issue_peer_cert(request.clone())).await
        };
        let issued = tracker.ask(certify).await?;
        if issued.peer_id != key.peer().to_string() {
            return Err(PeerError::TrackerAnswer("the tracker's certificate is for another peer".into()));
        }
        // A tracker that serves with another CA's certificate still signs those of the peers itself.
        let authority = match issued.authority_pem.as_str() {
            "" => &ca_pem,
            pem => pem,
        };
        key.certify(issued.certificate_pem, authority).map_err(identity_error)
    }

    /// Logs out: stops everything, deletes the saved session, and tells the tracker. If another daemon uses
    /// the same session, as that of a copied home, the session is not ended, except with `everywhere`.
    ///
    /// # Errors
    /// Fails when nobody is logged in.
    pub(crate) async fn log_out(&self, everywhere: bool) -> Result<Farewell, PeerError> {
        let _turn = self.turn.lock().await;
        let login = self.login_now()?;
        if let Some(token) = login.session.token_name.as_ref().filter(|_| everywhere) {
            return Err(PeerError::OfToken(login.session.user.clone(), token.clone()));
        }
        let is_shared = self.announce.borrow().evicted && !everywhere;
        self.leave(&login).await;
        if login.session.token_name.is_some() {
            tracing::info!(user = %login.session.user, "logged out; the token can be used again");
            return Ok(Farewell::Told);
        }
        if is_shared {
            tracing::info!(user = %login.session.user, "logged out; another daemon uses the session");
            return Ok(Farewell::Shared);
        }
        let farewell = self.parts.tracker.ask(async |line| {
            let mut auth = line.auth_with(&login.session.token).await?;
            if everywhere {
                line.within(auth.logout_all(pb::LogoutAllRequest {})).await.map(|_| ())
            } else {
                line.within(auth.logout(pb::LogoutRequest {})).await.map(|_| ())
            }
        });
        let told = match tokio::time::timeout(FAREWELL, farewell).await {
            // A session that is over already does not have to be ended.
            Ok(told) => told.is_ok() || told.is_err_and(|error| error.is_session_over()),
            Err(_) => false,
        };
        tracing::info!(user = %login.session.user, told, "logged out");
        Ok(if told { Farewell::Told } else { Farewell::Untold })
    }

    /// Logs out locally after the tracker has ended the session.
    pub(super) async fn session_ended(&self, login: &Arc<Login>) {
        let _turn = self.turn.lock().await;
        if self.current().is_some_and(|current| Arc::ptr_eq(&current, login)) {
            tracing::warn!(user = %login.session.user, "the session has ended; log in again");
            *self.session_over.lock() = Some(login.session.user.clone());
            self.leave(login).await;
        }
    }

    /// Stops everything that the login does, and deletes its session. Its library stays.
    async fn leave(&self, login: &Login) {
        self.set_current(None);
        login.end().await;
        self.parts.engine.clear().await;
        // The next login gets the keys again. The epochs stay: a ticket that was void stays void.
        self.parts.engine.set_ticket_keys(Vec::new());
        self.parts.tls.send_replace(None);
        self.parts.identity.send_replace(None);
        self.parts.tracker.set_token(None);
        self.parts.tickets.forget();
        self.announce.send_replace(AnnounceState::default());
        if let Err(error) = self.session_file.forget() {
            tracing::error!(%error, "the session file can't be deleted");
        }
    }
}

fn identity_error(error: IdentityError) -> PeerError {
    match error {
        IdentityError::Io { path, error } => PeerError::Io { path, error },
        IdentityError::Unusable(message) => PeerError::Internal(message),
    }
}

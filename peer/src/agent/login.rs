//! In, out, and taking a kept session up again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use proto::{
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
    tracker::announcer::AnnounceState,
};

/// How long a logout waits for the tracker to take note.
const FAREWELL: Duration = Duration::from_secs(3);

impl Agent {
    /// Logs in and takes up what that user shares and downloads. As the same user again: checks the password and goes on.
    ///
    /// # Errors
    /// When somebody else is logged in, or the tracker says no; nothing has changed then.
    pub async fn log_in(
        self: &Arc<Self>,
        user: Username,
        password: Zeroizing<String>,
    ) -> Result<PeerId, PeerError> {
        let _turn = self.turn.lock().await;
        let standing = self.current();
        if let Some(login) = standing.as_ref().filter(|login| login.session.user != user) {
            return Err(PeerError::LoggedInAs(login.session.user.clone()));
        }
        let session = self.open_session(&user, password).await?;
        if let Some(login) = standing {
            if self.counts(&login.session).await {
                self.close_session(&session.token).await;
                return Ok(login.key.peer());
            }
            self.leave(&login).await;
        }
        let entered = self.enter(&session).await;
        if entered.is_err() {
            self.parts.tracker.set_token(None);
            self.close_session(&session.token).await;
        }
        entered
    }

    async fn open_session(&self, user: &Username, password: Zeroizing<String>) -> Result<Session, PeerError> {
        let tracker = &self.parts.tracker;
        let request = pb::LoginRequest { username: user.to_string(), password: password.to_string() };
        let mut auth = tracker.auth_without_token().await?;
        let opened = tracker.within(auth.login(request)).await?;
        Ok(Session {
            user: user.clone(),
            token: opened.session_token,
            expires_at: opened.expires_at.map(|at| at.seconds).unwrap_or_default(),
            tracker: tracker.url().to_owned(),
        })
    }

    /// The tracker still knows the session, or can't be asked.
    async fn counts(&self, session: &Session) -> bool {
        let tracker = &self.parts.tracker;
        let answer = async {
            let mut auth = tracker.auth_with(&session.token).await?;
            tracker.within(auth.who_am_i(pb::WhoAmIRequest {})).await
        };
        !answer.await.is_err_and(|error: PeerError| error.is_session_over())
    }

    /// Tells the tracker to end a session that nobody will use. If it can't be told, the session ends by itself.
    async fn close_session(&self, token: &str) {
        let tracker = &self.parts.tracker;
        let farewell = async {
            let mut auth = tracker.auth_with(token).await?;
            tracker.within(auth.logout(pb::LogoutRequest {})).await
        };
        if let Err(error) = farewell.await {
            tracing::info!(%error, "the tracker was not told that a session is of no use");
        }
    }

    /// Makes everything ready for a fresh session, certificate included, and only then keeps it.
    async fn enter(self: &Arc<Self>, session: &Session) -> Result<PeerId, PeerError> {
        self.parts.tracker.set_token(Some(&session.token));
        let login = self.prepare(session)?;
        let identity = self.certify(&login.key).await?;
        self.session_file
            .save(session)
            .map_err(|error| PeerError::Io { path: self.parts.home.session_file(), error })?;
        tracing::info!(user = %session.user, peer = %identity.peer, "logged in");
        self.start(login, Some(identity));
        Ok(self.login_now()?.key.peer())
    }

    /// Takes up the session that was kept, if there is one. Works without the tracker, as far as that goes.
    pub async fn resume(self: &Arc<Self>) {
        let _turn = self.turn.lock().await;
        let session = match self.session_file.load() {
            Ok(Some(session)) => session,
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, "the session can't be taken up; log in again"),
        };
        if session.tracker != self.parts.tracker.url() {
            return tracing::warn!(
                tracker = session.tracker,
                "the session is another tracker's; log in again"
            );
        }
        self.parts.tracker.set_token(Some(&session.token));
        match self.prepare(&session) {
            Ok(login) => {
                tracing::info!(user = %session.user, "taking up the session");
                let kept = self.kept_identity(&login.key).await;
                self.start(login, kept);
            }
            Err(error) => {
                self.parts.tracker.set_token(None);
                tracing::error!(%error, "the session can't be taken up");
            }
        }
    }

    fn prepare(&self, session: &Session) -> Result<Arc<Login>, PeerError> {
        let directory = self.parts.home.user_dir(&session.user);
        let library =
            Library::open(&directory).map_err(|error| PeerError::Io { path: directory.clone(), error })?;
        let key = PeerKey::open_or_create(&session.user, &directory).map_err(identity_error)?;
        Ok(Arc::new(Login {
            session: session.clone(),
            key,
            library: Arc::new(library),
            problems: Mutex::new(HashMap::new()),
            files: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    fn start(self: &Arc<Self>, login: Arc<Login>, identity: Option<Identity>) {
        self.set_current(Some(Arc::clone(&login)));
        if let Some(identity) = identity {
            self.adopt(identity);
        }
        self.start_tasks(&login);
    }

    /// From now on this peer is that identity, to those who dial it and those whom it dials.
    pub(super) fn adopt(&self, identity: Identity) {
        let identity = Arc::new(identity);
        self.parts.engine.take_up(identity.authority);
        self.parts.tls.send_replace(Some(Arc::clone(&identity.server)));
        self.parts.identity.send_replace(Some(identity));
    }

    /// The identity by the certificate on disk, unless that is due for renewal or the CA is not known.
    async fn kept_identity(&self, key: &PeerKey) -> Option<Identity> {
        let ca_pem = self.parts.tracker.ca_pem().await.ok()?;
        key.kept(&ca_pem, SystemTime::now())
    }

    /// The identity by the certificate on disk while it is young, else by a new one.
    pub(super) async fn certify(&self, key: &PeerKey) -> Result<Identity, PeerError> {
        let now = SystemTime::now();
        if let Some(kept) = self.kept_identity(key).await.filter(|kept| now < kept.renew_at()) {
            return Ok(kept);
        }
        let tracker = &self.parts.tracker;
        let ca_pem = tracker.ca_pem().await?;
        let csr_der = key.request().map_err(identity_error)?.into();
        let mut auth = tracker.auth().await?;
        let issued = tracker.within(auth.issue_peer_cert(pb::IssuePeerCertRequest { csr_der })).await?;
        if issued.peer_id != key.peer().to_string() {
            return Err(PeerError::TrackerAnswer("the certificate is for another peer".into()));
        }
        key.certify(issued.certificate_pem, &ca_pem).map_err(identity_error)
    }

    /// Logs out: stops all, forgets the session, and tells the tracker if it can be told. True if it could not be.
    ///
    /// # Errors
    /// When nobody is logged in.
    pub async fn log_out(&self, everywhere: bool) -> Result<bool, PeerError> {
        let _turn = self.turn.lock().await;
        let login = self.login_now()?;
        self.leave(&login).await;
        let tracker = &self.parts.tracker;
        let farewell = async {
            let mut auth = tracker.auth_with(&login.session.token).await?;
            if everywhere {
                tracker.within(auth.logout_all(pb::LogoutAllRequest {})).await.map(|_| ())
            } else {
                tracker.within(auth.logout(pb::LogoutRequest {})).await.map(|_| ())
            }
        };
        let told = match tokio::time::timeout(FAREWELL, farewell).await {
            // A session that is over already needs no ending.
            Ok(told) => told.is_ok() || told.is_err_and(|error| error.is_session_over()),
            Err(_) => false,
        };
        tracing::info!(user = %login.session.user, told, "logged out");
        Ok(!told)
    }

    /// The session turned out to be over.
    pub(super) async fn session_ended(&self, login: &Arc<Login>) {
        let _turn = self.turn.lock().await;
        if self.current().is_some_and(|current| Arc::ptr_eq(&current, login)) {
            tracing::warn!(user = %login.session.user, "the session is over: log in again");
            self.leave(login).await;
        }
    }

    /// Stops all that the login does and forgets its session. Its library stays.
    async fn leave(&self, login: &Login) {
        self.set_current(None);
        login.end().await;
        self.parts.engine.clear().await;
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

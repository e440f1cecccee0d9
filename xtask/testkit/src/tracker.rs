//! A tracker in this process, on a free port, over TLS.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use program::settings::{Layers, Settings, Typed};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracker_svc::{
    SwarmStore,
    config::{Config, SETTINGS},
    hub::Hub,
    store::sqlite::Sqlite,
};
use transport::listen;

use crate::client::{Client, PASSWORD, endpoint};

/// A running tracker. It is stopped when dropped.
pub struct Tracker {
    /// Where it serves.
    pub address: SocketAddr,
    /// Its store.
    pub store: Arc<Sqlite>,
    /// Its swarms.
    pub hub: Arc<Hub>,
    swarm_store: SwarmStore,
    data_dir: PathBuf,
    /// Removed with the tracker. `None` if the test owns the directory.
    _dir: Option<tempfile::TempDir>,
    shutdown: CancellationToken,
    serving: Option<JoinHandle<std::io::Result<()>>>,
}

impl Tracker {
    /// Starts a tracker on an empty data directory.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a tracker with settings by name, as flags would set them.
    pub async fn start_with(flags: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut tracker = Self::start_in(dir.path(), flags).await;
        tracker._dir = Some(dir);
        tracker
    }

    /// Starts a tracker on the test's data directory.
    pub async fn start_in(data_dir: &Path, flags: &[(&'static str, &str)]) -> Self {
        Self::start_at(data_dir, flags, Ipv4Addr::LOCALHOST).await
    }

    /// As [`Self::start_in`], bound to this address.
    pub async fn start_at(data_dir: &Path, flags: &[(&'static str, &str)], bound: Ipv4Addr) -> Self {
        let store = Arc::new(Sqlite::open(data_dir).await.expect("a store"));
        Self::over(store, data_dir, flags, bound).await
    }

    /// Starts another tracker of the same network, over the same store and data directory.
    pub async fn beside(&self, flags: &[(&'static str, &str)]) -> Self {
        Self::over(Arc::clone(&self.store), &self.data_dir, flags, Ipv4Addr::LOCALHOST).await
    }

    async fn over(
        store: Arc<Sqlite>,
        data_dir: &Path,
        flags: &[(&'static str, &str)],
        bound: Ipv4Addr,
    ) -> Self {
        let config = config(data_dir, flags);
        let tracker = tracker_svc::Tracker::prepare(store.clone(), &config).await.expect("a tracker");
        let (hub, health) = (Arc::clone(tracker.swarms()), tracker.swarm_store());
        let listener = listen((bound, 0).into()).unwrap();
        let address = (Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()).into();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(tracker.serve(listener, shutdown.clone()));
        let data_dir = data_dir.to_owned();
        Self {
            address,
            store,
            hub,
            swarm_store: health,
            data_dir,
            _dir: None,
            shutdown,
            serving: Some(serving),
        }
    }

    /// The tracker's data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Stops the tracker and waits for its end.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let serving = self.serving.take().expect("it is stopped once");
        serving.await.expect("no panic").expect("a good end");
        self.store.close().await;
    }

    /// Ends the tracker at once, as a crash would.
    pub fn crash(&mut self) {
        self.serving.take().expect("it runs").abort();
    }

    /// Whether it reaches the store that it shares its swarms by.
    pub fn swarm_store_answers(&self) -> bool {
        self.swarm_store.answers()
    }

    /// Starts the stop without waiting.
    pub fn ask_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// The certificate of its authority, as PEM.
    pub fn ca(&self) -> String {
        std::fs::read_to_string(self.data_dir.join("ca.pem")).expect("the CA's certificate")
    }

    /// A new connection.
    pub fn channel(&self) -> Channel {
        endpoint(self.address, &self.ca(), None).connect_lazy()
    }

    /// A client without a session.
    pub fn anonymous(&self) -> Client {
        Client::anonymous(self.channel())
    }

    /// A client with this token.
    pub fn with_token(&self, name: &str, token: &str) -> Client {
        Client { name: name.into(), ..self.anonymous().with_token(Some(token)) }
    }

    /// Creates an account and logs it in.
    pub async fn user(&self, name: &str) -> Client {
        self.anonymous().create_user(name, PASSWORD).await.expect("an account");
        self.login(name).await
    }

    /// Logs an account in again.
    pub async fn login(&self, name: &str) -> Client {
        self.anonymous().logged_in(name).await
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The settings of a tracker on this data directory.
pub fn config(data_dir: &Path, flags: &[(&'static str, &str)]) -> Config {
    let mut typed = Typed::new();
    typed.insert("listen", "127.0.0.1:0".into());
    typed.extend(flags.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let layers = Layers {
        flags: typed,
        env: &|_| None,
        file: data_dir.join("config.toml"),
        file_asked: false,
        directory: data_dir.to_owned(),
    };
    let settings = Settings::resolve(SETTINGS, &layers).expect("good settings");
    Config::new(data_dir.to_owned(), &settings).expect("good settings")
}

//! The Mini Torrent tracker, as a library: composition only.
//!
//! [`Tracker::prepare`] does everything that can fail. [`Tracker::serve`] then serves on the caller's
//! listener until the caller's token is cancelled. [`run()`] does both, for the program.
#![allow(
    clippy::duplicate_mod,
    reason = "`store/sql/` is compiled once for each database; the head of `store/sql.rs` says why"
)]

pub mod ca;
pub mod cli;
mod cluster;
pub mod config;
mod database;
mod error;
pub mod events;
pub mod grpc;
pub mod hub;
pub mod keys;
mod metrics;
mod page;
mod password;
mod run;
pub mod store;
mod tasks;
pub mod vault;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};
use transport::{self, Limits, Listener, Security};

pub use run::run;
use tracker_core as domain;

use crate::{
    ca::{Authority, CaError, OwnCertificate},
    cluster::{Board, Standing, on_redis::Redis},
    config::Config,
    domain::swarm_counts::SwarmCounts,
    error::TrackerError,
    events::Events,
    grpc::{
        Services, Unlisted,
        auth::AuthService,
        file::FileService,
        group::{GroupService, Reachable},
        limits::Rates,
        rights::Rights,
        swarm::SwarmService,
    },
    hub::Hub,
    keys::{KeysError, TicketKeys},
    metrics::Metrics,
    password::Hasher,
    store::Store,
    vault::{Vault, VaultError},
};

/// The reason why a tracker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The authority is unusable.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The ticket keys are unusable.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The secrets that trackers share are unusable.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The machine cannot hash passwords.
    #[error(transparent)]
    Hasher(#[from] TrackerError),
    /// A method has no entry in the access table.
    #[error(transparent)]
    Unlisted(#[from] Unlisted),
    /// The metrics' address cannot be bound.
    #[error("metrics can't be served at {0}: {1}")]
    Metrics(SocketAddr, io::Error),
    /// The address of the swarm store is not usable.
    #[error("the swarm store can't be used: {0}")]
    Swarm(String),
}

/// The state of the store by which trackers share their swarms.
#[derive(Clone)]
pub struct SwarmStore(Arc<Standing>);

impl SwarmStore {
    /// Whether it answers. False for a tracker that shares nothing.
    pub fn answers(&self) -> bool {
        self.0.is_reachable()
    }
}

/// A tracker that is ready to serve.
///
/// ```
/// use std::sync::Arc;
/// use program::settings::{Layers, Settings, Typed};
/// use tracker_svc::{Tracker, config::{Config, SETTINGS}, store::sqlite::Sqlite};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let directory = tempfile::tempdir()?;
/// let data_dir = directory.path().to_owned();
/// let layers = Layers {
///     flags: Typed::from([("listen", "127.0.0.1:0".to_owned())]),
///     env: &|_| None,
///     file: data_dir.join("config.toml"),
///     file_asked: false,
///     directory: data_dir.clone(),
/// };
/// let config = Config::new(data_dir.clone(), &Settings::resolve(SETTINGS, &layers)?)?;
/// let store = Arc::new(Sqlite::open(&data_dir).await?);
/// let tracker = Tracker::prepare(store, &config).await?;
///
/// let listener = tokio::net::TcpListener::bind(config.listen).await?;
/// let shutdown = tokio_util::sync::CancellationToken::new();
/// let serving = tracker.serve(listener, shutdown.clone());
/// shutdown.cancel();
/// serving.await?;
/// # anyhow::Ok(())
/// # }).unwrap();
/// ```
pub struct Tracker {
    store: Arc<dyn Store>,
    authority: Arc<Authority>,
    keys: Arc<TicketKeys>,
    events: Events,
    hub: Arc<Hub>,
    /// Where the swarms are shared with other trackers.
    board: Option<Arc<dyn Board>>,
    standing: Arc<Standing>,
    hasher: Hasher,
    rates: Arc<Rates>,
    rights: Arc<Rights>,
    metrics: Metrics,
    scrapes: Option<TcpListener>,
    health: HealthReporter,
    /// The service names with a health status.
    services: Vec<&'static str>,
    routes: Routes,
    plaintext: bool,
    /// Where invitations say that the tracker is.
    reachable: Arc<Reachable>,
    /// Cancelled when serving ends. It ends the open streams.
    stopping: CancellationToken,
}

impl Tracker {
    /// Opens or makes the content of the data directory besides the store, and assembles the services.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn prepare(store: Arc<dyn Store>, config: &Config) -> Result<Self, StartError> {
        let now = SystemTime::now();
        let vault = match store.shared() {
            Some(_) => Some(Vault::open(Arc::clone(&store), config.cluster_key.as_deref())?),
            None => None,
        };
        let own = config.certificate.clone();
        let authority = match &vault {
            Some(vault) => {
                let authority = vault.authority(own, now).await?;
                // For the operator's commands, as where the authority is a file.
                authority.write_ca(&config.data_dir.join("ca.pem"))?;
                authority
            }
            None => Authority::open_or_create(&config.data_dir, own, now)?,
        };
        let authority = Arc::new(authority);
        if let Some(path) = &config.ca_out {
            authority.write_ca(path)?;
        }
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let keys = Arc::new(match vault {
            Some(vault) => TicketKeys::open_shared(vault, config.ticket_ttl, seconds).await?,
            None => TicketKeys::open_or_create(&config.data_dir, config.ticket_ttl, seconds)?,
        });
        let scrapes = match config.metrics {
            Some(address) => {
                let failed = |error| StartError::Metrics(address, error);
                let bound = TcpListener::bind(address).await.map_err(failed)?;
                tracing::info!("serving metrics at http://{}/metrics", bound.local_addr().map_err(failed)?);
                Some(bound)
            }
            None => None,
        };
        let (hasher, events, metrics) = (Hasher::new()?, Events::default(), Metrics::default());
        let loopback_exempt = !config.limit_local_accounts;
        let shared = || Arc::clone(&store);
        let auth = AuthService::new(
            shared(),
            hasher.clone(),
            Arc::clone(&authority),
            Arc::clone(&keys),
            loopback_exempt,
            config.registration,
        );
        let names = match &config.certificate {
            OwnCertificate::Issued(names) => names.clone(),
            // The names of the operator's own certificate are not read.
            OwnCertificate::Files { .. } => Vec::new(),
        };
        let reachable = Arc::new(Reachable::new(names));
        let stopping = CancellationToken::new();
        let hub = Hub::new(stopping.clone());
        let board = match &config.swarm {
            Some(address) => {
                let redis = Redis::at(address, config.swarm_password_file.as_deref());
                Some(Arc::new(redis.map_err(|error| StartError::Swarm(error.to_string()))?) as Arc<dyn Board>)
            }
            None => None,
        };
        metrics.describe(
            if store.shared().is_some() { "PostgreSQL" } else { "SQLite" },
            if board.is_some() { "Redis" } else { "" },
        );
        metrics.register(|registry| {
            let help = "Time to process an announce, in seconds";
            registry.register("announce_seconds", help, hub.latency.clone());
        });
        let swarm = SwarmService::new(shared(), Arc::clone(&hub), Arc::clone(&keys), config.ticket_ttl);
        let files = FileService::new(shared(), Arc::clone(&hub) as Arc<dyn SwarmCounts>, config.quotas);
        let groups = GroupService::new(shared(), Arc::clone(&reachable), config.group_creators.clone());
        let (health, health_server) = tonic_health::server::health_reporter();
        let services = Services::new()
            .with(grpc::auth_server(auth))
            .with(grpc::group_server(groups))
            .with(grpc::file_server(files))
            .with(grpc::swarm_server(swarm))
            .with(health_server);
        let names = services.names().to_vec();
        let services = if config.reflection { services.with_reflection() } else { services };
        Ok(Self {
            routes: services.routes()?,
            services: names,
            rates: Arc::new(Rates::new(loopback_exempt)),
            rights: Rights::new(Arc::clone(&store)),
            plaintext: config.plaintext,
            stopping,
            reachable,
            store,
            hub,
            board,
            standing: Arc::default(),
            authority,
            keys,
            events,
            hasher,
            metrics,
            scrapes,
            health,
        })
    }

    /// The services with all their layers, without a listener: for fuzz targets.
    #[cfg(fuzzing)]
    #[doc(hidden)]
    pub fn service(&self) -> impl transport::GrpcService<tonic::body::Body> + use<> {
        let (rights, rates) = (Arc::clone(&self.rights), Arc::clone(&self.rates));
        grpc::layered(self.routes.clone(), rights, rates, self.metrics.clone())
    }

    /// The state of the store by which the swarms are shared.
    pub fn swarm_store(&self) -> SwarmStore {
        SwarmStore(Arc::clone(&self.standing))
    }

    /// The swarms, for callers that inspect or fill them without streams.
    pub fn swarms(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Serves until `shutdown`. Then ends within 10 seconds, whatever clients do.
    ///
    /// # Errors
    /// Fails if the listener or the store breaks.
    pub async fn serve(self, listener: impl Into<Listener>, shutdown: CancellationToken) -> io::Result<()> {
        self.serve_within(listener, Limits::tracker(), shutdown).await
    }

    /// Same as [`Tracker::serve`], with these limits.
    ///
    /// # Errors
    /// Same as [`Tracker::serve`].
    pub async fn serve_within(
        mut self,
        listener: impl Into<Listener>,
        limits: Limits,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let listener = listener.into();
        self.reachable.bound(listener.local_addr()?);
        let insecure = self.plaintext && !listener.local_addr()?.ip().is_loopback();
        let mut tasks = JoinSet::new();
        self.start_tasks(&mut tasks, insecure).await.map_err(io::Error::other)?;
        let security =
            if self.plaintext { Security::Plaintext } else { Security::Tls(self.authority.server_config()) };
        let (rights, rates) = (Arc::clone(&self.rights), Arc::clone(&self.rates));
        let service = grpc::layered(self.routes.clone(), rights, rates, self.metrics.clone());
        let (health, services, stopping) =
            (self.health.clone(), self.services.clone(), self.stopping.clone());
        let goodbye = shutdown.clone();
        tasks.spawn(async move {
            goodbye.cancelled().await;
            tasks::tell_health(&health, &services, ServingStatus::NotServing).await;
            stopping.cancel();
        });
        let served = transport::serve(listener, security, service, limits, shutdown.clone()).await;
        // Needed if the listener broke.
        shutdown.cancel();
        while tasks.join_next().await.is_some() {}
        served
    }
}

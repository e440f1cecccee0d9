//! The Mini Torrent tracker, as a library: composition only.
//!
//! [`Tracker::prepare`] does everything that can go wrong, then [`Tracker::serve`] serves on a listener of the
//! caller's until the caller's token is cancelled. [`run()`] is both, as the program does them.

pub mod ca;
pub mod cli;
pub mod config;
pub mod domain;
pub mod error;
pub mod events;
pub mod grpc;
pub mod hub;
pub mod keys;
pub mod metrics;
pub mod password;
mod run;
pub mod store;
mod tasks;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use proto::transport::{self, Limits, Security};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

pub use run::run;

use crate::{
    ca::{Authority, CaError},
    config::Config,
    domain::population::Population,
    error::TrackerError,
    events::Events,
    grpc::{
        Services, Unlisted, auth::AuthService, file::FileService, group::GroupService, limits::Rates,
        swarm::SwarmService,
    },
    hub::Hub,
    keys::{KeysError, TicketKeys},
    metrics::Metrics,
    password::Hasher,
    store::Store,
};

/// Why a tracker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// No ticket keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// No passwords can be hashed.
    #[error(transparent)]
    Hasher(#[from] TrackerError),
    /// A method would be served to nobody knows whom.
    #[error(transparent)]
    Unlisted(#[from] Unlisted),
    /// The metrics' address can't be had.
    #[error("can't serve metrics at {0}: {1}")]
    Metrics(SocketAddr, io::Error),
}

/// A tracker that is ready to serve.
pub struct Tracker {
    store: Arc<dyn Store>,
    authority: Arc<Authority>,
    keys: Arc<TicketKeys>,
    events: Events,
    hub: Arc<Hub>,
    hasher: Hasher,
    rates: Arc<Rates>,
    metrics: Metrics,
    scrapes: Option<TcpListener>,
    health: HealthReporter,
    /// The names that health is told under.
    services: Vec<&'static str>,
    routes: Routes,
    plaintext: bool,
    /// Cancelled when serving ends: streams that would go on end by it.
    stopping: CancellationToken,
}

impl Tracker {
    /// Opens or makes what the data directory holds besides the store, and puts the services together.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn prepare(store: Arc<dyn Store>, config: &Config) -> Result<Self, StartError> {
        let now = SystemTime::now();
        let authority =
            Arc::new(Authority::open_or_create(&config.data_dir, config.certificate.clone(), now)?);
        if let Some(path) = &config.ca_out {
            authority.write_ca(path)?;
        }
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let keys = Arc::new(TicketKeys::open_or_create(&config.data_dir, config.ticket_ttl, seconds)?);
        let scrapes = match config.metrics {
            Some(address) => {
                let failed = |error| StartError::Metrics(address, error);
                let bound = TcpListener::bind(address).await.map_err(failed)?;
                tracing::info!("metrics at http://{}/metrics", bound.local_addr().map_err(failed)?);
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
        );
        let stopping = CancellationToken::new();
        let hub = Hub::new(stopping.clone());
        metrics.register(|registry| {
            let help = "Time until an announce was taken in, in seconds";
            registry.register("announce_seconds", help, hub.latency.clone());
        });
        let swarm = SwarmService::new(shared(), Arc::clone(&hub), Arc::clone(&keys), config.ticket_ttl);
        let files = FileService::new(shared(), Arc::clone(&hub) as Arc<dyn Population>);
        let (health, health_server) = tonic_health::server::health_reporter();
        let services = Services::new()
            .with(grpc::auth_server(auth))
            .with(grpc::group_server(GroupService::new(shared())))
            .with(grpc::file_server(files))
            .with(grpc::swarm_server(swarm))
            .with(health_server);
        let names = services.names().to_vec();
        let services = if config.reflection { services.with_reflection() } else { services };
        Ok(Self {
            routes: services.routes()?,
            services: names,
            rates: Arc::new(Rates::new(loopback_exempt)),
            plaintext: config.plaintext,
            stopping,
            store,
            hub,
            authority,
            keys,
            events,
            hasher,
            metrics,
            scrapes,
            health,
        })
    }

    /// Its swarms, for who looks into them or fills them without streams.
    pub fn swarms(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Serves until `shutdown`, then ends within 10 seconds whatever clients do.
    ///
    /// # Errors
    /// When the listener or the store breaks.
    pub async fn serve(mut self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let insecure = self.plaintext && !listener.local_addr()?.ip().is_loopback();
        let mut tasks = JoinSet::new();
        self.start_tasks(&mut tasks, insecure).await.map_err(io::Error::other)?;
        let security =
            if self.plaintext { Security::Plaintext } else { Security::Tls(self.authority.server_config()) };
        let (store, rates) = (Arc::clone(&self.store), Arc::clone(&self.rates));
        let service = grpc::layered(self.routes.clone(), store, rates, self.metrics.clone());
        let (health, services, stopping) =
            (self.health.clone(), self.services.clone(), self.stopping.clone());
        let goodbye = shutdown.clone();
        tasks.spawn(async move {
            goodbye.cancelled().await;
            tasks::tell_health(&health, &services, ServingStatus::NotServing).await;
            stopping.cancel();
        });
        let served = transport::serve(listener, security, service, Limits::tracker(), shutdown.clone()).await;
        // Also when it was the listener that broke.
        shutdown.cancel();
        while tasks.join_next().await.is_some() {}
        served
    }
}

//! The long-lived process: takes the home's lock, binds, puts the parts together, and takes them apart again.

use std::{
    future::Future,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::Duration,
};

use proto::{
    durable,
    transport::{self, Around, Limits, RequestIds, Security},
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Layer as _;

use crate::{
    agent::{Agent, AgentParts},
    config::Config,
    control,
    engine::{Engine, EngineConfig},
    home::HomeLock,
    identity::PeerDialer,
    metrics,
    tracker::{
        client::{TrackerAddress, TrackerClient},
        tickets::Tickets,
    },
};

/// How long the whole end may take, before the process leaves whatever still runs.
const END: Duration = Duration::from_secs(9);

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another one runs.
    #[error("a daemon runs already on {0}; `peer --home {0} daemon stop` stops it")]
    Running(String),
    /// The home can't be used.
    #[error("{path}: {error}")]
    Home {
        /// The directory or file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// An address can't be bound.
    #[error("can't listen at {address}: {error}; choose another --{flag}")]
    Bind {
        /// Where.
        address: String,
        /// The flag that says so.
        flag: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A part can't be set up.
    #[error("{0}")]
    Setup(String),
}

/// Takes the lock that makes this process the daemon of its home. To be called before anything else.
///
/// # Errors
/// [`DaemonError::Running`], or what the file system says.
pub fn take_lock(config: &Config) -> Result<HomeLock, DaemonError> {
    let path = || config.home.directory().display().to_string();
    let io_error = |error| DaemonError::Home { path: path(), error };
    config.home.create().map_err(io_error)?;
    config.home.lock().map_err(io_error)?.ok_or_else(|| DaemonError::Running(path()))
}

/// Runs until SIGTERM, SIGINT or `daemon stop`. Prints one line, `listening https://…`, once it takes calls.
///
/// # Errors
/// When it can't start. What goes wrong later is logged and mended.
pub async fn run(config: Config, lock: HomeLock) -> Result<(), DaemonError> {
    transport::raise_open_files();
    let shutdown = CancellationToken::new();
    watch_signals(&shutdown)?;
    let bound = Bound::new(&config).await?;
    let mut tasks = JoinSet::new();
    let (agent, fetcher, tls) = assemble(&config, bound.address);
    let stop = shutdown.clone();
    tasks.spawn(async move { fetcher.run(stop).await });
    // Before verbs are answered: one that comes at once must find whoever was logged in.
    agent.resume().await;
    bound.serve(&config, &agent, tls, &shutdown, &mut tasks)?;
    announce_readiness(bound_line(&agent));
    shutdown.cancelled().await;
    tracing::info!("ending");
    tell_service_manager(&[sd_notify::NotifyState::Stopping]);
    let end = async {
        agent.close().await;
        while tasks.join_next().await.is_some() {}
    };
    if tokio::time::timeout(END, end).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
    // While the lock is held: afterwards the socket may be the next daemon's.
    if let Err(error) = durable::remove_if_there(config.home.socket()) {
        tracing::debug!(%error, "the socket stays behind");
    }
    drop(lock);
    Ok(())
}

/// Everything bound, so that readiness can be told truthfully.
struct Bound {
    peers: tokio::net::TcpListener,
    address: SocketAddr,
    control: UnixListener,
    metrics: Option<tokio::net::TcpListener>,
}

impl Bound {
    async fn new(config: &Config) -> Result<Self, DaemonError> {
        let bind = |address: SocketAddr, flag| {
            transport::listen(address).map_err(|error| DaemonError::Bind {
                address: address.to_string(),
                flag,
                error,
            })
        };
        let peers = bind(config.listen, "listen")?;
        transport::send_uploads(&peers, &config.congestion).map_err(|error| {
            DaemonError::Setup(format!("can't have --congestion {}: {error}", config.congestion))
        })?;
        let address = peers.local_addr().map_err(|error| DaemonError::Setup(error.to_string()))?;
        let metrics = config.metrics.map(|address| bind(address, "metrics")).transpose()?;
        Ok(Self { peers, address, control: bind_control(config)?, metrics })
    }

    fn serve(
        self,
        config: &Config,
        agent: &Arc<Agent>,
        tls: watch::Receiver<Option<Arc<rustls::ServerConfig>>>,
        shutdown: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), DaemonError> {
        let peers =
            peer_routes(config, agent.engine()).map_err(|error| DaemonError::Setup(error.to_string()))?;
        let peers = Around(RequestIds).layer(peers);
        let stop = shutdown.clone();
        supervise(tasks, "peers", shutdown, async move {
            transport::serve(self.peers, Security::Tls(tls), peers, Limits::peer(), stop).await
        });
        let control = control::service(agent, shutdown.clone());
        let stop = shutdown.clone();
        supervise(tasks, "control", shutdown, async move {
            // What a verb still follows must not hold up the end.
            let limits = Limits { grace: Duration::from_secs(1), ..Limits::tracker() };
            transport::serve_unix(self.control, control, limits, stop).await
        });
        if let Some(listener) = self.metrics {
            if let Ok(address) = listener.local_addr() {
                tracing::info!("metrics at http://{address}/metrics");
            }
            let (engine, stop) = (agent.engine().clone(), shutdown.clone());
            tasks.spawn(metrics::serve(listener, engine, stop));
        }
        Ok(())
    }
}

/// A socket left by a daemon that was killed is in the way; the lock says that it is nobody's.
fn bind_control(config: &Config) -> Result<UnixListener, DaemonError> {
    let path = config.home.socket();
    let bound = durable::remove_if_there(path).and_then(|()| {
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    bound.map_err(|error| DaemonError::Home { path: path.display().to_string(), error })
}

type TlsWatch = watch::Receiver<Option<Arc<rustls::ServerConfig>>>;

fn assemble(
    config: &Config,
    listen: SocketAddr,
) -> (Arc<Agent>, crate::tracker::tickets::TicketFetcher, TlsWatch) {
    let tracker = TrackerClient::new(TrackerAddress {
        url: config.tracker.clone(),
        ca: config.ca.clone(),
        pin: config.ca_sha256,
        trusted_ca: config.home.trusted_ca(),
    });
    let (identity, who) = watch::channel(None);
    let (tls, serving) = watch::channel(None);
    let (tickets, fetcher) = Tickets::new(tracker.clone(), who.clone());
    let defaults = EngineConfig::default();
    let engine = EngineConfig {
        upload_slots: config.upload_slots,
        upload_limit: config.upload_limit,
        download_limit: config.download_limit,
        state_dir: Some(config.home.directory().join("engine")),
        seed: config.picker_seed.unwrap_or(defaults.seed),
        ..defaults
    };
    let engine = Engine::new(engine, Arc::new(PeerDialer(who)), Arc::<Tickets>::clone(&tickets) as _);
    let agent = Agent::new(AgentParts {
        home: config.home.clone(),
        tracker,
        engine,
        tickets,
        identity,
        tls,
        listen,
        advertise: config.advertise.clone(),
    });
    (agent, fetcher, serving)
}

/// What other peers can call.
fn peer_routes(config: &Config, engine: &Engine) -> Result<Routes, tonic_reflection::server::Error> {
    let (_, health) = tonic_health::server::health_reporter();
    let mut routes = Routes::new(health).add_service(engine.service());
    if config.reflection {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::pb::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name("minitorrent.v1.PeerService")
                .with_service_name("grpc.health.v1.Health")
        };
        routes = routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?);
    }
    Ok(routes)
}

/// Runs a server; its failure ends the daemon.
fn supervise(
    tasks: &mut JoinSet<()>,
    name: &'static str,
    shutdown: &CancellationToken,
    server: impl Future<Output = io::Result<()>> + Send + 'static,
) {
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(server = name, %error, "serving failed");
            shutdown.cancel();
        }
    });
}

fn watch_signals(shutdown: &CancellationToken) -> Result<(), DaemonError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(|error| DaemonError::Setup(format!("signals: {error}")))?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            signals.recv().await;
            shutdown.cancel();
        });
    }
    Ok(())
}

fn bound_line(agent: &Agent) -> String {
    format!("listening https://{}", agent.status().listen)
}

/// Tells whoever waits: the starting verb or a person by the line, a service manager by its socket.
fn announce_readiness(line: String) {
    let mut out = io::stdout().lock();
    // Whoever started this may be gone; that is no reason to end.
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads standard output");
    }
    tracing::info!("{line}");
    tell_service_manager(&[sd_notify::NotifyState::Ready]);
}

fn tell_service_manager(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "no service manager was told");
    }
}

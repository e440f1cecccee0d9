//! The long-lived process: takes the home's lock, binds, assembles the parts, and shuts them down.

pub(crate) mod surroundings;

use std::{
    future::Future,
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use program::settings::Typed;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Layer as _;
use transport::{Limits, Listener, MiddlewareLayer, RequestIds, Security};

use crate::{
    agent::{Agent, AgentParts},
    config::Config,
    control::{self, Socket},
    engine::{Engine, EngineConfig},
    home::{HomeLock, Phase},
    hooks::Hooks,
    identity::PeerDialer,
    metrics,
    storage::Opener,
    tracker::{client::TrackerClient, line::TrackerAddress, tickets::TicketCache},
};

/// How long the whole shutdown may take. After that the process ends, whatever still runs.
const END: Duration = Duration::from_secs(9);

/// The reasons why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// Another daemon runs on this home.
    #[error("a daemon{} is already running on {home}; `peer --home {home} daemon stop` stops it", with_pid(*.pid))]
    Running {
        /// The home.
        home: String,
        /// The daemon's process id, if it can be seen.
        pid: Option<u32>,
    },
    /// The home can't be used.
    #[error("{path}: {error}")]
    Home {
        /// The directory or file.
        path: String,
        /// What the file system answered.
        error: io::Error,
    },
    /// An address can't be bound.
    #[error("the daemon can't listen at {address}: {error}; choose another --{flag}")]
    Bind {
        /// The address.
        address: String,
        /// The flag that sets the address.
        flag: &'static str,
        /// What the system answered.
        error: io::Error,
    },
    /// A part can't be set up.
    #[error("{0}")]
    Setup(String),
}

/// Takes the lock that makes this process the daemon of its home. Must be called before anything else.
///
/// # Errors
/// Fails with [`DaemonError::Running`], or with the error of the file system.
pub(crate) fn take_lock(config: &Config) -> Result<HomeLock, DaemonError> {
    let path = || config.home.directory().display().to_string();
    let io_error = |error| DaemonError::Home { path: path(), error };
    config.home.create().map_err(io_error)?;
    match config.home.lock().map_err(io_error)? {
        Some(lock) => Ok(lock),
        None => {
            let holder = config.home.holder().map_err(io_error)?;
            Err(DaemonError::Running { home: path(), pid: holder.and_then(|holder| holder.pid) })
        }
    }
}

fn with_pid(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// Runs a daemon with these settings and no others, and with this storage for unfinished downloads, until a call
/// ends it. For tests that run several peers in one process.
///
/// # Errors
/// Fails with the setting that can't be used, or the reason why the daemon does not run.
pub async fn serve(settings: Typed, open: Opener) -> Result<(), String> {
    let config = Config::resolve(settings, &|_| None, "/".into()).map_err(|error| error.to_string())?;
    let lock = take_lock(&config).map_err(|error| error.to_string())?;
    run(config, lock, open).await.map_err(|error| error.to_string())
}

/// Runs until SIGTERM, SIGINT or `daemon stop`. Prints one line, `listening https://…`, once it takes calls.
///
/// # Errors
/// Fails when it can't start. Later errors are logged and, where possible, repaired.
pub(crate) async fn run(config: Config, lock: HomeLock, open: Opener) -> Result<(), DaemonError> {
    let open_files = transport::raise_open_files();
    let shutdown = CancellationToken::new();
    watch_signals(&shutdown)?;
    let mut socket = Socket::bind(&config.home)
        .map_err(|error| DaemonError::Home { path: config.home.socket().display().to_string(), error })?;
    let bound = Bound::new(&config, socket.listeners()).await?;
    let mut tasks = JoinSet::new();
    let (agent, fetcher, tls) = assemble(&config, bound.address, open);
    let stop = shutdown.clone();
    tasks.spawn(async move { fetcher.run(stop).await });
    // The session is resumed before verbs are answered, so that the first verb already finds the user who was
    // logged in.
    agent.resume().await;
    bound.serve(&config, &agent, tls, open_files, &shutdown, &mut tasks)?;
    report_phase(&lock, Phase::Serving, &config);
    announce_readiness(bound_line(&agent));
    shutdown.run_until_cancelled(socket.keep(&lock)).await;
    tracing::info!("ending");
    report_phase(&lock, Phase::Ending, &config);
    tell_service_manager(&[sd_notify::NotifyState::Stopping]);
    let end = async {
        agent.close().await;
        while tasks.join_next().await.is_some() {}
    };
    if tokio::time::timeout(END, end).await.is_err() {
        tracing::warn!("some work did not end in time and was aborted");
    }
    // This is done while the lock is held. Afterwards the socket may belong to the next daemon.
    drop(socket);
    drop(lock);
    Ok(())
}

/// Reports to verbs how far this daemon is.
fn report_phase(lock: &HomeLock, phase: Phase, config: &Config) {
    if let Err(error) = lock.report(phase, config.home.socket()) {
        tracing::warn!(%error, "the lock file can't be written");
    }
}

/// The bound sockets. All of them are bound before readiness is reported.
struct Bound {
    peers: Listener,
    address: SocketAddr,
    control: watch::Receiver<Arc<UnixListener>>,
    metrics: Option<tokio::net::TcpListener>,
}

impl Bound {
    async fn new(config: &Config, control: watch::Receiver<Arc<UnixListener>>) -> Result<Self, DaemonError> {
        let failed = |address: SocketAddr, flag| {
            move |error| DaemonError::Bind { address: address.to_string(), flag, error }
        };
        let peers = Listener::bind(config.listen).map_err(failed(config.listen, "listen"))?;
        peers.send_uploads(&config.congestion).map_err(|error| {
            DaemonError::Setup(format!("--congestion {} is not available: {error}", config.congestion))
        })?;
        let address = peers.local_addr().map_err(|error| DaemonError::Setup(error.to_string()))?;
        let metrics = config.metrics;
        let metrics = metrics
            .map(|address| transport::listen(address).map_err(failed(address, "metrics")))
            .transpose()?;
        Ok(Self { peers, address, control, metrics })
    }

    fn serve(
        self,
        config: &Config,
        agent: &Arc<Agent>,
        tls: TlsWatch,
        open_files: u64,
        shutdown: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), DaemonError> {
        let peers =
            peer_routes(config, agent.engine()).map_err(|error| DaemonError::Setup(error.to_string()))?;
        let peers = MiddlewareLayer(RequestIds).layer(peers);
        let stop = shutdown.clone();
        // Half of the open files are for the peers that fetch from here. The rest is for files, for sources
        // and for verbs.
        let limits = Limits::peer().within(open_files / 2);
        tracing::debug!(open_files, places = ?limits.places, "serving");
        supervise(tasks, "peers", shutdown, async move {
            transport::serve(self.peers, Security::Tls(tls), peers, limits, stop).await
        });
        let control = control::service(agent, shutdown);
        let stop = shutdown.clone();
        supervise(tasks, "control", shutdown, async move {
            let limits = Limits::control().within(open_files / 8);
            transport::serve_unix(self.control, control, limits, stop).await
        });
        if let Some(listener) = self.metrics {
            if let Ok(address) = listener.local_addr() {
                tracing::info!("serving metrics at http://{address}/metrics");
            }
            let (engine, stop) = (agent.engine().clone(), shutdown.clone());
            tasks.spawn(metrics::serve(listener, engine, stop));
        }
        Ok(())
    }
}

type TlsWatch = watch::Receiver<Option<Arc<rustls::ServerConfig>>>;

fn assemble(
    config: &Config,
    listen: SocketAddr,
    open: Opener,
) -> (Arc<Agent>, crate::tracker::tickets::TicketFetcher, TlsWatch) {
    let tracker = TrackerClient::new(TrackerAddress {
        trackers: config.trackers.clone(),
        ca: config.ca.clone(),
        pin: config.ca_sha256,
        trusted_ca: config.home.trusted_ca(),
    });
    let (identity, who) = watch::channel(None);
    let (tls, serving) = watch::channel(None);
    let (tickets, fetcher) = TicketCache::new(tracker.clone(), who.clone());
    let defaults = EngineConfig::default();
    let engine = EngineConfig {
        upload_slots: config.upload_slots,
        upload_limit: config.upload_limit,
        download_limit: config.download_limit,
        state_dir: Some(config.home.directory().join("engine")),
        seed: config.picker_seed.unwrap_or(defaults.seed),
        ..defaults
    };
    let (dialer, source) = (Arc::new(PeerDialer(who)), Arc::<TicketCache>::clone(&tickets) as _);
    let engine = Engine::with_storage(engine, dialer, source, open);
    let agent = Agent::new(AgentParts {
        home: config.home.clone(),
        tracker,
        engine,
        tickets,
        identity,
        tls,
        listen,
        advertise: config.advertise.clone(),
        hooks: Hooks::new(config.hooks.clone(), config.home.directory()),
    });
    (agent, fetcher, serving)
}

/// The services that other peers can call.
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

/// Runs a server. If it fails, the daemon ends.
fn supervise(
    tasks: &mut JoinSet<()>,
    name: &'static str,
    shutdown: &CancellationToken,
    server: impl Future<Output = io::Result<()>> + Send + 'static,
) {
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(server = name, %error, "serving other peers failed");
            shutdown.cancel();
        }
    });
}

fn watch_signals(shutdown: &CancellationToken) -> Result<(), DaemonError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals =
            signal(kind).map_err(|error| DaemonError::Setup(format!("signals can't be handled: {error}")))?;
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

/// Reports readiness: by the line to the verb or user that started the daemon, and by its socket to a service
/// manager.
fn announce_readiness(line: String) {
    let mut out = io::stdout().lock();
    // The process that started the daemon may be gone. That is no reason to end.
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%error, "standard output can't be written");
    }
    tracing::info!("{line}");
    tell_service_manager(&[sd_notify::NotifyState::Ready]);
}

fn tell_service_manager(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be notified");
    }
}

//! The hosts of a simulation: a tracker, peers, and the users at their command lines.
//!
//! Each host has a runtime of its own. Dropping it is what `kill -9` does to a process: every task is gone, and
//! what was not written is lost.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use program::settings::{Layers, Settings, Typed};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracker_svc::{
    Tracker,
    config::{Config, SETTINGS},
    store::sqlite::Sqlite,
};
use transport::Listener;

use crate::{
    disk::Disk,
    line::Line,
    net::{Net, TICK},
    sys,
};

/// The tracker's host.
pub(crate) const TRACKER: usize = 0;

/// All hosts, the network between them, and what happened.
pub(crate) struct World {
    pub(crate) net: Net,
    root: tempfile::TempDir,
    /// The runtimes of the tracker and the peers. `None` for a host that is down.
    hosts: Vec<Option<Runtime>>,
    /// The disk of each host.
    pub(crate) disks: Vec<Disk>,
    /// The runtime of the users and their command lines.
    users: Runtime,
    trace: Vec<String>,
    digest: blake3::Hasher,
    echo: bool,
}

impl World {
    /// Makes a network with a tracker and this many peers, all of them down.
    pub(crate) fn new(seed: u64, peers: usize, echo: bool) -> Self {
        let net = Net::new(seed);
        transport::replace_network(Box::new(net.clone()));
        let memory = Path::new("/dev/shm");
        // The length of the name is always the same, and the trace does not contain it.
        let name = format!("whole-system-{:010}-", std::process::id());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&name).rand_bytes(4);
        let root = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() };
        let root = root.expect("a temporary directory");
        sys::enter(peers + 1);
        let users = runtime();
        let hosts = (0..=peers).map(|_| None).collect();
        let disks = (0..=peers).map(|_| Disk::default()).collect();
        let (trace, digest) = (Vec::new(), blake3::Hasher::new());
        Self { net, root, hosts, disks, users, trace, digest, echo }
    }

    /// The hosts of the peers.
    pub(crate) fn peers(&self) -> std::ops::Range<usize> {
        1..self.hosts.len()
    }

    /// Notes what happened.
    pub(crate) fn note(&mut self, what: impl AsRef<str>) {
        let line = format!("{:>9.2} {}", self.now().as_secs_f64(), what.as_ref());
        self.digest.update(line.as_bytes());
        if self.echo {
            eprintln!("{line}");
        }
        self.trace.push(line);
    }

    /// What happened, line by line.
    pub(crate) fn trace(&self) -> &[String] {
        &self.trace
    }

    /// A hash of all that happened, and of everything that arrived over the network.
    pub(crate) fn digest(&self) -> String {
        format!("{}-{}", &self.digest.finalize().to_hex()[..16], self.net.digest())
    }

    /// The time since the start.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(sys::now())
    }

    /// A host's directory.
    pub(crate) fn directory(&self, host: usize) -> PathBuf {
        self.root.path().join(host.to_string())
    }

    /// Whether a host is up.
    pub(crate) fn is_up(&self, host: usize) -> bool {
        self.hosts[host].is_some()
    }

    /// Lets all hosts run for one tick.
    pub(crate) fn tick(&mut self) {
        let now = sys::now();
        let next = now + TICK.as_nanos() as u64;
        let running = self.hosts.iter().enumerate().filter_map(|(host, up)| Some((host, up.as_ref()?)));
        for (host, runtime) in running.chain([(self.hosts.len(), &self.users)]) {
            sys::enter(host);
            runtime.block_on(until(next));
        }
        // A host that is down has the time too.
        (0..sys::HOSTS).for_each(|host| sys::set_now(host, next));
    }

    /// Lets all hosts run for this long.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.now() < end {
            self.tick();
        }
    }

    /// Does a user's work, while all hosts run. Returns `None` when it takes longer than `limit`.
    pub(crate) fn call<T: Send + 'static>(
        &mut self,
        limit: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let working = self.users.spawn(async move { tokio::time::timeout(limit, work).await });
        while !working.is_finished() {
            self.tick();
        }
        self.users.block_on(working).expect("the work does not panic").ok()
    }

    /// Starts a task of the users.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.users.spawn(work)
    }

    fn host(&mut self, host: usize) -> &Runtime {
        sys::enter(host);
        self.hosts[host].insert(runtime())
    }

    /// Starts the tracker.
    pub(crate) fn start_tracker(&mut self) {
        let directory = self.directory(TRACKER);
        let flags = [("listen", "10.0.0.1:7700"), ("tls_name", "10.0.0.1"), ("reflection", "false")];
        let layers = Layers {
            flags: flags.into_iter().map(|(name, value)| (name, value.to_owned())).collect(),
            env: &|_| None,
            file: directory.join("config.toml"),
            file_asked: false,
            directory: directory.clone(),
        };
        let settings = Settings::resolve(SETTINGS, &layers).expect("settings");
        let config = Config::new(directory.clone(), &settings).expect("a configuration");
        self.host(TRACKER).spawn(async move {
            let store = Arc::new(Sqlite::open(&config.data_dir).await.expect("a store"));
            let tracker = Tracker::prepare(store, &config).await.expect("a tracker");
            let listener = Listener::bind(config.listen).expect("a free port");
            tracker.serve(listener, CancellationToken::new()).await.expect("serving");
        });
        sys::enter(self.hosts.len());
    }

    /// Starts the daemon of a peer.
    pub(crate) fn start_peer(&mut self, host: usize) {
        let text = |path: PathBuf| path.display().to_string();
        let settings = Typed::from([
            ("home", text(self.home(host))),
            ("tracker", "https://10.0.0.1:7700".to_owned()),
            ("ca", text(self.directory(TRACKER).join("ca.pem"))),
            ("listen", "0.0.0.0:7800".to_owned()),
            ("reflection", "false".to_owned()),
        ]);
        let open = self.disks[host].opener();
        self.host(host).spawn(async move { peer::serve(settings, open).await.expect("a daemon") });
        sys::enter(self.hosts.len());
    }

    fn home(&self, host: usize) -> PathBuf {
        self.directory(host).join("home")
    }

    /// Kills what runs on a host. Nothing of it is left.
    pub(crate) fn kill(&mut self, host: usize) {
        sys::enter(host);
        if let Some(runtime) = self.hosts[host].take() {
            runtime.shutdown_background();
            sys::settle();
        }
        sys::enter(self.hosts.len());
    }

    /// The connection of a command line to the daemon of a peer.
    pub(crate) fn line(&self, host: usize) -> Line {
        Line::new(self.home(host).join("run/daemon.sock"))
    }
}

fn runtime() -> Runtime {
    // Threads for blocking work are kept, so that none ends at a time of the machine.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(1 << 30))
        .build();
    runtime.expect("a runtime")
}

async fn until(at: u64) {
    sleep_until(Instant::now() + Duration::from_nanos(at.saturating_sub(sys::now()))).await;
}

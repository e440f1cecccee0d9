//! The background work of a tracker. Each task is a loop that ends when the tracker stops.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};
use transport::serve_scrapes;

use crate::{
    Tracker,
    ca::Authority,
    cluster::{Cluster, Standing},
    grpc::limits::Rates,
    hub::Hub,
    keys::TicketKeys,
    metrics::Metrics,
    page::Page,
    password::Hasher,
    store::{Result, Store, StoreError},
};

/// Interval at which the store is probed and the gauges are set.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// The same where trackers share the store, which can go away while they run. Together with
/// [`PROBE_WITHIN`] it takes less than 5 seconds until the health status says so.
const PROBE_SHARED_EVERY: Duration = Duration::from_secs(1);
/// How long the question for the store's clock may take for the answer to count.
const CLOCK_WITHIN: Duration = Duration::from_millis(500);
/// How long a probe may take.
const PROBE_WITHIN: Duration = Duration::from_secs(3);
/// The name under which the health service tells whether the store answers by which trackers share their swarms.
pub(crate) const SWARM_STORE: &str = "swarm-store";
/// How old what a tracker knows of a shared store may be. Together with [`CUT_AGAIN`] it takes less than 5 seconds
/// until the streams of a tracker that is cut off from the store have ended.
const STALE: Duration = Duration::from_millis(4_500);
/// Interval at which streams are ended while the store can't be read.
const CUT_AGAIN: Duration = Duration::from_millis(250);
/// Interval at which expired sessions are ended.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// Interval at which old rows of the store are deleted.
const PRUNE_EVERY: Duration = Duration::from_mins(10);
/// Interval at which unused rates are dropped, and ticket keys are renewed if due.
const TEND_EVERY: Duration = Duration::from_mins(1);
/// Interval at which the metrics are remembered for the page.
const SAMPLE_EVERY: Duration = Duration::from_secs(15);
/// Interval of the warning about an unencrypted listener.
const WARN_EVERY: Duration = Duration::from_mins(1);

impl Tracker {
    /// Starts all loops.
    pub(crate) async fn start_tasks(&mut self, tasks: &mut JoinSet<()>, insecure: bool) -> Result<()> {
        let last = self.store.last_change().await?;
        set_clock(&*self.store, &self.hub).await?;
        let (store, stop) = (|| Arc::clone(&self.store), || self.stopping.clone());
        // The listeners must exist before the pump sends the first change.
        tasks.spawn(Arc::clone(&self.hub).run(self.events.listen(), Arc::clone(&self.keys)));
        tasks.spawn(Arc::clone(&self.rights).run(self.events.listen(), stop()));
        tasks.spawn(self.events.clone().pump(store(), last, stop()));
        tasks.spawn(until(stop(), sweep(store())));
        tasks.spawn(until(stop(), expire(store())));
        tasks.spawn(until(stop(), prune(store())));
        tasks.spawn(until(stop(), tend(Arc::clone(&self.rates), Arc::clone(&self.keys))));
        if self.store.shared().is_some() {
            tasks.spawn(until(stop(), end_stale(self.events.read(), Arc::clone(&self.hub))));
            tasks.spawn(until(stop(), follow_clock(store(), Arc::clone(&self.hub))));
        }
        if let Some(board) = &self.board {
            let (hub, standing) = (Arc::clone(&self.hub), Arc::clone(&self.standing));
            tasks.spawn(Cluster::new(hub, Arc::clone(board), standing).run(stop()));
        }
        let watch = Watch {
            standing: self.board.as_ref().map(|_| Arc::clone(&self.standing)),
            store: store(),
            hub: Arc::clone(&self.hub),
            hasher: self.hasher.clone(),
            metrics: self.metrics.clone(),
            authority: Arc::clone(&self.authority),
            health: self.health.clone(),
            services: self.services.clone(),
        };
        watch.look().await;
        tasks.spawn(until(stop(), watch.run()));
        let (authority, stopping) = (Arc::clone(&self.authority), stop());
        tasks.spawn(async move { authority.tend(stopping).await });
        if let Some(listener) = self.scrapes.take() {
            let page = Page::new(self.metrics.clone());
            tasks.spawn(until(stop(), sample(page.clone())));
            tasks.spawn(serve_scrapes(listener, move |path| page.find(path), stop()));
        }
        if insecure {
            tasks.spawn(until(self.stopping.clone(), warn()));
        }
        Ok(())
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()> + Send) {
    stop.run_until_cancelled(work).await;
}

async fn sweep(store: Arc<dyn Store>) {
    loop {
        if let Err(error) = store.sweep().await {
            tracing::warn!(%error, "old manifests can't be deleted");
            // The next sweep finds the rest.
            sleep(TEND_EVERY).await;
            continue;
        }
        store.sweep_wanted().await;
    }
}

/// Remembers what the page of the tracker compares with.
async fn sample(page: Page) {
    loop {
        page.sample();
        sleep(SAMPLE_EVERY).await;
    }
}

async fn expire(store: Arc<dyn Store>) {
    loop {
        if let Err(error) = store.expire_sessions(SystemTime::now()).await {
            tracing::warn!(%error, "expired sessions can't be ended");
        }
        sleep(EXPIRE_EVERY).await;
    }
}

async fn prune(store: Arc<dyn Store>) {
    loop {
        if let Err(error) = store.prune(SystemTime::now()).await {
            tracing::warn!(%error, "old rows can't be deleted");
        }
        sleep(PRUNE_EVERY).await;
    }
}

async fn tend(rates: Arc<Rates>, keys: Arc<TicketKeys>) {
    loop {
        sleep(TEND_EVERY).await;
        rates.forget();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Err(error) = keys.tend(now).await {
            tracing::error!(%error, "the ticket keys can't be renewed");
        }
    }
}

/// Sets the hub's clock by that of a shared store. An answer that took long would set it wrong.
async fn set_clock(store: &dyn Store, hub: &Hub) -> Result<()> {
    let Some(shared) = store.shared() else { return Ok(()) };
    let asked = Instant::now();
    let clock = shared.clock().await?;
    let took = asked.elapsed();
    if took < CLOCK_WITHIN {
        // The answer was on its way for half of the time.
        hub.follow_store(clock + took.as_millis() as u64 / 2);
    }
    Ok(())
}

async fn follow_clock(store: Arc<dyn Store>, hub: Arc<Hub>) {
    loop {
        sleep(PROBE_SHARED_EVERY).await;
        // Until the store answers again, the clock goes on.
        let _ = set_clock(&*store, &hub).await;
    }
}

/// Ends all announce streams while the changes in a shared store can't be read. The rights that were read before may
/// be gone by now, and another tracker may reach the store.
async fn end_stale(mut read: watch::Receiver<Instant>, hub: Arc<Hub>) {
    loop {
        let known = *read.borrow_and_update();
        match timeout_at(known + STALE, read.changed()).await {
            Ok(Ok(())) => continue,
            // The tracker ends.
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        tracing::error!(
            "the store can't be read: all announce streams end, and peers go on at another tracker"
        );
        hub.cut_off();
        // Streams whose rights were read just before may open after that.
        while timeout(CUT_AGAIN, read.changed()).await.is_err() {
            hub.cut_off();
        }
        tracing::info!("the store can be read again");
    }
}

async fn warn() {
    loop {
        tracing::warn!(
            "serving without TLS on a public address; passwords and tokens can be read on the network"
        );
        sleep(WARN_EVERY).await;
    }
}

/// Keeps health status and gauges up to date.
struct Watch {
    /// How it goes with the store by which swarms are shared. `None` if they are not.
    standing: Option<Arc<Standing>>,
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
    hasher: Hasher,
    metrics: Metrics,
    authority: Arc<Authority>,
    health: HealthReporter,
    services: Vec<&'static str>,
}

impl Watch {
    async fn run(self) {
        let every = if self.store.shared().is_some() { PROBE_SHARED_EVERY } else { PROBE_EVERY };
        loop {
            sleep(every).await;
            self.look().await;
        }
    }

    /// Whether the store can be written. Only a shared store can leave the question open.
    async fn probe(&self) -> Result<()> {
        if self.store.shared().is_none() {
            return self.store.probe().await;
        }
        let late = |_| Err(StoreError::Unavailable("it did not answer in time".into()));
        timeout(PROBE_WITHIN, self.store.probe()).await.unwrap_or_else(late)
    }

    async fn look(&self) {
        let writable = match self.probe().await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the store can't be written");
                false
            }
        };
        let status = if writable { ServingStatus::Serving } else { ServingStatus::NotServing };
        tell_health(&self.health, &self.services, status).await;
        self.metrics.store_writable.set(writable.into());
        if let Some(standing) = &self.standing {
            let (answers, others) = (standing.is_reachable(), standing.others());
            let status = if answers { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.health.set_service_status(SWARM_STORE, status).await;
            self.metrics.swarm_store_answers.set(answers.into());
            self.metrics.other_trackers.set(others);
        }
        for end in self.authority.ends() {
            self.metrics.set_certificate_end(end.name, end.ends);
        }
        self.metrics.peers.set(self.hub.peers());
        self.metrics.swarms.set(self.hub.swarms());
        self.metrics.leases.set(self.hub.leases());
        self.metrics.hashing.set(self.hasher.waiting() as u64);
        if writable && let Ok(sessions) = self.store.sessions_open().await {
            self.metrics.sessions.set(sessions);
        }
    }
}

/// Sets the health status of all services, and of the tracker as a whole.
pub(crate) async fn tell_health(health: &HealthReporter, services: &[&'static str], status: ServingStatus) {
    for service in services.iter().chain(&[""]) {
        health.set_service_status(service, status).await;
    }
}

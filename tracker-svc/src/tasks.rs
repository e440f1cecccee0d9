//! What a tracker does besides answering: each a loop that ends when the tracker stops.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proto::transport::serve_scrapes;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    Tracker,
    grpc::limits::Rates,
    hub::Hub,
    keys::TicketKeys,
    metrics::Metrics,
    password::Hasher,
    store::{Result, Store},
};

/// How often the store is tried, and the gauges are read.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// How often the store's old rows are dropped.
const PRUNE_EVERY: Duration = Duration::from_mins(10);
/// How often rates of those who went away are forgotten, and ticket keys looked after.
const TEND_EVERY: Duration = Duration::from_mins(1);
/// How often an unencrypted listener is warned of.
const WARN_EVERY: Duration = Duration::from_mins(1);

impl Tracker {
    /// Starts all loops.
    pub(crate) async fn start_tasks(&mut self, tasks: &mut JoinSet<()>, insecure: bool) -> Result<()> {
        let last = self.store.last_change().await?;
        let (store, stop) = (|| Arc::clone(&self.store), || self.stopping.clone());
        // It listens before there is anything to hear.
        tasks.spawn(Arc::clone(&self.hub).run(self.events.listen(), Arc::clone(&self.keys)));
        tasks.spawn(self.events.clone().pump(store(), last, stop()));
        tasks.spawn(until(stop(), sweep(store())));
        tasks.spawn(until(stop(), prune(store())));
        tasks.spawn(until(stop(), tend(Arc::clone(&self.rates), Arc::clone(&self.keys))));
        let watch = Watch {
            store: store(),
            hub: Arc::clone(&self.hub),
            hasher: self.hasher.clone(),
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            services: self.services.clone(),
        };
        watch.look().await;
        tasks.spawn(until(stop(), watch.run()));
        let (authority, stopping) = (Arc::clone(&self.authority), stop());
        tasks.spawn(async move { authority.tend(stopping).await });
        if let Some(listener) = self.scrapes.take() {
            let metrics = self.metrics.clone();
            tasks.spawn(serve_scrapes(listener, move || metrics.render(), self.stopping.clone()));
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
            tracing::warn!(%error, "manifests can't be swept away");
            // What is left is found again then.
            sleep(TEND_EVERY).await;
            continue;
        }
        store.sweep_wanted().await;
    }
}

async fn prune(store: Arc<dyn Store>) {
    loop {
        if let Err(error) = store.prune(SystemTime::now()).await {
            tracing::warn!(%error, "old rows can't be dropped");
        }
        sleep(PRUNE_EVERY).await;
    }
}

async fn tend(rates: Arc<Rates>, keys: Arc<TicketKeys>) {
    loop {
        sleep(TEND_EVERY).await;
        rates.forget();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Err(error) = keys.tend(now) {
            tracing::error!(%error, "ticket keys can't be renewed");
        }
    }
}

async fn warn() {
    loop {
        tracing::warn!("serving without TLS beyond loopback: passwords and tokens can be read on the way");
        sleep(WARN_EVERY).await;
    }
}

/// Keeps health and gauges true.
struct Watch {
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
    hasher: Hasher,
    metrics: Metrics,
    health: HealthReporter,
    services: Vec<&'static str>,
}

impl Watch {
    async fn run(self) {
        loop {
            sleep(PROBE_EVERY).await;
            self.look().await;
        }
    }

    async fn look(&self) {
        let writable = match self.store.probe().await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the store can't be written");
                false
            }
        };
        let status = if writable { ServingStatus::Serving } else { ServingStatus::NotServing };
        tell_health(&self.health, &self.services, status).await;
        self.metrics.store_writable.set(writable.into());
        self.metrics.leases.set(self.hub.leases());
        self.metrics.hashing.set(self.hasher.waiting() as u64);
        if let Ok(sessions) = self.store.sessions_open().await {
            self.metrics.sessions.set(sessions);
        }
    }
}

/// Says the same of all services, and of the tracker as a whole.
pub(crate) async fn tell_health(health: &HealthReporter, services: &[&'static str], status: ServingStatus) {
    for service in services.iter().chain(&[""]) {
        health.set_service_status(service, status).await;
    }
}

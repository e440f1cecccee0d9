//! The metrics of a tracker, for Prometheus.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use http::{Request, Response};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};
use proto::reason::{Reason, code_name};
use tonic::{Code, Status};
use tower::Service;
use transport::{Middleware, ResponseFuture};

use crate::domain::access;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Certificate {
    certificate: &'static str,
}

/// The metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    calls: Family<Call, Counter>,
    failures: Family<Why, Counter>,
    seconds: Family<Method, Histogram, fn() -> Histogram>,
    /// Open sessions.
    pub sessions: Gauge<u64, AtomicU64>,
    /// Peers with a stream here.
    pub peers: Gauge<u64, AtomicU64>,
    /// Files that at least one peer announces.
    pub swarms: Gauge<u64, AtomicU64>,
    /// Announced files, summed over all peers.
    pub leases: Gauge<u64, AtomicU64>,
    /// Calls that hash a password or wait to.
    pub hashing: Gauge<u64, AtomicU64>,
    /// Whether the last probe could write the store: 1 or 0.
    pub store_writable: Gauge<u64, AtomicU64>,
    /// Whether the store answers by which trackers share their swarms: 1 or 0. 0 if they do not.
    pub swarm_store_answers: Gauge<u64, AtomicU64>,
    /// Other trackers of the network that are alive.
    pub other_trackers: Gauge<u64, AtomicU64>,
    certificate_ends: Family<Certificate, Gauge<u64, AtomicU64>>,
}

/// A histogram of times from 0.1 ms to 6.5 s.
pub(crate) fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 4.0, 9))
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("minitorrent_tracker"))),
            calls: Family::default(),
            failures: Family::default(),
            seconds: Family::new_with_constructor(latency),
            sessions: Gauge::default(),
            peers: Gauge::default(),
            swarms: Gauge::default(),
            leases: Gauge::default(),
            hashing: Gauge::default(),
            store_writable: Gauge::default(),
            swarm_store_answers: Gauge::default(),
            other_trackers: Gauge::default(),
            certificate_ends: Family::default(),
        };
        // The counters of store failures exist from the first scrape on, so that a rate has a start value.
        for reason in [Reason::DiskFull, Reason::NotServing, Reason::Internal] {
            let _ = metrics.failures.get_or_create(&Why { reason: reason.as_str() });
        }
        metrics.register(|registry| {
            registry.register("calls", "Calls by method and status code", metrics.calls.clone());
            let help = "Failed calls, by the reason that the caller received";
            registry.register("failures", help, metrics.failures.clone());
            registry.register(
                "call_seconds",
                "Time from a call to the start of its response",
                metrics.seconds.clone(),
            );
            registry.register("sessions", "Sessions that are open", metrics.sessions.clone());
            registry.register("peers", "Peers that are connected to this tracker", metrics.peers.clone());
            let help = "Files that at least one peer announces";
            registry.register("swarms", help, metrics.swarms.clone());
            let help = "Files that are announced, by all peers together";
            registry.register("leases", help, metrics.leases.clone());
            registry.register(
                "hashing",
                "Calls that hash a password or wait for their turn",
                metrics.hashing.clone(),
            );
            let help = "Whether the last write to the store succeeded";
            registry.register("store_writable", help, metrics.store_writable.clone());
            let help = "Whether the store answers by which trackers share their swarms";
            registry.register("swarm_store_answers", help, metrics.swarm_store_answers.clone());
            let help = "Other trackers of the network that are alive";
            registry.register("other_trackers", help, metrics.other_trackers.clone());
            let help = "When a certificate ends, in seconds since 1970";
            registry.register("certificate_ends", help, metrics.certificate_ends.clone());
        });
        metrics
    }
}

impl Metrics {
    /// Registers the metrics of another part.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }

    /// Sets what this tracker is: where it keeps what must last, and where trackers share their swarms.
    pub fn describe(&self, store: &'static str, swarm_store: &'static str) {
        let labels =
            vec![("version", env!("CARGO_PKG_VERSION")), ("store", store), ("swarm_store", swarm_store)];
        self.register(|registry| {
            registry.register("build", "What this tracker is and what it uses", Info::new(labels));
        });
    }

    /// All metrics in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock();
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!(%error, "metrics can't be written");
        }
        text
    }

    /// Sets when a certificate ends.
    pub fn set_certificate_end(&self, certificate: &'static str, ends: SystemTime) {
        let seconds = ends.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.certificate_ends.get_or_create(&Certificate { certificate }).set(seconds);
    }

    fn count(&self, method: &'static str, failed: Option<&Status>, since: Instant) {
        let code = failed.map_or(Code::Ok, Status::code);
        if let Some(reason) = failed.and_then(Reason::of) {
            self.failures.get_or_create(&Why { reason: reason.as_str() }).inc();
        }
        self.calls.get_or_create(&Call { method, code: code_name(code) }).inc();
        self.seconds.get_or_create(&Method { method }).observe(since.elapsed().as_secs_f64());
    }
}

/// The label of a path. Only names in the table become labels, so that callers cannot create more of them.
fn method(path: &str) -> &'static str {
    access::TABLE.iter().find(|(listed, ..)| *listed == path).map_or("unknown", |(path, ..)| path)
}

/// Counts every call. A stream is counted by its first response.
impl<S, A, B> Middleware<S, A> for Metrics
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    fn call(&self, inner: &mut S, request: Request<A>) -> ResponseFuture<S, A> {
        let (metrics, since, method) = (self.clone(), Instant::now(), method(request.uri().path()));
        let answer = inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            // A call that fails before its first message has its status in the headers.
            let status = Status::from_header_map(response.headers());
            metrics.count(method, status.as_ref().filter(|status| status.code() != Code::Ok), since);
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_make_no_labels() {
        let metrics = Metrics::default();
        for path in ["/x/y", "/x/z", "/minitorrent.v1.AuthService/Login"] {
            metrics.count(method(path), Some(&Status::unimplemented("x")), Instant::now());
        }
        metrics.count(method("/x/y"), Some(&Reason::DiskFull.status("full")), Instant::now());
        let text = metrics.render();
        assert!(text.contains(r#"calls_total{method="unknown",code="UNIMPLEMENTED"} 2"#), "{text}");
        assert!(
            text.contains(
                r#"calls_total{method="/minitorrent.v1.AuthService/Login",code="UNIMPLEMENTED"} 1"#
            )
        );
        assert!(text.contains(r#"failures_total{reason="DISK_FULL"} 1"#), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}

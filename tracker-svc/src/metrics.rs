//! What a tracker counts, for Prometheus.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Instant,
};

use http::{Request, Response};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use proto::{
    reason::{Reason, code_name},
    transport::{Answer, Surround},
};
use tonic::{Code, Status};
use tower::Service;

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

/// What is counted. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    calls: Family<Call, Counter>,
    failures: Family<Why, Counter>,
    seconds: Family<Method, Histogram, fn() -> Histogram>,
    /// Sessions that are open.
    pub sessions: Gauge<u64, AtomicU64>,
    /// Files that are announced, by all peers together.
    pub leases: Gauge<u64, AtomicU64>,
    /// Calls that hash a password or wait for their turn to.
    pub hashing: Gauge<u64, AtomicU64>,
    /// Whether the store could be written when it was last tried: 1 or 0.
    pub store_writable: Gauge<u64, AtomicU64>,
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
            leases: Gauge::default(),
            hashing: Gauge::default(),
            store_writable: Gauge::default(),
        };
        // Those of the store are there from the first scrape on, so that a rate knows where it began.
        for reason in [Reason::DiskFull, Reason::NotServing, Reason::Internal] {
            let _ = metrics.failures.get_or_create(&Why { reason: reason.as_str() });
        }
        metrics.register(|registry| {
            registry.register("calls", "Calls by method and status code", metrics.calls.clone());
            let help = "Calls that failed, by the reason that the caller was told";
            registry.register("failures", help, metrics.failures.clone());
            registry.register("call_seconds", "Time until an answer began", metrics.seconds.clone());
            registry.register("sessions", "Sessions that are open", metrics.sessions.clone());
            let help = "Files that are announced, by all peers together";
            registry.register("leases", help, metrics.leases.clone());
            registry.register("hashing", "Calls that hash a password or wait to", metrics.hashing.clone());
            let help = "Whether the store could be written when last tried";
            registry.register("store_writable", help, metrics.store_writable.clone());
        });
        metrics
    }
}

impl Metrics {
    /// Adds what another part counts.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Everything in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!(%error, "metrics can't be written");
        }
        text
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

/// The label of a path. Only names from the table become labels: a stranger can't make more of them.
fn method(path: &str) -> &'static str {
    access::TABLE.iter().find(|(listed, _)| *listed == path).map_or("unknown", |(path, _)| path)
}

/// Counts every call; a stream counts by how it begins.
impl<S, A, B> Surround<S, A> for Metrics
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    fn call(&self, inner: &mut S, request: Request<A>) -> Answer<S, A> {
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

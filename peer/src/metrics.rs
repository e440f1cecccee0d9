//! Prometheus metrics of the daemon, over plain HTTP, without access control.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use transport::{Scraped, serve_scrapes};

use crate::engine::{Engine, Stats};

/// Answers `GET /metrics` until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, engine: Engine, stop: CancellationToken) {
    let mut registry = Registry::with_prefix("minitorrent_peer");
    registry.register_collector(Box::new(EngineMetrics(engine)));
    let render = move || {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!(%error, "metrics can't be written");
        }
        text
    };
    let find = move |path: &str| ["/metrics", "/"].contains(&path).then(|| Scraped::metrics(render()));
    serve_scrapes(listener, find, stop).await;
}

/// Reads the engine's counters at each scrape.
struct EngineMetrics(Engine);

impl std::fmt::Debug for EngineMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EngineMetrics")
    }
}

impl Collector for EngineMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Stats {
            upload_rate,
            download_rate,
            uploaded_bytes,
            downloaded_bytes,
            pieces_verified,
            pieces_bad,
            uploads_active,
            uploads_waiting,
            sources,
        } = self.0.stats();
        let counters = [
            ("uploaded", "Bytes sent to other peers", Some(Unit::Bytes), uploaded_bytes),
            ("downloaded", "Verified bytes received", Some(Unit::Bytes), downloaded_bytes),
            ("pieces_verified", "Pieces verified and written", None, pieces_verified),
            ("pieces_bad", "Received pieces that do not match the manifest", None, pieces_bad),
        ];
        for (name, help, unit, value) in counters {
            let encoder = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            ConstCounter::new(value).encode(encoder)?;
        }
        let shares = self.0.shares().len() as u64;
        let gauges = [
            ("upload_rate", "Bytes sent per second", upload_rate),
            ("download_rate", "Bytes received per second", download_rate),
            ("uploads_active", "Running uploads", u64::from(uploads_active)),
            ("uploads_waiting", "Requests waiting for an upload slot", u64::from(uploads_waiting)),
            ("sources", "Connected sources of all downloads", u64::from(sources)),
            ("shares", "Shared files, including running downloads", shares),
        ];
        for (name, help, value) in gauges {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)?;
        }
        Ok(())
    }
}

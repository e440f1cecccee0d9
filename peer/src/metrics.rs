//! Prometheus metrics of the daemon, over plain HTTP, for whoever may reach the address.

use std::{io, sync::Arc, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, Stats};

/// How long one scrape may take.
const SCRAPE: Duration = Duration::from_secs(5);
/// Scrapes at a time; one that is over it waits.
const SCRAPES: usize = 4;
/// Bytes of a request's head that are read.
const HEAD: usize = 8 << 10;

/// Answers `GET /metrics` until `stop`.
pub(crate) async fn serve(listener: TcpListener, engine: Engine, stop: CancellationToken) {
    let mut registry = Registry::with_prefix("minitorrent_peer");
    registry.register_collector(Box::new(EngineMetrics(engine)));
    let (registry, places) = (Arc::new(registry), Arc::new(Semaphore::new(SCRAPES)));
    let work = async {
        loop {
            // Never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let registry = Arc::clone(&registry);
            tokio::spawn(async move {
                let answered = timeout(SCRAPE, answer(socket, &registry)).await;
                tracing::trace!(?answered, "scraped");
                drop(place);
            });
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn answer(mut socket: TcpStream, registry: &Registry) -> io::Result<()> {
    let mut head = Vec::new();
    let mut limited = (&mut socket).take(HEAD as u64);
    while !head.ends_with(b"\r\n\r\n") {
        if limited.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let (status, body) = if head.starts_with(b"GET /metrics ") || head.starts_with(b"GET / ") {
        let mut text = String::new();
        encode(&mut text, registry).map_err(io::Error::other)?;
        ("200 OK", text)
    } else {
        ("404 Not Found", "metrics are at /metrics\n".to_owned())
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(response.as_bytes()).await?;
    socket.shutdown().await
}

/// Reads the engine when it is scraped.
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
        } = self.0.stats();
        let counters = [
            ("uploaded", "Bytes sent to other peers", Some(Unit::Bytes), uploaded_bytes),
            ("downloaded", "Verified bytes received", Some(Unit::Bytes), downloaded_bytes),
            ("pieces_verified", "Pieces verified and written", None, pieces_verified),
            ("pieces_bad", "Pieces received that were not what the manifest says", None, pieces_bad),
        ];
        for (name, help, unit, value) in counters {
            let encoder = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            ConstCounter::new(value).encode(encoder)?;
        }
        let shares = self.0.shares().len() as u64;
        let gauges = [
            ("upload_rate", "Bytes a second sent", upload_rate),
            ("download_rate", "Bytes a second received", download_rate),
            ("uploads_active", "Uploads that run", u64::from(uploads_active)),
            ("uploads_waiting", "Requests that wait for an upload slot", u64::from(uploads_waiting)),
            ("shares", "Files offered, running downloads included", shares),
        ];
        for (name, help, value) in gauges {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)?;
        }
        Ok(())
    }
}

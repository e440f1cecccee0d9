//! The server: HTTP/1.1 on loopback.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;

/// The most connections at a time. A browser opens six for a page.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take. A connection without a request is closed after this time, too.
const HEAD: Duration = Duration::from_secs(30);
/// The most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Pause of the accept loop after an error, such as too many open files.
const REST: Duration = Duration::from_millis(100);

/// Serves until `stop`.
pub(super) async fn serve(listener: TcpListener, routes: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let accept = async {
        loop {
            // The semaphore is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((socket, _)) = listener.accept().await else {
                sleep(REST).await;
                continue;
            };
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
            let service = TowerToHyperService::new(routes.clone());
            let served = builder.serve_connection(TokioIo::new(socket), service);
            tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                if let Err(error) = served.await {
                    tracing::debug!(%error, "a connection to the page broke");
                }
                drop(place);
            }));
        }
    };
    stop.run_until_cancelled(accept).await;
}

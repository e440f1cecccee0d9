//! The server: HTTP/1.1, for other hosts over TLS.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The most connections at a time. A browser opens six for a page.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take. A connection without a request is closed after this time, too.
const HEAD: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Pause of the accept loop after an error, such as too many open files.
const REST: Duration = Duration::from_millis(100);

/// Serves until `stop`; with `tls`, over TLS alone.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    routes: Router,
    stop: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let accept = async {
        loop {
            // The semaphore is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((socket, _)) = listener.accept().await else {
                sleep(REST).await;
                continue;
            };
            let (routes, acceptor) = (routes.clone(), acceptor.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                let served = match acceptor {
                    None => connection(socket, routes).await,
                    Some(acceptor) => match timeout(HANDSHAKE, acceptor.accept(socket)).await {
                        Ok(Ok(socket)) => connection(socket, routes).await,
                        Ok(Err(error)) => Err(error),
                        Err(late) => Err(late.into()),
                    },
                };
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection to the page broke");
                }
                drop(place);
            }));
        }
    };
    stop.run_until_cancelled(accept).await;
}

async fn connection(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
) -> io::Result<()> {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
    let service = TowerToHyperService::new(routes);
    builder.serve_connection(TokioIo::new(socket), service).await.map_err(io::Error::other)
}

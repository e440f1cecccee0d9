//! The accept loop and what it does with each connection.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::{Service, ServiceExt as _};
use tracing::{debug, warn};

use super::{
    ConnInfo,
    limits::Limits,
    preface,
    slots::{Slot, Slots},
    stall::{StallExecutor, Watched},
    tls::peer_of_certificate,
    write_ahead::LetWait,
};

/// How long accepting rests after an error that waiting may mend, such as too many open files.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// At most one warning about such errors in so long.
const WARN_EVERY: Duration = Duration::from_secs(5);

/// Whether connections are encrypted, and with what.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all: for loopback and benchmarks.
    Plaintext,
    /// TLS, with the configuration that the watch holds when a connection comes in; with none, it is closed at once.
    Tls(watch::Receiver<Option<Arc<ServerConfig>>>),
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// What can be served: tonic's routes, with or without tower layers around them. Never implemented by hand.
pub trait GrpcService<B>:
    Service<Request<Body>, Response = Response<B>, Future: Send, Error: Into<BoxError>> + Clone + Send + 'static
{
}

impl<B, S> GrpcService<B> for S where
    S: Service<Request<Body>, Response = Response<B>, Future: Send, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static
{
}

/// A body that can be sent. Never implemented by hand.
pub trait GrpcBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static {}

impl<B> GrpcBody for B where B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static {}

/// Serves until `shutdown`, then lets running calls end for at most [`Limits::grace`], and returns.
///
/// Every request bears a [`ConnInfo`] in its extensions. When it returns, no task and no connection of its own is left.
///
/// # Errors
/// When the listener itself is broken. What goes wrong with one connection, or passes, never ends it.
pub async fn serve<S, B>(
    listener: TcpListener,
    security: Security,
    service: S,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    S: GrpcService<B>,
    B: GrpcBody,
{
    let server = Arc::new(Server::new(limits));
    let accepted = |(socket, remote): (TcpStream, SocketAddr)| {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let slot = server.slots.take(Some(remote.ip()), &server.limits)?;
        let info = ConnInfo { remote: Some(remote), peer: None };
        let (server, security, service) = (Arc::clone(&server), security.clone(), service.clone());
        Some(async move { server.tcp(socket, security, service, info, slot).await })
    };
    let outcome = server.accept(|| listener.accept(), accepted, &shutdown).await;
    // New clients are refused from here on, rather than left waiting.
    drop(listener);
    server.drain().await;
    outcome
}

/// As [`serve`], unencrypted on a Unix socket: whoever may open it is let in.
///
/// # Errors
/// As [`serve`].
pub async fn serve_unix<S, B>(
    listener: UnixListener,
    service: S,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    S: GrpcService<B>,
    B: GrpcBody,
{
    let server = Arc::new(Server::new(limits));
    let accepted = |(socket, _): (UnixStream, _)| {
        let slot = server.slots.take(None, &server.limits)?;
        let (server, service) = (Arc::clone(&server), service.clone());
        Some(async move { server.drive(socket, service, ConnInfo { remote: None, peer: None }, slot).await })
    };
    let outcome = server.accept(|| listener.accept(), accepted, &shutdown).await;
    drop(listener);
    server.drain().await;
    outcome
}

struct Server {
    limits: Limits,
    slots: Arc<Slots>,
    /// Every task of every connection.
    tasks: TaskTracker,
    /// Connections take no new calls.
    draining: CancellationToken,
    /// Connections and calls are cut.
    cut: CancellationToken,
}

impl Server {
    fn new(limits: Limits) -> Self {
        let cut = CancellationToken::new();
        Self { limits, slots: Arc::default(), tasks: TaskTracker::new(), draining: cut.child_token(), cut }
    }

    /// Accepts until `shutdown`. `start` makes a connection's task, or nothing when there is no place for it.
    async fn accept<C, A, F>(
        &self,
        mut accept: impl FnMut() -> A,
        start: impl Fn(C) -> Option<F>,
        shutdown: &CancellationToken,
    ) -> io::Result<()>
    where
        A: Future<Output = io::Result<C>>,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut trouble = Trouble::default();
        loop {
            let Some(accepted) = shutdown.run_until_cancelled(accept()).await else { return Ok(()) };
            match accepted {
                Ok(connection) => match start(connection) {
                    Some(task) => {
                        let cut = self.cut.clone();
                        self.tasks.spawn(async move { cut.run_until_cancelled(task).await });
                    }
                    None => trouble.refused(),
                },
                Err(error) if is_the_clients(&error) => debug!(%error, "a connection broke while it came in"),
                Err(error) if is_the_listeners(&error) => return Err(error),
                Err(error) => {
                    trouble.failed(&error);
                    if shutdown.run_until_cancelled(sleep(ACCEPT_REST)).await.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn drain(&self) {
        self.tasks.close();
        self.draining.cancel();
        if timeout(self.limits.grace, self.tasks.wait()).await.is_err() {
            debug!(tasks = self.tasks.len(), "cutting what did not end by itself");
        }
        self.cut.cancel();
        self.tasks.wait().await;
    }

    async fn tcp<S, B>(
        &self,
        socket: TcpStream,
        security: Security,
        service: S,
        mut info: ConnInfo,
        mut slot: Slot,
    ) where
        S: GrpcService<B>,
        B: GrpcBody,
    {
        if let Err(error) = socket.set_nodelay(true) {
            debug!(?info, %error, "no TCP_NODELAY");
        }
        let config = match security {
            Security::Plaintext => return self.drive(socket, service, info, slot).await,
            Security::Tls(configs) => configs.borrow().clone(),
        };
        let Some(config) = config else {
            return debug!(?info, "refused: there is no certificate yet");
        };
        let Some(stream) = self.handshake(socket, config, info).await else { return };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        info.peer = certificate.and_then(peer_of_certificate);
        if let Some(peer) = info.peer
            && !slot.name(peer, &self.limits)
        {
            return debug!(?info, "refused: the peer has as many connections as it may");
        }
        self.drive(stream, service, info, slot).await;
    }

    async fn handshake(
        &self,
        socket: TcpStream,
        config: Arc<ServerConfig>,
        info: ConnInfo,
    ) -> Option<TlsStream<TcpStream>> {
        let accepting = TlsAcceptor::from(config)
            .accept_with(socket, |session| session.set_buffer_limit(Some(*self.limits.write_ahead.start())));
        match timeout(self.limits.handshake, accepting).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                debug!(?info, %error, "no TLS");
                None
            }
            Err(_) => {
                debug!(?info, "the TLS handshake took too long");
                None
            }
        }
    }

    /// Serves one connection until it ends. The slot is held as long.
    async fn drive<T, S, B>(&self, io: T, service: S, info: ConnInfo, _slot: Slot)
    where
        T: AsyncRead + AsyncWrite + LetWait + Unpin + Send + 'static,
        S: GrpcService<B>,
        B: GrpcBody,
    {
        let io = match preface::expect(io, &self.limits).await {
            Ok(io) => io,
            Err(error) => return debug!(?info, %error, "no HTTP/2"),
        };
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(info);
            let answer = service.clone().oneshot(request);
            async move { answer.await.map(|response| response.map(Watched::new)) }
        });
        let executor = StallExecutor::new(self.tasks.clone(), self.cut.clone(), self.limits.stall);
        let mut connection = pin!(self.http2(executor).serve_connection(TokioIo::new(io), service));
        let outcome = match self.draining.run_until_cancelled(connection.as_mut()).await {
            Some(outcome) => outcome,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            debug!(?info, %error, "a connection ended badly");
        }
    }

    fn http2(&self, executor: StallExecutor) -> http2::Builder<StallExecutor> {
        let limits = &self.limits;
        let mut builder = http2::Builder::new(executor);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.header_list)
            .max_send_buf_size(limits.send_buffer)
            .initial_stream_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .keep_alive_interval(limits.keepalive)
            .keep_alive_timeout(limits.keepalive_timeout);
        builder
    }
}

/// The client gave up between connecting and being accepted: nothing to wait for.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// The listener is unusable, and will be.
fn is_the_listeners(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Counts what goes wrong with accepting, and warns now and then.
#[derive(Default)]
struct Trouble {
    failed: u64,
    refused: u64,
    warned: Option<Instant>,
}

impl Trouble {
    fn failed(&mut self, error: &io::Error) {
        self.failed += 1;
        if self.due() {
            warn!(%error, failed = self.failed, "can't accept connections, resting between tries");
        }
    }

    fn refused(&mut self) {
        self.refused += 1;
        if self.due() {
            warn!(refused = self.refused, "connections refused: there are as many as there may be");
        }
    }

    fn due(&mut self) -> bool {
        let due = self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY);
        if due {
            self.warned = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn error(errno: rustix::io::Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    #[tokio::test(start_paused = true)]
    async fn running_out_of_descriptors_rests_and_then_goes_on() {
        use rustix::io::Errno;
        let (tries, taken) = (AtomicU32::new(0), Arc::new(AtomicU32::new(0)));
        let server = Server::new(Limits::tracker());
        let accept = || async {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0 | 2 => Err(error(Errno::MFILE)),
                1 => Err(error(Errno::NFILE)),
                3 => Err(error(Errno::CONNABORTED)),
                4 => Ok(()),
                _ => Err(error(Errno::BADF)),
            }
        };
        let start = |()| {
            taken.fetch_add(1, Ordering::Relaxed);
            Some(async {})
        };
        let since = tokio::time::Instant::now();
        let ended = server.accept(accept, start, &CancellationToken::new()).await;
        assert_eq!(
            since.elapsed(),
            3 * ACCEPT_REST,
            "rested for each of three, not for the client's own fault"
        );
        assert_eq!(taken.load(Ordering::Relaxed), 1, "accepts again once it can");
        let ended = ended.expect_err("a broken listener ends it");
        assert_eq!(ended.raw_os_error(), Some(Errno::BADF.raw_os_error()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_ends_with_the_server() {
        let server = Server::new(Limits::tracker());
        let shutdown = CancellationToken::new();
        let accept = || async {
            shutdown.cancel();
            Err::<(), _>(error(rustix::io::Errno::MFILE))
        };
        let since = tokio::time::Instant::now();
        assert!(server.accept(accept, |()| Some(async {}), &shutdown).await.is_ok());
        assert!(since.elapsed() < ACCEPT_REST);
    }
}

//! The accept loop, and the handling of each connection. [`places`](super::places) decides which connection
//! is closed to make room.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::{Service, ServiceExt as _};
use tracing::{debug, warn};

use super::{
    ConnInfo,
    client::own_uid,
    connections::{ConnectionGuard, Connections, Leaving, Standing},
    limits::Limits,
    log_throttle::LogThrottle,
    network::{Listener, Socket},
    places::Principal,
    preface,
    stall::{Reset, StallExecutor, Watched, Whole},
    tls::peer_of_certificate,
    write_ahead::SetWriteAhead,
};

/// Pause of the accept loop after an error that may pass, such as too many open files.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Whether connections are encrypted, and with which configuration.
#[derive(Clone, Debug)]
pub enum Security {
    /// Unencrypted: for loopback and benchmarks.
    Plaintext,
    /// TLS, with the configuration in the watch when the connection is accepted. Without a configuration, the
    /// connection is closed at once.
    Tls(watch::Receiver<Option<Arc<ServerConfig>>>),
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// A service that can be served: tonic's routes, with or without tower layers around them. Never implemented
/// by hand.
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

/// Serves until `shutdown`. Then gives running calls at most [`Limits::grace`] to end, and returns.
///
/// Every request has a [`ConnInfo`] and a [`Standing`] in its extensions. After the return, no task and no
/// connection of the server is left.
///
/// # Errors
/// Fails if the listener itself is broken. A fault of one connection, or a passing fault, never ends the
/// server.
///
/// ```
/// use tokio::net::TcpListener;
/// use tokio_util::sync::CancellationToken;
/// use tonic::service::Routes;
/// use transport::{Limits, Security, serve};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let (_, health) = tonic_health::server::health_reporter();
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let shutdown = CancellationToken::new();
/// let serving = serve(listener, Security::Plaintext, Routes::new(health), Limits::tracker(), shutdown.clone());
/// shutdown.cancel();
/// serving.await
/// # }).unwrap();
/// ```
pub async fn serve<S, B>(
    listener: impl Into<Listener>,
    security: Security,
    service: S,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    S: GrpcService<B>,
    B: GrpcBody,
{
    let listener = listener.into();
    let server = Arc::new(Server::new(limits));
    let from = |(_, remote): &(Socket, SocketAddr)| remote.ip();
    let start = |(socket, remote): (Socket, SocketAddr), standing| {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let info = ConnInfo { remote: Some(remote), peer: None };
        let (server, security, service) = (Arc::clone(&server), security.clone(), service.clone());
        async move { server.tcp(socket, security, service, info, standing).await }
    };
    let outcome = server.accept(|| listener.accept(), from, start, &shutdown).await;
    // New clients are refused from here on, and are not left waiting.
    drop(listener);
    server.drain().await;
    outcome
}

/// Same as [`serve`], unencrypted on a Unix socket, for processes of this user only. A process of another
/// user is disconnected, whatever the permissions of the socket. A new listener takes the place of the one
/// before, and connections go on.
///
/// # Errors
/// Same as [`serve`].
pub async fn serve_unix<S, B>(
    listeners: watch::Receiver<Arc<UnixListener>>,
    service: S,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    S: GrpcService<B>,
    B: GrpcBody,
{
    let server = Arc::new(Server::new(limits));
    // All processes on this machine count as one network.
    let from = |_: &(UnixStream, _)| IpAddr::V4(Ipv4Addr::LOCALHOST);
    let start = |(socket, _): (UnixStream, _), standing: Standing| {
        // The user is known as soon as the connection is accepted. The proof must not wait for the task: many
        // verbs that start at the same time would be strangers until then, and displace each other.
        let proven = match socket.peer_cred() {
            Ok(caller) if caller.uid() == own_uid() => standing.prove(Principal::User(caller.uid())),
            caller => {
                debug!(?caller, "refused a connection from a process of another user");
                false
            }
        };
        let (server, service) = (Arc::clone(&server), service.clone());
        async move {
            if proven {
                let info = ConnInfo { remote: None, peer: None };
                let opened_by = Instant::now() + server.limits.opening;
                server.drive(socket, service, info, standing, opened_by).await;
            }
        }
    };
    let accept = || {
        let mut listeners = listeners.clone();
        async move {
            loop {
                let listener = Arc::clone(&listeners.borrow_and_update());
                tokio::select! {
                    accepted = listener.accept() => return accepted,
                    changed = listeners.changed() => if changed.is_err() {
                        return listener.accept().await;
                    },
                }
            }
        }
    };
    let outcome = server.accept(accept, from, start, &shutdown).await;
    drop(listeners);
    server.drain().await;
    outcome
}

/// Serves one connection in memory, unencrypted, as [`serve`] serves one of a socket: for fuzz targets.
#[cfg(fuzzing)]
pub async fn serve_duplex<S, B>(io: tokio::io::DuplexStream, service: S, limits: Limits, info: ConnInfo)
where
    S: GrpcService<B>,
    B: GrpcBody,
{
    let server = Server::new(limits);
    let (guard, _) = server.connections.take(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let opened_by = Instant::now() + server.limits.opening;
    server.drive(io, service, info, guard.standing().clone(), opened_by).await;
    server.drain().await;
}

struct Server {
    limits: Limits,
    connections: Arc<Connections>,
    /// The tasks of all connections.
    tasks: TaskTracker,
    /// Cancelled when connections accept no new calls.
    draining: CancellationToken,
    /// Cancelled when connections and calls are cut.
    cut: CancellationToken,
}

impl Server {
    fn new(limits: Limits) -> Self {
        let cut = CancellationToken::new();
        let connections = Connections::new(limits.places);
        Self { limits, connections, tasks: TaskTracker::new(), draining: cut.child_token(), cut }
    }

    /// Accepts until `shutdown`. `from` returns the address that a connection comes from. `start` makes its
    /// task.
    async fn accept<C, A, F>(
        &self,
        mut accept: impl FnMut() -> A,
        from: impl Fn(&C) -> IpAddr,
        start: impl Fn(C, Standing) -> F,
        shutdown: &CancellationToken,
    ) -> io::Result<()>
    where
        A: Future<Output = io::Result<C>>,
        F: Future<Output = ()> + Send + 'static,
    {
        let trouble = Trouble::default();
        loop {
            let Some(accepted) = shutdown.run_until_cancelled(accept()).await else { return Ok(()) };
            let leaving = match accepted {
                Ok(connection) => {
                    let (guard, leaving) = self.connections.take(from(&connection));
                    let task = start(connection, guard.standing().clone());
                    self.spawn(task, guard);
                    leaving
                }
                Err(error) if is_the_clients(&error) => {
                    debug!(%error, "a connection failed before it was accepted");
                    None
                }
                Err(error) if is_the_listeners(&error) => return Err(error),
                Err(error) => {
                    trouble.failed(&error);
                    if shutdown.run_until_cancelled(sleep(ACCEPT_REST)).await.is_none() {
                        return Ok(());
                    }
                    // Other open files may have used up the rest. Close a stranger to make room for the new
                    // connection.
                    self.connections.give_up_one()
                }
            };
            if let Some(leaving) = leaving {
                trouble.gave_way();
                // Wait before accepting another, so that there are never more sockets than places.
                if shutdown.run_until_cancelled(Leaving::gone(leaving)).await.is_none() {
                    return Ok(());
                }
            }
        }
    }

    /// Runs a connection's task until it ends, must give way, or the server stops. Its place becomes free
    /// after its socket is closed.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static, guard: ConnectionGuard) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            {
                let task = cut.run_until_cancelled(guard.close.run_until_cancelled(task));
                task.await;
            }
            drop(guard);
        });
    }

    async fn drain(&self) {
        self.tasks.close();
        self.draining.cancel();
        if timeout(self.limits.grace, self.tasks.wait()).await.is_err() {
            debug!(tasks = self.tasks.len(), "closing connections that did not end in time");
        }
        self.cut.cancel();
        self.tasks.wait().await;
    }

    async fn tcp<S, B>(
        &self,
        socket: Socket,
        security: Security,
        service: S,
        mut info: ConnInfo,
        standing: Standing,
    ) where
        S: GrpcService<B>,
        B: GrpcBody,
    {
        let opened_by = Instant::now() + self.limits.opening;
        if let Err(error) = socket.set_nodelay() {
            debug!(?info, %error, "TCP_NODELAY can't be set");
        }
        let config = match security {
            Security::Plaintext => return self.drive(socket, service, info, standing, opened_by).await,
            Security::Tls(configs) => configs.borrow().clone(),
        };
        let Some(config) = config else {
            return debug!(?info, "refused a connection, because this server has no certificate yet");
        };
        let Some(socket) = without_http(socket, opened_by).await else {
            return debug!(?info, "no TLS: told to use https");
        };
        let Some(stream) = self.handshake(socket, config, info, opened_by).await else { return };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        info.peer = certificate.and_then(peer_of_certificate);
        self.drive(stream, service, info, standing, opened_by).await;
    }

    async fn handshake(
        &self,
        socket: Socket,
        config: Arc<ServerConfig>,
        info: ConnInfo,
        opened_by: Instant,
    ) -> Option<TlsStream<Socket>> {
        let accepting = TlsAcceptor::from(config)
            .accept_with(socket, |session| session.set_buffer_limit(Some(*self.limits.write_ahead.start())));
        match timeout_at(opened_by, accepting).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                debug!(?info, %error, "the TLS handshake failed");
                None
            }
            Err(_) => {
                debug!(?info, "the TLS handshake took too long");
                None
            }
        }
    }

    /// Serves one connection until it ends. HTTP/2 must be open by `opened_by`.
    async fn drive<T, S, B>(&self, io: T, service: S, info: ConnInfo, standing: Standing, opened_by: Instant)
    where
        T: AsyncRead + AsyncWrite + SetWriteAhead + Unpin + Send + 'static,
        S: GrpcService<B>,
        B: GrpcBody,
    {
        let io = match preface::expect(io, &self.limits, opened_by).await {
            Ok(io) => io,
            Err(error) => return debug!(?info, %error, "HTTP/2 was not started"),
        };
        let part = self.limits.part;
        let service = service_fn(move |request: Request<Incoming>| {
            standing.call();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(info);
            request.extensions_mut().insert(standing.clone());
            let service = service.clone();
            async move {
                // This must be inside the future: only here does the code run in the call's own task.
                if let Some(reset) = Reset::of_this_call() {
                    request.extensions_mut().insert(reset);
                }
                let answer = service.oneshot(request).await;
                answer.map(|response| {
                    let part = if response.extensions().get::<Whole>().is_some() { None } else { Some(part) };
                    response.map(|body| Watched::new(body, part))
                })
            }
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
            debug!(?info, %error, "a connection ended with an error");
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

/// The answer to a client that speaks HTTP without TLS.
const USE_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 35\r\n\
    Connection: close\r\n\r\nThis port speaks TLS: use https://\n";

/// Waits for the first byte. A client that begins with a letter, as in `GET` and `PRI`, speaks HTTP without
/// TLS: it is told to use https, and `None` is returned.
async fn without_http(mut socket: Socket, opened_by: Instant) -> Option<Socket> {
    let is_http = match timeout_at(opened_by, socket.first_byte()).await {
        Ok(Ok(Some(first))) => first.is_ascii_uppercase(),
        // The handshake handles silence and errors.
        _ => false,
    };
    if !is_http {
        return Some(socket);
    }
    // Unread bytes would turn the close into a reset, and the answer could be lost.
    let mut request = [0; 1_024];
    let answered = async {
        let _ = socket.read(&mut request).await?;
        socket.write_all(USE_HTTPS).await?;
        socket.shutdown().await
    };
    let _ = timeout_at(opened_by, answered).await;
    None
}

/// Whether the client gave up between connecting and being accepted. Then there is nothing to wait for.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Whether the listener is permanently unusable.
fn is_the_listeners(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Logs a warning about accept errors and evictions, at most once a minute each.
#[derive(Default)]
struct Trouble {
    failures: LogThrottle,
    evictions: LogThrottle,
}

impl Trouble {
    fn failed(&self, error: &io::Error) {
        if let Some(times) = self.failures.due(std::time::Instant::now()) {
            warn!(%error, times, "connections can't be accepted; retrying");
        }
    }

    fn gave_way(&self) {
        if let Some(times) = self.evictions.due(std::time::Instant::now()) {
            warn!(times, "unauthenticated connections were closed to make room for new ones");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn from(_: &()) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }

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
        let start = |(), _| {
            taken.fetch_add(1, Ordering::Relaxed);
            async {}
        };
        let since = tokio::time::Instant::now();
        let ended = server.accept(accept, from, start, &CancellationToken::new()).await;
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
        assert!(server.accept(accept, from, |(), _| async {}, &shutdown).await.is_ok());
        assert!(since.elapsed() < ACCEPT_REST);
    }
}

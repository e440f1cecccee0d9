//! Channels to servers: over TLS, unencrypted, or over a Unix socket.
//!
//! TLS uses exactly the configuration of [`client_config`](super::client_config). The certificate's name is
//! checked against the requested name, whatever address is dialled.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::UnixStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use super::{network, race::race};

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    /// Over TCP.
    Tcp {
        /// A host name, or an IP address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket on this machine, served by a process of this user.
    Unix(PathBuf),
}

/// Whether a channel is encrypted, and which server it must reach.
#[derive(Clone, Debug)]
pub enum ClientSecurity {
    /// Unencrypted: for Unix sockets, loopback and benchmarks.
    Plaintext,
    /// TLS to the server whose certificate has this name.
    Tls {
        /// The configuration from [`client_config`](super::client_config).
        config: Arc<ClientConfig>,
        /// A host name, an IP address, or a peer's TLS name. It is also the authority of every request.
        server_name: String,
    },
}

/// The initial window of an HTTP/2 connection, in bytes. It cannot be made smaller.
const HTTP2_WINDOW: u32 = 65_535;
/// The smallest maximum frame size that HTTP/2 allows, in bytes.
const HTTP2_FRAME: u32 = 16_384;

/// Network parameters of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelTuning {
    /// Receive window of each stream, in bytes.
    pub stream_window: u32,
    /// Receive window of the whole connection, in bytes.
    pub connection_window: u32,
    /// Maximum size of a frame from the server, in bytes. The server writes one frame at a time, so this
    /// decides its write size.
    pub max_frame: u32,
    /// Bytes per read from the kernel. TLS alone reads 4 KiB at a time.
    pub read_buffer: usize,
    /// Timeout for connecting, TLS included.
    pub connect_timeout: Duration,
    /// Idle time after which the server is pinged, also when no call is running.
    pub keepalive: Duration,
    /// Timeout for the answer to a ping. After it the connection is closed.
    pub keepalive_timeout: Duration,
}

impl ChannelTuning {
    /// Parameters for small calls.
    pub fn control() -> Self {
        Self {
            stream_window: 1 << 20,
            connection_window: 2 << 20,
            max_frame: 64 << 10,
            read_buffer: 16 << 10,
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
        }
    }

    /// Parameters for small calls to one of several servers: one that has become silent is given up in time for
    /// the client to be connected to another one within 5 seconds.
    pub fn one_of_several() -> Self {
        Self {
            connect_timeout: Duration::from_millis(1_500),
            keepalive: Duration::from_secs(2),
            keepalive_timeout: Duration::from_millis(1_500),
            ..Self::control()
        }
    }

    /// Parameters for file data: windows that fill 200 Mbit/s at 100 ms, and frames of a whole piece.
    pub fn data() -> Self {
        Self {
            stream_window: 8 << 20,
            connection_window: 16 << 20,
            max_frame: 512 << 10,
            read_buffer: 256 << 10,
            ..Self::control()
        }
    }

    /// Parameters for file data with a receive window of `window` bytes per stream. For a client whose own
    /// rate limit reads the data slowly.
    pub fn data_within(window: u32) -> Self {
        let widest = Self::data();
        Self {
            stream_window: window,
            connection_window: window.saturating_mul(2).max(HTTP2_WINDOW),
            // A frame is read as a whole, so it adds to the data that may wait. HTTP/2 sets the minimum.
            max_frame: (window / 8).clamp(HTTP2_FRAME, widest.max_frame),
            ..widest
        }
    }
}

/// The reason why a connection failed. It is in the source chain of the channel's errors: see
/// [`ConnectError::of`].
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server answers at the address, or the name is unknown.
    #[error("can't connect: {0}")]
    Dial(#[source] io::Error),
    /// A server answers, but not with TLS or not with a valid certificate.
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    /// Another user listens on the Unix socket. Nothing was sent.
    #[error("{path} is served by user id {uid}, and this process runs as user id {ours}")]
    AnotherUser {
        /// The path of the socket.
        path: String,
        /// The user id of the listening process.
        uid: u32,
        /// The user id of this process.
        ours: u32,
    },
    /// Connecting exceeded its timeout.
    #[error("the connection was not established in time")]
    TimedOut,
    /// A certificate cannot contain this name.
    #[error("{0:?} is not a host name or an IP address")]
    Name(String),
}

impl ConnectError {
    /// Returns the `ConnectError` in `error` or its sources, if there is one.
    pub fn of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

/// The kind of a [`ConnectError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFault {
    /// The host refuses connections to the port.
    Refused,
    /// Nothing answers.
    Silent,
    /// There is no route to the address.
    NoRoute,
    /// This host does not permit the connection: a firewall rule, a route, or a sandbox.
    Forbidden,
    /// The host name is not known.
    UnknownName,
    /// The server does not speak TLS.
    NotTls,
    /// The server speaks TLS, and its certificate has another name.
    AnotherName,
    /// The server's certificate is from an authority that is not trusted here.
    UnknownAuthority,
    /// The server's certificate is over, or not valid yet.
    Expired,
    /// Something else.
    Other,
}

impl ConnectError {
    /// The error that says most about why none of several attempts succeeded: that of a server that answered,
    /// else the first.
    fn most_telling(errors: Vec<Self>) -> Self {
        let mut errors = errors.into_iter();
        let first = errors.next();
        let none = || Self::Dial(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        let answered = |error: &Self| matches!(error, Self::Tls(_));
        match first {
            Some(first) if !answered(&first) => errors.find(answered).unwrap_or(first),
            first => first.unwrap_or_else(none),
        }
    }

    /// The kind of the error.
    pub fn fault(&self) -> ConnectFault {
        use io::ErrorKind;
        match self {
            Self::TimedOut => ConnectFault::Silent,
            Self::Dial(error) => match error.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => ConnectFault::Refused,
                ErrorKind::TimedOut => ConnectFault::Silent,
                ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => ConnectFault::NoRoute,
                ErrorKind::PermissionDenied => ConnectFault::Forbidden,
                // The resolver's errors have no code of the system.
                _ if error.raw_os_error().is_none() => ConnectFault::UnknownName,
                _ => ConnectFault::Other,
            },
            Self::Tls(error) => tls_fault(error),
            Self::AnotherUser { .. } | Self::Name(_) => ConnectFault::Other,
        }
    }

    /// The error in a few words.
    pub fn words(&self) -> String {
        match self.fault() {
            ConnectFault::Refused => "connection refused".to_owned(),
            ConnectFault::Silent => "no answer".to_owned(),
            ConnectFault::NoRoute => "no route to the host".to_owned(),
            ConnectFault::Forbidden => "this host does not permit the connection".to_owned(),
            ConnectFault::UnknownName => "the name is not known".to_owned(),
            ConnectFault::NotTls => "what answers there does not speak TLS".to_owned(),
            ConnectFault::AnotherName => "the certificate there is for another name".to_owned(),
            ConnectFault::UnknownAuthority => "the certificate there is from an unknown CA".to_owned(),
            ConnectFault::Expired => {
                "the certificate there is not valid at the time that this clock shows".to_owned()
            }
            ConnectFault::Other => self.to_string(),
        }
    }
}

fn tls_fault(error: &io::Error) -> ConnectFault {
    use rustls::{AlertDescription, CertificateError, Error};
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        // The connection closed in the handshake.
        return ConnectFault::Other;
    };
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                ConnectFault::AnotherName
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                ConnectFault::UnknownAuthority
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => ConnectFault::Expired,
            _ => ConnectFault::Other,
        },
        Error::AlertReceived(AlertDescription::CertificateExpired) => ConnectFault::Expired,
        Error::InvalidMessage(_) => ConnectFault::NotTls,
        _ => ConnectFault::Other,
    }
}

/// Returns a channel that connects at its first call, and again whenever the connection is lost.
pub fn connect_lazy(remote: Remote, security: ClientSecurity, tuning: &ChannelTuning) -> Channel {
    let (endpoint, dialler) = prepare(remote, security, tuning);
    endpoint.connect_with_connector_lazy(dialler)
}

/// Connects a channel now. It connects again whenever the connection is lost.
///
/// # Errors
/// Fails if the first connection fails. [`ConnectError::of`] gives the reason.
pub async fn connect(
    remote: Remote,
    security: ClientSecurity,
    tuning: &ChannelTuning,
) -> Result<Channel, tonic::transport::Error> {
    let (endpoint, dialler) = prepare(remote, security, tuning);
    endpoint.connect_with_connector(dialler).await
}

fn prepare(remote: Remote, security: ClientSecurity, tuning: &ChannelTuning) -> (Endpoint, Dialler) {
    // The endpoint's own address is never dialled. It must not say https, which would require the library's
    // TLS.
    let endpoint = Endpoint::from_static("http://localhost")
        .origin(origin(&remote, &security))
        .initial_stream_window_size(tuning.stream_window)
        .initial_connection_window_size(tuning.connection_window)
        .max_frame_size(tuning.max_frame)
        .http2_keep_alive_interval(tuning.keepalive)
        .keep_alive_timeout(tuning.keepalive_timeout)
        .keep_alive_while_idle(true);
    (endpoint, Dialler { remote, security, tuning: tuning.clone() })
}

/// The scheme and authority of every request. A name that is not a valid authority cannot be dialled either,
/// so its placeholder does not matter.
fn origin(remote: &Remote, security: &ClientSecurity) -> Uri {
    let (scheme, host, port) = match (security, remote) {
        (ClientSecurity::Tls { server_name, .. }, Remote::Tcp { port, .. }) => {
            ("https", server_name, Some(port))
        }
        (ClientSecurity::Tls { server_name, .. }, Remote::Unix(_)) => ("https", server_name, None),
        (ClientSecurity::Plaintext, Remote::Tcp { host, port }) => ("http", host, Some(port)),
        (ClientSecurity::Plaintext, Remote::Unix(_)) => return Uri::from_static("http://localhost"),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let authority = port.map_or(host.clone(), |port| format!("{host}:{port}"));
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
    uri.unwrap_or(Uri::from_static("http://invalid"))
}

/// The user id of this process. The process at the other end of a Unix socket must have the same one, also if
/// this user is root. Otherwise root would give secrets to any user that made the socket.
pub(super) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes one connection per call, and ignores the address that the caller passes.
#[derive(Clone)]
struct Dialler {
    remote: Remote,
    security: ClientSecurity,
    tuning: ChannelTuning,
}

impl Dialler {
    async fn dial(self) -> Result<TokioIo<Box<dyn Stream>>, ConnectError> {
        let limit = self.tuning.connect_timeout;
        timeout(limit, self.dial_unhurried()).await.map_err(|_| ConnectError::TimedOut)?.map(TokioIo::new)
    }

    async fn dial_unhurried(self) -> Result<Box<dyn Stream>, ConnectError> {
        match &self.remote {
            Remote::Unix(path) => {
                let socket = UnixStream::connect(path).await.map_err(ConnectError::Dial)?;
                let (uid, ours) = (socket.peer_cred().map_err(ConnectError::Dial)?.uid(), own_uid());
                if uid != ours {
                    let path = path.display().to_string();
                    return Err(ConnectError::AnotherUser { path, uid, ours });
                }
                self.secure(socket).await
            }
            Remote::Tcp { host, port } => {
                // The whole handshake is part of the race: one of several servers of a name may accept
                // connections and say nothing.
                let routes = network::routes(host, *port).await.map_err(ConnectError::Dial)?;
                let attempts = routes.into_iter().map(async |route| {
                    let socket = route.connect().await.map_err(ConnectError::Dial)?;
                    self.secure(socket).await
                });
                race(attempts).await.map_err(ConnectError::most_telling)
            }
        }
    }

    async fn secure<T: Stream + 'static>(&self, socket: T) -> Result<Box<dyn Stream>, ConnectError> {
        let ClientSecurity::Tls { config, server_name } = &self.security else {
            return Ok(Box::new(socket));
        };
        let name = ServerName::try_from(server_name.clone());
        let name = name.map_err(|_| ConnectError::Name(self.remote.to_string()))?;
        let socket = BufReader::with_capacity(self.tuning.read_buffer, socket);
        let stream =
            TlsConnector::from(Arc::clone(config)).connect(name, socket).await.map_err(ConnectError::Tls)?;
        Ok(Box::new(stream))
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

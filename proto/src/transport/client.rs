//! Channels to servers: over TLS, in the open, or over a Unix socket.
//!
//! The TLS configuration is exactly ours ([`client_config`](super::client_config)), and the certificate's name is checked
//! against the name that was asked for whatever address is dialled.

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
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    /// Over TCP.
    Tcp {
        /// A host name, or an IP address without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// On this machine.
    Unix(PathBuf),
}

/// Whether a channel is encrypted, and whom it must reach.
#[derive(Clone, Debug)]
pub enum ClientSecurity {
    /// Not at all: for Unix sockets, loopback and benchmarks.
    Plaintext,
    /// TLS to the server whose certificate bears this name.
    Tls {
        /// Made by [`client_config`](super::client_config).
        config: Arc<ClientConfig>,
        /// A host name, an IP address, or a peer's TLS name; also the authority of every request.
        server_name: String,
    },
}

/// How a channel deals with the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelTuning {
    /// Bytes that the server may send ahead, for each stream.
    pub stream_window: u32,
    /// Bytes that the server may send ahead, for all streams.
    pub connection_window: u32,
    /// Largest frame that the server may send; it writes one frame at a time, so this decides its write size.
    pub max_frame: u32,
    /// Bytes taken from the kernel at a time. TLS by itself reads 4 KiB at a time.
    pub read_buffer: usize,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// The server is pinged when nothing came for so long, also when no call runs.
    pub keepalive: Duration,
    /// The connection is given up when a ping is not answered for so long.
    pub keepalive_timeout: Duration,
}

impl ChannelTuning {
    /// For small calls.
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

    /// For file data: windows that fill 200 Mbit/s at 100 ms and frames of a whole piece.
    pub fn data() -> Self {
        Self {
            stream_window: 8 << 20,
            connection_window: 16 << 20,
            max_frame: 512 << 10,
            read_buffer: 256 << 10,
            ..Self::control()
        }
    }
}

/// Why a connection didn't come about. In the source chain of the channel's errors: see [`ConnectError::of`].
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there, or the name is unknown.
    #[error("can't connect: {0}")]
    Dial(#[source] io::Error),
    /// Somebody answers, but not with a certificate that counts, or not with TLS.
    #[error("can't agree on TLS: {0}")]
    Tls(#[source] io::Error),
    /// It took longer than it may.
    #[error("connecting took too long")]
    TimedOut,
    /// The name can't be in a certificate.
    #[error("not a host name or an IP address: {0:?}")]
    Name(String),
}

impl ConnectError {
    /// The one in `error` or its sources, if that is why it failed.
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

/// A channel that connects at its first call, and again whenever the connection is lost.
pub fn connect_lazy(remote: Remote, security: ClientSecurity, tuning: &ChannelTuning) -> Channel {
    let (endpoint, dialler) = prepare(remote, security, tuning);
    endpoint.connect_with_connector_lazy(dialler)
}

/// A channel that is connected now, and connects again whenever the connection is lost.
///
/// # Errors
/// When the first connection fails; [`ConnectError::of`] tells why.
pub async fn connect(
    remote: Remote,
    security: ClientSecurity,
    tuning: &ChannelTuning,
) -> Result<Channel, tonic::transport::Error> {
    let (endpoint, dialler) = prepare(remote, security, tuning);
    endpoint.connect_with_connector(dialler).await
}

fn prepare(remote: Remote, security: ClientSecurity, tuning: &ChannelTuning) -> (Endpoint, Dialler) {
    // The endpoint's own address is never dialled and must not say https, which would ask for the library's TLS.
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

/// The scheme and authority of every request. A name that can't be one also can't be dialled, so it may read anything.
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

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes one connection each time it is called, whatever address the caller names.
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
                self.secure(socket).await
            }
            Remote::Tcp { host, port } => {
                let socket = TcpStream::connect((host.as_str(), *port)).await.map_err(ConnectError::Dial)?;
                socket.set_nodelay(true).map_err(ConnectError::Dial)?;
                self.secure(socket).await
            }
        }
    }

    async fn secure<T: Stream + 'static>(self, socket: T) -> Result<Box<dyn Stream>, ConnectError> {
        let ClientSecurity::Tls { config, server_name } = self.security else {
            return Ok(Box::new(socket));
        };
        let name =
            ServerName::try_from(server_name).map_err(|_| ConnectError::Name(self.remote.to_string()))?;
        let socket = BufReader::with_capacity(self.tuning.read_buffer, socket);
        let stream = TlsConnector::from(config).connect(name, socket).await.map_err(ConnectError::Tls)?;
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

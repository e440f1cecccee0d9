//! The network below TLS: TCP, or a network that a test provides.
//!
//! A test that runs a tracker and peers in one process, in virtual time, replaces TCP as a whole with
//! [`replace_network`]. Everything above this file stays the same. Programs never replace it.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
};

use domain::address::{Family, interleave};
use rand::seq::SliceRandom as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, lookup_host},
};

use super::{
    listen::{Congestion, listen, send_uploads},
    race::race,
    write_ahead::SetWriteAhead,
};

/// Maximum number of a host name's addresses that are tried.
const MAX_RESOLVED: usize = 8;

/// A future of a [`Network`].
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A connection of a [`Network`].
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A network that takes the place of TCP.
pub trait Network: Send + Sync {
    /// Connects to a host.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Waiting<'a, Box<dyn Duplex>>;

    /// Listens at an address of the host that the caller runs on.
    ///
    /// # Errors
    /// Fails if the address is in use.
    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Accept>>;
}

/// A listener of a [`Network`]. The drop closes it.
pub trait Accept: Send + Sync {
    /// Waits for the next connection. Returns it and the address of the other end.
    fn accept(&self) -> Waiting<'_, (Box<dyn Duplex>, SocketAddr)>;

    /// The address that it listens at.
    fn local_addr(&self) -> SocketAddr;
}

static REPLACED: OnceLock<Box<dyn Network>> = OnceLock::new();

/// Replaces TCP for the whole process, for tests. Only the first call counts.
pub fn replace_network(network: Box<dyn Network>) {
    let _ = REPLACED.set(network);
}

/// One way to a host.
pub(super) enum Route<'a> {
    /// An address of the host.
    Tcp(SocketAddr),
    /// The network of a test finds the host.
    Replaced(&'static dyn Network, &'a str, u16),
}

impl Route<'_> {
    /// Connects, without a delay for small messages.
    ///
    /// # Errors
    /// Fails if the address does not answer.
    pub(super) async fn connect(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(address) => {
                let socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                Ok(Socket::Tcp(socket))
            }
            Self::Replaced(network, host, port) => network.dial(host, port).await.map(Socket::Replaced),
        }
    }
}

/// The ways to a host, in the order in which they are tried, at least one.
///
/// # Errors
/// Fails if the host is unknown.
pub(super) async fn routes(host: &str, port: u16) -> io::Result<Vec<Route<'_>>> {
    if let Some(network) = REPLACED.get() {
        return Ok(vec![Route::Replaced(&**network, host, port)]);
    }
    Ok(addresses(host, port).await?.into_iter().map(Route::Tcp).collect())
}

/// Connects to a host at the first of its addresses that answers.
///
/// # Errors
/// Fails if the host is unknown or does not answer.
pub(super) async fn dial(host: &str, port: u16) -> io::Result<Socket> {
    let routes = routes(host, port).await?;
    race(routes.into_iter().map(Route::connect)).await.map_err(first)
}

/// Whether a host name has several addresses of one family, as the name of several servers has. False if it
/// can't be looked up.
pub async fn has_several_addresses(host: &str, port: u16) -> bool {
    if REPLACED.get().is_some() {
        return false;
    }
    let found = addresses(host, port).await.unwrap_or_default();
    [Family::V4, Family::V6]
        .iter()
        .any(|family| found.iter().filter(|address| Family::of(address.ip()) == *family).count() > 1)
}

/// The addresses of a host: of both families in turn, beginning with the one that the system prefers. Those of
/// one family are shuffled, so that the clients of a name with several servers spread over them.
async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<_> = lookup_host((host, port)).await?.collect();
    let family = |address: &SocketAddr| Family::of(address.ip());
    let Some(preferred) = found.first().map(family) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    };
    found.sort_unstable();
    found.dedup();
    found.shuffle(&mut rand::rng());
    found.sort_by_key(|address| family(address) != preferred);
    let mut addresses = interleave(found, family);
    addresses.truncate(MAX_RESOLVED);
    Ok(addresses)
}

/// The error of the first attempt that failed.
fn first(errors: Vec<io::Error>) -> io::Error {
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    errors.into_iter().next().unwrap_or_else(none)
}

/// A listening socket.
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over the network of a test.
    Replaced(Box<dyn Accept>),
}

impl Listener {
    /// Binds and listens. Clients can connect as soon as this returns.
    ///
    /// # Errors
    /// Fails if the address cannot be bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        match REPLACED.get() {
            Some(network) => network.listen(address).map(Self::Replaced),
            None => listen(address).map(Self::Tcp),
        }
    }

    /// The address that it listens at.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Replaced(listener) => Ok(listener.local_addr()),
        }
    }

    /// Sets how the accepted connections send file data.
    ///
    /// # Errors
    /// Fails if the system lacks the named congestion control, or refuses an option.
    pub fn send_uploads(&self, congestion: &Congestion) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => send_uploads(listener, congestion),
            Self::Replaced(_) => Ok(()),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().await.map(|(socket, remote)| (Socket::Tcp(socket), remote))
            }
            Self::Replaced(listener) => {
                listener.accept().await.map(|(socket, remote)| (Socket::Replaced(socket), remote))
            }
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

/// A connection below TLS.
pub(super) enum Socket {
    Tcp(TcpStream),
    Replaced(Box<dyn Duplex>),
}

impl Socket {
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_nodelay(true),
            Self::Replaced(_) => Ok(()),
        }
    }
}

impl Socket {
    /// Waits for the first byte, and leaves it to be read. `None` at the end of the stream, and on the network
    /// of a test.
    pub(super) async fn first_byte(&mut self) -> io::Result<Option<u8>> {
        let Self::Tcp(socket) = self else { return Ok(None) };
        let mut first = [0];
        let found = socket.peek(&mut first).await?;
        Ok((found > 0).then_some(first[0]))
    }
}

impl SetWriteAhead for Socket {
    fn set_write_ahead(&mut self, bytes: usize) {
        match self {
            Self::Tcp(socket) => socket.set_write_ahead(bytes),
            Self::Replaced(_) => {}
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Replaced(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Replaced(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Replaced(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(socket) => socket.is_write_vectored(),
            Self::Replaced(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Replaced(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Replaced(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

//! Listening sockets, and the options that matter for serving file data.

use std::{io, net::SocketAddr};

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

/// Bytes that the kernel takes of an upload before the network takes them: 50 ms of an uplink of 20 Mbit/s.
const NOT_SENT_LOW_WATER: u32 = 32 << 10;

/// How the connections that a listener accepts send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendOptions {
    /// Congestion control for what is sent, such as `reno` or `cubic`. The system's own is usually right; `bbr` paces,
    /// which costs a fifth of the rate on loopback and fast local networks.
    pub congestion: Option<String>,
    /// Bytes that the kernel takes for sending before the network takes them (TCP_NOTSENT_LOWAT). On a thin uplink the
    /// kernel otherwise queues seconds of data, which nobody can take back or reorder.
    pub not_sent_low_water: u32,
}

impl SendOptions {
    /// For file data, by this congestion control or the system's own.
    pub fn uploads(congestion: Option<String>) -> Self {
        Self { congestion, not_sent_low_water: NOT_SENT_LOW_WATER }
    }

    /// Sets them on a listener, whose accepted connections inherit them.
    ///
    /// # Errors
    /// When the system refuses one, such as a congestion control that it doesn't have.
    pub fn apply(&self, listener: &TcpListener) -> io::Result<()> {
        let socket = SockRef::from(listener);
        if let Some(name) = &self.congestion {
            socket.set_tcp_congestion(name.as_bytes())?;
        }
        socket.set_tcp_notsent_lowat(self.not_sent_low_water)
    }
}

/// Binds and listens. Once this returns, clients can connect.
///
/// # Errors
/// When the address can't be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1_024)?;
    TcpListener::from_std(socket.into())
}

/// Raises this process's limit of open files as far as it may go by itself, and returns it. To be called first in `main`.
pub fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let (before, most) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_ok() { most } else { before }
}

//! Listening sockets, with the options that matter for serving file data.

use std::{io, net::SocketAddr};

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Options of a listening socket; accepted connections inherit them. The default leaves the system's settings alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// Congestion control for what is sent, such as `reno` or `cubic`. The system's own is usually right; `bbr` paces,
    /// which costs a fifth of the rate on loopback and fast local networks.
    pub congestion: Option<String>,
    /// Bytes that the kernel takes for sending before the network takes them (TCP_NOTSENT_LOWAT). On a thin uplink the
    /// kernel otherwise queues seconds of data, which nobody can take back or reorder; 128 KiB is a good value there.
    pub not_sent_low_water: Option<u32>,
}

/// Binds and listens. Once this returns, clients can connect.
///
/// # Errors
/// When the address can't be had, or the system refuses an option.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if let Some(name) = &options.congestion {
        socket.set_tcp_congestion(name.as_bytes())?;
    }
    if let Some(bytes) = options.not_sent_low_water {
        socket.set_tcp_notsent_lowat(bytes)?;
    }
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

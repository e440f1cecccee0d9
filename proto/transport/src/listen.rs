//! Listening sockets, and the socket options for serving file data.

use std::{
    convert::Infallible,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use rustix::{
    io::Errno,
    process::{Resource, getrlimit, setrlimit},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

/// Minimum number of bytes of an upload that the kernel accepts ahead of the network (TCP_NOTSENT_LOWAT), see
/// [`write_ahead`](super::write_ahead). Without this option the kernel would queue seconds of data, which
/// cannot be withdrawn or reordered.
pub(super) const NOT_SENT_LOW_WATER: u32 = 32 << 10;

/// The congestion control of uploads: the algorithm that decides the send rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// CUBIC (RFC 9438) if available, else the system's default. With BBR, crowds of 8 and 24 took an eighth
    /// longer (`xtask bench crowd`, 2026-11-26), and BBR's pacing costs a fifth of the rate on loopback. The
    /// cause in the crowds was not investigated. A source switches between receivers several times a second,
    /// which may be too short for BBR to measure the uplink.
    Auto,
    /// The system's default.
    System,
    /// This algorithm, such as `bbr` or `reno`. There is no fallback.
    Named(String),
}

impl FromStr for Congestion {
    type Err = Infallible;

    /// Reads `auto`, `system`, or the system's name of an algorithm.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "system" => Self::System,
            name => Self::Named(name.to_owned()),
        })
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::System => "system",
            Self::Named(name) => name,
        })
    }
}

/// Sets how the connections accepted by a listener send file data.
///
/// # Errors
/// Fails if the system lacks the named congestion control, or refuses an option.
pub fn send_uploads(listener: &TcpListener, congestion: &Congestion) -> io::Result<()> {
    let socket = SockRef::from(listener);
    match congestion {
        Congestion::Auto => {
            if let Err(error) = socket.set_tcp_congestion(b"cubic") {
                tracing::info!(%error, "uploads use the system's congestion control, because cubic is not available");
            }
        }
        Congestion::System => {}
        Congestion::Named(name) => socket.set_tcp_congestion(name.as_bytes())?,
    }
    socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)
}

/// Binds and listens. Clients can connect as soon as this returns. A listener on `[::]` accepts IPv4 too, and
/// only IPv4 if the system has no IPv6.
///
/// # Errors
/// Fails if the address cannot be bound.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let is_every = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match bind(address) {
        Err(error) if is_every && has_no_ipv6(&error) => {
            bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        bound => bound,
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // The system's default may be another.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1_024)?;
    TcpListener::from_std(socket.into())
}

/// Raises this process's limit of open files to the maximum that it may set itself, and returns that. Call it
/// first in `main`.
pub fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let (before, most) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_ok() { most } else { before }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn set_by(congestion: &str) -> io::Result<String> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(1).unwrap();
        let listener = TcpListener::from_std(socket.into())?;
        send_uploads(&listener, &congestion.parse().unwrap())?;
        assert_eq!(SockRef::from(&listener).tcp_notsent_lowat()?, NOT_SENT_LOW_WATER);
        let name = SockRef::from(&listener).tcp_congestion()?;
        Ok(String::from_utf8(name).unwrap().trim_end_matches('\0').to_owned())
    }

    #[tokio::test]
    async fn uploads_go_by_what_is_named_and_by_cubic_where_nothing_is() {
        let system = set_by("system").unwrap();
        assert_eq!(set_by("reno").unwrap(), "reno", "every Linux has it");
        assert_eq!(set_by("auto").unwrap(), set_by("cubic").unwrap_or(system));
        assert!(set_by("nonesuch").is_err());
        assert_eq!(
            ["auto", "system", "bbr"].map(|name| name.parse::<Congestion>().unwrap().to_string()),
            ["auto", "system", "bbr"]
        );
    }
}

//! Listening sockets, and the options that matter for serving file data.

use std::{convert::Infallible, fmt, io, net::SocketAddr, str::FromStr};

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

/// Least bytes that the kernel takes of an upload before the network takes them (TCP_NOTSENT_LOWAT), see
/// [`write_ahead`](super::write_ahead). It would else queue seconds of data there, which nobody can take back or reorder.
pub(super) const NOT_SENT_LOW_WATER: u32 = 32 << 10;

/// Congestion control of what is sent: which algorithm decides how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// CUBIC (RFC 9438) where it can be had, else the system's own. By BBR crowds of 8 and 24 took an eighth longer
    /// (`xtask bench crowd`, 2026-11-26), and its pacing costs a fifth of the rate on loopback. Why the crowds do was not
    /// looked into; a source turns from one receiver to the next several times a second, which may be too short for BBR
    /// to find out what the uplink carries.
    Auto,
    /// The system's own.
    System,
    /// This one, such as `bbr` or `reno`, or none at all.
    Named(String),
}

impl FromStr for Congestion {
    type Err = Infallible;

    /// `auto`, `system`, or the name that the system knows it by.
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

/// Sets how the connections that a listener accepts send file data.
///
/// # Errors
/// When the system doesn't have the congestion control that was named, or refuses an option.
pub fn send_uploads(listener: &TcpListener, congestion: &Congestion) -> io::Result<()> {
    let socket = SockRef::from(listener);
    match congestion {
        Congestion::Auto => {
            if let Err(error) = socket.set_tcp_congestion(b"cubic") {
                tracing::info!(%error, "uploads go by the system's congestion control, for cubic can't be had");
            }
        }
        Congestion::System => {}
        Congestion::Named(name) => socket.set_tcp_congestion(name.as_bytes())?,
    }
    socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)
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

//! The network side of gRPC: TLS, the accept loop, client channels, and the middleware around every call.
//!
//! Goals:
//!
//! - TLS 1.3 with certificates that can be replaced while serving.
//! - Connections that are idle, half-open, silent or never read cost little, end in bounded time, and do not
//!   keep others out. The module `places` decides which connection is closed.
//! - A stop never takes longer than its grace period.
//! - Running out of file descriptors slows accepting down, and does not spin.
//!
//! Non-goals: HTTP/1.1, older TLS, web browsers.
//!
//! - [`serve`], [`serve_unix`]: the server side, on sockets made by [`listen()`].
//! - [`connect`], [`connect_lazy`]: the client side.
//! - [`mod@race`]: attempts to connect at several addresses.
//! - [`server_config`], [`client_config`]: TLS from PEM text.
//! - [`replace_network`]: another network in the place of TCP, for tests.
//! - [`serve_scrapes`]: metrics over HTTP, and pages beside them.
//! - [`fetch_authority`]: fetches a tracker's CA certificate before the tracker is trusted.
//! - [`MiddlewareLayer`]: middleware around every call, such as [`RequestIds`] and [`Deadlines`].

mod client;
mod connections;
mod deadline;
mod flood;
mod limits;
mod listen;
mod log_throttle;
mod middleware;
mod network;
mod places;
mod preface;
mod race;
mod request_id;
mod scrape;
mod server;
mod stall;
mod timeout;
mod tls;
mod trust;
mod write_ahead;

use std::net::SocketAddr;

pub use client::{ChannelTuning, ClientSecurity, ConnectError, ConnectFault, Remote, connect, connect_lazy};
pub use connections::Standing;
pub use deadline::Deadlines;
pub use limits::Limits;
pub use listen::{Congestion, listen, raise_open_files, send_uploads};
pub use log_throttle::LogThrottle;
pub use middleware::{Middleware, MiddlewareLayer, MiddlewareService, ResponseFuture};
pub use network::{Accept, Duplex, Listener, Network, Waiting, has_several_addresses, replace_network};
pub use places::{PlaceLimits, Principal, network_of};
pub use race::race;
pub use request_id::{RequestId, RequestIds};
pub use scrape::{Scraped, serve_scrapes};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use server::serve_duplex;
pub use server::{GrpcBody, GrpcService, Security, serve, serve_unix};
pub use stall::{Reset, Whole};
pub use timeout::{TimedOut, sleep_running, within};
pub use tls::{
    TlsError, Validity, client_config, peer_id_of_spki, peer_of_certificate, server_config, validity,
};
pub use trust::{
    AuthorityFingerprint, FetchedAuthority, FingerprintError, fetch_authority, fingerprints, presented_end,
};

use domain::PeerId;

/// The other end of a connection. Every request that [`serve`] accepts has it in its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// The address of the other end; `None` on a Unix socket. An IPv4 address is never mapped into IPv6 here.
    pub remote: Option<SocketAddr>,
    /// The peer whose certificate was verified; `None` without a client certificate.
    pub peer: Option<PeerId>,
}

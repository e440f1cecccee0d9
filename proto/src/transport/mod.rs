//! How gRPC gets on and off the network: TLS, the accept loop, client channels and what every call is wrapped in.
//!
//! Goals: TLS 1.3 with certificates that swap while serving; connections that are idle, half-open, silent or never read
//! cost little and end in bounded time; a stop that waits for nobody longer than its grace; running out of file
//! descriptors slows accepting down instead of spinning.
//!
//! Non-goals: HTTP/1.1, older TLS, web browsers.
//!
//! - [`serve`], [`serve_unix`]: the server side, on sockets made by [`listen()`].
//! - [`connect`], [`connect_lazy`]: the client side.
//! - [`server_config`], [`client_config`]: TLS from PEM text.
//! - [`serve_scrapes`]: metrics over HTTP.
//! - [`fetch_authority`]: looks at a tracker's authority before trusting it.
//! - [`Around`] every call: [`RequestIds`], [`Deadlines`].

mod around;
mod client;
mod deadline;
mod flood;
mod limits;
mod listen;
mod preface;
mod request_id;
mod scrape;
mod server;
mod slots;
mod stall;
mod tls;
mod trust;
mod write_ahead;

use std::net::SocketAddr;

pub use around::{Answer, Around, Surround, Surrounded};
pub use client::{ChannelTuning, ClientSecurity, ConnectError, Remote, connect, connect_lazy};
pub use deadline::Deadlines;
pub use limits::Limits;
pub use listen::{Congestion, listen, raise_open_files, send_uploads};
pub use request_id::{RequestId, RequestIds};
pub use scrape::serve_scrapes;
pub use server::{GrpcBody, GrpcService, Security, serve, serve_unix};
pub use tls::{TlsError, client_config, peer_id_of_spki, peer_of_certificate, server_config};
pub use trust::{AuthorityFingerprint, FetchedAuthority, FingerprintError, fetch_authority, fingerprints};

use crate::domain::PeerId;

/// Who is at the other end of a connection; in the extensions of every request that [`serve`] takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// The other end's address; none on a Unix socket. IPv4 is never mapped into IPv6 here.
    pub remote: Option<SocketAddr>,
    /// The peer whose certificate was verified; none without a client certificate.
    pub peer: Option<PeerId>,
}

//! What a server puts up with from its connections.

use std::{ops::RangeInclusive, time::Duration};

use super::listen::NOT_SENT_LOW_WATER;
use crate::domain::limits::MAX_PEER_CONNECTIONS;

/// What a server puts up with from its connections. Start from [`Limits::tracker`] or [`Limits::peer`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all; one more is closed at once. Keep it below the limit of open files.
    pub connections: usize,
    /// Connections from one IPv4 address or one IPv6 /64. Loose, for behind a NAT many share one.
    pub connections_per_ip: usize,
    /// Loopback addresses don't count for `connections_per_ip`.
    pub loopback_exempt: bool,
    /// Connections with the certificate of one peer.
    pub connections_per_peer: usize,
    /// Calls at once on one connection; told to the client, which queues the rest.
    pub streams: u32,
    /// Bytes of all headers of one request; more is answered with 431.
    pub header_list: u32,
    /// Bytes that may wait in memory to be sent, for each stream.
    pub send_buffer: usize,
    /// Bytes of TLS records that are gathered for one write, and that the kernel takes before the network takes them: the
    /// more, the faster a connection sends.
    pub write_ahead: RangeInclusive<usize>,
    /// Bytes that a client may send ahead, for each stream.
    pub stream_window: u32,
    /// Bytes that a client may send ahead, for all streams of a connection.
    pub connection_window: u32,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the 24 bytes that open HTTP/2 may take, once TLS stands.
    pub preface: Duration,
    /// A connection is pinged when nothing came in for so long.
    pub keepalive: Duration,
    /// A connection is closed when a ping is not answered for so long.
    pub keepalive_timeout: Duration,
    /// A call is reset when its client takes none of the answer that waits for it for so long.
    pub stall: Duration,
    /// How long running calls may take to end when the server stops; then they are cut.
    pub grace: Duration,
}

impl Limits {
    /// For the tracker: many connections with small messages.
    pub fn tracker() -> Self {
        Self {
            connections: 2_000,
            connections_per_ip: 1_000,
            loopback_exempt: true,
            connections_per_peer: 8,
            streams: 64,
            header_list: 16 << 10,
            send_buffer: 256 << 10,
            write_ahead: 64 << 10..=64 << 10,
            stream_window: 512 << 10,
            connection_window: 1 << 20,
            handshake: Duration::from_secs(5),
            preface: Duration::from_secs(5),
            keepalive: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            grace: Duration::from_secs(8),
        }
    }

    /// For a peer: few connections that carry file data away.
    pub fn peer() -> Self {
        Self {
            connections: MAX_PEER_CONNECTIONS,
            connections_per_ip: MAX_PEER_CONNECTIONS,
            streams: 16,
            send_buffer: 64 << 10,
            write_ahead: NOT_SENT_LOW_WATER as usize..=256 << 10,
            stream_window: 256 << 10,
            ..Self::tracker()
        }
    }
}

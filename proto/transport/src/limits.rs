//! The limits that a server sets on its connections.

use std::{ops::RangeInclusive, time::Duration};

use domain::limits::MAX_PEER_CONNECTIONS;

use super::{listen::NOT_SENT_LOW_WATER, places::PlaceLimits};

/// The limits that a server sets on its connections. Start from [`Limits::tracker`], [`Limits::peer`] or
/// [`Limits::control`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Maximum numbers of connections.
    pub places: PlaceLimits,
    /// Maximum number of concurrent calls on one connection. The client is told this number and queues the
    /// rest.
    pub streams: u32,
    /// Maximum size of all headers of one request, in bytes. A larger request gets status 431.
    pub header_list: u32,
    /// Maximum data that waits in memory to be sent, in bytes per stream.
    pub send_buffer: usize,
    /// Bytes of TLS records that are gathered for one write, and that the kernel accepts ahead of the
    /// network. The amount grows with the connection's send rate.
    pub write_ahead: RangeInclusive<usize>,
    /// Receive window of each stream, in bytes.
    pub stream_window: u32,
    /// Receive window of the whole connection, in bytes.
    pub connection_window: u32,
    /// Timeout for opening a connection: the TLS handshake and the preface of HTTP/2 with its settings, all
    /// together, counted from accept. Slow progress does not extend it.
    pub opening: Duration,
    /// Timeout for the headers of a request, or for any other frame except a request's data, counted from the
    /// first byte.
    pub headers: Duration,
    /// A connection is pinged after this time without input.
    pub keepalive: Duration,
    /// Timeout for the answer to a ping. After it the connection is closed.
    pub keepalive_timeout: Duration,
    /// A call is reset when response data has waited this long and the client has read none of it.
    pub stall: Duration,
    /// Maximum part of a response that is passed to the connection at once, in bytes. A client that reads one
    /// part within `stall` makes progress. This also limits the data that an ended call leaves in the
    /// connection for a client that has no room for it.
    pub part: usize,
    /// Maximum time that running calls get to end when the server stops. After it they are cut.
    pub grace: Duration,
}

impl Limits {
    /// Limits for the tracker: many connections with small messages.
    pub fn tracker() -> Self {
        Self {
            // A user has at most 16 peers. Each has at most four connections while one replaces another.
            places: PlaceLimits { proven: 2_000, proven_each: 64, strangers: 256, strangers_each: 64 },
            streams: 64,
            header_list: 16 << 10,
            send_buffer: 64 << 10,
            write_ahead: 64 << 10..=64 << 10,
            stream_window: 512 << 10,
            connection_window: 1 << 20,
            opening: Duration::from_secs(6),
            headers: Duration::from_secs(20),
            keepalive: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            part: 16 << 10,
            grace: Duration::from_secs(8),
        }
    }

    /// Limits for a peer: few connections that download file data.
    pub fn peer() -> Self {
        Self {
            places: PlaceLimits {
                proven: MAX_PEER_CONNECTIONS,
                proven_each: 8,
                strangers: 64,
                strangers_each: 32,
            },
            streams: 16,
            // A chunk is at most 256 KiB, and shorter if this peer sends slowly. Splitting it would only cost time.
            part: usize::MAX,
            write_ahead: NOT_SENT_LOW_WATER as usize..=256 << 10,
            stream_window: 256 << 10,
            ..Self::tracker()
        }
    }

    /// Limits for the calls of one user's own processes over a Unix socket.
    pub fn control() -> Self {
        Self {
            // All of them are proven at once, and all belong to the same user.
            places: PlaceLimits { proven: 256, proven_each: 256, strangers: 8, strangers_each: 8 },
            // A command that still follows a stream must not delay the stop.
            grace: Duration::from_secs(1),
            ..Self::tracker()
        }
    }

    /// Returns the same limits with no more connections than `files` open files allow.
    #[must_use]
    pub fn within(mut self, files: u64) -> Self {
        self.places = self.places.within(usize::try_from(files).unwrap_or(usize::MAX));
        self
    }
}

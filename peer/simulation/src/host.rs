//! One peer: the product's state machines, and the state that the model keeps around them.

use std::{collections::BTreeMap, time::Duration};

use domain::{Bitfield, PeerId, PieceIndex, Username};
use peer_core::{
    Moment,
    announce::Announces,
    download::{Download, DownloadRequestId},
    upload::{self, Upload},
};

use super::{No, uplink::Uplink};

/// A peer.
pub(super) struct Host {
    pub(super) id: PeerId,
    pub(super) user: Username,
    pub(super) state: State,
    /// Whether the peer sends garbage.
    pub(super) lies: bool,
    /// The peer's part of the latency. The latency of a pair is the sum of both parts.
    pub(super) latency: Moment,
    pub(super) have: Bitfield,
    /// `None` for a peer that downloads nothing.
    pub(super) leech: Option<Leech>,
    pub(super) upload: Upload,
    pub(super) upload_tick: Option<Moment>,
    pub(super) uplink: Uplink,
    pub(super) downlink_busy: Moment,
    /// The leechers that are connected, and the number of the connection of each.
    pub(super) watchers: BTreeMap<No, u64>,
    /// The running requests: from the leecher's request to the number used here, and back.
    pub(super) calls: BTreeMap<(No, DownloadRequestId), upload::UploadRequestId>,
    pub(super) callers: BTreeMap<upload::UploadRequestId, (No, DownloadRequestId)>,
    pub(super) next_call: u64,
    /// The announces to the tracker that are pending.
    pub(super) announces: Announces,
    pub(super) tally: Tally,
}

/// Whether a peer takes part in the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has not come yet.
    Away,
    There,
    /// It left. Connection attempts are refused.
    Left,
    /// It stopped answering without a message.
    Silent,
}

/// The state around the state machine of a download.
pub(super) struct Leech {
    pub(super) machine: Download,
    pub(super) tick: Option<Moment>,
    /// Sources that are connected or being connected, and the number of the connection to each.
    pub(super) links: BTreeMap<No, u64>,
    pub(super) connections: u64,
    /// Requests that the state machine still expects events for, and the source of each.
    pub(super) requests: BTreeMap<DownloadRequestId, No>,
    /// The piece that each request is on, and the bytes of it that have arrived.
    pub(super) parts: BTreeMap<DownloadRequestId, (PieceIndex, u64)>,
    pub(super) begun: Moment,
    /// The moment at which it had half of the file, and the time left that its state machine estimated then.
    pub(super) halfway: Option<(Moment, Duration)>,
    pub(super) finished: Option<Moment>,
    /// `None` for a leecher that does not read.
    pub(super) reading: Option<Reading>,
}

/// A leecher's reader. It takes bytes as fast as they come.
pub(super) struct Reading {
    /// The index of the piece that it wants next.
    pub(super) next: u64,
    /// Since when it waits for the first piece of the place that it went to; `None` once that piece is there.
    pub(super) since: Option<Moment>,
    /// How long it waited for the first piece of each place that it went to.
    pub(super) waits: Vec<Duration>,
}

/// Bytes that a peer sent and received.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Bytes of the file that were sent.
    pub(super) sent: u64,
    /// Bytes of small messages that were sent.
    pub(super) small: u64,
    /// Bytes of the file that were received.
    pub(super) received: u64,
    /// Bytes of verified pieces.
    pub(super) verified: u64,
    /// Bytes that were received twice outside the endgame, while other pieces were left to request.
    pub(super) twice: u64,
    /// Bytes that were received twice in the endgame.
    pub(super) raced: u64,
}

/// A seeder that wants to leave, from that moment on.
pub(super) struct Draining {
    /// Bytes that it had sent by then.
    pub(super) sent: u64,
    /// Bytes of the pieces that no leecher had then.
    pub(super) missing: u64,
    /// Bytes that it sent from then until it left.
    pub(super) handed: Option<u64>,
}

impl Draining {
    /// What it sent from then on, over what was missing.
    pub(super) fn ratio(&self) -> f64 {
        self.handed.map_or(f64::INFINITY, |handed| handed as f64 / self.missing as f64)
    }
}

impl Host {
    pub(super) fn is_there(&self) -> bool {
        self.state == State::There
    }

    /// Adds a verified piece.
    pub(super) fn gain(&mut self, piece: PieceIndex, bytes: u32) {
        self.have.insert(piece);
        self.tally.verified += u64::from(bytes);
    }
}

//! One peer: the product's machines, and what there is around them.

use std::{collections::BTreeMap, time::Duration};

use peer::domain::{
    Moment,
    download::{Download, RequestId},
    upload::{self, Upload},
};
use proto::domain::{Bitfield, PeerId, PieceIndex, Username};

use super::{No, uplink::Uplink};

/// A peer.
pub(super) struct Host {
    pub(super) id: PeerId,
    pub(super) user: Username,
    pub(super) state: State,
    /// It sends garbage.
    pub(super) lies: bool,
    /// Its share of the time to another peer.
    pub(super) latency: Moment,
    pub(super) have: Bitfield,
    /// `None` for who wants nothing.
    pub(super) leech: Option<Leech>,
    pub(super) upload: Upload,
    pub(super) upload_tick: Option<Moment>,
    pub(super) uplink: Uplink,
    pub(super) downlink_busy: Moment,
    /// Who is connected, and by which of its connections.
    pub(super) watchers: BTreeMap<No, u64>,
    /// What is asked of it, by whom it is asked.
    pub(super) calls: BTreeMap<(No, RequestId), upload::RequestId>,
    pub(super) callers: BTreeMap<upload::RequestId, (No, RequestId)>,
    pub(super) next_call: u64,
    /// Pieces that it has not announced to the tracker, and when it will.
    pub(super) unannounced: Vec<PieceIndex>,
    pub(super) announce_at: Option<Moment>,
    pub(super) tally: Tally,
}

/// Whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not yet.
    Away,
    There,
    /// It left, and whoever asks for it is told so.
    Left,
    /// It fell silent.
    Silent,
}

/// What there is around the machine of a download.
pub(super) struct Leech {
    pub(super) machine: Download,
    pub(super) tick: Option<Moment>,
    /// Sources that it is connected to, or about to be, and by which connection.
    pub(super) links: BTreeMap<No, u64>,
    pub(super) connections: u64,
    /// Requests of which the machine still wants to hear, and whose they are.
    pub(super) requests: BTreeMap<RequestId, No>,
    /// What came of the piece that each of them is on.
    pub(super) parts: BTreeMap<RequestId, (PieceIndex, u64)>,
    pub(super) begun: Moment,
    /// When it had half of the file, and how much longer its machine said then that it would take.
    pub(super) halfway: Option<(Moment, Duration)>,
    pub(super) finished: Option<Moment>,
}

/// What a peer sent and received, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Of the file, that went out.
    pub(super) sent: u64,
    /// Of small messages.
    pub(super) small: u64,
    /// Of the file, that came in.
    pub(super) received: u64,
    /// Of verified pieces.
    pub(super) verified: u64,
    /// That came twice though there were other pieces to ask for.
    pub(super) twice: u64,
    /// That came twice in the endgame.
    pub(super) raced: u64,
}

impl Host {
    pub(super) fn is_there(&self) -> bool {
        self.state == State::There
    }

    /// It holds a piece more.
    pub(super) fn gain(&mut self, piece: PieceIndex, bytes: u32) {
        self.have.insert(piece);
        self.tally.verified += u64::from(bytes);
    }
}

//! What is simulated: the peers, the network between them, and the policies.

use std::time::Duration;

use clap::{Args, ValueEnum};
use domain::{PIECE_LENGTH, PieceLayout};
use peer_core::{
    picker::{Picker, RandomThenRarest, Sequential},
    upload,
};

/// One seeder, and leechers that all want its file at the same time.
#[derive(Args, Clone, Debug)]
pub struct Scenario {
    /// Number of leechers; there is one seeder besides
    #[arg(long, default_value_t = 24, value_name = "N")]
    pub peers: u32,
    /// Number of pieces of the file, 512 KiB each
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub pieces: u32,
    /// Uplink of each peer, in Mbit/s
    #[arg(long, default_value_t = 20.0, value_name = "MBIT")]
    pub uplink: f64,
    /// Downlink of each peer, in Mbit/s; 0 for no limit
    #[arg(long, default_value_t = 0.0, value_name = "MBIT")]
    pub downlink: f64,
    /// Mean one-way latency between two peers, in ms; it differs from pair to pair
    #[arg(long, default_value_t = 10.0, value_name = "MS")]
    pub latency: f64,
    /// Bytes on the wire for each byte of the file: headers of packets, TLS records and frames
    #[arg(long, default_value_t = 1.046, value_name = "FACTOR")]
    pub headers: f64,
    /// Bytes of the file that a sender hands to its transport at a time; default: the product's own rule
    #[arg(long, value_name = "BYTES")]
    pub chunk: Option<u32>,
    /// Unsent bytes of a stream below which the transport asks for the next chunk. In the product, HTTP/2
    /// holds half of them, TLS and the kernel a quarter each
    #[arg(long, default_value_t = 128 << 10, value_name = "BYTES")]
    pub ahead: u32,
    /// How many of these bytes are sent even if the stream is dropped: HTTP/2 discards what it holds, the
    /// layers below do not
    #[arg(long, default_value_t = 64 << 10, value_name = "BYTES")]
    pub socket: u32,
    /// Initial number of upload slots; default: the product's own
    #[arg(long, value_name = "N")]
    pub slots: Option<usize>,
    /// Policy by which a leecher chooses the pieces to request
    #[arg(long, value_enum, default_value_t = Choice::RandomThenRarest)]
    pub picker: Choice,
    /// Which side decides the order of the pieces of a request
    #[arg(long, value_enum, default_value_t = Order::Sender)]
    pub order: Order,
    /// Share of the leechers that leave before the least time is over, half of them without a message; as
    /// many others come
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub churn: f64,
    /// Peers that claim to have all pieces and send garbage, as a share of the leechers
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub liars: f64,
    /// Leechers that read the file while it arrives, and go to 80 % of it after a quarter of the least time
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub readers: u32,
    /// Share of the file that the leechers have when the seeder wants to leave: it goes once one of them has all of it. 0
    /// for a seeder that stays
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub drain: f64,
    /// Check the invariants of the state machines after each event; this is slow
    #[arg(long)]
    pub check: bool,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

/// Policies by which a leecher chooses the pieces to request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// A few pieces at random, then the rarest. This is the product's policy.
    RandomThenRarest,
    /// Always at random.
    Random,
    /// From the first piece to the last.
    Sequential,
}

/// The side that decides the order of the pieces of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The source: the pieces that it has sent least often come first. This is the product's policy.
    Sender,
    /// The leecher: the pieces come in the order of its request.
    Asked,
}

impl Scenario {
    pub(super) fn layout(&self) -> PieceLayout {
        let length = u64::from(self.pieces) * u64::from(PIECE_LENGTH);
        PieceLayout::new(length).expect("no file has so many pieces")
    }

    /// The least possible time without headers: the seeder must send every byte at least once. The other
    /// bound, that all peers together receive no faster than they send, is lower where all uplinks are alike.
    pub(super) fn least_time(&self) -> Duration {
        Duration::from_secs_f64(8e-6 * self.layout().length() as f64 / self.uplink)
    }

    pub(super) fn picker(&self) -> Box<dyn Picker> {
        match self.picker {
            Choice::RandomThenRarest => Box::new(RandomThenRarest::default()),
            Choice::Random => Box::new(RandomThenRarest { random: u32::MAX }),
            Choice::Sequential => Box::new(Sequential),
        }
    }

    pub(super) fn upload(&self) -> upload::Options {
        let own = upload::Options::default();
        match self.slots {
            Some(slots) => upload::Options { thin_slots: slots, slots, ..own },
            None => own,
        }
    }
}

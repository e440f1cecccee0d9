//! What is simulated: who takes part, over which network, under which policies.

use std::time::Duration;

use clap::{Args, ValueEnum};
use peer::domain::{
    picker::{Picker, RandomThenRarest, Sequential},
    upload,
};
use proto::domain::{PIECE_LENGTH, PieceLayout};

/// One seeder, and leechers that all want its file, at once.
#[derive(Args, Clone, Debug)]
pub(crate) struct Scenario {
    /// Leechers; the seeder comes on top
    #[arg(long, default_value_t = 24, value_name = "N")]
    pub(crate) peers: u32,
    /// Pieces of the file, 512 KiB each
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) pieces: u32,
    /// What each peer can send, in Mbit/s
    #[arg(long, default_value_t = 20.0, value_name = "MBIT")]
    pub(crate) uplink: f64,
    /// What each peer can receive, in Mbit/s; 0 for no limit
    #[arg(long, default_value_t = 0.0, value_name = "MBIT")]
    pub(crate) downlink: f64,
    /// Time from one peer to another, one way, on average: it differs from pair to pair
    #[arg(long, default_value_t = 10.0, value_name = "MS")]
    pub(crate) latency: f64,
    /// Bytes on the wire for a byte of the file: headers of packets, records and frames
    #[arg(long, default_value_t = 1.046, value_name = "FACTOR")]
    pub(crate) headers: f64,
    /// Bytes of the file that a sender hands to its transport at a time; the product's own rule if not given
    #[arg(long, value_name = "BYTES")]
    pub(crate) chunk: Option<u32>,
    /// The transport asks for the next chunk of a stream while it holds less than so many bytes of it that are not sent:
    /// as the product does, HTTP/2 half of them, TLS and the kernel a quarter each
    #[arg(long, default_value_t = 128 << 10, value_name = "BYTES")]
    pub(crate) ahead: u32,
    /// So many of these go out even if the stream is dropped: what HTTP/2 holds is taken back, what is below is not
    #[arg(long, default_value_t = 64 << 10, value_name = "BYTES")]
    pub(crate) socket: u32,
    /// Upload slots to begin with; the product's own number if not given
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<usize>,
    /// Which pieces a leecher asks for
    #[arg(long, value_enum, default_value_t = Choice::RandomThenRarest)]
    pub(crate) picker: Choice,
    /// Who decides which piece of a request comes first
    #[arg(long, value_enum, default_value_t = Order::Sender)]
    pub(crate) order: Order,
    /// Share of the leechers that leave before the least time is over, half of them without a word; as many others come
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) churn: f64,
    /// Peers, as a share of the leechers, that claim to hold everything and send garbage
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) liars: f64,
    /// Check the invariants of the machines all along, which takes long
    #[arg(long)]
    pub(crate) check: bool,
    /// All that is left to chance follows from it
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
}

/// The policies of leechers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// A few at random, then the rarest: the product's own.
    RandomThenRarest,
    /// Always at random.
    Random,
    /// From the front to the back.
    Sequential,
}

/// Who decides which piece of a request comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// The source: what it has sent least often; the product's own.
    Sender,
    /// The leecher.
    Asked,
}

impl Scenario {
    pub(super) fn layout(&self) -> PieceLayout {
        let length = u64::from(self.pieces) * u64::from(PIECE_LENGTH);
        PieceLayout::new(length).expect("no file has so many pieces")
    }

    /// What nobody can beat, headers apart: the seeder sends every byte at least once. That all together receive no
    /// faster than all of them send takes less time than that, where all uplinks are alike.
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

//! What is known of each source of a download: its speed, its failures, and when to try it again.

use std::{collections::BTreeMap, time::Duration};

use domain::{Bitfield, PIECE_LENGTH, PeerId, PieceIndex, PieceLayout};
use rand::RngExt;

use super::{Moment, Rng, meter::Meter, picker::Finds, request_id::DownloadRequestId};

/// The number of bad pieces after which a source is banned.
pub const MAX_BAD_PIECES: u32 = 2;
/// The pause after the first failure in a row. Each further failure doubles it, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before a source is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How much of a source's sending time one request should cover. Long enough that requesting again costs
/// nothing, and short enough that the pieces are not missed if the source leaves.
const REQUEST_SPAN: Duration = Duration::from_millis(100);
/// The most pieces in a request that reserves them.
const MAX_RESERVED: f64 = 16.0;

/// The state of the connection to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Not connected. No attempt before this moment.
    Resting(Moment),
    /// Connecting since this moment.
    Connecting(Moment),
    /// Connected, and its pieces are known.
    Connected,
    /// Banned: not used any more.
    Banned,
}

/// A source.
pub struct Source {
    /// Its place in the order in which the tracker named the sources.
    pub rank: u64,
    /// The tracker names it as a source now.
    pub named: bool,
    /// The state of the connection.
    pub link: LinkState,
    /// The pieces that it has; empty unless connected.
    pub has: Bitfield,
    /// It was counted as a seeder when it connected.
    pub seeder: bool,
    /// The number of pieces that it has and that are wanted here and not verified.
    pub interesting: u32,
    /// The request that waits in its queue, if any.
    pub waiting: Option<DownloadRequestId>,
    /// The requests that it is sending for, or was sending for.
    pub sending: Vec<DownloadRequestId>,
    /// The number of requests whose bytes wait for this peer.
    pub held: u32,
    /// It makes requests wait for a slot, because other peers want it too.
    pub contended: bool,
    /// The queue place that it last reported to a request of this peer; 0 before the first report.
    pub last_place: u32,
    /// Since when it has been idle: connected, with nothing to give and nothing to do.
    pub idle_since: Option<Moment>,
    /// Nothing is requested from it before this moment.
    pub rest_until: Moment,
    /// It was found to have no open piece, and has gained none since.
    pub exhausted: bool,
    /// What the picker remembers about its open pieces.
    pub finds: Finds,
    /// Failures in a row.
    pub failures: u32,
    /// The number of bad pieces that came from it.
    pub bad_pieces: u32,
    /// The bytes of verified pieces that it sent.
    pub verified_bytes: u64,
    /// The shortest time from a request to its first answer.
    pub latency: Option<Duration>,
    /// The rate at which bytes arrive from it, in real time.
    pub rate: Meter,
    speed: Meter,
    busy: BusyClock,
}

/// A clock that runs only while a source is sending. The source's speed is measured with it.
#[derive(Clone, Copy, Debug, Default)]
struct BusyClock {
    before: Duration,
    since: Option<Moment>,
}

impl BusyClock {
    fn at(self, now: Moment) -> Moment {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    fn set(&mut self, now: Moment, busy: bool) {
        if busy != self.since.is_some() {
            self.before = self.at(now);
            self.since = busy.then_some(now);
        }
    }
}

impl Source {
    /// A source that the tracker just named.
    pub fn new(layout: PieceLayout, rank: u64) -> Self {
        Self {
            rank,
            named: true,
            link: LinkState::Resting(Moment::ZERO),
            has: Bitfield::empty(layout),
            seeder: false,
            interesting: 0,
            waiting: None,
            sending: Vec::new(),
            held: 0,
            contended: false,
            last_place: 0,
            idle_since: None,
            rest_until: Moment::ZERO,
            exhausted: false,
            finds: Finds::default(),
            failures: 0,
            bad_pieces: 0,
            verified_bytes: 0,
            latency: None,
            rate: Meter::new(Duration::from_secs(3)),
            speed: Meter::new(Duration::from_secs(1)),
            busy: BusyClock::default(),
        }
    }

    /// Notes that it can give this piece: the source has just gained the open piece, or the piece has just
    /// become open.
    pub fn can_give(&mut self, piece: PieceIndex) {
        self.exhausted = false;
        self.finds.add(piece, self.has.words());
    }

    /// Whether it is connected or connecting.
    pub fn is_linked(&self) -> bool {
        matches!(self.link, LinkState::Connecting(_) | LinkState::Connected)
    }

    /// Notes that it started or stopped sending. Must be called whenever `sending` or `held` has changed.
    /// While everything that it sends waits for this peer, its time stands still.
    pub fn note_sending(&mut self, now: Moment) {
        self.busy.set(now, self.sending.len() > self.held as usize);
        self.rate.begin(now);
        self.speed.begin(self.busy.at(now));
    }

    /// Notes that bytes arrived from it.
    pub fn note_bytes(&mut self, now: Moment, bytes: u32) {
        self.rate.add(now, bytes);
        self.speed.add(self.busy.at(now), bytes);
    }

    /// The bytes a second while it is sending; `None` before it has sent any.
    pub fn speed(&self, now: Moment) -> Option<f64> {
        let speed = self.speed.rate(self.busy.at(now));
        (speed > 0.0).then_some(speed)
    }

    /// The number of pieces to request at a time, from bandwidth and latency.
    pub fn depth(&self, now: Moment) -> u32 {
        let span = REQUEST_SPAN + 2 * self.latency.unwrap_or_default();
        let bytes = self.speed(now).unwrap_or_default() * span.as_secs_f64();
        (bytes / f64::from(PIECE_LENGTH)).min(MAX_RESERVED) as u32
    }

    /// The time that a piece takes from this source once it has started; `None` if that is not known.
    pub fn piece_time(&self, now: Moment) -> Option<Duration> {
        self.speed(now).map(|speed| Duration::from_secs_f64(f64::from(PIECE_LENGTH) / speed.max(1.0)))
    }

    /// Counts one more failure, and returns the pause before the next try. The pause grows exponentially and
    /// is jittered, so that many peers don't return at once.
    pub fn pause(&mut self, rng: &mut Rng) -> Duration {
        let doubled = FIRST_PAUSE * 2u32.pow(self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(rng.random_range(0.75..1.25)).min(LONGEST_PAUSE)
    }
}

/// All sources, by peer.
pub type Sources = BTreeMap<PeerId, Source>;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn source() -> Source {
        Source::new(PieceLayout::new(5_000_000).expect("a valid length"), 0)
    }

    #[test]
    fn pauses_grow_from_one_second_to_thirty() {
        let (mut source, mut rng) = (source(), Rng::seed_from_u64(3));
        let pauses: Vec<_> = (0..10).map(|_| source.pause(&mut rng).as_secs_f64()).collect();
        assert!((0.75..1.25).contains(&pauses[0]), "{pauses:?}");
        assert!((6.0..10.0).contains(&pauses[3]), "{pauses:?}");
        assert!(pauses[5..].iter().all(|pause| (24.0..=30.0).contains(pause)), "{pauses:?}");
    }

    #[test]
    fn the_depth_follows_bandwidth_and_latency() {
        let at = |ms| Duration::from_millis(ms);
        let fed = |bytes_a_ms: u32, latency: u64| {
            let mut source = source();
            source.latency = Some(at(latency));
            source.sending.push(DownloadRequestId(0));
            source.note_sending(at(0));
            (1..=2_000).for_each(|ms| source.note_bytes(at(ms), bytes_a_ms));
            source.depth(at(2_000))
        };
        assert_eq!(fed(10, 1), 0, "10 kB/s");
        assert_eq!(fed(2_500, 1), 0, "20 Mbit/s: one piece at a time");
        assert_eq!(fed(25_000, 100), 14, "200 Mbit/s over 100 ms");
        assert_eq!(fed(1_000_000, 0), 16, "a local link");
    }

    #[test]
    fn time_in_the_queue_does_not_count_as_slowness() {
        let at = |ms| Duration::from_millis(ms);
        let mut source = source();
        for round in 0..5 {
            source.sending.push(DownloadRequestId(round));
            source.note_sending(at(round * 10_000));
            source.note_bytes(at(round * 10_000 + 100), 500_000);
            source.sending.clear();
            source.note_sending(at(round * 10_000 + 100));
        }
        let speed = source.speed(at(60_000)).expect("measured");
        assert!((4.5e6..5.5e6).contains(&speed), "{speed}");
    }
}

//! What is known of each source of a download: how fast it is, how far it can be trusted, when to try it again.

use std::{collections::BTreeMap, time::Duration};

use proto::domain::{Bitfield, PIECE_LENGTH, PeerId, PieceIndex, PieceLayout};
use rand::RngExt;

use super::{Moment, Rng, meter::Meter, picker::Finds, request_id::RequestId};

/// Bad pieces after which a source is not used any more.
pub const STRIKES: u32 = 2;
/// Pause after the first failure in a row; each one more doubles it, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before a source is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How much of a source's service one request should cover: long enough that asking again costs nothing, short enough
/// that the pieces would not be missed if it went away.
const REQUEST_SPAN: Duration = Duration::from_millis(100);
/// Most pieces in a request that promises them.
const MAX_FIRM: f64 = 16.0;

/// Where the connection to a source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not connected, and not to be before this moment.
    Resting(Moment),
    /// Asked to connect at this moment.
    Connecting(Moment),
    /// Connected; what it has is known.
    Connected,
    /// Not used any more.
    Banned,
}

/// A source.
pub struct Source {
    /// Its place in the order in which the tracker named the sources.
    pub rank: u64,
    /// The tracker names it.
    pub named: bool,
    /// Where the connection stands.
    pub link: Link,
    /// What it has; empty unless connected.
    pub has: Bitfield,
    /// It was counted as a seeder when it connected.
    pub seeder: bool,
    /// Pieces that it has and that are not verified.
    pub interesting: u32,
    /// The request that waits for its turn, if any.
    pub waiting: Option<RequestId>,
    /// The requests that it is sending for, or has been.
    pub sending: Vec<RequestId>,
    /// It makes requests wait for a slot: others want it too.
    pub contended: bool,
    /// The place in its queue that it told a request of ours last; 0 before it told any.
    pub last_place: u32,
    /// Since when it has had nothing to give and nothing to do, while connected.
    pub idle_since: Option<Moment>,
    /// Nothing is asked of it before this moment.
    pub rest_until: Moment,
    /// It was found to have no open piece, and none was added since.
    pub exhausted: bool,
    /// The picker's notes on its open pieces.
    pub finds: Finds,
    /// Failures in a row.
    pub failures: u32,
    /// Pieces that came from it and were wrong.
    pub bad_pieces: u32,
    /// Bytes of verified pieces that it gave.
    pub verified_bytes: u64,
    /// Shortest time from asking to the first answer.
    pub latency: Option<Duration>,
    /// Bytes that come from it, by the clock.
    pub rate: Meter,
    speed: Meter,
    busy: BusyClock,
}

/// A clock that runs while a source is sending: its speed is measured by it.
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
    /// A source that was just named.
    pub fn new(layout: PieceLayout, rank: u64) -> Self {
        Self {
            rank,
            named: true,
            link: Link::Resting(Moment::ZERO),
            has: Bitfield::empty(layout),
            seeder: false,
            interesting: 0,
            waiting: None,
            sending: Vec::new(),
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

    /// It has this open piece, which it had not, or which was not open.
    pub fn can_give(&mut self, piece: PieceIndex) {
        self.exhausted = false;
        self.finds.add(piece, self.has.words());
    }

    /// It is connected, or being connected.
    pub fn is_linked(&self) -> bool {
        matches!(self.link, Link::Connecting(_) | Link::Connected)
    }

    /// It began or stopped sending: call whenever `sending` has changed.
    pub fn note_sending(&mut self, now: Moment) {
        self.busy.set(now, !self.sending.is_empty());
        self.rate.begin(now);
        self.speed.begin(self.busy.at(now));
    }

    /// Bytes came from it.
    pub fn note_bytes(&mut self, now: Moment, bytes: u32) {
        self.rate.add(now, bytes);
        self.speed.add(self.busy.at(now), bytes);
    }

    /// Bytes a second while it is sending; `None` before it ever was.
    pub fn speed(&self, now: Moment) -> Option<f64> {
        let speed = self.speed.rate(self.busy.at(now));
        (speed > 0.0).then_some(speed)
    }

    /// How many pieces to ask for at a time, by bandwidth and latency.
    pub fn depth(&self, now: Moment) -> u32 {
        let span = REQUEST_SPAN + 2 * self.latency.unwrap_or_default();
        let bytes = self.speed(now).unwrap_or_default() * span.as_secs_f64();
        (bytes / f64::from(PIECE_LENGTH)).min(MAX_FIRM) as u32
    }

    /// How long a piece takes from here, once it comes; `None` where that is not known.
    pub fn piece_time(&self, now: Moment) -> Option<Duration> {
        self.speed(now).map(|speed| Duration::from_secs_f64(f64::from(PIECE_LENGTH) / speed.max(1.0)))
    }

    /// One failure more: how long to leave it alone, exponential and with chance mixed in so that a crowd does not return
    /// at once.
    pub fn pause(&mut self, rng: &mut Rng) -> Duration {
        let doubled = FIRST_PAUSE * 2u32.pow(self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(rng.random_range(0.75..1.25)).min(LONGEST_PAUSE)
    }
}

/// All sources, by who they are.
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
            source.sending.push(RequestId(0));
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
            source.sending.push(RequestId(round));
            source.note_sending(at(round * 10_000));
            source.note_bytes(at(round * 10_000 + 100), 500_000);
            source.sending.clear();
            source.note_sending(at(round * 10_000 + 100));
        }
        let speed = source.speed(at(60_000)).expect("measured");
        assert!((4.5e6..5.5e6).contains(&speed), "{speed}");
    }
}

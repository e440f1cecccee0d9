//! The download machine with about as many sources as pieces. A piece that comes twice is then a large part of
//! all bytes, and a slow source holds up the end.

use super::*;

const STEP: Duration = Duration::from_millis(5);
const ROUND_TRIP: Duration = Duration::from_millis(40);
const LENGTH: u64 = PIECE_LENGTH as u64;

/// An answer on its way.
struct Flow {
    begins: Moment,
    pieces: Vec<PieceIndex>,
    sent: u64,
}

/// Sources without a queue. Each answers its requests one after the other, at a steady rate.
struct Crowd {
    bench: Bench,
    /// The rate of each source in bytes a second, and when it falls silent.
    sources: Vec<(u64, Moment)>,
    flows: BTreeMap<DownloadRequestId, (PeerId, Flow)>,
    /// The bytes that the sources sent.
    wire: u64,
}

impl Crowd {
    /// Returns the time until the download was complete, and the bytes sent for each byte needed.
    fn run(pieces: u32, sources: &[(u64, Moment)]) -> (Duration, f64) {
        let mut bench = Bench::new(pieces);
        for who in 1..=sources.len() as u8 {
            bench.source(who, &"#".repeat(pieces as usize));
        }
        // With this many events, checking takes too long.
        bench.checked = false;
        let mut crowd = Self { bench, sources: sources.to_vec(), flows: BTreeMap::new(), wire: 0 };
        while crowd.bench.completed == 0 {
            assert!(crowd.bench.now < Duration::from_secs(600), "no end in sight: {} bytes", crowd.wire);
            crowd.pass_time();
        }
        // What was on its way at the end came for nothing.
        crowd.bench.open.clear();
        crowd.drop_cancelled();
        (crowd.bench.now, crowd.wire as f64 / (u64::from(pieces) * LENGTH) as f64)
    }

    fn rate(&self, source: PeerId) -> u64 {
        let (rate, until) = self.sources[usize::from(source.as_bytes()[0]) - 1];
        if self.bench.now < until { rate } else { 0 }
    }

    /// Counts what the sources of cancelled requests sent before they heard of it.
    fn drop_cancelled(&mut self) {
        let open = &self.bench.open;
        let over: Vec<_> = self.flows.extract_if(.., |id, _| !open.contains_key(id)).collect();
        for (_, (source, flow)) in over.into_iter().filter(|(_, (_, flow))| flow.sent > 0) {
            let left = flow.pieces.len() as u64 * LENGTH - flow.sent;
            self.wire += left.min((self.rate(source) as f64 * ROUND_TRIP.as_secs_f64() / 2.0) as u64);
        }
    }

    fn pass_time(&mut self) {
        let next = self.bench.now + STEP;
        self.bench.at(next);
        if self.bench.download.next_wakeup().is_some_and(|due| due <= next) {
            self.bench.feed(Event::Tick);
        }
        self.drop_cancelled();
        for (id, asked) in &self.bench.open {
            self.flows.entry(*id).or_insert_with(|| {
                let most = if asked.max_pieces == 0 { asked.pieces.len() } else { asked.max_pieces as usize };
                let (begins, pieces) = (next + ROUND_TRIP, asked.pieces[..most].to_vec());
                (asked.source, Flow { begins, pieces, sent: 0 })
            });
        }
        for who in 1..=self.sources.len() as u8 {
            let mut own = self.flows.iter().filter(|(_, (source, _))| *source == peer(who));
            let first = own.find(|(_, (_, flow))| flow.begins <= next).map(|(id, _)| *id);
            if let Some(id) = first {
                self.send(id);
            }
        }
    }

    fn send(&mut self, id: DownloadRequestId) {
        let rate = self.rate(self.flows[&id].0);
        let Some((_, flow)) = self.flows.get_mut(&id) else { return };
        let bytes = (rate as f64 * STEP.as_secs_f64()) as u64;
        let bytes = bytes.min(LENGTH - flow.sent % LENGTH);
        if bytes == 0 {
            return;
        }
        let piece = flow.pieces[(flow.sent / LENGTH) as usize];
        let begins = flow.sent.is_multiple_of(LENGTH);
        flow.sent += bytes;
        let (ends, last) = (flow.sent.is_multiple_of(LENGTH), flow.sent == flow.pieces.len() as u64 * LENGTH);
        self.wire += bytes;
        if begins {
            self.bench.feed(Event::Started(id, piece));
        }
        if self.bench.open.contains_key(&id) {
            self.bench.feed(Event::Received(id, bytes as u32));
        }
        if ends && self.bench.open.contains_key(&id) {
            self.bench.feed(Event::Verified(id, piece));
            if last {
                self.flows.remove(&id);
                self.bench.open.remove(&id);
                self.bench.feed(Event::Ended(id, Ok(())));
            }
        }
    }
}

const ALWAYS: Moment = Duration::MAX;

#[test]
fn each_piece_comes_once_and_all_sources_share_the_work() {
    for pieces in [1, 2, 3, 6, 12, 40] {
        for count in [1, 2, 3, 12] {
            for rate in [500_000, 5_000_000] {
                let (took, sent) = Crowd::run(pieces, &vec![(rate, ALWAYS); count]);
                let what = format!("{pieces} pieces from {count} sources at {rate} bytes a second");
                assert!(sent <= 1.02, "{what}: {sent:.3} times the bytes");
                let rounds = (pieces as usize).div_ceil(count) as u32;
                let least = Duration::from_secs_f64(LENGTH as f64 / rate as f64) * rounds;
                assert!(took <= least.mul_f64(1.1) + 6 * ROUND_TRIP, "{what}: {took:?}, at least {least:?}");
            }
        }
    }
}

#[test]
fn a_slow_or_dead_source_delays_the_end_little_and_costs_one_race() {
    for pieces in [2, 3, 6, 12, 40] {
        let (alone, _) = Crowd::run(pieces, &[(2_000_000, ALWAYS); 3]);
        for (odd, delay) in [((50_000, ALWAYS), 1_000), ((2_000_000, ms(200)), 4_000)] {
            let (took, sent) = Crowd::run(pieces, &[(2_000_000, ALWAYS), odd, (2_000_000, ALWAYS)]);
            let what = format!("{pieces} pieces, {odd:?}");
            assert!(took <= alone.mul_f64(1.5) + ms(delay), "{what}: {took:?}, {alone:?} without it");
            let raced = 1.0 / f64::from(pieces);
            assert!(sent <= 1.02 + raced, "{what}: {sent:.3} times the bytes");
        }
    }
}

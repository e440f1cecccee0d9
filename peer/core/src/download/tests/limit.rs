//! The download machine under a rate limit of this peer, and while other parts of this peer are slow.

use super::*;

/// The step of time and the round trip, for a low limit and for a high one. One source is asked for at most 8
/// MiB in a round trip, with or without a limit.
const TIMES: [(Duration, Duration); 2] = [
    (Duration::from_millis(5), Duration::from_millis(20)),
    (Duration::from_millis(1), Duration::from_millis(1)),
];
/// A limit from this one on is high, in bytes a second.
const HIGH: u64 = 32 << 20;

/// An answer on its way: the bytes that its source sent, and the bytes that the limit let through.
struct Flow {
    begins: Moment,
    pieces: Vec<PieceIndex>,
    sent: u64,
    passed: u64,
    /// The bytes of the frame that waits for the limit.
    hand: u64,
    held: bool,
}

/// Sources that send as far ahead as their windows allow, and a reader that passes each frame through a
/// limit.
struct Limited {
    bench: Bench,
    step: Duration,
    round_trip: Duration,
    rate: u64,
    /// The rate of each source in bytes a second.
    speed: u64,
    /// A source with another rate.
    thin: Option<(PeerId, u64)>,
    flows: BTreeMap<DownloadRequestId, Flow>,
    credit: f64,
    /// The bytes that the sources sent, and how often each piece was started.
    wire: u64,
    begun: BTreeMap<PieceIndex, u32>,
    /// The most bytes by which the sources were ahead of the limit.
    ahead: f64,
}

impl Limited {
    fn new(pieces: u32, sources: u8, rate: u64, speed: u64) -> Self {
        let mut bench = Bench::new(pieces);
        // With this many events, checking takes too long.
        bench.checked = sources <= 8 && rate < HIGH;
        bench.feed(Event::Limit(rate));
        for who in 1..=sources {
            bench.source(who, &"#".repeat(pieces as usize));
        }
        let (flows, begun) = (BTreeMap::new(), BTreeMap::new());
        let (step, round_trip) = TIMES[usize::from(rate >= HIGH)];
        Self {
            bench,
            step,
            round_trip,
            rate,
            speed,
            thin: None,
            flows,
            credit: 0.0,
            wire: 0,
            begun,
            ahead: 0.0,
        }
    }

    fn run(&mut self) -> Duration {
        while self.bench.completed == 0 {
            assert!(self.bench.now < Duration::from_secs(3_600), "no end in sight: {} bytes", self.wire);
            self.pass_time();
        }
        self.bench.now
    }

    fn pass_time(&mut self) {
        let next = self.bench.now + self.step;
        self.bench.at(next);
        if self.bench.download.next_wakeup().is_some_and(|due| due <= next) {
            self.bench.feed(Event::Tick);
        }
        self.credit = (self.credit + self.rate as f64 * self.step.as_secs_f64()).min(self.rate as f64 * 0.2);
        self.open_and_send();
        let mut ids: Vec<_> = self.flows.keys().copied().collect();
        // The flow that got least goes first.
        ids.sort_by_key(|id| self.flows[id].passed);
        while !ids.is_empty() {
            ids.retain(|id| self.take_frame(*id));
        }
        let over = self.wire as f64 - self.rate as f64 * next.as_secs_f64();
        self.ahead = self.ahead.max(over / self.rate as f64);
    }

    fn open_and_send(&mut self) {
        let open = &self.bench.open;
        self.flows.retain(|id, _| open.contains_key(id));
        for (id, asked) in open {
            self.flows.entry(*id).or_insert_with(|| {
                let most = if asked.max_pieces == 0 { asked.pieces.len() } else { asked.max_pieces as usize };
                let pieces = asked.pieces[..most].to_vec();
                let begins = self.bench.now + self.round_trip;
                Flow { begins, pieces, sent: 0, passed: 0, hand: 0, held: false }
            });
        }
        let window = u64::from(window(self.rate));
        for (id, flow) in self.flows.iter_mut().filter(|(_, flow)| flow.begins <= self.bench.now) {
            let thin = self.thin.filter(|(source, _)| open[id].source == *source);
            let speed = thin.map_or(self.speed, |(_, speed)| speed);
            let total = flow.pieces.len() as u64 * u64::from(PIECE_LENGTH);
            let room = window - (flow.sent - flow.passed - flow.hand);
            let by_speed = (speed as f64 * self.step.as_secs_f64()) as u64;
            let bytes = room.min(total - flow.sent).min(by_speed);
            for piece in flow.sent.div_ceil(u64::from(PIECE_LENGTH))
                ..(flow.sent + bytes).div_ceil(u64::from(PIECE_LENGTH))
            {
                *self.begun.entry(flow.pieces[piece as usize]).or_insert(0) += 1;
            }
            flow.sent += bytes;
            self.wire += bytes;
        }
    }

    /// Takes a frame if there is one and the limit lets it through. Returns false otherwise.
    fn take_frame(&mut self, id: DownloadRequestId) -> bool {
        let length = u64::from(PIECE_LENGTH);
        let Some(flow) = self.flows.get_mut(&id).filter(|_| self.bench.open.contains_key(&id)) else {
            return false;
        };
        if flow.hand == 0 {
            let frame = u64::from((window(self.rate) / 8).max(16 << 10));
            flow.hand = (flow.sent - flow.passed).min(frame).min(length - flow.passed % length);
        }
        if flow.hand == 0 {
            return false;
        }
        if self.credit < 0.0 {
            if !std::mem::replace(&mut flow.held, true) {
                self.bench.feed(Event::Held(id));
            }
            return false;
        }
        let bytes = std::mem::take(&mut flow.hand);
        self.credit -= bytes as f64;
        let piece = flow.pieces[(flow.passed / length) as usize];
        let first = flow.passed.is_multiple_of(length);
        flow.passed += bytes;
        let (whole, last) =
            (flow.passed.is_multiple_of(length), flow.passed == flow.pieces.len() as u64 * length);
        if std::mem::take(&mut flow.held) {
            self.bench.feed(Event::Freed(id));
        }
        if first {
            self.bench.feed(Event::Started(id, piece));
        }
        if self.bench.open.contains_key(&id) {
            self.bench.feed(Event::Received(id, bytes as u32));
        }
        if whole && self.bench.open.contains_key(&id) {
            self.bench.feed(Event::Verified(id, piece));
            if last {
                self.bench.open.remove(&id);
                self.bench.feed(Event::Ended(id, Ok(())));
            }
        }
        true
    }
}

#[test]
fn each_piece_comes_once_at_the_limit_whatever_number_of_sources_there_are() {
    for (rate, pieces) in [(20 << 10, 4), (500 << 10, 24), (2 << 20, 40), (64 << 20, 200), (1 << 30, 1_500)] {
        for sources in [1, 2, 8, 50] {
            let mut limited = Limited::new(pieces, sources, rate, 4 << 30);
            let took = limited.run().as_secs_f64();
            let what = format!("{rate} bytes a second from {sources} sources");
            let bytes = f64::from(pieces) * f64::from(PIECE_LENGTH);
            assert!(limited.begun.values().all(|times| *times == 1), "{what}: {:?}", limited.begun);
            assert!(limited.wire as f64 <= bytes * 1.02, "{what}: {} bytes for {bytes}", limited.wire);
            assert!(limited.ahead <= 1.0, "{what}: {} s ahead of the limit", limited.ahead);
            let ideal = bytes / rate as f64;
            assert!((ideal - 0.5..ideal * 1.05 + 0.5).contains(&took), "{what}: {took} s instead of {ideal}");
        }
    }
}

#[test]
fn slow_sources_together_reach_the_limit() {
    let (rate, sources) = (500 << 10, 20);
    // Half of the sources would be enough.
    let mut limited = Limited::new(320, sources, rate, rate / 10);
    let took = limited.run().as_secs_f64();
    let bytes = 320.0 * f64::from(PIECE_LENGTH);
    // Sources that have nothing else to do may race for the last pieces, because the limit is not used up
    // then.
    assert!(limited.wire as f64 <= bytes * 1.05, "{} bytes for {bytes}", limited.wire);
    // The last pieces may take longer: a source needs ten seconds for one.
    assert!(took <= bytes / rate as f64 * 1.05 + 20.0, "{took} s");
}

#[test]
fn one_source_on_a_thin_line_hardly_delays_the_end() {
    let took = |thin: Option<u8>| {
        let mut limited = Limited::new(160, 4 + u8::from(thin.is_some()), 16 << 20, 1 << 20);
        limited.thin = thin.map(|who| (peer(who), 10_000));
        limited.run()
    };
    let (without, with) = (took(None), took(Some(5)));
    assert!(with <= without.mul_f64(1.3), "{with:?} with a fifth source, {without:?} without it");
}

#[test]
fn what_waits_for_us_is_neither_stalled_nor_given_up() {
    let mut bench = Bench::new(MANY);
    bench.source(1, ALL);
    bench.source(2, ALL);
    let id = bench.start(1, 5);
    bench.feed(Event::Received(id, 100));
    bench.feed(Event::Held(id));
    let (waiting, _) = bench.asked(2).expect("asked");
    bench.feed(Event::Queued(waiting, 9));
    for second in 1..90 {
        bench.at(ms(second * 1_000)).feed(Event::Tick);
    }
    let (_, asked) = bench.asked(2).expect("asked");
    assert!(!Bench::indices(&asked.pieces).contains(&5), "asked elsewhere: {asked:?}");
    bench.feed(Event::Freed(id));
    let next = bench.now + ms(1_900);
    bench.at(next).feed(Event::Tick);
    assert!(bench.open.contains_key(&id));
    bench.deliver(id, 5);
    assert!(bench.cancelled.is_empty() && bench.download.have().contains(bench.piece(5)));
    // The source's own silence counts as before.
    let id = bench.start(1, 6);
    let next = bench.now + ms(31_000);
    bench.at(next).feed(Event::Tick);
    assert!(bench.cancelled.contains(&id));
}

#[test]
fn a_request_that_no_longer_waits_for_us_is_soon_looked_at() {
    let mut bench = Bench::new(MANY);
    bench.source(1, ALL);
    let id = bench.start(1, 5);
    bench.feed(Event::Received(id, 100));
    bench.feed(Event::Held(id));
    // The owner wakes the machine only when the machine asks for it.
    for _ in 0..100 {
        let Some(due) = bench.download.next_wakeup() else { break };
        bench.at(due).feed(Event::Tick);
    }
    bench.feed(Event::Freed(id));
    let freed = bench.now;
    let due = bench.download.next_wakeup().expect("the source may fall silent from here on");
    assert!(due <= freed + ms(6_000), "{due:?} after {freed:?}");
    while !bench.cancelled.contains(&id) {
        let due = bench.download.next_wakeup().expect("a silent source is given up in the end");
        assert!(due <= freed + ms(60_000), "{due:?}");
        bench.at(due).feed(Event::Tick);
    }
}

#[test]
fn what_was_asked_behind_a_slow_piece_is_not_given_up_when_its_turn_comes() {
    let mut bench = Bench::new(MANY);
    bench.source(1, ALL);
    let id = bench.start(1, 5);
    let (next, _) = bench.asked(1).expect("asked");
    for second in 1..=50 {
        bench.at(ms(second * 1_000)).feed(Event::Received(id, PIECE_LENGTH / 50));
    }
    bench.deliver(id, 5);
    bench.at(ms(50_100)).feed(Event::Tick);
    assert!(bench.cancelled.is_empty() && bench.open.contains_key(&next), "{:?}", bench.cancelled);
    // The source is silent for long from then on, and the request is given up.
    bench.at(ms(81_000)).feed(Event::Tick);
    assert_eq!(bench.cancelled, [next]);
}

#[test]
fn a_source_is_not_thought_slow_for_what_waited_for_us() {
    let mut bench = Bench::new(64);
    bench.source(1, &"#".repeat(64));
    let id = bench.start(1, 0);
    bench.feed(Event::Held(id));
    bench.at(ms(5_000)).feed(Event::Freed(id));
    bench.at(ms(5_010)).deliver(id, 0);
    bench.start(1, 1);
    let (_, asked) = bench.asked(1).expect("asked");
    assert!(asked.pieces.len() > 1 && asked.max_pieces == 0, "50 MB/s and no queue: {asked:?}");
}

#[test]
fn a_source_that_has_sent_all_is_not_blamed_while_we_check() {
    let mut bench = Bench::with(4, &[0, 1, 2], Options::default(), 1);
    bench.source(1, "####");
    let id = bench.start(1, 3);
    bench.feed(Event::Received(id, PIECE_LENGTH));
    bench.at(ms(120_000)).feed(Event::Tick);
    assert!(bench.cancelled.is_empty(), "given up while its piece is checked");
    bench.feed(Event::Verified(id, bench.piece(3)));
    assert_eq!(bench.completed, 1);
}

#[test]
fn a_new_limit_drops_no_piece_of_which_little_is_left() {
    for (arrived, limit, goes_on) in [
        (500_000, 500 << 10, true),
        (100_000, 500 << 10, false),
        (100_000, 2 << 20, true),
        (500_000, 20_000, false),
    ] {
        let mut bench = Bench::new(MANY);
        bench.source(1, ALL);
        let id = bench.start(1, 5);
        bench.feed(Event::Received(id, arrived));
        bench.feed(Event::Limit(limit));
        assert_eq!(bench.open.contains_key(&id), goes_on, "{arrived} {limit}");
    }
}

#[test]
fn a_new_limit_leaves_no_more_open_than_it_lets_through() {
    // More than are few for so many sources.
    let mut bench = Bench::new(120);
    for who in 1..=7 {
        bench.source(who, &"#".repeat(120));
        bench.start(who, who.into());
    }
    assert!(bench.open.len() >= 7);
    bench.feed(Event::Limit(500 << 10));
    assert!(bench.open.len() <= 2, "{:?}", bench.open);
    let asked: Vec<_> = bench.open.values().cloned().collect();
    assert!(asked.iter().all(|asked| asked.pieces.len() == 1), "{asked:?}");
    // Without a limit, all sources are asked again.
    bench.feed(Event::Limit(0));
    assert!(bench.open.len() >= 7, "{:?}", bench.open);
}

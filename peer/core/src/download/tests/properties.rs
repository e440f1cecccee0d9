//! The download machine with random sources.

use proptest::prelude::*;
use rand::RngExt;

use super::*;
use crate::Rng;

/// Sources do anything at all, in any order, and one of them is good. The download completes, and every
/// invariant holds.
fn chaos(pieces: u32, seed: u64, bad: u8) {
    let mut rng = Rng::seed_from_u64(seed);
    let mut bench = Bench::with(pieces, &[], Options { max_sources: 4, ..Options::default() }, seed);
    let layout = bench.layout;
    let good = bad;
    for who in 0..=bad {
        bench.feed(Event::SourceFound(peer(who)));
    }
    let mut linked: BTreeSet<PeerId> = BTreeSet::new();
    let mut current: BTreeMap<DownloadRequestId, (PieceIndex, u32)> = BTreeMap::new();
    let mut banned: BTreeSet<PeerId> = BTreeSet::new();
    let mut steps = 0;
    while bench.completed == 0 {
        steps += 1;
        assert!(
            steps < 40_000,
            "no end in sight: {:?}",
            bench.download.sources(bench.now).collect::<Vec<_>>()
        );
        banned.extend(bench.disconnected.drain(..).filter(|peer| {
            bench
                .download
                .sources(bench.now)
                .any(|view| view.peer == *peer && view.state == SourcePhase::Banned)
        }));
        linked.retain(|peer| !banned.contains(peer));
        for asked in bench.open.values().map(|asked| asked.source).chain(bench.connecting.iter().copied()) {
            assert!(!banned.contains(&asked), "a banned source is used");
        }
        current.retain(|id, _| bench.open.contains_key(id));
        let wakes =
            bench.download.next_wakeup().is_some() && (rng.random_ratio(1, 8) || bench.open.is_empty());
        if wakes && (bench.connecting.is_empty() || rng.random_ratio(1, 8)) {
            bench.wake();
        }
        if let Some(&who) = bench.connecting.iter().next() {
            bench.connecting.remove(&who);
            if who != peer(good) && rng.random_ratio(1, 3) {
                bench.feed(Event::Disconnected(who, Failure::Connection));
            } else {
                let mut has = Bitfield::full(layout);
                for piece in layout.indices().filter(|_| who != peer(good) && rng.random_bool(0.5)) {
                    has.remove(piece);
                }
                linked.insert(who);
                bench.feed(Event::Connected(who, has));
            }
            continue;
        }
        if rng.random_ratio(1, 10) {
            let first = rng.random_range(0..pieces) as usize;
            bench.feed(Event::Urgent(layout.indices().skip(first).take(4).collect()));
            continue;
        }
        let open: Vec<_> = bench.open.iter().map(|(id, asked)| (*id, asked.clone())).collect();
        if open.is_empty() {
            continue;
        }
        let (id, asked) = &open[rng.random_range(0..open.len())];
        let honest = asked.source == peer(good);
        let what = rng.random_range(0..if honest { 4 } else { 9 });
        bench.now += ms(rng.random_range(0..30));
        match (what, current.get(id).copied()) {
            (0, None) => bench.feed(Event::Queued(*id, rng.random_range(1..70))),
            (0..4, None) => {
                let piece = asked.pieces[rng.random_range(0..asked.pieces.len())];
                let again = bench.download.have().contains(piece);
                current.insert(*id, (piece, 0));
                bench.feed(Event::Started(*id, piece));
                assert!(!again || !bench.open.contains_key(id), "a verified piece is taken again");
            }
            (0..4, Some((piece, got))) => {
                let step = rng.random_range(1..=PIECE_LENGTH).min(PIECE_LENGTH - got);
                current.insert(*id, (piece, got + step));
                bench.feed(Event::Received(*id, step));
                if got + step == PIECE_LENGTH {
                    current.remove(id);
                    bench.open.remove(id);
                    let lie = !honest && rng.random_bool(0.3);
                    bench.feed(if lie { Event::Bad(*id, piece) } else { Event::Verified(*id, piece) });
                    if bench.completed == 0 {
                        bench.feed(Event::Ended(*id, Ok(())));
                    }
                }
            }
            (4, _) => bench.now += ms(rng.random_range(0..4_000)),
            (5, _) => {
                bench.open.remove(id);
                let failures = [Ok(()), Err(Failure::Busy), Err(Failure::NotShared), Err(Failure::Refused)];
                bench.feed(Event::Ended(*id, failures[rng.random_range(0..4)]));
            }
            (6, _) if linked.remove(&asked.source) => {
                let source = asked.source;
                bench.open.retain(|_, asked| asked.source != source);
                bench.feed(Event::Disconnected(source, Failure::Connection));
            }
            (7, _) => bench.feed(Event::Gained(asked.source, layout.indices().take(3).collect())),
            (8, _) => bench.feed(Event::Lost(asked.source, layout.indices().skip(2).take(2).collect())),
            _ => {}
        }
    }
    assert!(bench.download.have().is_full());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn completes_whatever_happens_while_one_source_is_good(pieces in 1u32..24, seed in any::<u64>(), bad in 0u8..6) {
        chaos(pieces, seed, bad);
    }
}

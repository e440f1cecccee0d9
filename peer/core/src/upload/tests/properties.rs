//! The upload machine against random events.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::Rng;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In any order of events the invariants hold, and every request is served or told its place.
    #[test]
    fn any_order_of_events(seed in any::<u64>(), slots in 1usize..4) {
        let mut rng = Rng::seed_from_u64(seed);
        let mut bench = Bench::new(slots);
        let mut running: BTreeSet<UploadRequestId> = BTreeSet::new();
        let mut alive: BTreeSet<UploadRequestId> = BTreeSet::new();
        for _ in 0..400 {
            bench.now += ms(rng.random_range(0..60));
            let actions = match rng.random_range(0..6) {
                0 | 1 => {
                    let who = (rng.random_range(0..4), rng.random_range(0..12), rng.random_range(0..3));
                    let wanted: Vec<_> = (0..rng.random_range(1..20)).collect();
                    bench.urgent = rng.random_bool(0.3);
                    let (request, actions) = bench.ask_for(who, &wanted, rng.random_range(0..4));
                    alive.insert(request);
                    actions
                }
                2 => match running.pop_first() {
                    Some(request) => bench.send(request),
                    None => continue,
                },
                3 => match running.last().copied() {
                    Some(request) => bench.feed(Event::Progress(request, rng.random_range(0..100_000))),
                    None => continue,
                },
                4 if rng.random_bool(0.3) => match alive.pop_first() {
                    Some(request) => {
                        running.remove(&request);
                        bench.feed(Event::Left(request))
                    }
                    None => continue,
                },
                5 if rng.random_bool(0.1) => {
                    let file = FileId::try_from(&[rng.random_range(1..4); 16][..]).expect("not nil");
                    let until = bench.now + ms(rng.random_range(0..2_000));
                    bench.feed(Event::Drain(file, until))
                }
                _ => bench.feed(Event::Tick),
            };
            for action in actions {
                match action {
                    Action::Send(request, _) => prop_assert!(alive.contains(&request) && running.insert(request)),
                    Action::Queue(request, place) => prop_assert!(alive.contains(&request) && place >= 1),
                    Action::End(request, _) => {
                        running.remove(&request);
                        prop_assert!(alive.remove(&request));
                    }
                }
            }
            prop_assert_eq!(running.len(), bench.upload.running());
        }
    }
}

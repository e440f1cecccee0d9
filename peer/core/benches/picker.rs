//! The cost of picking a piece, and of maintaining the availability that the pick is based on. It must be the
//! same for a file of 1 GiB as for one of 1 TiB. All figures are for one piece.
#![allow(missing_docs, reason = "a program, not a library")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use domain::{Bitfield, PIECE_LENGTH, PieceIndex, PieceLayout};
use peer_core::{
    Rng,
    availability::Availability,
    picker::{Finds, Picker, RandomThenRarest, Sequential, Wanted},
};
use rand::{RngExt as _, SeedableRng as _};

/// Pieces of a file of 1 GiB, and of the longest possible file, 1 TiB.
const FILES: [u32; 2] = [2_048, 2_097_152];
/// Number of sources. Each has half of the pieces, at random.
const SOURCES: u32 = 20;

fn layout(pieces: u32) -> PieceLayout {
    PieceLayout::new(u64::from(pieces) * u64::from(PIECE_LENGTH)).expect("a valid length")
}

/// A random set of about this share of the pieces.
fn some(layout: PieceLayout, share: f64, rng: &mut Rng) -> Bitfield {
    let mut set = Bitfield::empty(layout);
    layout.indices().filter(|_| rng.random_bool(share)).for_each(|piece| {
        set.insert(piece);
    });
    set
}

/// A download whose pieces are picked, closed and verified until only `least` are open. Then it starts again.
struct Download {
    layout: PieceLayout,
    availability: Availability,
    verified: Bitfield,
    fresh: Bitfield,
    least: usize,
    rng: Rng,
}

impl Download {
    /// Creates a download. `from` and `to` are the shares of pieces that are open at its start and at its
    /// end.
    fn new(pieces: u32, from: f64, to: f64) -> Self {
        let (layout, mut rng) = (layout(pieces), Rng::seed_from_u64(1));
        let mut availability = Availability::new(layout, &mut rng);
        availability.add_seeder();
        for _ in 0..SOURCES {
            availability.add(layout, &some(layout, 0.5, &mut rng));
        }
        let fresh = some(layout, 1.0 - from, &mut rng);
        let mut download = Self { layout, availability, verified: fresh.clone(), fresh, least: 0, rng };
        download.least = ((f64::from(pieces) * to) as usize).max(1);
        download.verified.iter(layout).for_each(|piece| download.availability.close(piece));
        download
    }

    /// Returns the time to pick and mark `count` pieces, `at_once` at a time, from a source with the given
    /// pieces.
    fn pick(&mut self, picker: &dyn Picker, source: &Bitfield, count: u64, at_once: usize) -> Duration {
        let (mut took, mut picked) = (Duration::ZERO, 0);
        let mut picks: Vec<PieceIndex> = Vec::with_capacity(at_once);
        let mut finds = Finds::default();
        while picked < count {
            if self.availability.open() <= self.least.max(at_once) {
                self.begin_anew();
                finds = Finds::default();
            }
            let start = Instant::now();
            for _ in 0..16 {
                picks.clear();
                let wanted = Wanted {
                    layout: self.layout,
                    availability: &self.availability,
                    verified: &self.verified,
                };
                picker.pick(&wanted, source, &mut finds, at_once, &mut self.rng, &mut picks);
                for &piece in black_box(&picks) {
                    self.availability.close(piece);
                    self.verified.insert(piece);
                }
                picked += picks.len() as u64;
                if picks.is_empty() {
                    break;
                }
            }
            took += start.elapsed();
            if picks.is_empty() {
                self.begin_anew();
                finds = Finds::default();
            }
        }
        took.mul_f64(count as f64 / picked as f64)
    }

    fn begin_anew(&mut self) {
        for piece in self.layout.indices().filter(|piece| !self.fresh.contains(*piece)) {
            self.availability.reopen(piece);
        }
        self.verified.clone_from(&self.fresh);
    }
}

/// Picks from sources of several kinds, early and late in a download.
fn picking(c: &mut Criterion) {
    let policies: [(&str, Box<dyn Picker>); 2] =
        [("rarest", Box::new(RandomThenRarest { random: 0 })), ("sequential", Box::new(Sequential))];
    for (policy, picker) in policies {
        for (stage, from, to) in [("early", 1.0, 0.5), ("late", 0.01, 0.001)] {
            let mut group = c.benchmark_group(format!("{policy}, {stage}"));
            group.throughput(Throughput::Elements(1)).sample_size(20);
            for pieces in FILES {
                let mut download = Download::new(pieces, from, to);
                for (name, share) in [("seeder", 1.0), ("half", 0.5), ("one in 100", 0.01)] {
                    let mut source = some(download.layout, share, &mut Rng::seed_from_u64(2));
                    // A small random set may contain none of the few open pieces.
                    source.insert(download.availability.open_pieces()[0]);
                    for at_once in [1, 128] {
                        let id = BenchmarkId::new(format!("{name}, {at_once} at once"), pieces);
                        group.bench_function(id, |b| {
                            b.iter_custom(|count| download.pick(&*picker, &source, count, at_once));
                        });
                    }
                    download.begin_anew();
                }
            }
        }
    }
}

/// Adds and removes one piece of a source.
fn keeping(c: &mut Criterion) {
    let mut group = c.benchmark_group("availability");
    group.throughput(Throughput::Elements(1));
    for pieces in FILES {
        let mut download = Download::new(pieces, 1.0, 0.5);
        let mut all: Vec<_> = download.layout.indices().collect();
        rand::seq::SliceRandom::shuffle(&mut all[..], &mut download.rng);
        let mut next = all.iter().copied().cycle();
        group.bench_function(BenchmarkId::new("a piece gained and lost", pieces), |b| {
            b.iter(|| {
                let piece = next.next().expect("without end");
                download.availability.gain(piece);
                download.availability.lose(piece);
            });
        });
    }
}

criterion_group!(benches, picking, keeping);
criterion_main!(benches);

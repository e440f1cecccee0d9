//! Costs of sets of pieces, for a file of 1 GiB and for one of 1 TiB.
#![allow(missing_docs, reason = "a program, not a library")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use domain::{Bitfield, PIECE_LENGTH, PieceIndex, PieceLayout};

/// Piece counts of a file of 1 GiB, and of the longest possible file, 1 TiB.
const FILES: [u32; 2] = [2_048, 2_097_152];

fn layout(pieces: u32) -> PieceLayout {
    PieceLayout::new(u64::from(pieces) * u64::from(PIECE_LENGTH)).expect("a valid length")
}

/// All pieces, each once, in scattered order.
fn jumping(layout: PieceLayout) -> impl Iterator<Item = PieceIndex> {
    let count = u64::from(layout.count());
    // The factor is odd and the counts are powers of two, so this reaches every piece.
    (0..count).map(move |at| layout.index(at * 1_000_003 % count).expect("in the file"))
}

/// Operations on one piece. Their cost does not depend on the file's length.
fn one_piece(c: &mut Criterion) {
    let mut group = c.benchmark_group("bitfield, a piece");
    group.throughput(Throughput::Elements(1));
    for pieces in FILES {
        let layout = layout(pieces);
        let order: Vec<_> = jumping(layout).collect();
        let mut next = order.iter().copied().cycle();
        let mut set = Bitfield::empty(layout);
        group.bench_function(BenchmarkId::new("put in and taken out", pieces), |b| {
            b.iter(|| {
                let piece = next.next().expect("without end");
                set.insert(piece);
                black_box(&mut set).remove(piece);
            });
        });
        order.iter().step_by(2).for_each(|piece| {
            set.insert(*piece);
        });
        group.bench_function(BenchmarkId::new("looked up", pieces), |b| {
            b.iter(|| set.contains(next.next().expect("without end")));
        });
    }
}

/// Operations on the whole set: decoding it and iterating over it.
fn whole_set(c: &mut Criterion) {
    let mut group = c.benchmark_group("bitfield, whole");
    for pieces in FILES {
        let layout = layout(pieces);
        let mut half = Bitfield::empty(layout);
        jumping(layout).step_by(2).for_each(|piece| {
            half.insert(piece);
        });
        group.throughput(Throughput::Elements(pieces.into()));
        group.bench_function(BenchmarkId::new("taken from the wire", pieces), |b| {
            b.iter(|| Bitfield::from_bytes(layout, black_box(half.as_bytes())));
        });
        group.bench_function(BenchmarkId::new("gone through", pieces), |b| {
            b.iter(|| half.iter(layout).map(|piece| u64::from(piece.get())).sum::<u64>());
        });
    }
}

criterion_group!(benches, one_piece, whole_set);
criterion_main!(benches);

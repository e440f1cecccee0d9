//! The policy that chooses which pieces to request from a source.

mod finds;
mod random_then_rarest;
mod sequential;

use domain::{Bitfield, PieceIndex, PieceLayout};

pub use self::{finds::Finds, random_then_rarest::RandomThenRarest, sequential::Sequential};
use super::{Rng, availability::Availability};

/// What a picker knows of a download.
pub struct Wanted<'a> {
    /// The length of the file and its pieces.
    pub layout: PieceLayout,
    /// The open pieces, which are those that may be requested, and the number of their holders.
    pub availability: &'a Availability,
    /// The verified pieces. None of them is open.
    pub verified: &'a Bitfield,
}

/// Chooses pieces. Choosing changes no piece: the caller marks the pieces that it requests.
pub trait Picker: Send + Sync {
    /// Appends up to `count` open pieces that the source has, best first, each once. Appends none only if the
    /// source has no open piece. `finds` is what the picker remembers about that source.
    fn pick(
        &self,
        wanted: &Wanted<'_>,
        source: &Bitfield,
        finds: &mut Finds,
        count: usize,
        rng: &mut Rng,
        picks: &mut Vec<PieceIndex>,
    );
}

/// The open pieces that the source has, from word `from` of its bitfield on: the non-empty words with their
/// places. A word is 64 pieces. Words without an open piece are skipped many at a time.
fn open_words<'a>(
    wanted: &'a Wanted<'_>,
    source: &'a Bitfield,
    from: usize,
) -> impl Iterator<Item = (usize, u64)> + 'a {
    let words = wanted.availability.open_words(from);
    words.map(|(at, bits)| (at, bits & source.word(at))).filter(|(_, bits)| *bits != 0)
}

/// The pieces of a word of a bitfield, in order.
fn pieces(layout: PieceLayout, at: usize, mut bits: u64) -> impl Iterator<Item = PieceIndex> {
    let indices = std::iter::from_fn(move || {
        let first = (bits != 0).then(|| bits.leading_zeros())?;
        bits &= !(1 << (63 - first));
        Some(at as u64 * 64 + u64::from(first))
    });
    indices.filter_map(move |index| layout.index(index))
}

#[cfg(test)]
mod tests {
    use domain::PIECE_LENGTH;
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::Rng;

    /// A picture of one pick. A column is a piece.
    struct Pick {
        /// The number of sources that have each piece; `-` where the piece is not open.
        availability: &'static str,
        /// `#` marks a verified piece.
        have: &'static str,
        /// `#` marks a piece that the source has.
        source: &'static str,
        /// Every piece that may come first, over many seeds.
        expect: &'static [u64],
    }

    fn check(picker: &dyn Picker, pick: &Pick) {
        let pieces = pick.availability.len();
        let layout = PieceLayout::new(pieces as u64 * u64::from(PIECE_LENGTH)).expect("a valid length");
        let set = |picture: &str| {
            let mut set = Bitfield::empty(layout);
            assert_eq!(picture.len(), pieces);
            for (piece, _) in layout.indices().zip(picture.chars()).filter(|(_, c)| *c == '#') {
                set.insert(piece);
            }
            set
        };
        let (have, source) = (set(pick.have), set(pick.source));
        let mut seen = Vec::new();
        for seed in 0..200 {
            let mut rng = Rng::seed_from_u64(seed);
            let mut availability = Availability::new(layout, &mut rng);
            for (piece, holders) in layout.indices().zip(pick.availability.chars()) {
                match holders.to_digit(10) {
                    Some(holders) => (0..holders).for_each(|_| availability.gain(piece)),
                    None => availability.close(piece),
                }
                if have.contains(piece) {
                    availability.close(piece);
                }
            }
            let wanted = Wanted { layout, availability: &availability, verified: &have };
            let mut picks = Vec::new();
            picker.pick(&wanted, &source, &mut Finds::default(), pieces, &mut rng, &mut picks);
            seen.extend(picks.first().map(|piece| u64::from(piece.get())));
            let mut all = picks.clone();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), picks.len(), "a piece was picked twice");
            let open = |piece: &PieceIndex| availability.is_open(*piece) && source.contains(*piece);
            assert!(all.into_iter().eq(layout.indices().filter(open)), "not every open piece was picked");
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, pick.expect, "{} {} {}", pick.availability, pick.have, pick.source);
    }

    #[test]
    fn the_first_few_are_random() {
        let picker = RandomThenRarest::default();
        let pick = Pick { availability: "31231", have: ".....", source: "#.###", expect: &[0, 2, 3, 4] };
        check(&picker, &pick);
        check(&picker, &Pick { availability: "3-2", have: "...", source: "##.", expect: &[0] });
    }

    #[test]
    fn then_the_rarest_that_the_source_has() {
        let picker = RandomThenRarest::default();
        for pick in [
            Pick { availability: "31234444", have: "....####", source: "#.##....", expect: &[2] },
            Pick { availability: "31234444", have: "....####", source: "####....", expect: &[1] },
            Pick { availability: "32294444", have: "....####", source: "####....", expect: &[1, 2] },
            Pick { availability: "3-234444", have: "....####", source: "####....", expect: &[2] },
            Pick { availability: "31234444", have: "....####", source: "....####", expect: &[] },
            Pick { availability: "31234444", have: "....####", source: "........", expect: &[] },
            Pick { availability: "31234444", have: "########", source: "########", expect: &[] },
        ] {
            check(&picker, &pick);
        }
    }

    #[test]
    fn sequential_goes_from_the_front() {
        for pick in [
            Pick { availability: "3123", have: "....", source: "####", expect: &[0] },
            Pick { availability: "3123", have: "#...", source: "#.##", expect: &[2] },
            Pick { availability: "-123", have: "....", source: "####", expect: &[1] },
            Pick { availability: "31233333333", have: "#########..", source: "#######...#", expect: &[10] },
            Pick { availability: "3123", have: "##..", source: "##..", expect: &[] },
        ] {
            check(&Sequential, &pick);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_open_piece_of_a_source_is_found_whatever_happened_before(
            sequential in any::<bool>(),
            pieces in 1u32..20_000,
            sparse in 1usize..100,
            seed in any::<u64>(),
            steps in prop::collection::vec((0u8..8, any::<prop::sample::Index>(), 1usize..400), 1..60),
        ) {
            let layout = PieceLayout::new(u64::from(pieces) * u64::from(PIECE_LENGTH)).expect("a valid length");
            let mut rng = Rng::seed_from_u64(seed);
            let picker: Box<dyn Picker> =
                if sequential { Box::new(Sequential) } else { Box::new(RandomThenRarest { random: 0 }) };
            let mut availability = Availability::new(layout, &mut rng);
            let (mut source, verified) = (Bitfield::empty(layout), Bitfield::empty(layout));
            layout.indices().step_by(sparse).for_each(|piece| { source.insert(piece); });
            let (mut finds, mut closed) = (Finds::default(), Vec::new());
            for (step, at, count) in steps {
                let some = layout.indices().skip(at.index(pieces as usize)).step_by(sparse);
                for piece in some.take(count) {
                    match step {
                        0 if source.insert(piece) && availability.is_open(piece) => {
                            finds.add(piece, source.words());
                        }
                        1 => { source.remove(piece); }
                        _ => {}
                    }
                }
                if step == 2 {
                    for piece in closed.drain(..) {
                        availability.reopen(piece);
                        if source.contains(piece) {
                            finds.add(piece, source.words());
                        }
                    }
                }
                let wanted = Wanted { layout, availability: &availability, verified: &verified };
                let mut picks = Vec::new();
                picker.pick(&wanted, &source, &mut finds, count, &mut rng, &mut picks);
                let good = |piece: &PieceIndex| availability.is_open(*piece) && source.contains(*piece);
                prop_assert!(picks.iter().all(good));
                let there = layout.indices().filter(good);
                if sequential {
                    prop_assert!(picks.iter().copied().eq(there.take(count)));
                } else {
                    prop_assert_eq!(picks.len(), there.take(count).count());
                    picks.sort_unstable();
                    prop_assert!(picks.is_sorted_by(|one, next| one < next), "a piece was picked twice");
                }
                if step != 3 {
                    picks.iter().for_each(|piece| availability.close(*piece));
                    closed.extend(picks);
                }
            }
        }
    }

    #[test]
    fn a_source_with_few_of_many_pieces_is_used() {
        let layout = PieceLayout::new(100_000 * u64::from(PIECE_LENGTH)).expect("a valid length");
        let mut rng = Rng::seed_from_u64(7);
        let mut availability = Availability::new(layout, &mut rng);
        let mut source = Bitfield::empty(layout);
        let piece = layout.index(70_000).expect("in the file");
        source.insert(piece);
        availability.gain(piece);
        let have = Bitfield::empty(layout);
        let wanted = Wanted { layout, availability: &availability, verified: &have };
        for picker in [&RandomThenRarest::default() as &dyn Picker, &Sequential] {
            let mut picks = Vec::new();
            picker.pick(&wanted, &source, &mut Finds::default(), 8, &mut rng, &mut picks);
            assert_eq!(picks, [piece]);
        }
    }
}

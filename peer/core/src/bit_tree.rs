//! A set of numbers that finds the next member quickly, however far away it is.
//!
//! It is a hierarchical bitset, as in the `hibitset` crate. The lowest level has a bit for each number. Each
//! level above has a bit for each non-empty word of the level below, up to a single word. Sets of two million
//! numbers have four levels.

/// A set of numbers: see the module. The bits are in the order of a [`Bitfield`](domain::Bitfield): bit 63 of
/// word `at` is number `64 * at`.
pub struct BitTree {
    levels: Vec<Vec<u64>>,
}

impl BitTree {
    /// The set of all numbers below `count`.
    pub fn full(count: usize) -> Self {
        let (mut words, mut levels) = (count, Vec::new());
        while levels.len() < 2 || words > 1 {
            levels.push(ones(words));
            words = words.div_ceil(64);
        }
        Self { levels }
    }

    /// Inserts a number. It must be below the `count` that the set was made with.
    pub fn insert(&mut self, number: usize) {
        let mut at = number;
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            let was_empty = *word == 0;
            *word |= bit(at);
            if !was_empty {
                return;
            }
            at /= 64;
        }
    }

    /// Removes a number.
    pub fn remove(&mut self, number: usize) {
        let mut at = number;
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            *word &= !bit(at);
            if *word != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// The non-empty words from `from` on: their places and their bits.
    pub fn words(&self, from: usize) -> impl Iterator<Item = (usize, u64)> + '_ {
        let (leaves, above) = (&self.levels[0], &self.levels[1]);
        let mut at = from / 64;
        let mut left = above.get(at).map_or(0, |word| word & rest(from));
        std::iter::from_fn(move || {
            if left == 0 {
                at = self.next_word(1, at + 1)?;
                left = above[at];
            }
            let word = 64 * at + left.leading_zeros() as usize;
            left &= !bit(word);
            Some((word, leaves[word]))
        })
    }

    /// The place of the first non-empty word of the level from `from` on.
    fn next_word(&self, level: usize, from: usize) -> Option<usize> {
        let above = self.levels.get(level + 1)?;
        let here = above.get(from / 64)? & rest(from);
        let (at, bits) = if here != 0 {
            (from / 64, here)
        } else {
            let at = self.next_word(level + 1, from / 64 + 1)?;
            (at, above[at])
        };
        Some(64 * at + bits.leading_zeros() as usize)
    }
}

fn bit(at: usize) -> u64 {
    1 << (63 - at % 64)
}

/// A mask of the bits of a word from this one on.
fn rest(from: usize) -> u64 {
    u64::MAX >> (from % 64)
}

fn ones(count: usize) -> Vec<u64> {
    let mut words = vec![u64::MAX; count / 64];
    if !count.is_multiple_of(64) {
        words.push(!(u64::MAX >> (count % 64)));
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn numbers(tree: &BitTree, from: usize) -> Vec<usize> {
        tree.words(from)
            .flat_map(|(at, word)| {
                (0..64).filter(move |place| word & bit(*place) != 0).map(move |place| 64 * at + place)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn holds_what_was_put_in(
            count in 1usize..20_000,
            kept in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
            back in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
            from in any::<prop::sample::Index>(),
        ) {
            let mut tree = BitTree::full(count);
            prop_assert_eq!(numbers(&tree, 0), (0..count).collect::<Vec<_>>());
            let mut model: BTreeSet<usize> = kept.iter().map(|index| index.index(count)).collect();
            (0..count).filter(|number| !model.contains(number)).for_each(|number| tree.remove(number));
            for number in back.iter().map(|index| index.index(count)) {
                tree.insert(number);
                model.insert(number);
            }
            let from = from.index(count) / 64;
            prop_assert_eq!(numbers(&tree, from), model.range(64 * from..).copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_empty_one_has_nothing() {
        assert_eq!(BitTree::full(0).words(0).count(), 0);
        let mut one = BitTree::full(1);
        one.remove(0);
        assert_eq!(one.words(0).count(), 0);
    }
}

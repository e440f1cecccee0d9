//! A set of numbers in which the next one is found at once, however far it is.
//!
//! A hierarchical bitset, as in the `hibitset` crate: a bit for each number, and above each level of words one bit for each
//! word that is not empty, until there is a single word. Sets of two million numbers have four levels.

/// Words that are looked at one after the other before the levels above are asked.
const NEAR: usize = 8;

/// See the module. The order of bits is that of a [`Bitfield`](proto::domain::Bitfield): bit 63 of word `at` is number
/// `64 * at`.
pub struct BitTree {
    levels: Vec<Vec<u64>>,
}

impl BitTree {
    /// All numbers below `count`.
    pub fn full(count: usize) -> Self {
        let mut levels = vec![ones(count)];
        while let Some(above) = levels.last().map(Vec::len).filter(|words| *words > 1) {
            levels.push(ones(above));
        }
        Self { levels }
    }

    /// Puts a number in, one of those that there were at first.
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

    /// Takes a number out.
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

    /// The first word from `from` on that is not empty: its place, and what is in it.
    pub fn next_word(&self, from: usize) -> Option<(usize, u64)> {
        let words = self.levels[0].get(from..)?;
        if let Some(near) = words.iter().take(NEAR).position(|word| *word != 0) {
            return Some((from + near, words[near]));
        }
        let mut at = from + NEAR;
        for (height, level) in self.levels.iter().enumerate().skip(1) {
            let rest = level.get(at / 64)? & (u64::MAX >> (at % 64));
            if rest != 0 {
                at = at / 64 * 64 + rest.leading_zeros() as usize;
                for below in self.levels[1..height].iter().rev() {
                    at = 64 * at + below[at].leading_zeros() as usize;
                }
                return Some((at, self.levels[0][at]));
            }
            at = at / 64 + 1;
        }
        None
    }
}

fn bit(at: usize) -> u64 {
    1 << (63 - at % 64)
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
        let words = std::iter::successors(tree.next_word(from), |(at, _)| tree.next_word(at + 1));
        words
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
        assert_eq!(BitTree::full(0).next_word(0), None);
        let mut one = BitTree::full(1);
        one.remove(0);
        assert_eq!(one.next_word(0), None);
    }
}

//! The offered pieces of a file and their changes, for any number of followers at their own pace.

use std::collections::VecDeque;

use parking_lot::Mutex;
use proto::domain::{Bitfield, PieceIndex, PieceLayout};
use tokio::sync::watch;

/// The number of changes that are kept for followers. A follower that is further behind compares bitfields
/// instead.
const LOG: usize = 1_024;

/// The offered pieces of one file.
#[derive(Debug)]
pub(crate) struct Have {
    layout: PieceLayout,
    inner: Mutex<Inner>,
    /// The number of changes so far.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    bits: Bitfield,
    /// The pieces that were added or removed last.
    log: VecDeque<PieceIndex>,
    /// The number of changes so far. The last entry of the log is change number `changes - 1`.
    changes: u64,
}

/// The changed pieces, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) gained: Vec<PieceIndex>,
    pub(crate) lost: Vec<PieceIndex>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty()
    }

    /// Takes at most this number of pieces of each kind.
    pub(crate) fn split_off(&mut self, most: usize) -> Self {
        let take = |pieces: &mut Vec<PieceIndex>| {
            let rest = pieces.split_off(most.min(pieces.len()));
            std::mem::replace(pieces, rest)
        };
        Self { gained: take(&mut self.gained), lost: take(&mut self.lost) }
    }
}

impl Have {
    pub(crate) fn new(layout: PieceLayout, bits: Bitfield) -> Self {
        let inner = Inner { bits, log: VecDeque::new(), changes: 0 };
        Self { layout, inner: Mutex::new(inner), changes: watch::Sender::new(0) }
    }

    #[cfg(test)]
    pub(crate) fn bits(&self) -> Bitfield {
        self.inner.lock().bits.clone()
    }

    pub(crate) fn contains(&self, piece: PieceIndex) -> bool {
        self.inner.lock().bits.contains(piece)
    }

    /// The length of the pieces, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let inner = self.inner.lock();
        let whole = u64::from(inner.bits.count()) * u64::from(proto::domain::PIECE_LENGTH);
        let last = self.layout.indices().next_back().filter(|last| inner.bits.contains(*last));
        let short =
            last.map_or(0, |last| u64::from(proto::domain::PIECE_LENGTH - self.layout.piece_length(last)));
        whole - short
    }

    /// Offers a piece. Returns true if it was not offered before.
    pub(crate) fn insert(&self, piece: PieceIndex) -> bool {
        self.change(|inner| inner.bits.insert(piece).then(|| inner.note(piece)))
    }

    /// Stops offering a piece. Returns true if it was offered before.
    pub(crate) fn remove(&self, piece: PieceIndex) -> bool {
        self.change(|inner| inner.bits.remove(piece).then(|| inner.note(piece)))
    }

    /// Offers exactly these pieces.
    pub(crate) fn replace(&self, bits: Bitfield) {
        self.change(|inner| {
            let Changes { gained, lost } = difference(self.layout, &inner.bits, &bits);
            inner.bits = bits;
            gained.into_iter().for_each(|piece| inner.note(piece));
            lost.into_iter().for_each(|piece| inner.note(piece));
            Some(())
        });
    }

    fn change(&self, change: impl FnOnce(&mut Inner) -> Option<()>) -> bool {
        let changes = {
            let mut inner = self.inner.lock();
            if change(&mut inner).is_none() {
                return false;
            }
            inner.changes
        };
        self.changes.send_replace(changes);
        true
    }

    /// Watches for changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns a follower that starts with the present pieces.
    pub(crate) fn follow(&self) -> Follower {
        let changes = self.changes.subscribe();
        let inner = self.inner.lock();
        Follower { told: inner.bits.clone(), at: inner.changes, changes }
    }
}

impl Inner {
    fn note(&mut self, piece: PieceIndex) {
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        self.log.push_back(piece);
        self.changes += 1;
    }
}

fn difference(layout: PieceLayout, before: &Bitfield, after: &Bitfield) -> Changes {
    Changes {
        gained: after.iter(layout).filter(|piece| !before.contains(*piece)).collect(),
        lost: before.iter(layout).filter(|piece| !after.contains(*piece)).collect(),
    }
}

/// One follower of a [`Have`]. It costs one bitfield, however far it is behind.
#[derive(Debug)]
pub(crate) struct Follower {
    told: Bitfield,
    at: u64,
    changes: watch::Receiver<u64>,
}

impl Follower {
    /// The pieces as reported so far.
    pub(crate) fn told(&self) -> &Bitfield {
        &self.told
    }

    /// Waits until [`Self::take`] may return changes. Returns false when the file is no longer offered.
    pub(crate) async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }

    /// The changes since the last call. A piece that was added and removed in between is not reported.
    pub(crate) fn take(&mut self, have: &Have) -> Changes {
        let inner = have.inner.lock();
        let behind = inner.changes - self.at;
        self.at = inner.changes;
        let kept = inner.log.len();
        let changes = match usize::try_from(behind) {
            Ok(behind) if behind <= kept => {
                let mut changes = Changes::default();
                for &piece in inner.log.range(kept - behind..) {
                    let told = self.told.contains(piece);
                    let now = inner.bits.contains(piece);
                    // Several changes of a piece count as one, at the place of the first of them.
                    match (told, now) {
                        (false, true) => changes.gained.push(piece),
                        (true, false) => changes.lost.push(piece),
                        _ => continue,
                    }
                    if now {
                        self.told.insert(piece)
                    } else {
                        self.told.remove(piece)
                    };
                }
                changes
            }
            _ => {
                let changes = difference(have.layout, &self.told, &inner.bits);
                self.told = inner.bits.clone();
                changes
            }
        };
        debug_assert!(self.told == inner.bits, "a follower knows all after taking");
        changes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn layout() -> PieceLayout {
        PieceLayout::new(3_000 * 524_288).unwrap()
    }

    proptest! {
        #[test]
        fn a_follower_ends_up_with_what_is_there(
            ops in prop::collection::vec((0u64..3_000, 0u8..8), 0..4_000),
            pace in 1usize..3_000,
        ) {
            let have = Have::new(layout(), Bitfield::empty(layout()));
            let mut follower = have.follow();
            let mut known = Bitfield::empty(layout());
            for (at, (index, what)) in ops.iter().enumerate() {
                let piece = layout().index(*index).unwrap();
                if *what == 0 { have.remove(piece); } else { have.insert(piece); }
                if at % pace == 0 {
                    let changes = follower.take(&have);
                    for piece in changes.gained { prop_assert!(known.insert(piece)); }
                    for piece in changes.lost { prop_assert!(known.remove(piece)); }
                    prop_assert_eq!(&known, &have.bits());
                }
            }
        }
    }

    #[tokio::test]
    async fn a_follower_wakes_for_what_comes_after_it_began() {
        let have = Have::new(layout(), Bitfield::empty(layout()));
        let first = layout().index(0).unwrap();
        have.insert(first);
        let mut follower = have.follow();
        assert!(follower.told().contains(first));
        assert!(!have.insert(first));
        let second = layout().index(1).unwrap();
        assert!(have.insert(second));
        assert!(follower.changed().await);
        assert_eq!(follower.take(&have), Changes { gained: vec![second], lost: vec![] });
        assert!(follower.take(&have).is_empty());
        have.replace(Bitfield::empty(layout()));
        assert_eq!(follower.take(&have), Changes { gained: vec![], lost: vec![first, second] });
        drop(have);
        while follower.changed().await {}
    }
}

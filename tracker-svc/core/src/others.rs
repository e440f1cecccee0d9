//! What a tracker knows about the other trackers of its network: which of them live, and whether it has heard all
//! their news.
//!
//! Each tracker numbers its news, by shards of the files. News with the next number is applied. After any other,
//! the whole is read. Each tracker also says regularly how much news there is in all, so that the loss of the last
//! one is noticed as well. A tracker that is no longer said to live is forgotten after [`ABSENT`], and all of them
//! after [`LEASE`] in which nothing can be asked.

use std::{collections::HashMap, time::Duration};

use domain::limits::LEASE;

use crate::swarm::TrackerNo;

/// The id of one run of a tracker.
pub type Instance = [u8; 16];

/// A tracker that is no longer said to live is forgotten after this time. The list may have been lost: then each
/// tracker is back in it within this time.
pub const ABSENT: Duration = Duration::from_secs(5);

/// One other tracker.
#[derive(Clone, Debug)]
struct Other {
    number: TrackerNo,
    /// The number of the last news of each shard.
    heard: Vec<u64>,
    /// All shards have to be read.
    is_deaf: bool,
    /// When it was last said to live.
    lives: Duration,
    /// The sum of what was heard when it was last too little.
    doubt: Option<u64>,
}

/// The other trackers. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Others {
    shards: usize,
    known: HashMap<Instance, Other>,
    /// The number of trackers that were ever known.
    numbers: u32,
    /// When it was last said who lives.
    beat: Duration,
}

/// What to do with news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Apply it.
    Apply(TrackerNo),
    /// Read that shard: something is missing.
    Read,
    /// Read all that this tracker says.
    ReadAll,
    /// It is known already.
    Known,
}

/// What is due after it was said who lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Read all that this tracker says.
    Read(Instance),
    /// Forget what this tracker said.
    Forget(TrackerNo),
}

impl Others {
    /// Knows no other tracker. News is numbered by this number of shards.
    pub fn new(shards: usize) -> Self {
        Self { shards, known: HashMap::new(), numbers: 0, beat: Duration::ZERO }
    }

    /// How many are known.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// The number of a tracker.
    pub fn number(&mut self, now: Duration, instance: Instance) -> TrackerNo {
        self.entry(now, instance).number
    }

    fn entry(&mut self, now: Duration, instance: Instance) -> &mut Other {
        let (numbers, shards) = (&mut self.numbers, self.shards);
        self.known.entry(instance).or_insert_with(|| {
            *numbers += 1;
            let heard = vec![0; shards];
            Other { number: TrackerNo(*numbers), heard, is_deaf: true, lives: now, doubt: None }
        })
    }

    /// Handles news of a shard with this number. News that is `whole` only says that the shard has to be read.
    pub fn heard(&mut self, now: Duration, from: Instance, shard: usize, number: u64, whole: bool) -> News {
        let other = self.entry(now, from);
        let Some(heard) = other.heard.get_mut(shard).filter(|_| !other.is_deaf) else { return News::ReadAll };
        match number.checked_sub(*heard) {
            None | Some(0) => News::Known,
            Some(1) if !whole => {
                *heard = number;
                News::Apply(other.number)
            }
            Some(_) => News::Read,
        }
    }

    /// Notes that shards were read, each with the number of its last news. Returns whether what was read of each
    /// counts. It does not if the number is lower than one that was heard: it was lost where it was read, and its
    /// tracker writes it anew.
    pub fn was_read(&mut self, now: Duration, from: Instance, read: &[(usize, u64)]) -> Vec<bool> {
        let shards = self.shards;
        let other = self.entry(now, from);
        other.is_deaf &= read.len() < shards;
        other.doubt = None;
        let mut is_lost = false;
        let counts = read.iter().map(|&(shard, number)| match other.heard.get_mut(shard) {
            Some(heard) if *heard <= number => {
                *heard = number;
                true
            }
            _ => {
                is_lost = true;
                false
            }
        });
        let counts = counts.collect();
        other.is_deaf |= is_lost;
        counts
    }

    /// Handles the list of the trackers that live, with the number of news of each.
    pub fn live(&mut self, now: Duration, all: &[(Instance, u64)]) -> Vec<Due> {
        self.beat = now;
        let mut due = Vec::new();
        for &(instance, news) in all {
            let other = self.entry(now, instance);
            other.lives = now;
            let heard = other.heard.iter().sum::<u64>();
            // News that is on its way arrives before the next list.
            let is_missing = heard < news && other.doubt == Some(heard);
            other.doubt = Some(heard).filter(|heard| *heard < news);
            if other.is_deaf || is_missing {
                due.push(Due::Read(instance));
            }
        }
        self.known.retain(|_, other| {
            let stays = now.saturating_sub(other.lives) <= ABSENT;
            if !stays {
                due.push(Due::Forget(other.number));
            }
            stays
        });
        due
    }

    /// News may have been missed: all of it has to be read.
    pub fn was_deaf(&mut self) {
        self.known.values_mut().for_each(|other| other.is_deaf = true);
    }

    /// The trackers to forget because it could not be asked for [`LEASE`] who lives.
    pub fn silence(&mut self, now: Duration) -> Vec<TrackerNo> {
        if now.saturating_sub(self.beat) <= LEASE {
            return Vec::new();
        }
        self.known.drain().map(|(_, other)| other.number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Instance = [1; 16];
    const B: Instance = [2; 16];

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn news_in_order_is_applied_and_a_gap_is_read() {
        let mut others = Others::new(2);
        assert_eq!(others.heard(at(0), A, 0, 5, false), News::ReadAll, "a tracker that nobody knows");
        let a = others.number(at(0), A);
        assert_eq!(others.was_read(at(0), A, &[(0, 5), (1, 0)]), [true, true]);
        assert_eq!(others.heard(at(0), A, 0, 5, false), News::Known);
        assert_eq!(others.heard(at(0), A, 0, 6, false), News::Apply(a));
        assert_eq!(others.heard(at(0), A, 0, 8, false), News::Read, "7 is missing");
        assert_eq!(others.heard(at(0), A, 0, 9, false), News::Read, "and still is");
        others.was_read(at(0), A, &[(0, 9)]);
        assert_eq!(others.heard(at(0), A, 0, 8, false), News::Known);
        assert_eq!(others.heard(at(0), A, 1, 1, false), News::Apply(a));
        assert_eq!(others.heard(at(0), A, 0, 10, true), News::Read, "it says that all changed");
        others.was_deaf();
        assert_eq!(others.heard(at(0), A, 0, 10, false), News::ReadAll);
    }

    #[test]
    fn the_loss_of_the_last_news_is_noticed() {
        let mut others = Others::new(2);
        assert_eq!(others.live(at(0), &[(A, 3)]), [Due::Read(A)]);
        others.was_read(at(0), A, &[(0, 1), (1, 2)]);
        assert_eq!(others.live(at(1), &[(A, 3)]), []);
        assert_eq!(others.live(at(2), &[(A, 4)]), [], "it may be on its way");
        assert_eq!(others.heard(at(2), A, 1, 3, false), News::Apply(TrackerNo(1)));
        assert_eq!(others.live(at(3), &[(A, 5)]), []);
        assert_eq!(others.live(at(4), &[(A, 5)]), [Due::Read(A)], "it is lost");
    }

    #[test]
    fn what_was_lost_where_it_is_read_does_not_count() {
        let mut others = Others::new(2);
        others.was_read(at(0), A, &[(0, 4), (1, 7)]);
        others.was_deaf();
        assert_eq!(others.live(at(1), &[(A, 11)]), [Due::Read(A)]);
        assert_eq!(others.was_read(at(1), A, &[(0, 0), (1, 7)]), [false, true]);
        assert_eq!(others.live(at(2), &[(A, 11)]), [Due::Read(A)], "its tracker has not written it anew yet");
        assert_eq!(others.was_read(at(2), A, &[(0, 5), (1, 8)]), [true, true]);
        assert_eq!(others.live(at(3), &[(A, 13)]), []);
    }

    #[test]
    fn who_is_no_longer_said_to_live_is_forgotten_a_little_later() {
        let mut others = Others::new(1);
        others.live(at(0), &[(A, 0), (B, 0)]);
        others.was_read(at(0), A, &[(0, 0)]);
        others.was_read(at(0), B, &[(0, 0)]);
        assert_eq!(others.live(at(4), &[(B, 0)]), [], "the list may have been lost");
        assert_eq!(others.live(at(5), &[(A, 0), (B, 0)]), []);
        assert_eq!(others.live(at(11), &[(B, 0)]), [Due::Forget(TrackerNo(1))]);
        assert_eq!(others.count(), 1);
        assert_eq!(others.silence(at(41)), []);
        assert_eq!(others.silence(at(42)), [TrackerNo(2)]);
        assert_eq!(others.live(at(50), &[(B, 0)]), [Due::Read(B)], "it is new again");
        assert_eq!(others.number(at(50), B), TrackerNo(3));
    }
}

//! Decides when a peer stops announcing because another daemon uses its key.
//!
//! The tracker keeps one announce stream for each key. The newest one ends the others. Two daemons with one
//! key, such as an original and its copy, would end each other's streams forever.

use std::{collections::VecDeque, time::Duration};

use crate::Moment;

/// After this number of evictions within [`WITHIN`], the peer stops.
const MOST: usize = 3;
/// Evictions that are longer ago do not count. One now and then comes from a connection that broke.
const WITHIN: Duration = Duration::from_mins(1);

/// The recent evictions of this peer.
#[derive(Clone, Debug, Default)]
pub struct Evictions(VecDeque<Moment>);

impl Evictions {
    /// Notes an eviction. Returns true if the peer must stop announcing.
    pub fn note(&mut self, now: Moment) -> bool {
        self.0.push_back(now);
        self.0.retain(|at| now.saturating_sub(*at) <= WITHIN);
        self.0.len() >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_within_a_minute_is_the_last() {
        let at = Duration::from_secs;
        let mut evictions = Evictions::default();
        assert!(!evictions.note(at(0)));
        assert!(!evictions.note(at(50)));
        assert!(!evictions.note(at(61)), "the first is too long ago");
        assert!(evictions.note(at(100)));
        assert!(!Evictions::default().note(at(0)));
    }
}

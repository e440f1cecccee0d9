//! Whose turn it is.

use std::collections::BTreeMap;

use proto::domain::{PeerId, Username};

use super::{Request, RequestId};

/// Users and peers that are remembered at a time.
const MAX_REMEMBERED: usize = 4_096;

/// When each user and each peer last had a turn.
pub(super) struct Turns {
    seed: u64,
    count: u64,
    users: BTreeMap<Username, u64>,
    peers: BTreeMap<PeerId, u64>,
}

impl Turns {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, count: 0, users: BTreeMap::new(), peers: BTreeMap::new() }
    }

    /// A number that is the peer's own at this sender. Those who never had a turn go in the order of it: were it the order
    /// of their coming, all senders of a swarm would serve the same peers first and leave the others with nothing to give.
    fn lot(&self, peer: &PeerId) -> u64 {
        let words = peer
            .as_bytes()
            .chunks_exact(8)
            .map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        words.fold(self.seed, |lot, word| (lot ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    }

    /// The peer, and with it its user, has a turn.
    pub(super) fn take(&mut self, user: &Username, peer: PeerId) {
        self.count += 1;
        remember(&mut self.users, user.clone(), self.count);
        remember(&mut self.peers, peer, self.count);
    }

    /// The requests that wait for a slot, in the order of their turns: round by round one of each user, first the user
    /// that was served longest ago; within a user first the peer that was.
    pub(super) fn order(
        &self,
        requests: &BTreeMap<RequestId, Request>,
        served: &BTreeMap<PeerId, u32>,
    ) -> impl Iterator<Item = RequestId> + use<> {
        let mut waiting: Vec<_> = requests
            .iter()
            .filter(|(_, request)| request.sending.is_none() && !served.contains_key(&request.peer))
            .map(|(id, request)| {
                let turn = self.peers.get(&request.peer).copied().unwrap_or(0);
                (&request.user, turn, self.lot(&request.peer), request.arrived, *id)
            })
            .collect();
        waiting.sort_unstable();
        let mut round = 0;
        let mut last = None;
        let mut order: Vec<_> = waiting
            .into_iter()
            .map(|(user, _, lot, arrived, id)| {
                round = if last == Some(user) { round + 1 } else { 0 };
                last = Some(user);
                (round, self.users.get(user).copied().unwrap_or(0), lot, arrived, id)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(.., id)| id)
    }
}

/// Keeps the map small: whoever had a turn longest ago is forgotten, and so is taken for new.
fn remember<K: Ord + Clone>(turns: &mut BTreeMap<K, u64>, key: K, turn: u64) {
    turns.insert(key, turn);
    if turns.len() > MAX_REMEMBERED {
        let half = turn.saturating_sub(MAX_REMEMBERED as u64 / 2);
        turns.retain(|_, turn| *turn > half);
    }
}

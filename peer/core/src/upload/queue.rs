//! Decides the order of turns.

use std::collections::BTreeMap;

use domain::{PeerId, Username};

use super::request::{ReceivedRequest, UploadRequestId};

/// The most users, and the most peers, that are remembered.
const MAX_REMEMBERED: usize = 4_096;

/// The last turn of each user and of each peer. Turns are numbered by even numbers. A turn that was taken early
/// has the odd number between the two turns where its time would have been.
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

    /// A number that is fixed for this peer at this sender. Peers that never had a turn are served in the
    /// order of this number. In order of arrival, all senders of a swarm would serve the same peers first,
    /// and the others would have nothing to give.
    fn lot(&self, peer: &PeerId) -> u64 {
        let words = peer
            .as_bytes()
            .chunks_exact(8)
            .map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        words.fold(self.seed, |lot, word| (lot ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    }

    /// Notes that the peer, and so its user, has a turn. `early` is the number of turns by which it comes before
    /// its time. It then counts as taken at its time, so that a reader costs the others no turn.
    pub(super) fn take(&mut self, user: &Username, peer: PeerId, early: u64) {
        self.count += 2;
        let turn = if early == 0 { self.count } else { self.count + 2 * early + 1 };
        remember(&mut self.users, user.clone(), turn);
        remember(&mut self.peers, peer, turn);
    }

    /// Whether the user's last turn was early, and its time has not come yet.
    fn is_ahead(&self, user: &Username) -> bool {
        self.users.get(user).is_some_and(|turn| *turn > self.count)
    }

    /// The requests that wait for a slot, in the order in which they are served, each with the number of turns by
    /// which it is early. Urgent requests of users that are not ahead come first.
    pub(super) fn order(
        &self,
        requests: &BTreeMap<UploadRequestId, ReceivedRequest>,
        served: &BTreeMap<PeerId, u32>,
    ) -> Vec<(UploadRequestId, u64)> {
        let fair = self.fair_order(requests, served).zip(0_u64..);
        let (urgent, others): (Vec<_>, Vec<_>) = fair.partition(|(id, _)| {
            requests.get(id).is_some_and(|request| request.urgent && !self.is_ahead(&request.user))
        });
        let urgent = urgent.into_iter().zip(0..).map(|((id, place), now)| (id, place - now));
        urgent.chain(others.into_iter().map(|(id, _)| (id, 0))).collect()
    }

    /// The requests that wait for a slot, in the order of their turns. Each round has one request of each
    /// user, starting with the user that was served longest ago. Within a user, the peer that was served
    /// longest ago comes first.
    fn fair_order(
        &self,
        requests: &BTreeMap<UploadRequestId, ReceivedRequest>,
        served: &BTreeMap<PeerId, u32>,
    ) -> impl Iterator<Item = UploadRequestId> + use<> {
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

/// Adds an entry and keeps the map small. The users or peers whose turn is longest ago are forgotten, and
/// count as new.
fn remember<K: Ord + Clone>(turns: &mut BTreeMap<K, u64>, key: K, turn: u64) {
    turns.insert(key, turn);
    if turns.len() > MAX_REMEMBERED {
        let half = turn.saturating_sub(MAX_REMEMBERED as u64);
        turns.retain(|_, turn| *turn > half);
    }
}

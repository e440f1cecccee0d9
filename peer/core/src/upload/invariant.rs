//! What holds after every event.

use std::collections::{BTreeMap, BTreeSet};

use domain::PeerId;

use super::{Upload, serving::MAX_QUIET};

impl Upload {
    /// Panics if an invariant does not hold. For tests.
    pub fn check_invariant(&self) {
        let mut served: BTreeMap<PeerId, u32> = BTreeMap::new();
        let mut on_their_way = BTreeSet::new();
        for request in self.requests.values() {
            if let Some(sending) = &request.sending {
                *served.entry(request.peer).or_insert(0) += 1;
                assert!(
                    on_their_way.insert((request.peer, request.file, sending.piece)),
                    "sent twice at a time"
                );
            }
        }
        assert_eq!(served, self.served);
        assert!(self.served.len() <= self.options.max_slots + MAX_QUIET);
        assert!(self.waiting() <= self.options.queue);
        let waiting = self.requests.values().filter(|request| request.sending.is_none());
        let mut waiting: Vec<_> = waiting.map(|request| (request.peer, request.file)).collect();
        waiting.sort_unstable();
        assert!(waiting.windows(2).all(|pair| pair[0] != pair[1]), "a peer waits twice for a file");
        let is_idle = self.served.is_empty() && self.waiting() > 0 && self.draining.is_empty();
        assert!(!is_idle, "requests wait and nobody is served");
    }
}

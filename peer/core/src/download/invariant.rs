//! What holds after every event.

use super::{Download, LinkState, MAX_BAD_PIECES, PieceState};

impl Download {
    /// Panics if an invariant does not hold. For tests.
    pub fn check_invariant(&self) {
        self.availability.check_invariant();
        self.pieces.check_invariant();
        for piece in self.layout.indices() {
            let state = self.pieces.state(piece);
            assert_eq!(
                self.availability.is_open(piece),
                state == PieceState::Missing,
                "{piece:?} is {state:?}"
            );
            let holders = self.sources.values().filter(|source| source.has.contains(piece)).count() as u32;
            assert_eq!(self.availability.holders(piece), holders, "holders of {piece:?}");
        }
        for (piece, state) in self.pieces.claims() {
            match state {
                PieceState::InFlight(id) => {
                    let request = &self.requests[id];
                    assert!(
                        request.is_on(piece),
                        "{piece:?} is in flight from {id:?}, which does not send it"
                    );
                    let stalled = request.stalled && !request.verifying.contains(&piece);
                    assert!(!stalled, "{piece:?} is claimed by a stalled request");
                }
                PieceState::Reserved(id) => {
                    let request = &self.requests[id];
                    assert!(request.reserved && request.set.contains(&piece));
                }
                state => unreachable!("{state:?} is not a claim"),
            }
        }
        for (id, request) in self.requests.iter() {
            let source = &self.sources[&request.source];
            assert!(source.link == LinkState::Connected, "{id:?} outlived its connection");
            assert!(!(source.waiting == Some(id) && source.sending.contains(&id)));
        }
        for source in self.sources.values() {
            assert!(source.bad_pieces < MAX_BAD_PIECES || source.link == LinkState::Banned);
            let interesting =
                source.has.iter(self.layout).filter(|piece| self.pieces.is_sought(*piece)).count();
            assert_eq!(source.interesting as usize, interesting);
            for id in source.waiting.iter().chain(&source.sending) {
                assert!(self.requests.get(*id).is_some());
            }
        }
        for (peer, source) in &self.sources {
            let requests = self.requests.iter().filter(|(_, request)| request.source == *peer);
            let held = requests.filter(|(_, request)| request.held.is_some());
            assert_eq!(source.held as usize, held.count());
        }
    }
}

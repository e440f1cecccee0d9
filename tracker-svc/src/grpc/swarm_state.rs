//! The state that SwarmService and its announce streams share: the store, the gate to groups, the hub and the
//! ticket keys.

use std::{net::IpAddr, sync::Arc};

use proto::{
    convert::{self, found::Found},
    domain::PeerId,
};

use super::gate::Gate;
use crate::{
    domain::{Caller, Refusal, swarm::SourceInfo},
    error::TrackerError,
    hub::Hub,
    keys::TicketKeys,
    store::Store,
};

/// The shared state. Cheap to clone.
#[derive(Clone)]
pub(super) struct SwarmState {
    pub(super) store: Arc<dyn Store>,
    pub(super) gate: Gate,
    pub(super) hub: Arc<Hub>,
    pub(super) keys: Arc<TicketKeys>,
}

impl SwarmState {
    /// Parses a peer id. The peer must belong to the caller: to the same user, and to the same token or to none.
    pub(super) async fn own_peer(&self, caller: &Caller, peer: &str) -> Result<PeerId, TrackerError> {
        let peer = convert::peer_id(peer)?;
        match self.store.peer_owner(peer).await? {
            Some(owner)
                if owner.user == *caller.user()
                    && owner.token.as_ref() == caller.token().map(|token| &token.name) =>
            {
                Ok(peer)
            }
            _ => Err(Refusal::NotYourPeer.into()),
        }
    }
}

/// Converts a peer for a caller who only wants to know how much it has. `token` is the name of the peer's token.
pub(super) fn without_addresses<'s>(peer: &'s SourceInfo, token: &'s str) -> Found<'s> {
    Found { id: peer.id, user: &peer.user, addresses: "", token, pieces: peer.pieces, load: peer.load }
}

/// Converts a source for a peer that the tracker sees at `observed`.
pub(super) fn found(source: &SourceInfo, observed: IpAddr) -> Found<'_> {
    Found {
        id: source.id,
        user: &source.user,
        addresses: source.addresses.given_to(observed),
        token: "",
        pieces: source.pieces,
        load: source.load,
    }
}

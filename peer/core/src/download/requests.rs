//! The open requests, and the sources of the requests that ended last.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Index,
};

use domain::{PeerId, PieceIndex};

use super::{DownloadRequestId, request::OpenRequest};

/// The number of requests that are remembered after their end, because one of their pieces may still be under
/// verification.
const REMEMBERED: usize = 256;

/// All requests of a download that have not ended.
#[derive(Default)]
pub(super) struct Requests {
    open: BTreeMap<DownloadRequestId, OpenRequest>,
    /// The requests that ended last, each with its source. At most [`REMEMBERED`].
    ended: VecDeque<(DownloadRequestId, PeerId)>,
    next: u64,
}

impl Requests {
    /// Adds a request and returns its id.
    pub(super) fn add(&mut self, request: OpenRequest) -> DownloadRequestId {
        let id = DownloadRequestId(self.next);
        self.next += 1;
        self.open.insert(id, request);
        id
    }

    /// Removes a request. Its source stays known for a while.
    pub(super) fn remove(&mut self, id: DownloadRequestId) -> Option<OpenRequest> {
        let request = self.open.remove(&id)?;
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((id, request.source));
        Some(request)
    }

    pub(super) fn get(&self, id: DownloadRequestId) -> Option<&OpenRequest> {
        self.open.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: DownloadRequestId) -> Option<&mut OpenRequest> {
        self.open.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (DownloadRequestId, &OpenRequest)> {
        self.open.iter().map(|(id, request)| (*id, request))
    }

    /// The requests to this source.
    pub(super) fn of(&self, peer: PeerId) -> Vec<DownloadRequestId> {
        self.iter().filter(|(_, request)| request.source == peer).map(|(id, _)| id).collect()
    }

    /// The requests by which the piece is arriving, or has arrived and is being verified.
    pub(super) fn on(&self, piece: PieceIndex) -> impl Iterator<Item = (DownloadRequestId, &OpenRequest)> {
        self.iter().filter(move |(_, request)| request.is_on(piece))
    }

    /// The requests on the piece whose source has fallen silent.
    pub(super) fn stalled_on(
        &self,
        piece: PieceIndex,
    ) -> impl Iterator<Item = (DownloadRequestId, &OpenRequest)> {
        self.on(piece).filter(|(_, request)| request.stalled)
    }

    /// The source of a request. Also known for requests that ended recently.
    pub(super) fn source_of(&self, id: DownloadRequestId) -> Option<PeerId> {
        let ended = || self.ended.iter().find(|(ended, _)| *ended == id).map(|(_, peer)| *peer);
        self.open.get(&id).map(|request| request.source).or_else(ended)
    }
}

impl Index<DownloadRequestId> for Requests {
    type Output = OpenRequest;

    fn index(&self, id: DownloadRequestId) -> &OpenRequest {
        &self.open[&id]
    }
}

//! Who fetches what from this peer.

use proto::domain::FileName;

use super::Engine;
use crate::serve::receivers::Receiver;

impl Engine {
    /// The peers that fetched something in the last minute, with the names of the files; the fastest first.
    pub(crate) fn receivers(&self) -> Vec<(Receiver, FileName)> {
        let receivers = self.inner.uploads.receivers.view().into_iter();
        // A file that is no longer shared has no name here.
        receivers
            .filter_map(|one| {
                let name = self.inner.shares.get(one.file)?.manifest.header().name.clone();
                Some((one, name))
            })
            .collect()
    }
}

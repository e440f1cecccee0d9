//! What others would lose if this peer stopped serving.

use std::{collections::BTreeMap, time::Duration};

use proto::domain::{FileId, FileName, GroupId, PieceLayout};

use super::Agent;
use crate::{
    domain::last_copy::{self, Others},
    error::PeerError,
    library::Entry,
};

/// The most files whose peers are looked up in one answer. The tracker limits how often one may ask.
const MOST: usize = 64;
/// How long a file is drained after a client has asked for it. A client that waits asks every second.
const DRAIN: Duration = Duration::from_secs(10);

/// A file of which others would not have enough copies.
pub(crate) struct LastCopy {
    pub group: GroupId,
    pub name: FileName,
    pub file: FileId,
    pub others: Others,
}

impl Agent {
    /// Returns the files that others fetch from this peer, and of which they have fewer than `copies` complete ones:
    /// of all groups, of one group, or one file.
    ///
    /// # Errors
    /// Fails when nobody is logged in, or with the tracker's refusal.
    pub(crate) async fn last_copies(
        &self,
        group: Option<&GroupId>,
        name: Option<&FileName>,
        copies: usize,
    ) -> Result<Vec<LastCopy>, PeerError> {
        let login = self.login_now()?;
        let offered: Vec<_> =
            self.engine().shares().into_iter().filter(|share| share.done_bytes > 0).collect();
        let is_asked = |entry: &Entry| {
            group.is_none_or(|group| entry.group == *group)
                && name.is_none_or(|name| entry.name == *name)
                && offered.iter().any(|share| share.file == entry.file)
        };
        let mut by_group: BTreeMap<_, Vec<Entry>> = BTreeMap::new();
        for entry in login.library.entries_where(is_asked) {
            by_group.entry(entry.group.clone()).or_default().push(entry);
        }
        let mut found = Vec::new();
        for (group, mut entries) in by_group {
            if entries.len() > 1 {
                // One list says of which files that can be true.
                let listed = self.files_of(&group).await?;
                entries.retain(|entry| {
                    listed.iter().any(|file| {
                        file.file_id[..] == entry.file.as_bytes()[..]
                            && file.leechers > 0
                            && file.seeders as usize <= copies
                    })
                });
            }
            for entry in entries.into_iter().take(MOST) {
                let total = PieceLayout::new(entry.size).map_or(0, |layout| u64::from(layout.count()));
                let all = self.everyone(&group, &entry.name).await?;
                let others = all.iter().filter(|peer| !peer.is_own).map(|peer| peer.source.pieces);
                let others = last_copy::others(others, total);
                // It is offered, so this peer has at least one piece.
                if last_copy::is_at_risk(1, others, copies) {
                    found.push(LastCopy { group: group.clone(), name: entry.name, file: entry.file, others });
                }
            }
        }
        Ok(found)
    }

    /// Drains these files for [`DRAIN`]: this peer sends each piece once, and leaves it to the receiver to pass it on.
    pub(crate) fn drain(&self, files: &[LastCopy]) {
        files.iter().for_each(|found| self.engine().drain(found.file, DRAIN));
    }
}

//! Keeps the complete shares valid: a file that changes on disk is withdrawn, hashed, and offered again if
//! its content is the same. Of a folder, the other files are offered all the while.

use std::{io, ops::ControlFlow, sync::Arc, time::Duration};

use proto::domain::Bitfield;
use tokio::time::{MissedTickBehavior, interval};

use super::shares::{Share, Shares};
use crate::{
    hashing::{FileStamp, HashError},
    ports::Problem,
    storage::{Examined, WrongFile},
};

/// The time between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// The most files of one look: more are looked at in turns. Each file is also checked before each piece that is
/// sent, so a changed file is not served, however long its turn takes.
const FILES_A_LOOK: usize = 1_000;
/// A folder with more files than this is looked at less often, in proportion. 500 files take about 2 ms.
const FOLDER_FILES_A_LOOK: u64 = 500;

/// Checks the shares. Never returns.
pub(crate) async fn keep(shares: Arc<Shares>) {
    let mut clock = interval(LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = 0;
    loop {
        clock.tick().await;
        let turn = shares.some(next, FILES_A_LOOK);
        next = if turn.len() < FILES_A_LOOK { 0 } else { next + turn.len() };
        if turn.is_empty() {
            continue;
        }
        // One file at a time: hashing takes a core and the disk. A file that has not changed takes
        // microseconds.
        let check = move || turn.iter().filter(|share| is_due(share)).for_each(|share| look_after(share));
        let _ = tokio::task::spawn_blocking(check).await;
    }
}

/// Whether a share is to be checked now that it is its turn.
fn is_due(share: &Share) -> bool {
    let files = share.reader().folder().map_or(0, |folder| u64::from(folder.files()));
    share.is_complete_file() && share.count_turn().is_multiple_of(1 + files / FOLDER_FILES_A_LOOK)
}

fn look_after(share: &Share) {
    if share.problem().is_none() && share.reader().folder().is_some() && look_after_files(share).is_ok() {
        return;
    }
    if share.problem().is_none() && share.reader().is_unchanged(0..u64::MAX) {
        return;
    }
    let original = share.original();
    let now = original.stamp_now();
    if share.problem().is_some() && share.was_refused_as(now.as_ref()) {
        return;
    }
    // It was not there, and is back as it was: its drive was detached and attached again.
    let stamp = share.reader().stamp().filter(|_| share.was_refused_as(None));
    if let Some(reader) = stamp.and_then(|stamp| original.open(stamp)) {
        tracing::info!(path = %share.path.display(), "a shared file is back");
        share.set_reader(reader);
        return share.offer();
    }
    share.changed_on_disk();
    match original.examine(&|_| ControlFlow::Continue(())) {
        Ok(Examined { reader, damage: Some(damage) }) if damage.files.is_empty() => {
            refuse(share, &HashError::Mismatch(share.path.clone()), reader.stamp());
        }
        Ok(Examined { reader, damage }) => {
            share.set_reader(reader);
            // This also restores pieces that could not be read meanwhile.
            share.replace_have(Bitfield::full(share.manifest.layout()));
            share.set_wrong_files(damage.map(|damage| damage.wrong_files()).unwrap_or_default());
            share.offer();
        }
        Err(error) => refuse(share, &error, now),
    }
}

/// Stops offering the pieces with files of a folder that changed, reads these files, and offers those that have the
/// right content again. Fails if the folder is not there.
fn look_after_files(share: &Share) -> io::Result<()> {
    let reader = share.reader();
    let changed = reader.changed_files()?;
    let known = share.wrong_files();
    if changed == known {
        return Ok(());
    }
    let (refused, news): (Vec<_>, Vec<_>) = changed.iter().copied().partition(|file| known.contains(file));
    // Until they were read, they count as files that nobody has looked at.
    share.set_wrong_files(changed.iter().map(|file| WrongFile { stamp: None, ..*file }).collect());
    let (reader, mut wrong) = reader.look_again(&news)?;
    for file in &wrong {
        let path = reader.folder().map(|folder| folder.entries()[file.entry].path.to_string());
        tracing::warn!(folder = %share.path.display(), path, "a file of a shared folder changed; its pieces are no longer offered");
    }
    wrong.extend(refused);
    wrong.sort_unstable_by_key(|file| file.entry);
    share.set_reader(reader);
    share.set_wrong_files(wrong);
    Ok(())
}

fn refuse(share: &Share, error: &HashError, stamp: Option<FileStamp>) {
    tracing::warn!(%error, path = %share.path.display(), "a shared file is no longer offered");
    share.refuse_as(stamp);
    share.withdraw(Problem { reason: error.reason(), message: error.to_string() });
}

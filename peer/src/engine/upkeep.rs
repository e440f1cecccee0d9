//! Keeps complete shares honest: a file that changes on disk is withdrawn, hashed, and offered again if it is the same.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use proto::domain::Bitfield;
use tokio::time::{MissedTickBehavior, interval};

use super::Problem;
use crate::{
    hashing::{self, FileStamp, HashError},
    serve::shares::{Share, Shares},
    storage::SharedFile,
};

/// How often every shared file is looked at. (Each is looked at before each piece that goes out as well.)
const LOOK: Duration = Duration::from_secs(2);

/// Looks after the shares. Never returns.
pub(super) async fn keep(shares: Arc<Shares>) {
    let mut clock = interval(LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        for share in shares.all() {
            if share.is_complete_file() {
                // One at a time: hashing takes a core and the disk, and what is unchanged takes microseconds.
                let _ = tokio::task::spawn_blocking(move || look_after(&share)).await;
            }
        }
    }
}

fn look_after(share: &Share) {
    if share.withdrawn().is_none() && share.reader().is_unchanged() {
        return;
    }
    let now = std::fs::metadata(&share.path).map(|metadata| FileStamp::of(&metadata));
    if share.withdrawn().is_some() && share.was_refused_as(now.as_ref().ok()) {
        return;
    }
    share.changed_on_disk();
    let checked = hashing::verify(&share.path, &share.manifest, &|_| ControlFlow::Continue(()))
        .and_then(|stamp| SharedFile::open(&share.path, stamp));
    match checked {
        Ok(file) => {
            share.set_reader(Arc::new(file));
            // Also the pieces that could not be read meanwhile.
            share.replace_have(Bitfield::full(share.manifest.layout()));
            share.offer();
        }
        Err(error) => refuse(share, &error, now.ok()),
    }
}

fn refuse(share: &Share, error: &HashError, stamp: Option<FileStamp>) {
    tracing::warn!(%error, path = %share.path.display(), "a shared file is not offered any more");
    share.refuse_as(stamp);
    share.withdraw(Problem { reason: error.reason(), message: error.to_string() });
}

//! What this peer offers: complete files, and running downloads as far as they are verified.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use proto::{
    domain::{Bitfield, FileId, GroupId, Manifest},
    reason::Reason,
};
use tokio::sync::watch;

use super::have::Have;
use crate::{
    engine::{Problem, ShareView},
    hashing::FileStamp,
    storage::PieceReader,
};

/// One file that this peer's user shares in one group.
pub(crate) struct Share {
    pub(crate) group: GroupId,
    pub(crate) file: FileId,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) path: PathBuf,
    pub(crate) have: Have,
    reader: RwLock<Arc<dyn PieceReader>>,
    wants_sources: AtomicBool,
    uploaded: AtomicU64,
    /// Why it is not offered just now, if so.
    problem: Mutex<Option<Problem>>,
    /// The stamp of the file that was hashed and found to be another; the inner `None`: there was no file.
    refused: Mutex<Option<Option<FileStamp>>>,
    /// Whether it is offered, and if not, why: what running streams end with.
    offered: watch::Sender<Option<Reason>>,
    changed: watch::Sender<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Share {
    pub(crate) fn reader(&self) -> Arc<dyn PieceReader> {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads from elsewhere from now on: the download is complete and in place, or the file was checked anew.
    pub(crate) fn set_reader(&self, reader: Arc<dyn PieceReader>) {
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader;
        self.changed.send_replace(());
    }

    pub(crate) fn wants_sources(&self) -> bool {
        self.wants_sources.load(Ordering::Relaxed)
    }

    pub(crate) fn set_wants_sources(&self, wants: bool) {
        self.wants_sources.store(wants, Ordering::Relaxed);
        self.changed.send_replace(());
    }

    pub(crate) fn add_uploaded(&self, bytes: u64) {
        self.uploaded.fetch_add(bytes, Ordering::Relaxed);
    }

    /// `None` while it is offered, else why it is not.
    pub(crate) fn withdrawn(&self) -> Option<Reason> {
        *self.offered.borrow()
    }

    /// Sees [`Self::withdrawn`] change.
    pub(crate) fn watch_offer(&self) -> watch::Receiver<Option<Reason>> {
        self.offered.subscribe()
    }

    /// Offers it no more until [`Self::offer`]; running streams end with this reason.
    pub(crate) fn withdraw(&self, problem: Problem) {
        let reason = problem.reason;
        *lock(&self.problem) = Some(problem);
        self.offered.send_replace(Some(reason));
        self.changed.send_replace(());
    }

    /// Offers it again.
    pub(crate) fn offer(&self) {
        *lock(&self.problem) = None;
        self.offered.send_replace(None);
        self.changed.send_replace(());
    }

    /// The file is not what was shared: it is offered no more until it was checked.
    pub(crate) fn changed_on_disk(&self) {
        if self.withdrawn().is_none() {
            let message = "the file changed on disk and is being checked".into();
            self.withdraw(Problem { reason: Reason::FileChanged, message });
        }
    }

    /// It is a whole file in its place, no running download.
    pub(crate) fn is_complete_file(&self) -> bool {
        self.reader().stamp().is_some()
    }

    /// Whether the file was hashed when it had this stamp, and was not what was shared.
    pub(crate) fn was_refused_as(&self, stamp: Option<&FileStamp>) -> bool {
        lock(&self.refused).as_ref().is_some_and(|refused| refused.as_ref() == stamp)
    }

    /// Notes that the file with this stamp is not what was shared.
    pub(crate) fn refuse_as(&self, stamp: Option<FileStamp>) {
        *lock(&self.refused) = Some(stamp);
    }

    pub(crate) fn problem(&self) -> Option<Problem> {
        lock(&self.problem).clone()
    }

    /// A piece was verified and written: it is offered from now on.
    pub(crate) fn gained(&self, piece: proto::domain::PieceIndex) {
        if self.have.insert(piece) {
            self.changed.send_replace(());
        }
    }

    /// A piece can't be read any more.
    pub(crate) fn lost(&self, piece: proto::domain::PieceIndex) {
        if self.have.remove(piece) {
            self.changed.send_replace(());
        }
    }

    /// Exactly these pieces are offered from now on.
    pub(crate) fn replace_have(&self, bits: Bitfield) {
        self.have.replace(bits);
        self.changed.send_replace(());
    }

    pub(crate) fn view(&self) -> ShareView {
        ShareView {
            group: self.group.clone(),
            file: self.file,
            path: self.path.clone(),
            size: self.manifest.layout().length(),
            done_bytes: self.have.bytes(),
            uploaded_bytes: self.uploaded.load(Ordering::Relaxed),
            problem: self.problem(),
            stamp: self.reader().stamp(),
        }
    }
}

/// Everything that this peer offers.
#[derive(Default)]
pub(crate) struct Shares {
    files: RwLock<HashMap<FileId, Arc<Share>>>,
    changed: watch::Sender<()>,
}

/// What is to be offered.
pub(crate) struct Offer {
    pub(crate) group: GroupId,
    pub(crate) file: FileId,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) path: PathBuf,
    pub(crate) have: Bitfield,
    pub(crate) reader: Arc<dyn PieceReader>,
    pub(crate) wants_sources: bool,
}

impl Shares {
    /// Offers a file; in place of what was offered under its id before.
    pub(crate) fn add(&self, offer: Offer) -> Arc<Share> {
        let share = Arc::new(Share {
            have: Have::new(offer.manifest.layout(), offer.have),
            group: offer.group,
            file: offer.file,
            manifest: offer.manifest,
            path: offer.path,
            reader: RwLock::new(offer.reader),
            wants_sources: AtomicBool::new(offer.wants_sources),
            uploaded: AtomicU64::new(0),
            problem: Mutex::new(None),
            refused: Mutex::new(None),
            offered: watch::Sender::new(None),
            changed: self.changed.clone(),
        });
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let before = files.insert(share.file, share.clone());
        drop(files);
        end(before);
        self.changed.send_replace(());
        share
    }

    pub(crate) fn get(&self, file: FileId) -> Option<Arc<Share>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).get(&file).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Share>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Offers the file no more. False if it was not offered.
    pub(crate) fn remove(&self, file: FileId) -> bool {
        let removed = self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&file);
        let was_there = removed.is_some();
        end(removed);
        self.changed.send_replace(());
        was_there
    }

    /// Sees that something changed in what is offered.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

fn end(share: Option<Arc<Share>>) {
    if let Some(share) = share {
        share.offered.send_replace(Some(Reason::NotShared));
    }
}

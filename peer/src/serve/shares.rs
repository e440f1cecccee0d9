//! The files that this peer offers: complete files, and the verified pieces of running downloads.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard, RwLock};
use proto::{
    domain::{Bitfield, FileId, GroupId, Manifest, PieceIndex, folder::Folder},
    reason::Reason,
};
use tokio::sync::watch;

use super::{
    have::Have,
    news::{News, NewsFollower},
};
use crate::{
    hashing::{FileStamp, damage::named},
    ports::{Problem, ShareView},
    storage::{Original, PieceReader, WrongFile},
    units,
};

/// One file that this peer's user shares in one group.
pub(crate) struct Share {
    pub(crate) group: GroupId,
    pub(crate) file: FileId,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) path: PathBuf,
    pub(crate) have: Have,
    reader: RwLock<Arc<dyn PieceReader>>,
    folder: Option<Arc<Folder>>,
    only: Vec<String>,
    wants_sources: AtomicBool,
    uploaded: AtomicU64,
    turns: AtomicU64,
    /// The reason why the file can't be offered just now, if any.
    problem: Mutex<Option<Problem>>,
    /// True if the tracker says that this user may not share the file.
    barred: AtomicBool,
    /// The stamp of the file that was hashed and did not match the manifest. The inner `None` means that
    /// there was no file.
    refused: Mutex<Option<Option<FileStamp>>>,
    /// The files of a complete folder that were read and are wrong. The pieces that they touch are not offered.
    wrong: Mutex<Vec<WrongFile>>,
    /// `None` while the file is offered; else the reason that ends running streams.
    offered: watch::Sender<Option<Reason>>,
    news: News,
}

impl Share {
    /// What the complete file or folder should be.
    pub(crate) fn original(&self) -> Original {
        Original {
            path: self.path.clone(),
            manifest: self.manifest.clone(),
            folder: self.reader().folder().or_else(|| self.folder.clone()),
            only: self.only.clone(),
        }
    }

    pub(crate) fn reader(&self) -> Arc<dyn PieceReader> {
        self.reader.read().clone()
    }

    /// Replaces the reader: the download is complete and in place, or the file was checked again.
    pub(crate) fn set_reader(&self, reader: Arc<dyn PieceReader>) {
        *self.reader.write() = reader;
        self.news.note(self.file);
    }

    pub(crate) fn wants_sources(&self) -> bool {
        self.wants_sources.load(Ordering::Relaxed)
    }

    pub(crate) fn set_wants_sources(&self, wants: bool) {
        self.wants_sources.store(wants, Ordering::Relaxed);
        self.news.note(self.file);
    }

    pub(crate) fn add_uploaded(&self, bytes: u64) {
        self.uploaded.fetch_add(bytes, Ordering::Relaxed);
    }

    /// `None` while the file is offered, else the reason why not.
    pub(crate) fn withdrawn(&self) -> Option<Reason> {
        *self.offered.borrow()
    }

    /// Watches [`Self::withdrawn`].
    pub(crate) fn watch_offer(&self) -> watch::Receiver<Option<Reason>> {
        self.offered.subscribe()
    }

    /// Stops offering the file until [`Self::offer`]. Running streams end with this reason.
    pub(crate) fn withdraw(&self, problem: Problem) {
        self.set_problem(Some(problem));
    }

    /// Offers the file again, unless it is barred.
    pub(crate) fn offer(&self) {
        self.set_problem(None);
    }

    /// Sets whether the tracker bars this user from sharing the file. Running streams end if it does.
    pub(crate) fn set_barred(&self, barred: bool) {
        let problem = self.problem.lock();
        self.barred.store(barred, Ordering::Relaxed);
        self.report(problem);
    }

    fn set_problem(&self, changed: Option<Problem>) {
        let mut problem = self.problem.lock();
        *problem = changed;
        self.report(problem);
    }

    /// Reports to watchers whether the file is offered. The lock keeps two reports in the order of their
    /// changes.
    fn report(&self, problem: MutexGuard<'_, Option<Problem>>) {
        let barred = self.barred.load(Ordering::Relaxed).then_some(Reason::NotShared);
        self.offered.send_replace(barred.or(problem.as_ref().map(|problem| problem.reason)));
        drop(problem);
        self.news.note(self.file);
    }

    /// Stops offering the file until it was checked, because it changed on disk.
    pub(crate) fn changed_on_disk(&self) {
        if self.problem().is_none() {
            let message = "the file changed on disk and is being checked".into();
            self.withdraw(Problem { reason: Reason::FileChanged, message });
        }
    }

    /// The number of turns that the share had so far in the checks of all shares. Counts this one.
    pub(crate) fn count_turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether this is a complete file in its final place, not a running download.
    pub(crate) fn is_complete_file(&self) -> bool {
        self.reader().stamp().is_some()
    }

    /// Whether the file was hashed when it had this stamp and did not match the manifest.
    pub(crate) fn was_refused_as(&self, stamp: Option<&FileStamp>) -> bool {
        self.refused.lock().as_ref().is_some_and(|refused| refused.as_ref() == stamp)
    }

    /// Notes that the file with this stamp does not match the manifest.
    pub(crate) fn refuse_as(&self, stamp: Option<FileStamp>) {
        *self.refused.lock() = Some(stamp);
    }

    pub(crate) fn problem(&self) -> Option<Problem> {
        self.problem.lock().clone()
    }

    /// Offers a piece that was verified and written.
    pub(crate) fn gained(&self, piece: PieceIndex) {
        if self.have.insert(piece) {
            self.news.note(self.file);
        }
    }

    /// Stops offering a piece that can't be read any more.
    pub(crate) fn lost(&self, piece: PieceIndex) {
        if self.have.remove(piece) {
            self.news.note(self.file);
        }
    }

    /// Offers exactly these pieces from now on.
    pub(crate) fn replace_have(&self, bits: Bitfield) {
        self.have.replace(bits);
        self.news.note(self.file);
    }

    /// Stops offering a piece because the file that holds it changed on disk, until it was checked. Of a folder, the
    /// other pieces are offered all the same.
    pub(crate) fn found_changed(&self, piece: PieceIndex) {
        if self.is_complete_file() && self.reader().folder().is_some() {
            self.lost(piece);
        } else {
            self.changed_on_disk();
        }
    }

    /// The files of a complete folder that are wrong.
    pub(crate) fn wrong_files(&self) -> Vec<WrongFile> {
        self.wrong.lock().clone()
    }

    /// Offers all pieces of a complete folder but those that these files touch.
    pub(crate) fn set_wrong_files(&self, wrong: Vec<WrongFile>) {
        if let Some(pieces) = self.reader().pieces_without(self.manifest.layout(), &wrong) {
            self.replace_have(pieces);
        }
        *self.wrong.lock() = wrong;
    }

    /// The paths of the files of a complete folder that are wrong.
    fn wrong_paths(&self) -> Vec<String> {
        let (wrong, folder) = (self.wrong_files(), self.reader().folder());
        let path = |folder: &Arc<Folder>, file: &WrongFile| folder.entries()[file.entry].path.to_string();
        folder.map(|folder| wrong.iter().map(|file| path(&folder, file)).collect()).unwrap_or_default()
    }

    /// The reason why the file, or a part of a folder, is not offered.
    pub(crate) fn trouble(&self) -> Option<Problem> {
        self.problem().or_else(|| trouble_of(&self.wrong_paths()))
    }

    pub(crate) fn view(&self) -> ShareView {
        let wrong_files = self.wrong_paths();
        ShareView {
            group: self.group.clone(),
            file: self.file,
            path: self.path.clone(),
            size: self.manifest.layout().length(),
            done_bytes: self.have.bytes(),
            uploaded_bytes: self.uploaded.load(Ordering::Relaxed),
            problem: self.problem().or_else(|| trouble_of(&wrong_files)),
            wrong_files,
            stamp: self.reader().stamp(),
        }
    }
}

/// All files that this peer offers.
#[derive(Default)]
pub(crate) struct Shares {
    files: RwLock<HashMap<FileId, Arc<Share>>>,
    news: News,
}

/// A file to offer.
pub(crate) struct Offer {
    pub(crate) group: GroupId,
    pub(crate) file: FileId,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) path: PathBuf,
    pub(crate) have: Bitfield,
    pub(crate) reader: Arc<dyn PieceReader>,
    pub(crate) wants_sources: bool,
    /// The entries of a folder that is not there now. The reader knows those of a folder that is.
    pub(crate) folder: Option<Arc<Folder>>,
    /// Patterns of the entries of a folder that are here. Empty for all.
    pub(crate) only: Vec<String>,
    /// The reason why the file can't be offered now, if there is one.
    pub(crate) problem: Option<Problem>,
}

impl Shares {
    /// Offers a file. It replaces what was offered under its id before.
    pub(crate) fn add(&self, offer: Offer) -> Arc<Share> {
        let share = Arc::new(Share {
            have: Have::new(offer.manifest.layout(), offer.have),
            group: offer.group,
            file: offer.file,
            manifest: offer.manifest,
            path: offer.path,
            reader: RwLock::new(offer.reader),
            folder: offer.folder,
            only: offer.only,
            wants_sources: AtomicBool::new(offer.wants_sources),
            uploaded: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            offered: watch::Sender::new(offer.problem.as_ref().map(|problem| problem.reason)),
            problem: Mutex::new(offer.problem),
            barred: AtomicBool::new(false),
            refused: Mutex::new(None),
            wrong: Mutex::default(),
            news: self.news.clone(),
        });
        let mut files = self.files.write();
        let before = files.insert(share.file, share.clone());
        drop(files);
        end(before);
        self.news.note(share.file);
        share
    }

    pub(crate) fn get(&self, file: FileId) -> Option<Arc<Share>> {
        self.files.read().get(&file).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Share>> {
        self.files.read().values().cloned().collect()
    }

    /// At most `most` shares, without the first `from`.
    pub(crate) fn some(&self, from: usize, most: usize) -> Vec<Arc<Share>> {
        self.files.read().values().skip(from).take(most).cloned().collect()
    }

    /// Stops offering the file. Returns false if it was not offered.
    pub(crate) fn remove(&self, file: FileId) -> bool {
        let removed = self.files.write().remove(&file);
        let was_there = removed.is_some();
        end(removed);
        self.news.note(file);
        was_there
    }

    /// The changes of what is offered, from the beginning.
    pub(crate) fn follow(&self) -> NewsFollower {
        self.news.follow()
    }
}

/// The problem of a folder with these wrong files.
fn trouble_of(wrong: &[String]) -> Option<Problem> {
    (!wrong.is_empty()).then(|| {
        let files = units::count(wrong.len(), "file");
        let message =
            format!("{files} changed on disk: {}; the pieces with them are not offered", named(wrong.iter()));
        Problem { reason: Reason::FileChanged, message }
    })
}

fn end(share: Option<Arc<Share>>) {
    if let Some(share) = share {
        share.offered.send_replace(Some(Reason::NotShared));
    }
}

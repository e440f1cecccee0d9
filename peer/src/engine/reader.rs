//! Reads a file in order, while it arrives or from this peer's complete copy.
//!
//! A piece is read from the disk as a whole and hashed before a byte of it leaves. What was verified when it arrived
//! may have changed on the disk since.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use proto::{
    domain::{Blake3, FileId, Manifest, PIECE_LENGTH, PieceIndex, folder::Folder},
    reason::Reason,
};

use super::{DownloadSpec, DownloadState, DownloadView, Engine, EngineError, Problem};
use crate::{download::wishes::Wish, paths::word, serve::shares::Share};

/// A reader of one file. Dropping it ends its claim to be served first.
pub struct Reader {
    engine: Engine,
    file: FileId,
    manifest: Arc<Manifest>,
    /// The bytes that are left to read.
    left: Range<u64>,
    /// The running download knows by this which pieces to fetch first.
    wish: Option<Wish>,
}

impl Engine {
    /// Reads the bytes `range` of a file that is shared or downloaded here. What is after the end of the file is left
    /// out.
    ///
    /// # Errors
    /// [`EngineError::Unknown`] when the file is neither shared nor downloaded.
    pub fn read(&self, file: FileId, range: Range<u64>) -> Result<Reader, EngineError> {
        let manifest = self.manifest(file).ok_or(EngineError::Unknown)?;
        let end = range.end.min(manifest.layout().length());
        let left = range.start.min(end)..end;
        Ok(Reader { engine: self.clone(), file, manifest, left, wish: None })
    }

    /// The entries of a folder that is shared or downloaded. Waits until they are known: a download fetches them first.
    ///
    /// # Errors
    /// [`EngineError::Unknown`] when it is neither shared nor downloaded; [`EngineError::Unreadable`] when its download
    /// ended before.
    pub async fn known_folder(&self, file: FileId) -> Result<Arc<Folder>, EngineError> {
        loop {
            let handle = self.handle(file);
            let view = handle.as_ref().map(|handle| (handle.view.subscribe(), &handle.spec));
            if let Some(folder) = self.folder(file) {
                return Ok(folder);
            }
            let Some((mut view, spec)) = view else { return Err(EngineError::Unknown) };
            if let Some(problem) = ended(&view.borrow_and_update(), spec) {
                return Err(EngineError::Unreadable(problem));
            }
            // If the download was started again meanwhile, there is another view.
            let _ = view.changed().await;
        }
    }

    /// The manifest of a file that is shared or downloaded.
    pub fn manifest(&self, file: FileId) -> Option<Arc<Manifest>> {
        let share = self.inner.shares.get(file).map(|share| share.manifest.clone());
        share.or_else(|| self.handle(file).map(|handle| handle.spec.manifest.clone()))
    }
}

impl Reader {
    /// The BLAKE3 root of the file that the manifest describes.
    pub fn root(&self) -> Blake3 {
        self.manifest.header().blake3
    }

    /// Waits for the next bytes, which are of one piece. Returns `None` at the end.
    ///
    /// # Errors
    /// [`EngineError::Unknown`] when the file is no longer shared or downloaded; [`EngineError::Unreadable`] when its
    /// download ended before the bytes came, or when the copy on disk is damaged.
    pub async fn next(&mut self) -> Result<Option<Bytes>, EngineError> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let layout = self.manifest.layout();
        let piece = layout.index(self.left.start / u64::from(PIECE_LENGTH)).ok_or(EngineError::Unknown)?;
        let share = self.wait_for(piece).await?;
        let whole = read(share, piece).await?;
        let from = self.left.start - layout.offset(piece);
        let to = (self.left.end - layout.offset(piece)).min(whole.len() as u64);
        self.left.start = layout.offset(piece) + to;
        // Fits: at most the length of a piece.
        Ok(Some(whole.slice(from as usize..to as usize)))
    }

    /// Waits until the piece is verified and written.
    async fn wait_for(&mut self, piece: PieceIndex) -> Result<Arc<Share>, EngineError> {
        loop {
            // Changes are watched before the state is looked at, so that none is missed.
            let handle = self.engine.handle(self.file);
            let mut view = handle.as_ref().map(|handle| handle.view.subscribe());
            let share = self.engine.inner.shares.get(self.file);
            let mut pieces = share.as_ref().map(|share| share.have.changes());
            if let Some(handle) = handle.as_ref().filter(|handle| !handle.view.borrow().state.is_final()) {
                match &mut self.wish {
                    Some(wish) if wish.is_of(&handle.wishes) => wish.change(self.left.clone()),
                    wish => *wish = Some(Wish::new(&handle.wishes, self.left.clone())),
                }
            }
            if let Some(share) = share.filter(|share| share.have.contains(piece)) {
                return Ok(share);
            }
            let (Some(view), Some(handle)) = (&mut view, &handle) else { return Err(EngineError::Unknown) };
            if let Some(problem) = ended(&view.borrow_and_update(), &handle.spec) {
                return Err(EngineError::Unreadable(problem));
            }
            let gained = async {
                match &mut pieces {
                    Some(pieces) => drop(pieces.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = gained => {}
                _ = view.changed() => {}
            }
        }
    }
}

/// The reason why a piece that a download misses does not come, if it does not.
fn ended(view: &DownloadView, spec: &DownloadSpec) -> Option<Problem> {
    let (group, name) = (&spec.group, &spec.manifest.header().name);
    let full = |problem: &Problem| problem.reason == Reason::DiskFull;
    match view.state {
        DownloadState::Stopped => {
            let next = format!("`peer resume-download {} {}` continues it", word(group), word(name));
            let message = format!("the download of {name} was stopped; {next}");
            Some(Problem { reason: Reason::Stopped, message })
        }
        DownloadState::Failed => view.problem.clone(),
        DownloadState::Stalled => view.problem.clone().filter(full),
        // A piece of the complete file can't be read.
        DownloadState::Complete => Some(Problem {
            reason: Reason::Corrupt,
            message: format!(
                "a piece of this peer's copy of {name} can't be read; `peer verify {} {}` checks all of it",
                word(group),
                word(name)
            ),
        }),
        _ => None,
    }
}

/// Reads a piece from the disk, and checks it.
async fn read(share: Arc<Share>, piece: PieceIndex) -> Result<Bytes, EngineError> {
    let path = share.path.clone();
    let work = move || {
        let layout = share.manifest.layout();
        let mut bytes = vec![0; layout.piece_length(piece) as usize];
        let reader = share.reader();
        let done = reader.read(layout.offset(piece), &mut bytes);
        if done.is_ok() && share.manifest.piece_matches(piece, &bytes) {
            return Ok(Bytes::from(bytes));
        }
        if reader.stamp().is_some() && !reader.is_unchanged(layout.range(piece)) {
            share.changed_on_disk();
        } else {
            share.lost(piece);
        }
        let message = match done {
            Err(error) => format!("piece {} of {} can't be read: {error}", piece.get(), share.path.display()),
            Ok(()) => format!("piece {} of {} is not what it was", piece.get(), share.path.display()),
        };
        Err(EngineError::Unreadable(Problem { reason: Reason::FileChanged, message }))
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| EngineError::task(&path, error))?
}

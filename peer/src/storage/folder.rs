//! An unfinished download of a folder on disk.
//!
//! ```text
//! DIR/.minitorrent/<file id>.part     the pieces of the index, the last of the virtual file
//! DIR/.minitorrent/<file id>.state    which pieces are safe (`state.rs`)
//! DIR/.minitorrent/<file id>.tree     the unfinished tree, with the contents of all other pieces (`tree.rs`)
//! DIR/NAME                            the tree, once complete
//! ```
//! The pieces of the index are fetched first. Then the index says which file each byte belongs to, and all other
//! pieces are written to the files themselves. So a folder takes its own size on the disk, and not more. The first
//! of the index's pieces may hold the end of the contents. It stays in the part, and is copied at the end.
//!
//! The whole tree appears at once, under its final name. The steps at the end are: read each file and compare it
//! with its hash in the index; bring the tree to the disk; rename the part to `spent`; rename the tree to its final
//! name; delete `spent`. After a crash before the last rename, `spent` becomes the part again, and no byte is lost.
//! After it, the tree is in place and the part is gone, as for a file.
//!
//! A new version in place of an older one changes places with it in one step; then the older one is deleted.
//!
//! Of a folder of which only a part is wanted, the pieces are fetched that hold a part of a wanted file. What they hold of
//! other files is kept until the end, so that the pieces can be checked and passed on, and does not appear in the tree.
//!
//! The manifest proves that the bytes are those that were published, but not that the index is right about them:
//! hence the comparison. It also finds what another process changed in the unfinished tree. What changes after a
//! file was read and before the rename shows in its times.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use proto::{
    convert::folder::decode_index,
    domain::{
        Bitfield, Manifest, PIECE_LENGTH, PieceIndex, PieceLayout,
        folder::{EntryKind, Folder, FolderShape},
    },
};
use rustix::fs::{self as sys, Advice, FlockOperation};

use super::{
    BadFolder, OpenStore, PieceReader, PieceStore, Progress, Rechecked, Replaced, StoreError, choose,
    dir::{self, Places},
    fs::{Found, Names},
    is_chosen,
    ledger::Ledger,
    raw, recheck,
    shared::SharedFolder,
    tree::{self, Tree},
};
use crate::hashing::{self, FileStamp, HashError, folder::FolderFiles};

/// The most times that the files are read again at the end because another process wrote to them meanwhile.
const REREADS: usize = 3;

/// An unfinished download of a folder. See [`PieceStore`].
#[derive(Debug)]
pub(super) struct FolderStore {
    ledger: Ledger,
    manifest: Arc<Manifest>,
    shape: FolderShape,
    destination: PathBuf,
    places: Places,
    names: Names,
    part: File,
    /// The offset in the virtual file at which the part begins.
    base: u64,
    umask: u32,
    reserved: u64,
    replaced: Option<Arc<Replaced>>,
    only: Vec<String>,
    /// Brings a file's data to the disk. Tests replace it.
    sync: fn(&File) -> io::Result<()>,
    contents: OnceLock<Contents>,
    /// An earlier run crashed, and nobody has looked yet which contents it wrote.
    is_blind: AtomicBool,
}

/// The index, and the unfinished tree.
#[derive(Debug)]
struct Contents {
    index: Vec<u8>,
    tree: Tree,
    /// The pieces of the index, and of the entries that are wanted.
    wanted: Bitfield,
    /// The number of files that are wanted, and of those among them that are empty.
    files: (u32, u32),
}

impl Contents {
    fn new(index: Vec<u8>, tree: Tree, layout: PieceLayout, index_pieces: Bitfield) -> Self {
        let (mut wanted, mut files) = (index_pieces, (0, 0));
        for (number, entry) in tree.folder().entries().iter().enumerate() {
            if let EntryKind::File(file) = &entry.kind
                && is_chosen(tree.chosen(), number)
            {
                files = (files.0 + 1, files.1 + u32::from(file.length == 0));
                tree.folder().contents().add_pieces(number, layout, &mut wanted);
            }
        }
        Self { index, tree, wanted, files }
    }
}

impl OpenStore {
    /// Opens the unfinished download, or begins it. No piece of an earlier run is verified yet.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], [`StoreError::Full`], [`StoreError::InUse`], [`StoreError::Displaced`],
    /// [`StoreError::Tampered`].
    pub fn open_store(&self) -> Result<Arc<dyn PieceStore>, StoreError> {
        match self.manifest.header().folder {
            None => Ok(Arc::new(self.open()?)),
            Some(shape) => Ok(Arc::new(FolderStore::open(self, shape)?)),
        }
    }
}

impl FolderStore {
    /// Opens the unfinished folder, or begins it.
    pub(super) fn open(place: &OpenStore, shape: FolderShape) -> Result<Self, StoreError> {
        let Found { places, names, part, is_new, state } = place.find()?;
        let layout = place.manifest.layout();
        let base = shape.index_pieces(layout);
        let lost = state.as_ref().is_some_and(|state| state.lost);
        let is_known = is_new || state.as_ref().is_some_and(|state| state.lost || state.clean);
        let mut claimed = state.map_or_else(|| Bitfield::empty(layout), |state| state.claims);
        if !is_known {
            layout.indices().filter(|piece| layout.offset(*piece) >= base).for_each(|piece| {
                claimed.insert(piece);
            });
        }
        let store = Self {
            manifest: place.manifest.clone(),
            shape,
            destination: place.destination.clone(),
            ledger: Ledger::new(place.subject(), names.state.clone(), claimed, lost),
            places,
            names,
            part,
            base,
            umask: place.umask(),
            reserved: place.reserved(),
            replaced: place.replaced().cloned(),
            only: place.only().to_vec(),
            sync: File::sync_data,
            contents: OnceLock::new(),
            is_blind: AtomicBool::new(!is_known),
        };
        // Of a part, the index says how much it is.
        let known = if store.only.is_empty() { Bitfield::full(layout) } else { store.index_pieces() };
        store.check_room(&known)?;
        if store.part.metadata()?.len() != layout.length() - base {
            sys::ftruncate(&store.part, layout.length() - base)?;
        }
        // Pieces may be written from here on, so a crash must not find the state of a clean stop.
        store.checkpoint(false)?;
        Ok(store)
    }

    fn layout(&self) -> PieceLayout {
        self.manifest.layout()
    }

    /// Whether the piece holds a part of the index. The part file keeps these pieces.
    fn is_of_index(&self, piece: PieceIndex) -> bool {
        self.layout().offset(piece) >= self.base
    }

    /// The pieces that hold a part of the index.
    fn index_pieces(&self) -> Bitfield {
        let mut pieces = Bitfield::empty(self.layout());
        self.layout().indices().filter(|piece| self.is_of_index(*piece)).for_each(|piece| {
            pieces.insert(piece);
        });
        pieces
    }

    fn tree(&self) -> Option<&Tree> {
        self.contents.get().map(|contents| &contents.tree)
    }

    /// Checks that there is room for those of these pieces that are missing.
    fn check_room(&self, wanted: &Bitfield) -> Result<(), StoreError> {
        let layout = self.layout();
        let (have, unverified) = (self.ledger.have(), self.ledger.unverified());
        let is_missing = |piece: &PieceIndex| !have.contains(*piece) && !unverified.contains(*piece);
        let length = |piece| u64::from(layout.piece_length(piece));
        let missing: u64 = wanted.iter(layout).filter(is_missing).map(length).sum();
        if missing > 0 && self.places.room()? < missing.saturating_add(self.reserved) {
            return Err(StoreError::Full);
        }
        Ok(())
    }

    /// Reads the first bytes of the part. If somebody cut it short, the bytes are wrong.
    fn read_part(&self, into: &mut [u8]) -> io::Result<()> {
        match self.part.read_exact_at(into, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            read => read,
        }
    }

    /// Reads the index, which must match the manifest.
    fn read_index(&self) -> Result<(Vec<u8>, Folder), StoreError> {
        let layout = self.layout();
        let mut bytes = vec![0; (layout.length() - self.base) as usize];
        self.read_part(&mut bytes)?;
        for piece in layout.indices().filter(|piece| self.is_of_index(*piece)) {
            let Range { start, end } = layout.range(piece);
            let own = &bytes[(start - self.base) as usize..(end - self.base) as usize];
            if !self.manifest.piece_matches(piece, own) {
                self.ledger.claims().lose_piece(piece);
                return Err(StoreError::Corrupt);
            }
        }
        bytes.drain(..bytes.len() - self.shape.index_length as usize);
        let folder = decode_index(&bytes, self.shape, layout.length());
        Ok((bytes, folder.map_err(|error| StoreError::BadFolder(error.into()))?))
    }

    /// Makes the files, and compares each with its hash. Returns their stamps.
    fn complete(&self, tree: &Tree, progress: Progress<'_>) -> Result<Vec<Option<FileStamp>>, StoreError> {
        let end = tree.folder().contents().length();
        let mut head = Bytes::new();
        if self.base < end {
            let piece = self.layout().index(self.base / u64::from(PIECE_LENGTH));
            let piece = piece.ok_or(StoreError::Incomplete)?;
            let mut bytes = vec![0; self.layout().piece_length(piece) as usize];
            self.read_part(&mut bytes)?;
            if !self.manifest.piece_matches(piece, &bytes) {
                self.ledger.claims().lose_piece(piece);
                return Err(StoreError::Corrupt);
            }
            bytes.truncate((end - self.base) as usize);
            head = Bytes::from(bytes);
            tree.write(self.base, std::slice::from_ref(&head))?;
        }
        let wrong = match tree.complete(&self.manifest, progress)? {
            Ok(stamps) => return Ok(stamps),
            Err(wrong) => wrong,
        };
        // Either the disk or the index is wrong. The pieces tell, and the copy of what the part holds.
        let mut copied = vec![0; head.len()];
        let mut is_bad = tree.read(self.base, &mut copied).is_err() || copied != head;
        for &entry in &wrong {
            is_bad |= self.lose_bad_pieces(tree.folder().contents().range(entry));
        }
        if is_bad {
            return Err(StoreError::Corrupt);
        }
        let path = wrong.first().map(|entry| tree.folder().entries()[*entry].path.to_string());
        Err(StoreError::BadFolder(BadFolder::Content(path.unwrap_or_default())))
    }

    /// Reads the pieces of these bytes, and no longer has those that are bad. Returns whether there were some.
    fn lose_bad_pieces(&self, bytes: Range<u64>) -> bool {
        let layout = self.layout();
        let touched = |piece: &PieceIndex| {
            let range = layout.range(*piece);
            range.start < bytes.end && range.end > bytes.start
        };
        let mut is_bad = false;
        for piece in layout.indices().filter(touched) {
            let mut data = vec![0; layout.piece_length(piece) as usize];
            let read = self.read(layout.offset(piece), &mut data);
            if read.is_err() || !self.manifest.piece_matches(piece, &data) {
                self.ledger.claims().lose_piece(piece);
                is_bad = true;
            }
        }
        is_bad
    }

    /// Gives the complete tree its final name.
    fn put_in_place(
        &self,
        contents: &Contents,
        stamps: Vec<Option<FileStamp>>,
    ) -> Result<Arc<dyn PieceReader>, StoreError> {
        self.places.check_path()?;
        let parts = self.places.parts()?;
        let replaced = self.replaced.as_ref().filter(|replaced| replaced.original.path.exists());
        replaced.map_or(Ok(()), |replaced| replaced.check())?;
        dir::rename_if_there(parts, &self.names.part, &self.names.spent)?;
        let moved = match replaced {
            Some(_) => self.places.exchange(&self.names.tree, &self.names.old),
            None => self.places.move_into_place(&self.names.tree),
        };
        if let Err(error) = moved {
            dir::rename_if_there(parts, &self.names.spent, &self.names.part)?;
            return Err(error);
        }
        let folder = contents.tree.folder().clone();
        let files = FolderFiles::known(
            &self.destination,
            folder,
            contents.index.clone(),
            stamps,
            contents.tree.chosen().clone(),
        );
        let changed = |_: HashError| StoreError::Tampered("it changed while it was put in place");
        let shared = SharedFolder::new(files).map_err(changed)?;
        // What was replaced. It may be large, and nobody has to wait for its end if this fails.
        for old in [&self.names.tree, &self.names.old] {
            if let Err(error) = tree::remove_tree(parts, old) {
                tracing::warn!(%error, path = %self.destination.display(), "an older version can't be deleted");
            }
        }
        self.places.remove_traces(&[&self.names.spent, &self.names.state], &self.destination);
        Ok(Arc::new(shared))
    }
}

impl PieceReader for FolderStore {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let in_tree = self.base.saturating_sub(offset).min(into.len() as u64) as usize;
        let (contents, rest) = into.split_at_mut(in_tree);
        if !contents.is_empty() {
            self.tree().ok_or(io::ErrorKind::UnexpectedEof)?.read(offset, contents)?;
        }
        if rest.is_empty() {
            return Ok(());
        }
        self.part.read_exact_at(rest, offset + in_tree as u64 - self.base)
    }

    fn is_unchanged(&self, _: Range<u64>) -> bool {
        // The times change with every piece that is written, so they say nothing.
        let length = self.layout().length() - self.base;
        sys::fstat(&self.part).is_ok_and(|stat| stat.st_nlink > 0 && stat.st_size as u64 == length)
            && self.tree().is_none_or(Tree::is_there)
    }

    fn is_cached(&self, offset: u64, length: usize) -> bool {
        match self.tree() {
            Some(tree) if tree.lives_in_memory() => true,
            Some(tree) if offset + length as u64 <= self.base => tree.is_cached(offset, length),
            _ => offset >= self.base && raw::is_cached(&self.part, offset - self.base, length),
        }
    }

    fn stamp(&self) -> Option<FileStamp> {
        None
    }

    fn folder(&self) -> Option<Arc<Folder>> {
        self.tree().map(|tree| tree.folder().clone())
    }
}

impl recheck::Source for FolderStore {
    fn advise(&self, bytes: Range<u64>, advice: Advice) {
        let in_tree = bytes.start.min(self.base)..bytes.end.min(self.base);
        if let Some(tree) = self.tree().filter(|_| !in_tree.is_empty()) {
            tree.advise(in_tree, advice);
        }
        let in_part = bytes.start.max(self.base) - self.base..bytes.end.max(self.base) - self.base;
        recheck::advise(&self.part, in_part, advice);
    }
}

impl PieceStore for FolderStore {
    fn write(&self, piece: PieceIndex, parts: &[Bytes]) -> Result<(), StoreError> {
        let offset = self.layout().offset(piece);
        match self.tree() {
            _ if self.is_of_index(piece) => raw::write(&self.part, offset - self.base, parts)?,
            Some(tree) => tree.write(offset, parts)?,
            None => return Err(StoreError::Incomplete),
        }
        self.ledger.wrote(piece)
    }

    fn have(&self) -> Bitfield {
        self.ledger.have()
    }

    fn wanted(&self) -> Bitfield {
        match self.contents.get() {
            Some(contents) => contents.wanted.clone(),
            None => self.index_pieces(),
        }
    }

    fn files_in(&self, have: &Bitfield) -> Option<(u32, u32)> {
        let contents = self.contents.get()?;
        let tree = &contents.tree;
        let (all, empty) = contents.files;
        let chosen = |entry| is_chosen(tree.chosen(), entry);
        // The cast can't overflow: a folder has few files.
        let done = tree.folder().contents().files_in(self.layout(), have, chosen) as u32;
        Some((done + empty, all))
    }

    fn advance(&self) -> Result<bool, StoreError> {
        if self.contents.get().is_some() {
            return Ok(false);
        }
        let (index, folder) = self.read_index()?;
        let chosen = choose(&folder, &self.only);
        if chosen.as_ref().is_some_and(|chosen| !chosen.contains(&true)) {
            return Err(StoreError::NothingChosen);
        }
        let tree = Tree::open(self.places.parts()?, &self.names.tree, Arc::new(folder), chosen, self.umask)?;
        if self.is_blind.load(Ordering::Relaxed) {
            let layout = self.layout();
            let mut found = Bitfield::empty(layout);
            for piece in layout.indices().filter(|piece| !self.is_of_index(*piece)) {
                if tree.has_data(layout.range(piece)) || recheck::may_be_a_hole(&self.manifest, piece) {
                    found.insert(piece);
                }
            }
            self.ledger.claims().claim(&found);
            self.is_blind.store(false, Ordering::Relaxed);
        }
        let contents = Contents::new(index, tree, self.layout(), self.index_pieces());
        self.check_room(&contents.wanted)?;
        // Nobody else sets it: a download advances from one task.
        Ok(self.contents.set(contents).is_ok())
    }

    fn unverified(&self) -> Bitfield {
        self.ledger.unverified()
    }

    fn recheck(&self, tell: Rechecked<'_>) {
        let can_read = |piece: &PieceIndex| self.tree().is_some() || self.is_of_index(*piece);
        let pieces: Vec<PieceIndex> = self.unverified().iter(self.layout()).filter(can_read).collect();
        recheck::recheck(self, &self.manifest, &self.ledger, &pieces, tell);
    }

    fn checkpoint(&self, clean: bool) -> Result<(), StoreError> {
        let parts = self.places.parts()?;
        // After a crash, the state does not know what is in the tree. So it must not count as that of a clean stop
        // before somebody has looked.
        let is_known = !self.is_blind.load(Ordering::Relaxed);
        let saved = self.ledger.make_safe(parts, clean && is_known, || {
            let is_tree_there = self.tree().map_or(Ok(true), |tree| tree.is_at(parts, &self.names.tree))?;
            if !is_tree_there || !dir::is_same(parts, &self.names.part, &self.part)? {
                return Err(StoreError::Tampered("it was replaced or deleted"));
            }
            (self.sync)(&self.part).map_err(StoreError::Unsynced)?;
            self.tree().map_or(Ok(()), |tree| tree.sync(self.sync))
        });
        if clean || matches!(saved, Err(StoreError::Unsynced(_))) {
            // Unlocked, so that it can be opened again while uploads still read from this store.
            let _ = sys::flock(&self.part, FlockOperation::Unlock);
        }
        saved
    }

    fn verify(&self, progress: Progress<'_>) -> Result<(), StoreError> {
        let layout = self.layout();
        if !self.only.is_empty() {
            // The whole can't be read. The end compares each file with its hash.
            return Ok(());
        }
        let hashed = hashing::hash_pieces(layout, &mut |offset, into| self.read(offset, into), progress)?;
        let Some((sha1, pieces)) = hashed else { return Err(StoreError::Tampered("it was cut short")) };
        let pairs = pieces.iter().zip(self.manifest.pieces()).zip(layout.indices());
        let bad: Vec<PieceIndex> =
            pairs.filter(|((got, expected), _)| got != expected).map(|(_, piece)| piece).collect();
        if bad.is_empty() {
            // All pieces are good but the whole is not: the manifest's author made the mistake.
            return if sha1 == self.manifest.header().sha1 { Ok(()) } else { Err(StoreError::Incomplete) };
        }
        let mut claims = self.ledger.claims();
        bad.into_iter().for_each(|piece| claims.lose_piece(piece));
        Err(StoreError::Corrupt)
    }

    fn finish(&self, progress: Progress<'_>) -> Result<Arc<dyn PieceReader>, StoreError> {
        let contents = self.contents.get().ok_or(StoreError::Incomplete)?;
        let have = self.have();
        if contents.wanted.iter(self.layout()).any(|piece| !have.contains(piece)) {
            return Err(StoreError::Incomplete);
        }
        if self.places.final_stat()?.is_some() && self.replaced.is_none() {
            return Err(StoreError::NameTaken);
        }
        for _ in 0..=REREADS {
            let stamps = self.complete(&contents.tree, progress)?;
            contents.tree.remove_others(self.layout(), &contents.wanted)?;
            contents.tree.open_permissions()?;
            self.checkpoint(false)?;
            if contents.tree.is_unchanged(&stamps) {
                return self.put_in_place(contents, stamps);
            }
            tracing::info!(path = %self.destination.display(), "the files of the folder are read again");
        }
        Err(StoreError::Tampered("another process writes to it again and again"))
    }

    fn discard(&self) -> Result<(), StoreError> {
        tree::remove_tree(self.places.parts()?, &self.names.tree)?;
        self.places.remove(&[&self.names.part, &self.names.state])
    }
}

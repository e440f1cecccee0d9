//! Manifests: the description of a file, and the fold that binds its piece values to its BLAKE3 root.
//!
//! SHA-1 alone would let a manifest's author show different bytes to different members (SHAttered, 2017). So
//! each piece also has its BLAKE3 subtree value. A piece of 524,288 bytes is 512 aligned BLAKE3 chunks, which
//! form a whole subtree. The values of all pieces fold into exactly the hash that `b3sum` prints for the file
//! (BLAKE3 specification, section 2.1).

use blake3::hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use sha1::Digest as _;

use super::{
    digest::{Blake3, PieceHash, Sha1},
    folder::FolderShape,
    ids::FileName,
    piece::{PieceIndex, PieceLayout},
};

/// The description of a file, without its piece hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// The file's name in the group.
    pub name: FileName,
    /// The file's length and pieces.
    pub layout: PieceLayout,
    /// SHA-1 of the whole file.
    pub sha1: Sha1,
    /// BLAKE3 root of the whole file: the hash that `b3sum` prints.
    pub blake3: Blake3,
    /// Set if the file is the virtual file of a [folder](super::folder).
    pub folder: Option<FolderShape>,
}

/// A header and the hashes of all its pieces.
///
/// Invariant: there is one hash per piece, and the BLAKE3 values fold into the header's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    header: FileHeader,
    pieces: Vec<PieceHash>,
}

impl Manifest {
    /// Makes the manifest with these piece hashes.
    ///
    /// # Errors
    /// Same as [`ManifestCheck::push`] and [`ManifestCheck::finish`].
    pub fn new(header: FileHeader, pieces: Vec<PieceHash>) -> Result<Self, ManifestError> {
        let mut check = ManifestCheck::new(&header);
        check.push(0, &pieces)?;
        check.finish()?;
        Ok(Self { header, pieces })
    }

    /// The description of the file, without its piece hashes.
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// The file's length and pieces.
    pub fn layout(&self) -> PieceLayout {
        self.header.layout
    }

    /// The hashes of all pieces, in order.
    pub fn pieces(&self) -> &[PieceHash] {
        &self.pieces
    }

    /// Whether `data` is this piece: both digests must match. Returns false for an index past the file's last
    /// piece.
    pub fn piece_matches(&self, piece: PieceIndex, data: &[u8]) -> bool {
        self.pieces
            .get(piece.as_usize())
            .is_some_and(|expected| hash_piece(self.header.layout, piece, data) == *expected)
    }
}

/// Computes both digests of a piece's bytes.
pub fn hash_piece(layout: PieceLayout, piece: PieceIndex, data: &[u8]) -> PieceHash {
    let mut blake3 = SubtreeHasher::new(layout, piece);
    blake3.update(data);
    let sha1: [u8; 20] = sha1::Sha1::digest(data).into();
    PieceHash { sha1: sha1.into(), blake3: blake3.finish() }
}

/// Computes the BLAKE3 value of a piece incrementally.
#[derive(Clone, Debug)]
pub struct SubtreeHasher {
    blake3: blake3::Hasher,
    /// Whether the piece is the whole file. Its value is then the root.
    is_root: bool,
}

impl SubtreeHasher {
    /// Starts a hash of the piece, with no bytes yet.
    pub fn new(layout: PieceLayout, piece: PieceIndex) -> Self {
        let mut blake3 = blake3::Hasher::new();
        blake3.set_input_offset(layout.offset(piece));
        Self { blake3, is_root: layout.count() == 1 }
    }

    /// Adds the next bytes. The sum of all calls must not exceed the piece's length.
    pub fn update(&mut self, data: &[u8]) {
        self.blake3.update(data);
    }

    /// The value of the bytes so far.
    pub fn finish(&self) -> Blake3 {
        let root = || *self.blake3.finalize().as_bytes();
        if self.is_root { root().into() } else { self.blake3.finalize_non_root().into() }
    }
}

/// The reason why frames don't make a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A run doesn't start where the previous run ended.
    #[error("expected the hashes of piece {expected} next, but got those of piece {got}")]
    OutOfOrder {
        /// The piece that should be next.
        expected: u32,
        /// The first piece of the run.
        got: u64,
    },
    /// More hashes than pieces.
    #[error("the manifest has more hashes than the file's {pieces} pieces")]
    TooMany {
        /// Pieces of the file.
        pieces: u32,
    },
    /// Fewer hashes than pieces.
    #[error("the manifest has hashes of {got} pieces, but the file has {pieces}")]
    TooFew {
        /// Pieces of the file.
        pieces: u32,
        /// Hashes received.
        got: u32,
    },
    /// The piece values don't fold into the root.
    #[error("the BLAKE3 values of the pieces do not produce the file's BLAKE3 root")]
    Root,
}

/// Folds piece values, in order, into the file's BLAKE3 root. Memory grows with the logarithm of the number
/// of values.
#[derive(Clone, Debug, Default)]
pub struct RootFold {
    stack: Vec<ChainingValue>,
    pushed: u64,
}

impl RootFold {
    /// Adds the next piece's value.
    pub fn push(&mut self, value: Blake3) {
        // A pair is merged only when another value follows: the final merge uses the root function.
        while self.stack.len() > self.pushed.count_ones() as usize {
            self.merge_top();
        }
        self.stack.push(*value.as_bytes());
        self.pushed += 1;
    }

    /// The root of all values so far. With no values, returns the BLAKE3 of the empty input.
    pub fn finish(mut self) -> Blake3 {
        while self.stack.len() > 2 {
            self.merge_top();
        }
        match self.stack[..] {
            [left, right] => Blake3::from(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()),
            [only] => Blake3::from(only),
            _ => Blake3::from(*blake3::hash(b"").as_bytes()),
        }
    }

    fn merge_top(&mut self) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            self.stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }
}

/// Checks a manifest from its runs of hashes, without keeping them.
#[derive(Clone, Debug)]
pub struct ManifestCheck {
    layout: PieceLayout,
    root: Blake3,
    next: u32,
    fold: RootFold,
}

impl ManifestCheck {
    /// Starts a check: only the header has been received.
    pub fn new(header: &FileHeader) -> Self {
        Self { layout: header.layout, root: header.blake3, next: 0, fold: RootFold::default() }
    }

    /// Checks the next run of hashes, which starts at piece `first`.
    ///
    /// # Errors
    /// Fails if the run is not the next one, or is too long. The check is then unchanged.
    pub fn push(&mut self, first: u64, run: &[PieceHash]) -> Result<(), ManifestError> {
        if first != u64::from(self.next) {
            return Err(ManifestError::OutOfOrder { expected: self.next, got: first });
        }
        let pieces = self.layout.count();
        let left = (pieces - self.next) as usize;
        if run.len() > left {
            return Err(ManifestError::TooMany { pieces });
        }
        for hash in run {
            self.fold.push(hash.blake3);
        }
        // The cast cannot overflow: `run.len()` is at most `left`.
        self.next += run.len() as u32;
        Ok(())
    }

    /// Ends the check after the last run.
    ///
    /// # Errors
    /// Fails if hashes are missing, or if the values don't fold into the root.
    pub fn finish(self) -> Result<(), ManifestError> {
        let pieces = self.layout.count();
        if self.next < pieces {
            return Err(ManifestError::TooFew { pieces, got: self.next });
        }
        if self.fold.finish() != self.root {
            return Err(ManifestError::Root);
        }
        Ok(())
    }
}

/// Builds a [`Manifest`] from its runs, with the checks of [`ManifestCheck`].
#[derive(Clone, Debug)]
pub struct Assembler {
    check: ManifestCheck,
    header: FileHeader,
    pieces: Vec<PieceHash>,
}

impl Assembler {
    /// Starts with the header alone. Memory grows with the hashes received, not with the length that the
    /// header claims.
    pub fn new(header: FileHeader) -> Self {
        Self { check: ManifestCheck::new(&header), header, pieces: Vec::new() }
    }

    /// Adds the next run of hashes, which starts at piece `first`.
    ///
    /// # Errors
    /// Same as [`ManifestCheck::push`].
    pub fn push(&mut self, first: u64, run: &[PieceHash]) -> Result<(), ManifestError> {
        self.check.push(first, run)?;
        self.pieces.extend_from_slice(run);
        Ok(())
    }

    /// Returns the manifest after the last run.
    ///
    /// # Errors
    /// Same as [`ManifestCheck::finish`].
    pub fn finish(self) -> Result<Manifest, ManifestError> {
        self.check.finish()?;
        Ok(Manifest { header: self.header, pieces: self.pieces })
    }
}

/// Hashes a file piece by piece, in order. One read of the file gives everything that a manifest needs.
#[derive(Clone, Debug)]
pub struct FileHasher {
    layout: PieceLayout,
    sha1: sha1::Sha1,
    pieces: Vec<PieceHash>,
    fold: RootFold,
}

impl FileHasher {
    /// Starts with no bytes read.
    pub fn new(layout: PieceLayout) -> Self {
        Self { layout, sha1: sha1::Sha1::new(), pieces: Vec::new(), fold: RootFold::default() }
    }

    /// Adds the next piece's digests and bytes. The digests are a separate argument so that other threads may
    /// compute them ([`hash_piece`]). The SHA-1 of the whole file can only be computed in order.
    pub fn push(&mut self, hash: PieceHash, data: &[u8]) {
        self.sha1.update(data);
        self.fold.push(hash.blake3);
        self.pieces.push(hash);
    }

    /// Returns the manifest of the bytes read, with the name `name`.
    ///
    /// # Errors
    /// Fails if a piece of the layout was not read.
    pub fn finish(self, name: FileName) -> Result<Manifest, ManifestError> {
        let sha1: [u8; 20] = self.sha1.finalize().into();
        let header = FileHeader {
            name,
            layout: self.layout,
            sha1: sha1.into(),
            blake3: self.fold.finish(),
            folder: None,
        };
        Manifest::new(header, self.pieces)
    }
}

#[cfg(test)]
mod tests;

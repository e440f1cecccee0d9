//! Manifests: what a file is, and the fold that binds its piece values to its BLAKE3 root.
//!
//! SHA-1 alone would let a manifest's author show different bytes to different members (SHAttered, 2017). So each
//! piece also carries its BLAKE3 subtree value: 524,288 bytes are 512 aligned BLAKE3 chunks, a whole subtree, and
//! the values of all pieces fold into exactly what `b3sum` prints of the file (BLAKE3 specification, section 2.1).

use blake3::hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use sha1::Digest as _;

use super::{
    digest::{Blake3, PieceHash, Sha1},
    ids::FileName,
    piece::{PieceIndex, PieceLayout},
};

/// What a file is, apart from its pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Its name in the group.
    pub name: FileName,
    /// Its length and pieces.
    pub layout: PieceLayout,
    /// SHA-1 of the whole.
    pub sha1: Sha1,
    /// BLAKE3 root of the whole: what `b3sum` prints.
    pub blake3: Blake3,
}

/// A header and the hashes of all its pieces.
///
/// Invariant: one hash a piece, and the BLAKE3 values fold into the header's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    header: FileHeader,
    pieces: Vec<PieceHash>,
}

impl Manifest {
    /// The manifest of those pieces.
    ///
    /// # Errors
    /// As [`ManifestCheck`] has it.
    pub fn new(header: FileHeader, pieces: Vec<PieceHash>) -> Result<Self, ManifestError> {
        let mut check = ManifestCheck::new(&header);
        check.push(0, &pieces)?;
        check.finish()?;
        Ok(Self { header, pieces })
    }

    /// What the file is, apart from its pieces.
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

    /// Whether these bytes are that piece: both digests must hold. False for a piece of a longer file.
    pub fn piece_matches(&self, piece: PieceIndex, data: &[u8]) -> bool {
        self.pieces
            .get(piece.as_usize())
            .is_some_and(|expected| hash_piece(self.header.layout, piece, data) == *expected)
    }
}

/// Both digests of a piece's bytes.
pub fn hash_piece(layout: PieceLayout, piece: PieceIndex, data: &[u8]) -> PieceHash {
    let mut blake3 = SubtreeHasher::new(layout, piece);
    blake3.update(data);
    let sha1: [u8; 20] = sha1::Sha1::digest(data).into();
    PieceHash { sha1: sha1.into(), blake3: blake3.finish() }
}

/// Computes the BLAKE3 value of a piece as its bytes come.
#[derive(Clone, Debug)]
pub struct SubtreeHasher {
    blake3: blake3::Hasher,
    /// The piece is the whole file: its value is the root.
    is_root: bool,
}

impl SubtreeHasher {
    /// Nothing of the piece has come.
    pub fn new(layout: PieceLayout, piece: PieceIndex) -> Self {
        let mut blake3 = blake3::Hasher::new();
        blake3.set_input_offset(layout.offset(piece));
        Self { blake3, is_root: layout.count() == 1 }
    }

    /// Takes the next bytes; no more than the piece has.
    pub fn update(&mut self, data: &[u8]) {
        self.blake3.update(data);
    }

    /// The value of what came.
    pub fn finish(&self) -> Blake3 {
        let root = || *self.blake3.finalize().as_bytes();
        if self.is_root { root().into() } else { self.blake3.finalize_non_root().into() }
    }
}

/// Why frames don't make a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A run that doesn't start where the one before ended.
    #[error("expected the hashes of piece {expected} next, not of piece {got}")]
    OutOfOrder {
        /// The piece that should come next.
        expected: u32,
        /// The piece that came.
        got: u64,
    },
    /// More hashes than pieces.
    #[error("more hashes than the file's {pieces} pieces")]
    TooMany {
        /// Pieces of the file.
        pieces: u32,
    },
    /// Fewer hashes than pieces.
    #[error("hashes of {got} pieces, but the file has {pieces}")]
    TooFew {
        /// Pieces of the file.
        pieces: u32,
        /// Hashes that came.
        got: u32,
    },
    /// The piece values don't fold into the root.
    #[error("the pieces' BLAKE3 values do not fold into the file's root")]
    Root,
}

/// Folds piece values, in order, into the file's BLAKE3 root, in memory that grows with the logarithm of their number.
#[derive(Clone, Debug, Default)]
pub struct RootFold {
    stack: Vec<ChainingValue>,
    pushed: u64,
}

impl RootFold {
    /// Takes the next piece's value.
    pub fn push(&mut self, value: Blake3) {
        // A pair is merged only once something follows it, for the last merge of all is the root's own.
        while self.stack.len() > self.pushed.count_ones() as usize {
            self.merge_top();
        }
        self.stack.push(*value.as_bytes());
        self.pushed += 1;
    }

    /// The root of all values so far; of none, the BLAKE3 of nothing.
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

/// Checks a manifest as its runs of hashes come in, without keeping them.
#[derive(Clone, Debug)]
pub struct ManifestCheck {
    layout: PieceLayout,
    root: Blake3,
    next: u32,
    fold: RootFold,
}

impl ManifestCheck {
    /// Nothing but the header has come.
    pub fn new(header: &FileHeader) -> Self {
        Self { layout: header.layout, root: header.blake3, next: 0, fold: RootFold::default() }
    }

    /// Takes a run of hashes that starts at piece `first`.
    ///
    /// # Errors
    /// When it is not the next run, or too long. Nothing is taken then.
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
        // Fits: no more than the pieces left.
        self.next += run.len() as u32;
        Ok(())
    }

    /// All runs have come.
    ///
    /// # Errors
    /// When some are missing, or the values don't fold into the root.
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

/// Puts a [`Manifest`] together from its runs, checking as [`ManifestCheck`] does.
#[derive(Clone, Debug)]
pub struct Assembler {
    check: ManifestCheck,
    header: FileHeader,
    pieces: Vec<PieceHash>,
}

impl Assembler {
    /// Nothing but the header has come. Memory grows with what comes, not with what the header claims.
    pub fn new(header: FileHeader) -> Self {
        Self { check: ManifestCheck::new(&header), header, pieces: Vec::new() }
    }

    /// Takes a run of hashes that starts at piece `first`.
    ///
    /// # Errors
    /// As [`ManifestCheck::push`].
    pub fn push(&mut self, first: u64, run: &[PieceHash]) -> Result<(), ManifestError> {
        self.check.push(first, run)?;
        self.pieces.extend_from_slice(run);
        Ok(())
    }

    /// All runs have come.
    ///
    /// # Errors
    /// As [`ManifestCheck::finish`].
    pub fn finish(self) -> Result<Manifest, ManifestError> {
        self.check.finish()?;
        Ok(Manifest { header: self.header, pieces: self.pieces })
    }
}

/// Hashes a file piece by piece, in order: everything a manifest needs from one read.
#[derive(Clone, Debug)]
pub struct FileHasher {
    layout: PieceLayout,
    sha1: sha1::Sha1,
    pieces: Vec<PieceHash>,
    fold: RootFold,
}

impl FileHasher {
    /// Nothing has been read.
    pub fn new(layout: PieceLayout) -> Self {
        Self { layout, sha1: sha1::Sha1::new(), pieces: Vec::new(), fold: RootFold::default() }
    }

    /// Takes the next piece's digests and bytes. The digests come apart so that they may be computed on other threads
    /// ([`hash_piece`]); the SHA-1 of the whole can only be computed in order.
    pub fn push(&mut self, hash: PieceHash, data: &[u8]) {
        self.sha1.update(data);
        self.fold.push(hash.blake3);
        self.pieces.push(hash);
    }

    /// The manifest of what was read, under `name`.
    ///
    /// # Errors
    /// When not every piece of the layout was read.
    pub fn finish(self, name: FileName) -> Result<Manifest, ManifestError> {
        let sha1: [u8; 20] = self.sha1.finalize().into();
        let header = FileHeader { name, layout: self.layout, sha1: sha1.into(), blake3: self.fold.finish() };
        Manifest::new(header, self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::PIECE_LENGTH;

    fn manifest_of(data: &[u8]) -> Manifest {
        let layout = PieceLayout::new(data.len() as u64).expect("a valid length");
        let mut hasher = FileHasher::new(layout);
        for piece in layout.indices() {
            let range = layout.range(piece);
            let bytes = &data[range.start as usize..range.end as usize];
            hasher.push(hash_piece(layout, piece, bytes), bytes);
        }
        hasher.finish("file".parse().expect("a good name")).expect("every piece was read")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_fold_is_b3sum(pieces in 0usize..20, tail in 0usize..PIECE_LENGTH as usize, seed in any::<u8>()) {
            let data: Vec<u8> = (0..pieces * PIECE_LENGTH as usize + tail).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
            let manifest = manifest_of(&data);
            prop_assert_eq!(manifest.header().blake3, Blake3::from(*blake3::hash(&data).as_bytes()));
            let sha1: [u8; 20] = sha1::Sha1::digest(&data).into();
            prop_assert_eq!(manifest.header().sha1.as_bytes(), &sha1);
        }
    }

    #[test]
    fn a_piece_counts_only_when_both_digests_hold() {
        let data: Vec<u8> = (0..1_300_000u32).map(|i| i as u8).collect();
        let manifest = manifest_of(&data);
        let layout = manifest.layout();
        let last = layout.index(2).expect("three pieces");
        let bytes = &data[layout.offset(last) as usize..];
        assert!(manifest.piece_matches(last, bytes));
        assert!(!manifest.piece_matches(last, &bytes[1..]));
        let mut only_sha1 = manifest.clone();
        only_sha1.pieces[2].blake3 = Blake3::from([0; 32]);
        let mut only_blake3 = manifest.clone();
        only_blake3.pieces[2].sha1 = Sha1::from([0; 20]);
        assert!(!only_sha1.piece_matches(last, bytes) && !only_blake3.piece_matches(last, bytes));
    }

    #[test]
    fn runs_must_be_whole_in_order_and_fold() {
        let data = vec![7u8; 3 * PIECE_LENGTH as usize];
        let manifest = manifest_of(&data);
        let assembler = || Assembler::new(manifest.header().clone());

        let mut gap = assembler();
        assert_eq!(
            gap.push(1, &manifest.pieces[1..]),
            Err(ManifestError::OutOfOrder { expected: 0, got: 1 })
        );
        let mut long = assembler();
        assert_eq!(long.push(0, &[manifest.pieces[0]; 4]), Err(ManifestError::TooMany { pieces: 3 }));
        let mut short = assembler();
        assert_eq!(short.push(0, &manifest.pieces[..2]), Ok(()));
        assert_eq!(short.finish(), Err(ManifestError::TooFew { pieces: 3, got: 2 }));
        let mut swapped = assembler();
        assert_eq!(swapped.push(0, &[manifest.pieces[1], manifest.pieces[0], manifest.pieces[2]]), Ok(()));
        assert_eq!(swapped.finish(), Err(ManifestError::Root));
        let mut good = assembler();
        assert_eq!(good.push(0, &manifest.pieces[..1]), Ok(()));
        assert_eq!(good.push(1, &manifest.pieces[1..]), Ok(()));
        assert_eq!(good.finish(), Ok(manifest));
    }
}

//! Writes a .torrent (BEP 3) of one file, with the same piece size as the product's.

use std::{fs::File, io::Read as _, path::Path};

use anyhow::{Context as _, Result};
use sha1::{Digest as _, Sha1};

const PIECE: u64 = 524_288;

pub(super) fn write(path: &Path, announce: &str, to: &Path) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).context("the file's name is not UTF-8")?;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut hashes = Vec::new();
    let mut piece = Vec::new();
    while file.by_ref().take(PIECE).read_to_end(&mut piece)? > 0 {
        hashes.extend_from_slice(&Sha1::digest(&piece));
        piece.clear();
    }
    let mut out = format!(
        "d8:announce{}:{announce}4:infod6:lengthi{length}e4:name{}:{name}12:piece lengthi{PIECE}e6:pieces{}:",
        announce.len(),
        name.len(),
        hashes.len()
    )
    .into_bytes();
    out.extend_from_slice(&hashes);
    out.extend_from_slice(b"ee");
    std::fs::write(to, out).with_context(|| format!("{} can't be written", to.display()))
}

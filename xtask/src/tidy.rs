//! The project's rules that the compiler doesn't check. Each finding gives the place, the fault, and what to
//! do about it.
//!
//! - [`code`]: which code may be where: pure crates, layers, tests that don't sleep.
//! - [`cycles`]: no import cycles between the files of a crate.
//! - [`layout`]: which files may exist: sizes, migrations, the code map, paths in the pages, nothing tied to
//!   one machine.
//! - [`crate::floors`]: versions below which an advisory is known.

mod code;
mod cycles;
mod finding;
mod layout;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use self::finding::{File, Finding};
use testbed::cmd;

use crate::floors;

/// Checks all rules. Fails with the number of findings.
pub(crate) fn run() -> Result<()> {
    let files = project_files()?;
    let mut findings = Vec::new();
    for file in &files {
        findings.extend(code::check(file));
        findings.extend(layout::check_file(file));
    }
    findings.extend(layout::check_tree(&files));
    findings.extend(cycles::check_tree(&files));
    let lock = fs::read_to_string(cmd::root().join("Cargo.lock")).context("Cargo.lock can't be read")?;
    findings.extend(floors::check(&lock)?.into_iter().map(|message| Finding::of("Cargo.lock", message)));

    for (path, lines) in layout::long_files(&files) {
        println!("note: {path} has {lines} lines; a reader would thank you for two files");
    }
    for Finding { place, message } in &findings {
        println!("{place}: {message}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} to mend", findings.len());
    }
    println!("tidy: {} files, nothing to mend", files.len());
    Ok(())
}

/// Returns all files that git tracks, and all untracked files that it does not ignore.
fn project_files() -> Result<Vec<File>> {
    let names =
        cmd::capture(cmd::command("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let root = cmd::root();
    let mut files: Vec<File> =
        names.split('\0').filter(|name| !name.is_empty()).filter_map(|name| read(&root, name)).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Reads a file. Returns `None` for a file that git lists but that was deleted without a commit.
fn read(root: &Path, name: &str) -> Option<File> {
    let bytes = fs::read(root.join(name)).ok()?;
    Some(File { path: name.to_owned(), text: String::from_utf8(bytes).unwrap_or_default() })
}

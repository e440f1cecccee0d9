//! The house rules that no compiler checks. Each finding says where, what, and what to do about it.
//!
//! - [`code`]: what a line of Rust may say where: pure folders, layers, tests that don't sleep.
//! - [`layout`]: what files there may be: sizes, migrations, the README's map, nothing of one machine.
//! - [`crate::floors`]: versions below which an advisory is known.

mod code;
mod layout;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{cmd, floors};

/// A file of the project.
pub(crate) struct File {
    /// Relative to the root, with `/`.
    path: String,
    /// Its text; empty when it isn't UTF-8.
    text: String,
}

/// Something to mend.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// `path` or `path:line`.
    place: String,
    message: String,
}

impl Finding {
    fn at(file: &File, line: usize, message: impl Into<String>) -> Self {
        Self { place: format!("{}:{line}", file.path), message: message.into() }
    }

    fn of(path: &str, message: impl Into<String>) -> Self {
        Self { place: path.to_owned(), message: message.into() }
    }
}

/// Checks everything; fails with the number of findings.
pub(crate) fn run() -> Result<()> {
    let files = project_files()?;
    let mut findings = Vec::new();
    for file in &files {
        findings.extend(code::check(file));
        findings.extend(layout::check_file(file));
    }
    findings.extend(layout::check_tree(&files));
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

/// All files that git knows, and those that it would take in.
fn project_files() -> Result<Vec<File>> {
    let names =
        cmd::capture(cmd::command("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let root = cmd::root();
    let mut files: Vec<File> =
        names.split('\0').filter(|name| !name.is_empty()).filter_map(|name| read(&root, name)).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// `None`: git lists it and it isn't there, since it was deleted and not yet committed.
fn read(root: &Path, name: &str) -> Option<File> {
    let bytes = fs::read(root.join(name)).ok()?;
    Some(File { path: name.to_owned(), text: String::from_utf8(bytes).unwrap_or_default() })
}

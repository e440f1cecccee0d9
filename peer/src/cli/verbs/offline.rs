//! The verbs that need no daemon.

use std::{ops::ControlFlow, path::Path};

use clap::CommandFactory as _;
use program::settings::Shown;
use proto::domain::{FileName, PIECE_LENGTH};
use serde_json::json;

use crate::{
    cli::{args::Cli, completion, context::Context, exit::Failure, manual, render},
    hashing, paths, units,
};

/// The number of characters of each piece's SHA-1 in the classic hash string.
const CLASSIC: usize = 20;

pub(super) async fn hash(context: &Context, path: &Path) -> Result<(), Failure> {
    let full = context.directory.join(path);
    let size = std::fs::metadata(&full).map_or(0, |found| found.len());
    let bar = context.style.bar("hashing", size);
    let (seen, hashed) = (bar.clone(), full.clone());
    let hashing = tokio::task::spawn_blocking(move || {
        // The name is not part of what is printed. A fixed one is used, so that files whose names no group
        // accepts can be hashed too.
        let name: FileName = "file".parse().map_err(|_| Failure::usage("the file has no valid name"))?;
        let progress = |bytes| {
            seen.set(bytes, size);
            ControlFlow::Continue(())
        };
        let hashed = hashing::manifest_of(&hashed, name, &progress);
        hashed.map_err(|error| Failure::of(error.reason(), error.to_string()))
    });
    let hashed = hashing.await.map_err(|error| Failure::daemon(error.to_string()))??;
    bar.clear();
    let header = hashed.manifest.header();
    let pieces: Vec<String> = hashed.manifest.pieces().iter().map(|piece| piece.sha1.to_hex()).collect();
    let classic: String = pieces.iter().map(|piece| &piece[..CLASSIC]).collect();
    let object = json!({
        "path": full.to_string_lossy(),
        "path_base64": paths::exact(&full),
        "size": header.layout.length(),
        "piece_length": PIECE_LENGTH,
        "piece_count": pieces.len(),
        "pieces": pieces,
        "sha1": header.sha1.to_hex(),
        "blake3": header.blake3.to_hex(),
        "hash_string": classic,
    });
    let mut text = format!(
        "size         {} ({})\npieces       {}\n",
        units::count(usize::try_from(header.layout.length()).unwrap_or(usize::MAX), "byte"),
        units::size(header.layout.length()),
        pieces.len()
    );
    for (index, piece) in pieces.iter().enumerate() {
        text += &format!("{index:<12} {piece}\n");
    }
    text +=
        &format!("sha1         {}\nblake3       {}\nhash string  {classic}\n", header.sha1, header.blake3);
    context.style.result(&object, &text);
    Ok(())
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    // For the other shells there are the verbs and their flags.
    if let Some(script) = completion::script_of(shell) {
        render::line(script.trim_end());
        return Ok(());
    }
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "peer", &mut script);
    render::line(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}

/// Prints one manual page for all verbs.
pub(super) fn man() -> Result<(), Failure> {
    let mut page = Vec::new();
    let made = program::man::page(Cli::command(), manual::EXTRA, &mut page);
    made.map_err(|error| Failure::io("the manual page", &error))?;
    render::line(String::from_utf8_lossy(&page).trim_end());
    Ok(())
}

pub(super) fn show_config(context: &Context) -> Result<(), Failure> {
    let shown = &context.config.shown;
    let object = |shown: &Shown| json!({"value": shown.value, "origin": shown.origin.to_string()});
    let settings: serde_json::Map<_, _> =
        shown.iter().map(|shown| (shown.name.to_owned(), object(shown))).collect();
    let row = |shown: &Shown| {
        let value = if shown.value.is_empty() { "-".to_owned() } else { render::name(&shown.value) };
        vec![shown.name.to_owned(), value, shown.origin.to_string()]
    };
    let rows: Vec<_> = shown.iter().map(row).collect();
    let table = render::table(&["SETTING", "VALUE", "FROM"], &rows);
    context.style.result(&json!({"settings": settings}), &table);
    Ok(())
}

//! `watch`: shares what appears in a directory.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::files;
use crate::{
    cli::{
        args::UploadOptions,
        context::Context,
        exit::{Exit, Failure},
        render, resolve,
    },
    domain::watch::Watch,
};

/// The time between two looks at the directory.
const LOOK: Duration = Duration::from_secs(1);

/// What changes with the content of a file.
type Stamp = (u64, Option<SystemTime>);

pub(super) async fn watch(
    context: &Context,
    directory: &Path,
    group: &str,
    existing: bool,
    replace: bool,
) -> Result<(), Failure> {
    let directory = resolve::absolute(&context.directory, directory)?;
    let found = || files_in(&directory).map_err(|error| Failure::io(directory.display(), &error));
    let begin = Instant::now();
    let there = if existing { Vec::new() } else { found()? };
    let mut watch = Watch::new(there, begin.elapsed());
    let options = UploadOptions { name: None, replace, exclude: Vec::new(), skip_unsupported: false };
    // A group that refuses is named now, and not when the first file appears.
    files::may_list(context, group).await?;
    if !context.config.quiet && !context.config.json {
        let (directory, group) = (render::name(&directory.to_string_lossy()), render::name(group));
        render::note(&format!("what appears in {directory} is shared with {group}; Ctrl-C ends this"));
    }
    loop {
        for name in watch.look(found()?, begin.elapsed()) {
            match files::upload_one(context, &directory.join(&name), group, &options, "hashing").await {
                Ok((object, text)) => context.style.result(&object, &text),
                Err(failure) if matches!(failure.exit, Exit::NotLoggedIn | Exit::NoDaemon) => {
                    return Err(failure);
                }
                // The others are shared all the same.
                Err(failure) => context.style.failure(&failure),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The regular files directly in a directory that can be shared by their names.
fn files_in(directory: &Path) -> io::Result<Vec<(String, Stamp)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // It may have gone since.
        let Ok(metadata) = entry.metadata() else { continue };
        let Ok(name) = entry.file_name().into_string() else { continue };
        if metadata.is_file() && !name.starts_with('.') {
            found.push((name, (metadata.len(), metadata.modified().ok())));
        }
    }
    Ok(found)
}

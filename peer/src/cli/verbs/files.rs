//! The files of a group, and the ones that this peer shares.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use proto::{domain::FileName, pb, reason::Reason};
use serde_json::{Value, json};
use tonic::Status;

use super::{groups::all_pages, leaving, several::Ends};
use crate::{
    cli::{
        args::{GroupFile, Leaving, UploadOptions},
        context::Context,
        exit::{Exit, Failure},
        render, resolve,
    },
    paths, units,
};

/// The time between two looks at who has how much of a file.
const LOOK: Duration = Duration::from_secs(1);

fn named(file: &GroupFile) -> Option<pb::FileName> {
    Some(pb::FileName { group_id: file.group.clone(), name: file.name.clone() })
}

fn object(file: &GroupFile) -> Value {
    json!({"group": file.group, "name": file.name})
}

/// Lists a group's files; with `copies`, those of which fewer complete copies are online.
pub(super) async fn list(context: &Context, group: &str, copies: Option<u32>) -> Result<(), Failure> {
    let files = context.daemon().await?.files();
    let request = pb::ListFilesRequest { group_id: group.to_owned(), ..Default::default() };
    let mut files = all_pages!(files, list_files, files, request);
    files.retain(|file| copies.is_none_or(|copies| file.seeders < copies));
    let (object, text) = render::files(&files);
    context.style.result(&object, &text);
    Ok(())
}

/// Lists what is in a folder.
pub(super) async fn entries(context: &Context, file: &GroupFile) -> Result<(), Failure> {
    let request = pb::ListEntriesRequest { file: named(file) };
    let mut answers = context.daemon().await?.control().list_entries(request).await?.into_inner();
    let (mut all, mut first) = (Vec::new(), None);
    while let Some(mut answer) = answers.message().await? {
        all.append(&mut answer.entries);
        first.get_or_insert(answer);
    }
    let first = first.ok_or_else(Failure::daemon_ended)?;
    let (object, text) = render::entries(file.group.as_str(), file.name.as_str(), &first, &all);
    context.style.result(&object, &text);
    Ok(())
}

/// Checks that the user may list the files of a group, and so publish there.
pub(super) async fn may_list(context: &Context, group: &str) -> Result<(), Failure> {
    let request = pb::ListFilesRequest { group_id: group.to_owned(), page_size: 1, ..Default::default() };
    context.daemon().await?.files().list_files(request).await?;
    Ok(())
}

pub(super) async fn upload(
    context: &Context,
    path: PathBuf,
    rest: Vec<PathBuf>,
    options: UploadOptions,
) -> Result<Exit, Failure> {
    let (paths, group) = resolve::uploads(path, rest)?;
    let group = group.as_str();
    if let [path] = &paths[..] {
        let (object, text) = upload_one(context, path, group, &options, "hashing").await?;
        context.style.done(&object, &text);
        return Ok(Exit::Done);
    }
    if options.name.is_some() {
        return Err(Failure::usage("--name goes with one path only; upload the paths one by one"));
    }
    let mut ends = Ends::new(context, group, "files", paths.len());
    for (number, path) in paths.iter().enumerate() {
        let what = format!("hashing {} of {}", number + 1, paths.len());
        let end = upload_one(context, path, group, &options, &what).await;
        ends.note(number, &path.to_string_lossy(), end).await;
    }
    Ok(ends.finish())
}

/// Uploads one path. Returns what is printed about it.
pub(super) async fn upload_one(
    context: &Context,
    path: &Path,
    group: &str,
    options: &UploadOptions,
    what: &str,
) -> Result<(Value, String), Failure> {
    let path = resolve::absolute(&context.directory, path)?;
    let UploadOptions { name, replace, exclude, skip_unsupported } = options.clone();
    let name = shared_as(&path, name)?;
    let (path, path_bytes) = paths::to_wire(&path);
    let request = pb::UploadRequest {
        path,
        group_id: group.to_owned(),
        name: name.clone(),
        path_bytes,
        exclude,
        skip_unsupported,
        replace,
    };
    // The group can refuse a name too: another content has it, or it looks like another file's.
    let refused = |status: Status| {
        let mut failure = Failure::from(status);
        let taken = [Reason::AlreadyExists, Reason::InvalidName].iter().any(|r| r.as_str() == failure.reason);
        if taken && !failure.message.contains("--name") {
            failure.message +=
                "; `--name NAME` shares the file under another name, and `--replace` in place of the other";
        }
        failure
    };
    let mut answers = context.daemon().await?.control().upload(request).await.map_err(refused)?.into_inner();
    let bar = context.style.bar(what, 0);
    let ended = loop {
        match answers.message().await {
            Ok(Some(pb::UploadResponse { hashed_bytes, size, done: None })) => bar.set(hashed_bytes, size),
            Ok(Some(pb::UploadResponse { size, done: Some(done), .. })) => break Ok((done, size)),
            Ok(None) => break Err(Failure::daemon_ended()),
            Err(status) => break Err(refused(status)),
        }
    };
    bar.clear();
    let (done, size) = ended?;
    let object = json!({
        "group": group,
        "name": done.name,
        "size": size,
        "file_id": render::hex(&done.file_id),
        "blake3": render::hex(&done.blake3),
        "already_published": done.already_published,
        "replaced": done.replaced,
        "files": done.folder.map(|folder| folder.files),
        "skipped": done.folder.map(|folder| folder.skipped),
    });
    let (name, group, size) = (render::name(&done.name), render::name(group), units::size(size));
    let text = if done.already_published {
        format!("{name} ({size}) was already in {group}; this peer now seeds it too")
    } else if done.replaced {
        format!("{name} ({size}) is the new version in {group}")
    } else {
        format!("{name} ({size}) is now shared with {group}")
    };
    let text = match done.folder {
        Some(folder) if folder.skipped > 0 => {
            format!("{text}; {} of its paths can't be shared and were left out", folder.skipped)
        }
        _ => text,
    };
    Ok((object, text))
}

/// The name of an upload in its group: the one that was given, or else the path's last component.
fn shared_as(path: &Path, given: Option<String>) -> Result<String, Failure> {
    let hint = "`--name NAME` shares the file under another name";
    let name = match given {
        Some(name) => name,
        None => match path.file_name().map(OsStr::to_str) {
            Some(Some(name)) => name.to_owned(),
            Some(None) => {
                let message =
                    format!("the file name in {path:?} is not UTF-8, which names in a group must be; {hint}");
                return Err(Failure::of(Reason::InvalidName, message));
            }
            None => return Err(Failure::of(Reason::PathNotFound, format!("{path:?} is not a file"))),
        },
    };
    let refused = |error| Failure::of(Reason::InvalidName, format!("{name:?}: {error}; {hint}"));
    name.parse::<FileName>().map_err(refused).map(drop)?;
    Ok(name)
}

pub(super) async fn unpublish(context: &Context, file: &GroupFile) -> Result<(), Failure> {
    let request = pb::UnpublishFileRequest { group_id: file.group.clone(), name: file.name.clone() };
    context.daemon().await?.files().unpublish_file(request).await?;
    let text = format!("{} was unpublished from {}", render::name(&file.name), render::name(&file.group));
    context.style.done(&object(file), &text);
    Ok(())
}

pub(super) async fn shares(context: &Context) -> Result<(), Failure> {
    let answer = context.daemon().await?.control().list_shares(pb::ListSharesRequest {}).await?.into_inner();
    let (object, text) = render::shares(&answer.shares);
    context.style.result(&object, &text);
    Ok(())
}

pub(super) async fn stop_share(
    context: &Context,
    file: &GroupFile,
    leaving: &Leaving,
) -> Result<(), Failure> {
    let request = pb::StopShareRequest { file: named(file) };
    let daemon = context.daemon().await?;
    leaving::check(context, &daemon, leaving, Some(&file.group), Some(&file.name)).await?;
    daemon.control().stop_share(request).await?;
    let text = format!(
        "this peer no longer shares {} of {}; the file stays on disk",
        render::name(&file.name),
        render::name(&file.group)
    );
    context.style.done(&object(file), &text);
    Ok(())
}

pub(super) async fn verify(context: &Context, file: &GroupFile) -> Result<(), Failure> {
    let request = pb::VerifyRequest { file: named(file) };
    let mut answers = context.daemon().await?.control().verify(request).await?.into_inner();
    let bar = context.style.bar("checking", 0);
    while let Some(answer) = answers.message().await? {
        bar.set(answer.checked_bytes, answer.size);
        if !answer.bad.is_empty() || !answer.bad_files.is_empty() {
            bar.clear();
            let ranges: Vec<_> = answer.bad.iter().map(|range| [range.first, range.last]).collect();
            let count: u32 = ranges.iter().map(|[first, last]| last - first + 1).sum();
            let object = json!({
                "group": file.group,
                "name": file.name,
                "size": answer.size,
                "bad_pieces": count,
                "bad_ranges": ranges,
                "bad_files": answer.bad_files,
            });
            // The error that follows says the same to people.
            context.style.result(&object, "");
        }
        if answer.done {
            bar.clear();
            let size = units::size(answer.size);
            let text =
                format!("{} of {} ({size}) is intact", render::name(&file.name), render::name(&file.group));
            context.style.done(&json!({"group": file.group, "name": file.name, "size": answer.size}), &text);
            return Ok(());
        }
    }
    Err(Failure::daemon_ended())
}

pub(super) async fn who(context: &Context, file: &GroupFile, follow: bool) -> Result<(), Failure> {
    let mut control = context.daemon().await?.control();
    let live = context.style.live_result().filter(|_| follow);
    let mut last = None;
    loop {
        let request = pb::ListPeersRequest { file: named(file) };
        let answer = control.list_peers(request).await?.into_inner();
        if last.as_ref() != Some(&answer) {
            let (object, text) = render::peers(file.group.as_str(), file.name.as_str(), &answer);
            match &live {
                Some(live) => live.show(|_| text.clone()),
                None => context.style.result(&object, &text),
            }
            last = Some(answer);
        }
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn ticket(context: &Context, file: &GroupFile) -> Result<(), Failure> {
    let request = pb::GetTicketRequest { file: named(file) };
    let answer = context.daemon().await?.control().get_ticket(request).await?.into_inner();
    let file_id = data_encoding::BASE64.encode(&answer.file_id);
    let peers: Vec<_> =
        answer.sources.iter().filter_map(|source| Some((source, source.peer.as_ref()?))).collect();
    let sources: Vec<_> = peers
        .iter()
        .map(|(source, peer)| {
            json!({
                "peer_id": peer.peer_id,
                "tls_name": peer.tls_name,
                "user": peer.username,
                "addresses": peer.addresses,
                "pieces": source.pieces,
                "load": source.load,
            })
        })
        .collect();
    let object = json!({
        "group": file.group,
        "name": file.name,
        "file_id": file_id,
        "ticket": answer.ticket,
        "sources": sources,
    });
    let mut text = format!("file_id  {file_id}\nticket   {}\n", answer.ticket);
    for (source, peer) in peers {
        let addresses = peer.addresses.join(",");
        text += &format!(
            "source   {} {addresses} {} ({})\n",
            peer.username,
            peer.tls_name,
            units::count(source.pieces as usize, "piece")
        );
    }
    context.style.result(&object, &text);
    Ok(())
}

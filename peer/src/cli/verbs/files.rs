//! A group's files, and what this peer shares of them.

use std::path::Path;

use proto::pb;
use serde_json::{Value, json};

use super::groups::all_pages;
use crate::{
    cli::{Context, args::GroupFile, exit::Failure, render, resolve},
    units,
};

/// Items asked for in one call.
const PAGE: u32 = 1_000;

fn named(file: &GroupFile) -> Option<pb::FileName> {
    Some(pb::FileName { group_id: file.group.clone(), name: file.name.clone() })
}

fn object(file: &GroupFile) -> Value {
    json!({"group": file.group, "name": file.name})
}

pub(super) async fn list(context: &Context, group: &str) -> Result<(), Failure> {
    let files = context.daemon().await?.files();
    let request = pb::ListFilesRequest { group_id: group.to_owned(), ..Default::default() };
    let (object, text) = render::files(&all_pages!(files, list_files, files, request));
    context.style.result(&object, &text);
    Ok(())
}

pub(super) async fn upload(
    context: &Context,
    path: &Path,
    group: String,
    name: Option<String>,
) -> Result<(), Failure> {
    let path = resolve::absolute(&context.directory, path)?;
    let request = pb::UploadRequest { path, group_id: group.clone(), name: name.unwrap_or_default() };
    let mut answers = context.daemon().await?.control().upload(request).await?.into_inner();
    let bar = context.style.bar("hashing", 0);
    while let Some(answer) = answers.message().await? {
        bar.set_length(answer.size);
        bar.set_position(answer.hashed_bytes);
        let Some(done) = answer.done else { continue };
        bar.finish_and_clear();
        let object = json!({
            "group": group,
            "name": done.name,
            "size": answer.size,
            "file_id": render::hex(&done.file_id),
            "blake3": render::hex(&done.blake3),
            "already_published": done.already_published,
        });
        let (name, group, size) = (render::name(&done.name), render::name(&group), units::size(answer.size));
        let text = if done.already_published {
            format!("{group} had {name} ({size}) already; this peer seeds it too")
        } else {
            format!("{name} ({size}) is shared with {group}")
        };
        context.style.done(&object, &text);
        return Ok(());
    }
    Err(Failure::daemon("the daemon ended before the upload did"))
}

pub(super) async fn unpublish(context: &Context, file: &GroupFile) -> Result<(), Failure> {
    let request = pb::UnpublishFileRequest { group_id: file.group.clone(), name: file.name.clone() };
    context.daemon().await?.files().unpublish_file(request).await?;
    let text = format!("{} is no longer in {}", render::name(&file.name), render::name(&file.group));
    context.style.done(&object(file), &text);
    Ok(())
}

pub(super) async fn shares(context: &Context) -> Result<(), Failure> {
    let answer = context.daemon().await?.control().list_shares(pb::ListSharesRequest {}).await?.into_inner();
    let (object, text) = render::shares(&answer.shares);
    context.style.result(&object, &text);
    Ok(())
}

pub(super) async fn stop_share(context: &Context, file: &GroupFile) -> Result<(), Failure> {
    let request = pb::StopShareRequest { file: named(file) };
    context.daemon().await?.control().stop_share(request).await?;
    let text = format!(
        "{} of {} is no longer shared from here; the file stays",
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
        bar.set_length(answer.size);
        bar.set_position(answer.checked_bytes);
        if answer.done {
            bar.finish_and_clear();
            let size = units::size(answer.size);
            let text = format!(
                "{} of {} ({size}) is what it should be",
                render::name(&file.name),
                render::name(&file.group)
            );
            context.style.done(&json!({"group": file.group, "name": file.name, "size": answer.size}), &text);
            return Ok(());
        }
    }
    Err(Failure::daemon("the daemon ended before the check did"))
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
        let addresses = peer.addresses.join(", ");
        text +=
            &format!("source   {} {addresses} {} ({} pieces)\n", peer.username, peer.tls_name, source.pieces);
    }
    context.style.result(&object, &text);
    Ok(())
}

//! Manifests, published and fetched frame by frame. What a tracker sends is checked as if it were hostile.

use std::{sync::Arc, time::Duration};

use proto::{
    convert::{self, ConvertError},
    domain::{
        FileHeader, FileId, FileName, GroupId, Manifest, limits::MANIFEST_FRAME_PIECES, manifest::Assembler,
    },
    pb::{self, get_manifest_response::Frame as Got, publish_file_request::Frame as Sent},
};
use tonic::Streaming;

use super::client::{CALL_LIMIT, TrackerClient};
use crate::error::PeerError;

/// How long a whole manifest may take: 110 MB for a file of 1 TiB.
const FETCH_LIMIT: Duration = Duration::from_secs(120);
/// How long publishing may take, a little more than the tracker itself allows.
const PUBLISH_LIMIT: Duration = Duration::from_secs(75);

/// A published file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its id in the group.
    pub file: FileId,
    /// The group had this very content under this name before.
    pub already: bool,
}

/// Publishes a manifest in a group.
///
/// # Errors
/// What the tracker says, or that it can't be reached.
pub async fn publish(
    tracker: &TrackerClient,
    group: &GroupId,
    manifest: &Arc<Manifest>,
) -> Result<Published, PeerError> {
    let mut client = tracker.files().await?;
    let call = client.publish_file(tokio_stream::iter(frames(group, manifest)));
    let answer = match tokio::time::timeout(PUBLISH_LIMIT, call).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(PeerError::of_call(tracker.url(), status)),
        Err(_) => return Err(tracker.unreachable("the manifest was not taken in time")),
    };
    let file = convert::file_id(&answer.file_id).map_err(not_usable)?;
    Ok(Published { file, already: answer.already_published })
}

fn frames(group: &GroupId, manifest: &Arc<Manifest>) -> impl Iterator<Item = pb::PublishFileRequest> + use<> {
    let start = pb::PublishStart { group_id: group.to_string(), header: Some(manifest.header().into()) };
    let manifest = Arc::clone(manifest);
    // Made one at a time, as the tracker takes them.
    let runs = (0..manifest.pieces().len()).step_by(MANIFEST_FRAME_PIECES).map(move |first| {
        let end = (first + MANIFEST_FRAME_PIECES).min(manifest.pieces().len());
        Sent::Pieces(convert::to_piece_hashes(first as u64, &manifest.pieces()[first..end]))
    });
    std::iter::once(Sent::Start(start)).chain(runs).map(|frame| pb::PublishFileRequest { frame: Some(frame) })
}

/// Fetches the manifest of a group's file.
///
/// # Errors
/// What the tracker says, that it can't be reached, or that it sent no manifest of that file.
pub async fn fetch(
    tracker: &TrackerClient,
    group: &GroupId,
    name: &FileName,
) -> Result<(FileId, Manifest), PeerError> {
    let mut client = tracker.files().await?;
    let request = pb::GetManifestRequest { group_id: group.to_string(), name: name.to_string() };
    let frames = tracker.within(client.get_manifest(request)).await?;
    let whole = assemble(tracker, name, frames);
    tokio::time::timeout(FETCH_LIMIT, whole)
        .await
        .map_err(|_| tracker.unreachable("its manifest takes too long"))?
}

async fn assemble(
    tracker: &TrackerClient,
    name: &FileName,
    mut frames: Streaming<pb::GetManifestResponse>,
) -> Result<(FileId, Manifest), PeerError> {
    let Some(Got::Start(start)) = next(tracker, &mut frames).await? else {
        return Err(not_usable("a manifest begins with its header"));
    };
    let file = convert::file_id(&start.file_id).map_err(not_usable)?;
    let header = start.header.ok_or(ConvertError::Missing("header")).map_err(not_usable)?;
    let header = FileHeader::try_from(header).map_err(not_usable)?;
    // The name decides where the file goes on this machine: it is the one asked for, or nothing.
    if header.name != *name {
        return Err(not_usable("the manifest is of another file"));
    }
    let mut assembler = Assembler::new(header);
    while let Some(frame) = next(tracker, &mut frames).await? {
        let Got::Pieces(run) = frame else { return Err(not_usable("a manifest has one header")) };
        let hashes = convert::piece_hashes(&run).map_err(not_usable)?;
        assembler.push(run.first_piece, &hashes).map_err(not_usable)?;
    }
    Ok((file, assembler.finish().map_err(not_usable)?))
}

/// The next frame, in time; none at the end of the stream.
async fn next(
    tracker: &TrackerClient,
    frames: &mut Streaming<pb::GetManifestResponse>,
) -> Result<Option<Got>, PeerError> {
    match tokio::time::timeout(CALL_LIMIT, frames.message()).await {
        Ok(Ok(Some(message))) => message.frame.map(Some).ok_or_else(|| not_usable("an empty frame")),
        Ok(Ok(None)) => Ok(None),
        Ok(Err(status)) => Err(PeerError::of_call(tracker.url(), status)),
        Err(_) => Err(tracker.unreachable("its manifest stopped coming")),
    }
}

fn not_usable(error: impl std::fmt::Display) -> PeerError {
    PeerError::TrackerAnswer(error.to_string())
}

//! Publishes and fetches manifests frame by frame. The tracker's messages are checked as if it were hostile.

use std::{sync::Arc, time::Duration};

use proto::{
    convert::{self, ConvertError},
    domain::{
        FileHeader, FileId, FileName, GroupId, Manifest, limits::MANIFEST_FRAME_PIECES, manifest::Assembler,
    },
    pb::{self, get_manifest_response::Frame as Got, publish_file_request::Frame as Sent},
    reason::Reason,
};
use tonic::Streaming;

use super::{
    client::TrackerClient,
    line::{CALL_LIMIT, Line},
};
use crate::error::PeerError;

/// The time limit for fetching a whole manifest, which is 110 MB for a file of 1 TiB.
const FETCH_LIMIT: Duration = Duration::from_secs(120);
/// The time limit for publishing, a little longer than the tracker's own.
const PUBLISH_LIMIT: Duration = Duration::from_secs(75);

/// How often a manifest is fetched again because its file was replaced meanwhile.
const REPLACED: usize = 5;

/// A published file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// The file's id in the group.
    pub file: FileId,
    /// The group already had this content under this name.
    pub already: bool,
    /// Other content had the name, and was replaced.
    pub replaced: bool,
}

/// Publishes a manifest in a group. With `replace`, in place of other content of its name.
///
/// # Errors
/// The tracker's error, or that it can't be reached.
pub(crate) async fn publish(
    tracker: &TrackerClient,
    group: &GroupId,
    manifest: &Arc<Manifest>,
    replace: bool,
) -> Result<Published, PeerError> {
    tracker.patiently(async |line| publish_once(&line, group, manifest, replace).await).await
}

async fn publish_once(
    tracker: &Line,
    group: &GroupId,
    manifest: &Arc<Manifest>,
    replace: bool,
) -> Result<Published, PeerError> {
    let mut client = tracker.files().await?;
    let call = client.publish_file(tokio_stream::iter(frames(group, manifest, replace)));
    let answer = match tokio::time::timeout(PUBLISH_LIMIT, call).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(PeerError::of_call(tracker.url(), status)),
        Err(_) => return Err(tracker.unreachable("the tracker did not receive the manifest in time")),
    };
    let file = convert::file_id(&answer.file_id).map_err(not_usable)?;
    Ok(Published { file, already: answer.already_published, replaced: answer.replaced })
}

fn frames(
    group: &GroupId,
    manifest: &Arc<Manifest>,
    replace: bool,
) -> impl Iterator<Item = pb::PublishFileRequest> + use<> {
    let header = Some(manifest.header().into());
    let start = pb::PublishStart { group_id: group.to_string(), header, replace };
    let manifest = Arc::clone(manifest);
    // Each frame is made when the tracker takes it.
    let runs = (0..manifest.pieces().len()).step_by(MANIFEST_FRAME_PIECES).map(move |first| {
        let end = (first + MANIFEST_FRAME_PIECES).min(manifest.pieces().len());
        Sent::Pieces(convert::to_piece_hashes(first as u64, &manifest.pieces()[first..end]))
    });
    std::iter::once(Sent::Start(start)).chain(runs).map(|frame| pb::PublishFileRequest { frame: Some(frame) })
}

/// Fetches the manifest of a group's file.
///
/// # Errors
/// The tracker's error; or that it can't be reached, or that it did not send a manifest of that file.
pub(crate) async fn fetch(
    tracker: &TrackerClient,
    group: &GroupId,
    name: &FileName,
) -> Result<(FileId, Manifest), PeerError> {
    for _ in 0..REPLACED {
        if let Some(fetched) = tracker.patiently(async |line| fetch_once(&line, group, name).await).await? {
            return Ok(fetched);
        }
    }
    Err(not_usable("the file was replaced again and again while its manifest was sent"))
}

/// The id of the group's file of that name.
///
/// # Errors
/// As [`fetch`].
pub(crate) async fn current(
    tracker: &TrackerClient,
    group: &GroupId,
    name: &FileName,
) -> Result<FileId, PeerError> {
    named(tracker, group, name).await.map(|(file, _)| file)
}

/// The id and the header of the group's file of that name.
///
/// # Errors
/// As [`fetch`].
pub(crate) async fn named(
    tracker: &TrackerClient,
    group: &GroupId,
    name: &FileName,
) -> Result<(FileId, FileHeader), PeerError> {
    let start = start_of(tracker, group, name).await?;
    let file = convert::file_id(&start.file_id).map_err(not_usable)?;
    let header = start.header.ok_or(ConvertError::Missing("header")).map_err(not_usable)?;
    Ok((file, FileHeader::try_from(header).map_err(not_usable)?))
}

/// Fetches the first frame of a manifest, which names the file.
async fn start_of(
    tracker: &TrackerClient,
    group: &GroupId,
    name: &FileName,
) -> Result<pb::ManifestStart, PeerError> {
    let request = pb::GetManifestRequest { group_id: group.to_string(), name: name.to_string() };
    let fetch = async |line: Line| {
        let mut client = line.files().await?;
        let mut frames = line.within(client.get_manifest(request.clone())).await?;
        next(&line, &mut frames).await
    };
    match tracker.patiently(fetch).await? {
        Some(Got::Start(start)) => Ok(start),
        _ => Err(not_usable("the manifest does not start with its header")),
    }
}

/// Returns `None` if the file was unlisted while its manifest was sent, perhaps because it was replaced.
async fn fetch_once(
    tracker: &Line,
    group: &GroupId,
    name: &FileName,
) -> Result<Option<(FileId, Manifest)>, PeerError> {
    let mut client = tracker.files().await?;
    let request = pb::GetManifestRequest { group_id: group.to_string(), name: name.to_string() };
    let frames = tracker.within(client.get_manifest(request)).await?;
    let whole = assemble(tracker, name, frames);
    tokio::time::timeout(FETCH_LIMIT, whole)
        .await
        .map_err(|_| tracker.unreachable("the tracker sent the manifest too slowly"))?
}

/// Succeeds if the file is in the group and this user may fetch it, or if the tracker can't be asked.
///
/// # Errors
/// Fails with the tracker's refusal.
pub(crate) async fn exists(
    tracker: &TrackerClient,
    group: &GroupId,
    name: &FileName,
) -> Result<(), PeerError> {
    match start_of(tracker, group, name).await {
        Err(refused @ PeerError::Tracker(_)) => Err(refused),
        _ => Ok(()),
    }
}

/// Fetches the header of a file's manifest.
///
/// # Errors
/// As [`fetch`].
pub(crate) async fn header(
    tracker: &TrackerClient,
    group: &GroupId,
    name: &FileName,
) -> Result<FileHeader, PeerError> {
    named(tracker, group, name).await.map(|(_, header)| header)
}

async fn assemble(
    tracker: &Line,
    name: &FileName,
    mut frames: Streaming<pb::GetManifestResponse>,
) -> Result<Option<(FileId, Manifest)>, PeerError> {
    let Some(Got::Start(start)) = next(tracker, &mut frames).await? else {
        return Err(not_usable("the manifest does not start with its header"));
    };
    let file = convert::file_id(&start.file_id).map_err(not_usable)?;
    let header = start.header.ok_or(ConvertError::Missing("header")).map_err(not_usable)?;
    let header = FileHeader::try_from(header).map_err(not_usable)?;
    // The name decides where the file goes on this machine, so only the requested name is accepted.
    if header.name != *name {
        return Err(not_usable("the manifest belongs to another file"));
    }
    let mut assembler = Assembler::new(header);
    loop {
        let frame = match next(tracker, &mut frames).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(PeerError::Tracker(status)) if Reason::of(&status) == Some(Reason::FileNotFound) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Got::Pieces(run) = frame else { return Err(not_usable("the manifest has two headers")) };
        let hashes = convert::piece_hashes(&run).map_err(not_usable)?;
        assembler.push(run.first_piece, &hashes).map_err(not_usable)?;
    }
    Ok(Some((file, assembler.finish().map_err(not_usable)?)))
}

/// Waits for the next frame, at most [`CALL_LIMIT`]. `None` at the end of the stream.
async fn next(
    tracker: &Line,
    frames: &mut Streaming<pb::GetManifestResponse>,
) -> Result<Option<Got>, PeerError> {
    match tokio::time::timeout(CALL_LIMIT, frames.message()).await {
        Ok(Ok(Some(message))) => {
            message.frame.map(Some).ok_or_else(|| not_usable("the manifest has an empty frame"))
        }
        Ok(Ok(None)) => Ok(None),
        Ok(Err(status)) => Err(PeerError::of_call(tracker.url(), status)),
        Err(_) => Err(tracker.unreachable("the tracker stopped sending the manifest")),
    }
}

fn not_usable(error: impl std::fmt::Display) -> PeerError {
    PeerError::TrackerAnswer(error.to_string())
}

//! FileService. Manifests are handled in runs of 4,096 pieces, whatever their size, so memory does not grow
//! with the file.
//!
//! A name has one version. Content that replaces other content is a new file with an id of its own, and the old file
//! ends as if it had been unpublished: no ticket for it is issued any more, and its peers are told. Members keep
//! their copies on disk, but nobody serves them in the group. So a replacement also withdraws what was published by
//! mistake, and no peer ever gets pieces of two versions in one file.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use proto::{
    convert,
    domain::{Blake3, FileHeader, FileName, Sha1, limits::MANIFEST_FRAME_PIECES, manifest::ManifestCheck},
    pb::{self, get_manifest_response, publish_file_request},
};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    gate::{Gate, caller, origin, unless_done, was_done},
    page,
};
use crate::{
    domain::{
        Action, Membership, Origin, Refusal, access, audit::about_file, operator::ListingQuotas,
        swarm_counts::SwarmCounts,
    },
    error::TrackerError,
    store::{Asked, FileRow, HashRun, IfTaken, ManifestId, Publication, Published, Store},
};

/// Time limit for the hashes of each 4,096 pieces of a publication, and for the rest at its end.
const ROW: Duration = Duration::from_secs(60);
/// Time limit for the next frame of a publication.
const IDLE: Duration = Duration::from_secs(10);

/// FileService over a store and the swarms.
pub struct FileService {
    store: Arc<dyn Store>,
    gate: Gate,
    counts: Arc<dyn SwarmCounts>,
    quotas: ListingQuotas,
}

impl FileService {
    /// Makes the service for the files of this store.
    pub fn new(store: Arc<dyn Store>, counts: Arc<dyn SwarmCounts>, quotas: ListingQuotas) -> Self {
        Self { gate: Gate::new(Arc::clone(&store)), store, counts, quotas }
    }

    /// Proves that the caller is a member, and returns the file that it asks for.
    async fn admit<T>(
        &self,
        request: &Request<T>,
        group: &str,
        asked: Asked<'_>,
    ) -> Result<(Membership, Option<FileRow>), TrackerError> {
        let (_, admission) = self.gate.admit(request, &convert::group_id(group)?, asked).await?;
        Ok(admission?)
    }

    async fn publish(
        &self,
        request: Request<Streaming<pb::PublishFileRequest>>,
    ) -> Result<Published, TrackerError> {
        let (caller, origin) = (caller(&request)?, origin(&request)?);
        let mut frames = Frames { stream: request.into_inner(), deadline: Instant::now() + ROW, row: 0 };
        let Some(publish_file_request::Frame::Start(start)) = frames.next().await? else {
            return Err(TrackerError::Invalid("the first frame must be `start`"));
        };
        let group = convert::group_id(&start.group_id)?;
        let member: Membership = self.gate.enter(&caller, &group).await?;
        let header = start.header.ok_or(TrackerError::Invalid("header is missing"))?;
        let header = FileHeader::try_from(header)?;
        let if_taken = if start.replace { IfTaken::Replace } else { IfTaken::Refuse };
        match self.store.file_by_folded_name(&member, &header.name).await? {
            Some(there) if there.header == header => {
                let published = confirm(frames, &there).await?;
                // A client that lost the answer repeats the call: it published the file itself.
                let object = about_file(&group, &header.name);
                let already = !was_done(&*self.store, &[Action::PublishFile], &object, &origin).await?;
                Ok(Published { already, ..published })
            }
            // The file there may have a name of an earlier rule.
            Some(there) if there.header.name == header.name => {
                if if_taken == IfTaken::Refuse {
                    return Err(Refusal::FileTaken.into());
                }
                // The store checks it again. Here it saves sending a long manifest in vain.
                access::may_unlist(&member, &there.publisher)?;
                self.list(frames, &member, &header, if_taken, &origin).await
            }
            there => {
                convert::new_file_name(header.name.as_str())?;
                match there {
                    Some(_) => Err(Refusal::FileTaken.into()),
                    None => self.list(frames, &member, &header, if_taken, &origin).await,
                }
            }
        }
    }

    /// Stages the manifest run by run, and binds it at the end.
    async fn list(
        &self,
        mut frames: Frames,
        member: &Membership,
        header: &FileHeader,
        if_taken: IfTaken,
        origin: &Origin,
    ) -> Result<Published, TrackerError> {
        let manifest = self.store.stage_manifest(member, header.layout.count(), origin.at).await?;
        let mut staged = Staged { store: &*self.store, manifest: Some(manifest) };
        let published = async {
            let hashes = self.stage(&mut frames, header, manifest).await?;
            let file = Publication { header, hashes, manifest, if_taken, quotas: &self.quotas };
            Ok(self.store.publish(member, file, origin).await?)
        };
        let published = published.await;
        let is_bound = matches!(published, Ok(Published { already: false, .. }));
        // This comes before the response, so that the quota is free when a client retries at once.
        if is_bound || self.store.give_up_manifest(manifest).await.is_ok() {
            staged.manifest = None;
        }
        published
    }

    /// Stages all runs of hashes, and returns their digest.
    async fn stage(
        &self,
        frames: &mut Frames,
        header: &FileHeader,
        manifest: ManifestId,
    ) -> Result<[u8; 32], TrackerError> {
        let (mut hashes, mut row) = (Hashes::new(header), Row::default());
        while let Some(run) = frames.run().await? {
            hashes.take(&run)?;
            if let Some(full) = row.take(&run) {
                self.store.stage_run(manifest, &full).await?;
            }
        }
        if let Some(rest) = row.rest() {
            self.store.stage_run(manifest, &rest).await?;
        }
        hashes.finish()
    }
}

/// Handles a publication of a file that is already listed. Checks that its manifest is identical, and stores
/// nothing.
async fn confirm(mut frames: Frames, there: &FileRow) -> Result<Published, TrackerError> {
    let mut hashes = Hashes::new(&there.header);
    while let Some(run) = frames.run().await? {
        hashes.take(&run)?;
    }
    if hashes.finish()? != there.hashes {
        return Err(Refusal::FileTaken.into());
    }
    Ok(Published { file: there.id, already: true, replaced: false })
}

/// The frames of a publication, with their time limits.
struct Frames {
    stream: Streaming<pb::PublishFileRequest>,
    /// The end of the current [`ROW`]. A publication may last as long as it makes progress.
    deadline: Instant,
    /// Pieces received since the deadline was set.
    row: usize,
}

impl Frames {
    async fn next(&mut self) -> Result<Option<publish_file_request::Frame>, TrackerError> {
        let deadline = self.deadline.min(Instant::now() + IDLE);
        match timeout_at(deadline, self.stream.message()).await {
            Err(_) => Err(TrackerError::TooSlow(
                "the manifest arrived too slowly; each frame may take 10 s, and each 4,096 pieces 60 s",
            )),
            Ok(Err(status)) => Err(TrackerError::Unreadable(status)),
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(frame))) => match frame.frame {
                Some(frame) => Ok(Some(frame)),
                None => Err(TrackerError::Invalid("a frame must contain `start` or `pieces`")),
            },
        }
    }

    async fn run(&mut self) -> Result<Option<pb::PieceHashes>, TrackerError> {
        match self.next().await? {
            None => Ok(None),
            Some(publish_file_request::Frame::Pieces(run)) => {
                self.row += run.sha1.len() / Sha1::LENGTH;
                if self.row >= MANIFEST_FRAME_PIECES {
                    (self.row, self.deadline) = (0, Instant::now() + ROW);
                }
                Ok(Some(run))
            }
            Some(publish_file_request::Frame::Start(_)) => {
                Err(TrackerError::Invalid("`start` may be sent only once"))
            }
        }
    }
}

/// Checks the received hashes, and digests them.
struct Hashes {
    check: ManifestCheck,
    digest: blake3::Hasher,
}

impl Hashes {
    fn new(header: &FileHeader) -> Self {
        Self { check: ManifestCheck::new(header), digest: blake3::Hasher::new() }
    }

    fn take(&mut self, run: &pb::PieceHashes) -> Result<(), TrackerError> {
        let hashes = convert::piece_hashes(run)?;
        self.check.push(run.first_piece, &hashes)?;
        for hash in &hashes {
            self.digest.update(hash.sha1.as_bytes()).update(hash.blake3.as_bytes());
        }
        Ok(())
    }

    fn finish(self) -> Result<[u8; 32], TrackerError> {
        self.check.finish()?;
        Ok(self.digest.finalize().into())
    }
}

/// Collects hashes into rows of equal size, whatever the size of the frames. So a client that sends one piece
/// per frame does not fill the store with tiny rows.
#[derive(Default)]
struct Row(HashRun);

impl Row {
    /// Adds a checked run. Returns the row that it completed, if any. A frame is never longer than a row.
    fn take(&mut self, run: &pb::PieceHashes) -> Option<HashRun> {
        let HashRun { first, sha1, blake3 } = &mut self.0;
        sha1.extend_from_slice(&run.sha1);
        blake3.extend_from_slice(&run.blake3);
        if sha1.len() < MANIFEST_FRAME_PIECES * Sha1::LENGTH {
            return None;
        }
        let later = HashRun {
            first: *first + MANIFEST_FRAME_PIECES as u32,
            sha1: sha1.split_off(MANIFEST_FRAME_PIECES * Sha1::LENGTH),
            blake3: blake3.split_off(MANIFEST_FRAME_PIECES * Blake3::LENGTH),
        };
        Some(std::mem::replace(&mut self.0, later))
    }

    fn rest(self) -> Option<HashRun> {
        (!self.0.sha1.is_empty()).then_some(self.0)
    }
}

/// A staged manifest. It is given up if it is dropped before its outcome is known, for example because the
/// client has gone.
struct Staged<'s> {
    store: &'s dyn Store,
    manifest: Option<ManifestId>,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(manifest) = self.manifest {
            self.store.abandon_manifest(manifest);
        }
    }
}

/// The progress of sending a manifest.
struct ManifestStream {
    store: Arc<dyn Store>,
    file: FileRow,
    next: Option<u32>,
}

impl ManifestStream {
    /// Reads a row of hashes in a separate task, which ends soon whatever the client does. The library
    /// combines small messages, so it polls for a frame and then waits for the client before the frame is
    /// complete. A read within the stream would keep its database connection, and its place in the queue for
    /// one, during that wait.
    async fn read(&self, first: u32) -> Result<Option<HashRun>, TrackerError> {
        let (store, manifest) = (Arc::clone(&self.store), self.file.manifest);
        let read = tokio::spawn(async move { store.manifest_run(manifest, first).await });
        Ok(read.await.map_err(|error| TrackerError::Internal(error.to_string()))??)
    }

    async fn frame(&mut self) -> Result<Option<get_manifest_response::Frame>, TrackerError> {
        let Some(first) = self.next else {
            self.next = Some(0);
            let header = Some((&self.file.header).into());
            let file_id = self.file.id.as_bytes().to_vec().into();
            return Ok(Some(get_manifest_response::Frame::Start(pb::ManifestStart { file_id, header })));
        };
        if first >= self.file.header.layout.count() {
            return Ok(None);
        }
        // The file was unpublished during the transfer, and its rows are being deleted.
        let run = self.read(first).await?.ok_or(Refusal::FileNotFound)?;
        self.next = Some(first + (run.sha1.len() / Sha1::LENGTH) as u32);
        Ok(Some(get_manifest_response::Frame::Pieces(pb::PieceHashes {
            first_piece: first.into(),
            sha1: run.sha1.into(),
            blake3: run.blake3.into(),
        })))
    }
}

#[async_trait]
impl pb::file_service_server::FileService for FileService {
    async fn publish_file(
        &self,
        request: Request<Streaming<pb::PublishFileRequest>>,
    ) -> Result<Response<pb::PublishFileResponse>, Status> {
        let published = self.publish(request).await?;
        let file_id = published.file.as_bytes().to_vec().into();
        Ok(Response::new(pb::PublishFileResponse {
            file_id,
            already_published: published.already,
            replaced: published.replaced,
        }))
    }

    async fn list_files(
        &self,
        request: Request<pb::ListFilesRequest>,
    ) -> Result<Response<pb::ListFilesResponse>, Status> {
        let asked = request.get_ref();
        let (member, _) = self.admit(&request, &asked.group_id, Asked::Nothing).await?;
        let (size, after) = (page::size(asked.page_size), page::cursor::<FileName>(&asked.page_token)?);
        let rows = self.store.files(&member, after.as_ref(), size).await?;
        let next_page_token = page::next(rows.len(), size, rows.last().map(|row| &row.header.name));
        let file = |row: &FileRow| {
            let count = self.counts.count(member.group(), row.id);
            pb::File {
                file_id: row.id.as_bytes().to_vec().into(),
                header: Some((&row.header).into()),
                seeders: count.seeders,
                leechers: count.leechers,
                publisher: row.publisher.to_string(),
                since: Some(row.since.into()),
            }
        };
        Ok(Response::new(pb::ListFilesResponse { files: rows.iter().map(file).collect(), next_page_token }))
    }

    type GetManifestStream = Pin<Box<dyn Stream<Item = Result<pb::GetManifestResponse, Status>> + Send>>;

    async fn get_manifest(
        &self,
        request: Request<pb::GetManifestRequest>,
    ) -> Result<Response<Self::GetManifestStream>, Status> {
        let name = convert::file_name(&request.get_ref().name)?;
        let (_, file) = self.admit(&request, &request.get_ref().group_id, Asked::Named(&name)).await?;
        let file = file.ok_or(TrackerError::from(Refusal::FileNotFound))?;
        let sending = ManifestStream { store: Arc::clone(&self.store), file, next: None };
        // The stream ends after an error.
        let frames = stream::unfold(Some(sending), async |sending| {
            let mut sending = sending?;
            match sending.frame().await {
                Ok(None) => None,
                Ok(frame) => Some((Ok(pb::GetManifestResponse { frame }), Some(sending))),
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(Response::new(Box::pin(frames)))
    }

    async fn unpublish_file(
        &self,
        request: Request<pb::UnpublishFileRequest>,
    ) -> Result<Response<pb::UnpublishFileResponse>, Status> {
        let name = convert::file_name(&request.get_ref().name)?;
        let (caller, origin) = (caller(&request)?, origin(&request)?);
        let group = convert::group_id(&request.get_ref().group_id)?;
        let unlisted = async {
            let member: Membership = self.gate.enter(&caller, &group).await?;
            Ok(self.store.unpublish(&member, &name, &origin).await?)
        };
        let object = about_file(&group, &name);
        let actions = [Action::UnpublishFile];
        unless_done(&*self.store, &actions, &object, &origin, unlisted.await).await?;
        Ok(Response::new(pb::UnpublishFileResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use proto::domain::PieceHash;

    use super::*;

    #[test]
    fn rows_are_full_but_for_the_last_however_the_hashes_come() {
        let hash = |n: u32| PieceHash { sha1: [n as u8; 20].into(), blake3: [(n >> 8) as u8; 32].into() };
        let all: Vec<_> = (0..10_000).map(hash).collect();
        for step in [1, 7, 4_095, 4_096] {
            let mut row = Row::default();
            let mut runs: Vec<_> =
                all.chunks(step).filter_map(|part| row.take(&convert::to_piece_hashes(0, part))).collect();
            runs.extend(row.rest());
            assert_eq!(runs.iter().map(|run| run.first).collect::<Vec<_>>(), [0, 4_096, 8_192]);
            let sha1: Vec<u8> = runs.iter().flat_map(|run| run.sha1.clone()).collect();
            assert_eq!(sha1, all.iter().flat_map(|hash| *hash.sha1.as_bytes()).collect::<Vec<_>>());
            assert_eq!(
                runs.iter().map(|run| run.blake3.len() / 32).collect::<Vec<_>>(),
                [4_096, 4_096, 1_808]
            );
        }
    }
}

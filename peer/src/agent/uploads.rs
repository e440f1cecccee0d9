//! Sharing files from this peer.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use proto::{
    domain::{Blake3, FileId, FileName, GroupId},
    pb,
};
use tokio_util::sync::CancellationToken;

use super::{Agent, Login};
use crate::{
    engine::{Problem, ShareSpec},
    error::PeerError,
    hashing::{self, Hashed},
    library::Entry,
    tracker::manifests,
};

/// Told the bytes that were read so far.
pub type UploadProgress = Arc<dyn Fn(u64) + Send + Sync>;

/// A file that is published and shared.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// Its name in the group.
    pub name: FileName,
    /// Its id there.
    pub file: FileId,
    /// Bytes in it.
    pub size: u64,
    /// Its BLAKE3 root.
    pub blake3: Blake3,
    /// The group had this very content under this name before.
    pub already: bool,
}

/// A file that this peer shares, or should.
#[derive(Clone, Debug)]
pub struct ShareStatus {
    /// What it is.
    pub entry: Entry,
    /// Bytes of the pieces that are offered.
    pub done_bytes: u64,
    /// Bytes sent since the daemon started.
    pub uploaded_bytes: u64,
    /// Why it is not offered, if so.
    pub problem: Option<Problem>,
}

/// Stops what runs in a blocking thread when the caller is no longer there.
struct StopOnDrop(CancellationToken);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Agent {
    /// Hashes, publishes and shares a file in place.
    ///
    /// # Errors
    /// When it can't be read, its name is not allowed, or the tracker says no.
    pub async fn upload(
        &self,
        path: PathBuf,
        group: GroupId,
        name: FileName,
        progress: UploadProgress,
    ) -> Result<Uploaded, PeerError> {
        let login = self.login_now()?;
        login.within(self.upload_within(&login, path, group, name, progress)).await
    }

    async fn upload_within(
        &self,
        login: &Login,
        path: PathBuf,
        group: GroupId,
        name: FileName,
        progress: UploadProgress,
    ) -> Result<Uploaded, PeerError> {
        self.may_publish(&group).await?;
        let Hashed { manifest, stamp } = hash(path.clone(), name, progress).await?;
        let manifest = Arc::new(manifest);
        let published = manifests::publish(self.tracker(), &group, &manifest).await?;
        let header = manifest.header();
        let _guard = login.files.lock().await;
        let replaced = login.library.find_file(published.file);
        if let Some(unfinished) = replaced.filter(Entry::is_unfinished) {
            // The whole is here by another way: what was downloaded so far is of no use.
            if let Err(error) = self.parts.engine.stop(unfinished.file, true).await {
                tracing::debug!(%error, "the download did not run");
            }
        } else {
            self.parts.engine.unshare(published.file);
        }
        let entry = Entry {
            group: group.clone(),
            name: header.name.clone(),
            file: published.file,
            size: header.layout.length(),
            path: path.clone(),
            shared: true,
            stamp: Some(stamp),
            download: None,
        };
        let kept = login.keep(entry, &manifest).await;
        kept.map_err(|error| PeerError::Io { path: self.parts.home.directory().to_owned(), error })?;
        let spec = ShareSpec {
            group,
            file: published.file,
            manifest: Arc::clone(&manifest),
            path,
            stamp: Some(stamp),
        };
        self.parts.engine.share(spec).await?;
        login.set_problem(published.file, None);
        Ok(Uploaded {
            name: header.name.clone(),
            file: published.file,
            size: header.layout.length(),
            blake3: header.blake3,
            already: published.already,
        })
    }

    /// Asks the tracker before a long file is hashed for nothing.
    async fn may_publish(&self, group: &GroupId) -> Result<(), PeerError> {
        let request =
            pb::ListFilesRequest { group_id: group.to_string(), page_size: 1, page_token: String::new() };
        let mut files = self.tracker().files().await?;
        self.tracker().within(files.list_files(request)).await.map(|_| ())
    }

    /// Everything that this peer shares.
    ///
    /// # Errors
    /// When nobody is logged in.
    pub fn shares(&self) -> Result<Vec<ShareStatus>, PeerError> {
        let login = self.login_now()?;
        let offered = self.parts.engine.shares();
        let status = |entry: Entry| {
            let view = offered.iter().find(|share| share.file == entry.file);
            let relevant = view.is_some() || (entry.is_whole() && entry.shared);
            relevant.then(|| ShareStatus {
                done_bytes: view.map_or(0, |share| share.done_bytes),
                uploaded_bytes: view.map_or(0, |share| share.uploaded_bytes),
                problem: view.and_then(|share| share.problem.clone()).or_else(|| login.problem(entry.file)),
                entry,
            })
        };
        Ok(login.library.entries().into_iter().filter_map(status).collect())
    }

    /// Shares a file no more. It stays on disk.
    ///
    /// # Errors
    /// When it is not shared.
    pub async fn stop_share(&self, group: &GroupId, name: &FileName) -> Result<(), PeerError> {
        let login = self.login_now()?;
        let _guard = login.files.lock().await;
        let entry = login.library.find(group, name).filter(|entry| entry.is_whole() && entry.shared);
        let entry = entry.ok_or_else(|| PeerError::NotShared(group.clone(), name.clone()))?;
        self.parts.engine.unshare(entry.file);
        login.set_problem(entry.file, None);
        login.forget_share(&entry);
        Ok(())
    }

    /// Reads this peer's copy again and checks all of it. Returns its size.
    ///
    /// # Errors
    /// When there is no complete copy, or it is not what it should be.
    pub async fn verify(
        &self,
        group: &GroupId,
        name: &FileName,
        progress: UploadProgress,
    ) -> Result<(), PeerError> {
        let login = self.login_now()?;
        let entry = login.library.find(group, name).filter(Entry::is_whole);
        let entry = entry.ok_or_else(|| PeerError::NotShared(group.clone(), name.clone()))?;
        login
            .within(async {
                let told = move |bytes| {
                    progress(bytes);
                    ControlFlow::Continue(())
                };
                Ok(self.parts.engine.verify(entry.file, told).await?)
            })
            .await
    }

    /// Bytes of this peer's complete copy of a file.
    pub fn size_of(&self, group: &GroupId, name: &FileName) -> Option<u64> {
        Some(self.current()?.library.find(group, name)?.size)
    }
}

/// Hashes in a blocking thread, which stops soon after this future is dropped.
async fn hash(path: PathBuf, name: FileName, progress: UploadProgress) -> Result<Hashed, PeerError> {
    let stop = CancellationToken::new();
    let _stop = StopOnDrop(stop.clone());
    let hashing = tokio::task::spawn_blocking(move || {
        hashing::manifest_of(&path, name, &|bytes| {
            progress(bytes);
            if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    Ok(hashing.await.map_err(PeerError::internal)??)
}

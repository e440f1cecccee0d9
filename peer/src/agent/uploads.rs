//! Sharing files from this peer.

use std::{collections::HashMap, ops::ControlFlow, path::PathBuf, sync::Arc};

use proto::{
    domain::{Blake3, FileId, FileName, GroupId},
    pb,
};
use tokio_util::sync::CancellationToken;

use super::{Agent, Login};
use crate::{
    engine::{EngineError, Problem, ShareSpec},
    error::PeerError,
    hashing::{self, Hashed, folder::manifest_of_folder, scan::ScanOptions},
    library::Entry,
    storage::Original,
    tracker::{line::Line, manifests},
};

/// A callback that gets the number of bytes read so far.
pub(crate) type UploadProgress = Arc<dyn Fn(u64) + Send + Sync>;

/// A file that is published and shared.
#[derive(Clone, Debug)]
pub(crate) struct Uploaded {
    /// Its name in the group.
    pub name: FileName,
    /// Its id in the group.
    pub file: FileId,
    /// Its length in bytes.
    pub size: u64,
    /// Its BLAKE3 root.
    pub blake3: Blake3,
    /// The group already had this content under this name.
    pub already: bool,
    /// Other content had the name, and was replaced.
    pub replaced: bool,
    /// Regular files in it, if it is a folder.
    pub files: Option<u32>,
    /// Paths of a folder that can't be shared and were left out.
    pub skipped: usize,
}

/// A file that this peer shares or should share.
#[derive(Clone, Debug)]
pub(crate) struct ShareStatus {
    /// Its entry in the library.
    pub entry: Entry,
    /// Bytes of the pieces that are offered.
    pub done_bytes: u64,
    /// Bytes sent since the daemon started.
    pub uploaded_bytes: u64,
    /// The reason why it is not offered, if it is not.
    pub problem: Option<Problem>,
    /// The paths of the files of a folder that changed.
    pub wrong_files: Vec<String>,
}

/// Stops the work in a blocking thread when the caller goes away.
struct StopOnDrop(CancellationToken);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Agent {
    /// Hashes and publishes a file or a folder, and shares it from where it is. With `replace`, it takes the place of
    /// other content of that name.
    ///
    /// # Errors
    /// Fails when the file can't be read, when its name is not allowed, or when the tracker refuses.
    pub(crate) async fn upload(
        &self,
        path: PathBuf,
        group: GroupId,
        name: FileName,
        options: ScanOptions,
        replace: bool,
        progress: UploadProgress,
    ) -> Result<Uploaded, PeerError> {
        let login = self.login_now()?;
        let about = name.clone();
        let work = async {
            self.may_publish(&group).await?;
            let hashed = hash(path.clone(), name, options, progress).await?;
            self.publish(&login, path, group, hashed, replace).await
        };
        login.within(work).await.map_err(|error| error.about(&about))
    }

    async fn publish(
        &self,
        login: &Login,
        path: PathBuf,
        group: GroupId,
        hashed: Hashed,
        replace: bool,
    ) -> Result<Uploaded, PeerError> {
        let Hashed { manifest, stamp, folder, skipped } = hashed;
        let manifest = Arc::new(manifest);
        let _publishing = login.news.publishing(&group, &manifest.header().name);
        let published = manifests::publish(self.tracker(), &group, &manifest, replace).await?;
        let header = manifest.header();
        let _guard = login.files.lock().await;
        // What has the name here may be another version.
        let before = login.library.find(&group, &header.name);
        if let Some(unfinished) = before.as_ref().filter(|entry| entry.is_unfinished()) {
            // The complete file is here now, so what was downloaded so far is useless.
            if let Err(error) = self.parts.engine.stop(unfinished.file, true).await {
                tracing::debug!(%error, "the download was not running");
            }
        } else if let Some(before) = before {
            self.parts.engine.unshare(before.file);
            login.set_problem(before.file, None);
        }
        let entry = Entry {
            group: group.clone(),
            name: header.name.clone(),
            file: published.file,
            size: header.layout.length(),
            folder: folder.is_some(),
            path: path.clone(),
            shared: true,
            stamp: Some(stamp),
            outdated: false,
            only: Vec::new(),
            download: None,
        };
        let kept = login.keep(entry, &manifest).await;
        kept.map_err(|error| PeerError::Io { path: self.parts.home.directory().to_owned(), error })?;
        if let Some(folder) = &folder {
            login.keep_folder(published.file, Arc::clone(folder)).await;
        }
        let spec = ShareSpec {
            group,
            file: published.file,
            manifest: Arc::clone(&manifest),
            path,
            stamp: Some(stamp),
            folder,
            only: Vec::new(),
        };
        self.parts.engine.share(spec).await?;
        login.set_problem(published.file, None);
        Ok(Uploaded {
            name: header.name.clone(),
            file: published.file,
            size: header.layout.length(),
            blake3: header.blake3,
            already: published.already,
            replaced: published.replaced,
            files: header.folder.map(|folder| folder.files),
            skipped,
        })
    }

    /// Asks the tracker before a long file is hashed in vain.
    async fn may_publish(&self, group: &GroupId) -> Result<(), PeerError> {
        let request =
            pb::ListFilesRequest { group_id: group.to_string(), page_size: 1, page_token: String::new() };
        let ask = async |line: Line| {
            let mut files = line.files().await?;
            line.within(files.list_files(request.clone())).await
        };
        self.tracker().patiently(ask).await.map(drop)
    }

    /// Returns everything that this peer shares or should share.
    ///
    /// # Errors
    /// Fails when nobody is logged in.
    pub(crate) fn shares(&self) -> Result<Vec<ShareStatus>, PeerError> {
        let login = self.login_now()?;
        let offered: HashMap<_, _> =
            self.parts.engine.shares().into_iter().map(|share| (share.file, share)).collect();
        let status = |entry: Entry| {
            let view = offered.get(&entry.file);
            let relevant = view.is_some() || (entry.is_whole() && entry.shared);
            relevant.then(|| ShareStatus {
                done_bytes: view.map_or(0, |share| share.done_bytes),
                uploaded_bytes: view.map_or(0, |share| share.uploaded_bytes),
                wrong_files: view.map(|share| share.wrong_files.clone()).unwrap_or_default(),
                problem: view.and_then(|share| share.problem.clone()).or_else(|| login.problem(entry.file)),
                entry,
            })
        };
        Ok(login.library.entries().into_iter().filter_map(status).collect())
    }

    /// Stops sharing a file. The file stays on disk.
    ///
    /// # Errors
    /// Fails when the file is not shared.
    pub(crate) async fn stop_share(&self, group: &GroupId, name: &FileName) -> Result<(), PeerError> {
        let login = self.login_now()?;
        let _guard = login.files.lock().await;
        let entry = login.library.find(group, name).filter(|entry| entry.is_whole() && entry.shared);
        let entry = entry.ok_or_else(|| PeerError::NotShared(group.clone(), name.clone()))?;
        self.parts.engine.unshare(entry.file);
        login.set_problem(entry.file, None);
        login.forget_share(&entry);
        Ok(())
    }

    /// Reads this peer's copy again and checks all of it.
    ///
    /// # Errors
    /// Fails when there is no complete copy, or when its content is wrong.
    pub(crate) async fn verify(
        &self,
        group: &GroupId,
        name: &FileName,
        progress: UploadProgress,
    ) -> Result<(), PeerError> {
        let login = self.login_now()?;
        let entry = login.library.find(group, name);
        let entry = entry.ok_or_else(|| PeerError::NotShared(group.clone(), name.clone()))?;
        if entry.is_unfinished() {
            return Err(PeerError::Unfinished(group.clone(), name.clone()));
        }
        let told = move |bytes| {
            progress(bytes);
            ControlFlow::Continue(())
        };
        login
            .within(async {
                let damaged =
                    |damage| PeerError::Damaged { group: group.clone(), name: name.clone(), damage };
                if self.parts.engine.stamp(entry.file).is_some() {
                    let verified = self.parts.engine.verify(entry.file, told).await;
                    return verified.map_err(|error| match error {
                        EngineError::Damaged(damage) => damaged(damage),
                        error => error.into(),
                    });
                }
                // It is not shared. The copy that the library knows is read all the same.
                let manifest = login.manifest(&entry).await?;
                let folder = login.folder(&entry, &manifest).await;
                let original =
                    Original { path: entry.path.clone(), manifest, folder, only: entry.only.clone() };
                let examined = tokio::task::spawn_blocking(move || original.examine(&told));
                let damage = examined.await.map_err(PeerError::internal)??.damage;
                damage.map_or(Ok(()), |damage| Err(damaged(Box::new(damage))))
            })
            .await
    }

    /// The length of this peer's complete copy of a file, in bytes.
    pub(crate) fn size_of(&self, group: &GroupId, name: &FileName) -> Option<u64> {
        Some(self.current()?.library.find(group, name)?.size)
    }
}

/// Hashes in a blocking thread, which stops soon after this future is dropped.
async fn hash(
    path: PathBuf,
    name: FileName,
    options: ScanOptions,
    progress: UploadProgress,
) -> Result<Hashed, PeerError> {
    let stop = CancellationToken::new();
    let _stop = StopOnDrop(stop.clone());
    let hashing = tokio::task::spawn_blocking(move || {
        let told = |bytes| {
            progress(bytes);
            if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        if path.is_dir() {
            manifest_of_folder(&path, &name, &options, &told).map(|(hashed, _)| hashed)
        } else {
            hashing::manifest_of(&path, name, &told)
        }
    });
    Ok(hashing.await.map_err(PeerError::internal)??)
}

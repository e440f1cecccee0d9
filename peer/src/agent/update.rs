//! Bringing a copy to the current version of its name.

use std::{io, ops::ControlFlow, path::PathBuf, sync::Arc};

use proto::domain::{Bitfield, FileId, FileName, GroupId, Manifest, folder::Folder};

use super::{Agent, Login};
use crate::{
    engine::store_error,
    error::PeerError,
    hashing::{FileStamp, HashError},
    library::{DownloadEntry, Entry, Phase},
    storage::{self, Original, Replaced, StoreError},
    tracker::manifests,
};

/// How often an update starts over because the entry of its copy was changed meanwhile.
const TRIES: u32 = 5;

/// What an update would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpdatePlan {
    /// The copy is of the current version: there is nothing to do.
    pub current: bool,
    /// Bytes of the current version.
    pub size: u64,
    /// Bytes of pieces that would be fetched.
    pub fetch_bytes: u64,
    /// Bytes of pieces that would be taken from the copy.
    pub take_bytes: u64,
}

/// The copy to update, and the current version of its name.
struct Versions {
    /// The entry in the library: the copy, or an unfinished update of it.
    entry: Entry,
    /// The copy.
    copy: Entry,
    file: FileId,
    manifest: Arc<Manifest>,
}

impl Versions {
    fn is_current(&self) -> bool {
        self.copy.file == self.file
    }
}

impl Agent {
    /// Brings this peer's copy to the current version, or goes on with that. Returns false if it is current already.
    ///
    /// # Errors
    /// Fails when there is no complete copy, when something was changed in it, or with the tracker's refusal.
    pub(crate) async fn update(
        self: &Arc<Self>,
        group: &GroupId,
        name: &FileName,
        umask: u32,
    ) -> Result<bool, PeerError> {
        let login = self.login_now()?;
        let mut tries = 0;
        loop {
            tries += 1;
            let updated = login.within(self.update_within(&login, group, name, umask)).await;
            match updated.map_err(|error| error.about(name))? {
                ControlFlow::Break(begun) => return Ok(begun),
                ControlFlow::Continue(path) if tries == TRIES => {
                    return Err(PeerError::DestinationExists(path));
                }
                ControlFlow::Continue(_) => {}
            }
        }
    }

    /// As [`Self::update`]. Continues with the copy's path if its entry was changed meanwhile, as when the tracker says
    /// that there is a new version.
    async fn update_within(
        self: &Arc<Self>,
        login: &Arc<Login>,
        group: &GroupId,
        name: &FileName,
        umask: u32,
    ) -> Result<ControlFlow<bool, PathBuf>, PeerError> {
        let versions = self.versions(login, group, name).await?;
        if versions.is_current() && versions.entry.is_whole() {
            return Ok(ControlFlow::Break(false));
        }
        if versions.entry.file == versions.file {
            if !self.runs(&versions.entry) {
                self.resume_download(group, name).await?;
            }
            return Ok(ControlFlow::Break(true));
        }
        // Reading it may take long. Verbs don't wait for that.
        let checked = check(login, &versions.copy).await?;
        let Versions { entry, copy, file, manifest } = versions;
        let _guard = login.files.lock().await;
        if login.library.find(group, name).as_ref() != Some(&entry) {
            return Ok(ControlFlow::Continue(copy.path));
        }
        if entry.is_unfinished() {
            // It was an update to a version that is not the current one any more.
            if self.runs(&entry) {
                self.parts.engine.stop(entry.file, true).await?;
            } else {
                self.parts.engine.discard(entry.file, entry.path.clone()).await?;
            }
        }
        let only = copy.only.clone();
        self.replace(login, copy, checked, (file, manifest), only, umask).await?;
        Ok(ControlFlow::Break(true))
    }

    /// Adds to the part of a folder that this peer wants or has: what these patterns choose, or all without patterns.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub(super) async fn widen(
        self: &Arc<Self>,
        login: &Arc<Login>,
        entry: Entry,
        only: &[String],
        umask: u32,
    ) -> Result<(), PeerError> {
        if manifests::current(self.tracker(), &entry.group, &entry.name).await? != entry.file {
            return Err(PeerError::outdated(&entry));
        }
        let mut all = entry.only.clone();
        all.extend(only.iter().filter(|pattern| !entry.only.contains(pattern)).cloned());
        if only.is_empty() {
            all.clear();
        }
        let checked = if entry.is_whole() { Some(check(login, &entry).await?) } else { None };
        let manifest = login.manifest(&entry).await?;
        let _guard = login.files.lock().await;
        if login.library.find_file(entry.file).as_ref() != Some(&entry) {
            return Err(PeerError::DestinationExists(entry.path));
        }
        let file = entry.file;
        if let Some(checked) = checked {
            return self.replace(login, entry, checked, (file, manifest), all, umask).await;
        }
        if self.runs(&entry) {
            self.parts.engine.stop(file, false).await?;
        }
        self.parts.engine.forget_ended(file);
        login.update(file, |entry| entry.only = all);
        self.set_phase(login, file, Phase::Active);
        let entry = login.library.find_file(file).unwrap_or(entry);
        let started = self.run_download(login, &entry, manifest).await;
        if let Err(error) = &started {
            self.set_phase(login, file, Phase::failed(error.reason(), error.to_string()));
        }
        started
    }

    /// Starts the download of another version, or of more of a folder, that takes the place of this peer's copy at the
    /// end.
    async fn replace(
        self: &Arc<Self>,
        login: &Arc<Login>,
        copy: Entry,
        (stamp, folder): (FileStamp, Option<Arc<Folder>>),
        (file, manifest): (FileId, Arc<Manifest>),
        only: Vec<String>,
        umask: u32,
    ) -> Result<(), PeerError> {
        let size = manifest.layout().length();
        self.check_room(&copy.path, if only.is_empty() { size } else { 0 })?;
        if let Some(folder) = folder {
            login.keep_folder(copy.file, folder).await;
        }
        self.parts.engine.unshare(copy.file);
        login.set_problem(copy.file, None);
        let new = Entry {
            file,
            size,
            shared: true,
            stamp: None,
            outdated: false,
            only,
            download: Some(DownloadEntry {
                sequential: false,
                verify: false,
                phase: Phase::Active,
                umask,
                exec: Vec::new(),
                begun: false,
                done_bytes: 0,
                replaces: Some(Box::new(Entry {
                    stamp: Some(stamp),
                    outdated: copy.file != file,
                    ..copy.clone()
                })),
            }),
            ..copy
        };
        self.parts.engine.forget_ended(file);
        let kept = login.keep(new.clone(), &manifest).await;
        kept.map_err(|error| PeerError::Io { path: self.parts.home.directory().to_owned(), error })?;
        let started = self.run_download(login, &new, manifest).await;
        if started.is_err() {
            self.give_up(login, &new).await;
        }
        started
    }

    /// What an update would do. Reads the copy, and changes nothing.
    ///
    /// # Errors
    /// As [`Self::update`]; also if nobody can tell what is in a folder.
    pub(crate) async fn plan_update(
        &self,
        group: &GroupId,
        name: &FileName,
    ) -> Result<UpdatePlan, PeerError> {
        let login = self.login_now()?;
        let plan = async {
            let versions = self.versions(&login, group, name).await?;
            let size = versions.manifest.layout().length();
            if versions.is_current() {
                return Ok(UpdatePlan { current: true, size, fetch_bytes: 0, take_bytes: 0 });
            }
            check(&login, &versions.copy).await?;
            let Versions { copy, file, manifest, .. } = versions;
            let folder = match manifest.header().folder {
                Some(_) => Some(self.fetch_folder(group, name, file, Arc::clone(&manifest)).await?),
                None => None,
            };
            let copy = original(&login, &copy).await?;
            let stop = login.stop.clone();
            let taken = login.tasks.spawn_blocking(move || {
                let (layout, mut bytes) = (manifest.layout(), 0);
                let all = Bitfield::full(layout);
                let found =
                    storage::find_pieces(&copy, &manifest, folder.as_deref(), &all, &mut |piece, _| {
                        bytes += u64::from(layout.piece_length(piece));
                        Ok(if stop.is_cancelled() {
                            ControlFlow::Break(())
                        } else {
                            ControlFlow::Continue(())
                        })
                    });
                found.map(|()| bytes)
            });
            let taken = taken.await.map_err(PeerError::internal)?;
            let take_bytes = taken.map_err(PeerError::internal)?;
            Ok(UpdatePlan { current: false, size, fetch_bytes: size - take_bytes, take_bytes })
        };
        login.within(plan).await.map_err(|error| error.about(name))
    }

    /// Finds the copy to update, and fetches the current manifest.
    async fn versions(&self, login: &Login, group: &GroupId, name: &FileName) -> Result<Versions, PeerError> {
        let entry = login.library.find(group, name);
        let (file, manifest) = manifests::fetch(self.tracker(), group, name).await?;
        let entry = entry.ok_or_else(|| PeerError::NoCopy(group.clone(), name.clone()))?;
        let copy = match entry.replaces() {
            Some(old) => old.clone(),
            None if entry.is_unfinished() => {
                return Err(PeerError::Unfinished(group.clone(), name.clone()));
            }
            None => entry.clone(),
        };
        if copy.folder != manifest.header().folder.is_some() {
            return Err(PeerError::OtherKind { path: copy.path, group: group.clone(), name: name.clone() });
        }
        Ok(Versions { entry, copy, file, manifest: Arc::new(manifest) })
    }
}

async fn original(login: &Login, copy: &Entry) -> Result<Original, PeerError> {
    let manifest = login.manifest(copy).await?;
    let folder = login.folder(copy, &manifest).await;
    Ok(Original { path: copy.path.clone(), manifest, folder, only: copy.only.clone() })
}

/// Checks that the copy is what this peer put there, with nothing added. Returns its stamp, and the entries of a folder.
async fn check(login: &Login, copy: &Entry) -> Result<(FileStamp, Option<Arc<Folder>>), PeerError> {
    let (original, path, stamp) = (original(login, copy).await?, copy.path.clone(), copy.stamp);
    let stop = login.stop.clone();
    let checked = login.tasks.spawn_blocking(move || {
        let go_on = |_| if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let reader = match stamp.and_then(|stamp| original.open(stamp)) {
            Some(reader) => reader,
            None => original.check(&go_on).map_err(|error| match error {
                HashError::Mismatch(path) => StoreError::Modified(path),
                error => StoreError::Io(io::Error::other(error)),
            })?,
        };
        let (folder, stamp) = (reader.folder(), reader.stamp().unwrap_or_default());
        Replaced { original: Original { folder: folder.clone(), ..original }, stamp }.check()?;
        Ok((stamp, folder))
    });
    checked.await.map_err(PeerError::internal)?.map_err(|error| store_error(&path, error).into())
}

//! Downloading files to this peer.

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::{
    domain::{FileName, GroupId, Manifest},
    reason::Reason,
};

use super::{Agent, Login};
use crate::{
    engine::{DownloadState, DownloadView, Problem},
    error::PeerError,
    hashing::{self, FileStamp},
    library::{DownloadEntry, Entry, Phase},
    storage::{self, OpenStore},
    tracker::manifests,
};

/// How a file is to be downloaded.
#[derive(Clone, Debug)]
pub struct DownloadOptions {
    /// The full path of the file to be.
    pub destination: PathBuf,
    /// Make missing parent directories.
    pub make_parents: bool,
    /// Pieces in order.
    pub sequential: bool,
    /// Read the whole again at the end.
    pub verify: bool,
}

/// A download, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct DownloadStatus {
    /// What it is.
    pub entry: Entry,
    /// Its state.
    pub view: DownloadView,
}

/// What to do about a download that is asked for.
enum Plan {
    /// Nothing: it runs, or is in place.
    Attach,
    /// Start it, taking up what is there.
    Resume(Box<Entry>),
    /// Start it from nothing.
    Fresh,
    /// The whole file is here, at another place: copy it.
    Copy(Box<Entry>),
    /// The whole file was here, and something as long is at the destination: it may be that file.
    Compare(Box<Entry>),
}

impl Agent {
    /// Starts a download, takes it up again, or finds that it runs or is complete.
    ///
    /// # Errors
    /// When the tracker says no or can't be reached, or the destination can't be used.
    pub async fn download(
        self: &Arc<Self>,
        group: &GroupId,
        name: &FileName,
        options: DownloadOptions,
    ) -> Result<(), PeerError> {
        let login = self.login_now()?;
        login.within(self.download_within(&login, group, name, options)).await
    }

    async fn download_within(
        self: &Arc<Self>,
        login: &Arc<Login>,
        group: &GroupId,
        name: &FileName,
        options: DownloadOptions,
    ) -> Result<(), PeerError> {
        match self.plan(login, group, name, &options.destination)? {
            Plan::Attach => return Ok(()),
            Plan::Compare(entry) => return compare(login, &entry, options.destination).await,
            Plan::Copy(_) | Plan::Resume(_) | Plan::Fresh => {}
        }
        // Outside the lock: a long manifest must not hold up other files.
        let (file, manifest) = manifests::fetch(self.tracker(), group, name).await?;
        let manifest = Arc::new(manifest);
        let guard = login.files.lock().await;
        let known = match self.plan(login, group, name, &options.destination)? {
            Plan::Attach => return Ok(()),
            Plan::Compare(_) => return Err(PeerError::DestinationExists(options.destination)),
            Plan::Copy(entry) if entry.file == file => {
                drop(guard);
                return copy(login, &entry, manifest, &options).await;
            }
            Plan::Copy(_) => None,
            // Published anew since: what was downloaded of the old content is of no use.
            Plan::Resume(entry) if entry.file != file => {
                self.parts.engine.discard(entry.file, entry.path.clone()).await?;
                None
            }
            Plan::Resume(entry) => Some(entry.file),
            Plan::Fresh => None,
        };
        let size = manifest.layout().length();
        if known.is_none() {
            check_room(&options.destination, size)?;
            self.parts.engine.unshare(file);
        }
        make_parent(&options)?;
        let entry = Entry {
            group: group.clone(),
            name: name.clone(),
            file,
            size,
            path: options.destination,
            shared: true,
            stamp: None,
            download: Some(DownloadEntry {
                sequential: options.sequential,
                verify: options.verify,
                phase: Phase::Active,
                done_bytes: 0,
            }),
        };
        let kept = login.keep(entry.clone(), &manifest).await;
        kept.map_err(|error| PeerError::Io { path: self.parts.home.directory().to_owned(), error })?;
        let started = self.run_download(login, &entry, manifest).await;
        if let Err(error) = &started {
            match known {
                None => login.remove(&entry),
                Some(_) => self.set_phase(login, file, Phase::failed(error.reason(), error.to_string())),
            }
        }
        started
    }

    fn plan(
        &self,
        login: &Login,
        group: &GroupId,
        name: &FileName,
        destination: &Path,
    ) -> Result<Plan, PeerError> {
        let exists = || PeerError::DestinationExists(destination.to_owned());
        let there = fs::symlink_metadata(destination);
        let Some(entry) = login.library.find(group, name) else {
            return if there.is_ok() { Err(exists()) } else { Ok(Plan::Fresh) };
        };
        let elsewhere = !is_same_place(&entry.path, destination);
        if entry.is_unfinished() {
            let (group, name, path) = (group.clone(), name.clone(), entry.path.clone());
            return match entry.phase() {
                _ if elsewhere => Err(PeerError::DownloadingElsewhere { group, name, path }),
                Some(Phase::Active) if self.runs(&entry) || self.has_completed(&entry) => {
                    self.parts.engine.look_for_room(entry.file);
                    Ok(Plan::Attach)
                }
                _ if there.is_ok() => Err(exists()),
                _ => Ok(Plan::Resume(Box::new(entry))),
            };
        }
        match there {
            Ok(found) if !elsewhere && is_intact(&entry, &found) => Ok(Plan::Attach),
            Ok(found) if found.is_file() && found.len() == entry.size => Ok(Plan::Compare(Box::new(entry))),
            Ok(_) => Err(exists()),
            // To begin anew would end sharing a copy that is whole, perhaps the only one there is.
            Err(_) if fs::metadata(&entry.path).is_ok_and(|found| is_intact(&entry, &found)) => {
                Ok(Plan::Copy(Box::new(entry)))
            }
            // The user moved or deleted it.
            Err(_) => Ok(Plan::Fresh),
        }
    }

    fn runs(&self, entry: &Entry) -> bool {
        self.parts.engine.watch(entry.file).is_some_and(|view| !view.borrow().state.is_final())
    }

    /// The engine is done; the library is about to be told.
    fn has_completed(&self, entry: &Entry) -> bool {
        self.parts.engine.watch(entry.file).is_some_and(|view| view.borrow().state == DownloadState::Complete)
    }

    /// One download, as it is now.
    ///
    /// # Errors
    /// When there is none.
    pub fn find_download(&self, group: &GroupId, name: &FileName) -> Result<DownloadStatus, PeerError> {
        let login = self.login_now()?;
        let entry = login.library.find(group, name);
        let entry = entry.ok_or_else(|| PeerError::NoDownload(group.clone(), name.clone()))?;
        Ok(self.download_status(entry))
    }

    /// All downloads, in the order in which they were begun.
    ///
    /// # Errors
    /// When nobody is logged in.
    pub fn downloads(&self) -> Result<Vec<DownloadStatus>, PeerError> {
        let entries = self.login_now()?.library.entries().into_iter();
        Ok(entries
            .filter(|entry| entry.download.is_some())
            .map(|entry| self.download_status(entry))
            .collect())
    }

    fn download_status(&self, entry: Entry) -> DownloadStatus {
        let live = self.parts.engine.watch(entry.file).map(|view| view.borrow().clone());
        let (state, problem) = match entry.phase() {
            None | Some(Phase::Complete) => (DownloadState::Complete, None),
            Some(Phase::Active) => (DownloadState::Queued, None),
            Some(Phase::Stopped) => {
                let message = "the user stopped it; `peer resume-download` takes it up again".into();
                (DownloadState::Stopped, Some(Problem { reason: Reason::Stopped, message }))
            }
            Some(Phase::Failed { reason, message }) => {
                let reason = Reason::from_text(reason).unwrap_or(Reason::Internal);
                (DownloadState::Failed, Some(Problem { reason, message: message.clone() }))
            }
        };
        // What the engine says of a running download, or of the end that the library tells of too.
        let view = live.filter(|view| state == DownloadState::Queued || view.state == state);
        let mut view = view.unwrap_or_else(|| {
            let done_bytes = match &entry.download {
                Some(download) if state != DownloadState::Complete => download.done_bytes,
                _ => entry.size,
            };
            DownloadView { state, done_bytes, ..DownloadView::queued(entry.size) }
        });
        view.problem = view.problem.or(problem);
        DownloadStatus { entry, view }
    }

    /// Stops a download, or drops what a stopped one left behind.
    ///
    /// # Errors
    /// When there is none, or it is complete.
    pub async fn stop_download(
        &self,
        group: &GroupId,
        name: &FileName,
        discard: bool,
    ) -> Result<(), PeerError> {
        let login = self.login_now()?;
        let _guard = login.files.lock().await;
        let entry = self.unfinished(&login, group, name)?;
        if self.runs(&entry) {
            self.parts.engine.stop(entry.file, discard).await.or_else(ignore_unknown)?;
        } else if discard {
            self.parts.engine.discard(entry.file, entry.path.clone()).await?;
        }
        if discard {
            login.remove(&entry);
        } else if entry.phase() == Some(&Phase::Active) {
            self.set_phase(&login, entry.file, Phase::Stopped);
        }
        Ok(())
    }

    /// Takes a stopped or failed download up again.
    ///
    /// # Errors
    /// When there is none, it is complete, or its destination can't be used.
    pub async fn resume_download(
        self: &Arc<Self>,
        group: &GroupId,
        name: &FileName,
    ) -> Result<(), PeerError> {
        let login = self.login_now()?;
        let resume = async {
            let _guard = login.files.lock().await;
            let entry = self.unfinished(&login, group, name)?;
            if self.runs(&entry) {
                self.parts.engine.look_for_room(entry.file);
                return Ok(());
            }
            // First, for the end of a short download is noted soon after.
            self.set_phase(&login, entry.file, Phase::Active);
            let started = self.run_kept_download(&login, &entry).await;
            if let Err(error) = &started {
                self.set_phase(&login, entry.file, Phase::failed(error.reason(), error.to_string()));
            }
            started
        };
        login.within(resume).await
    }

    fn unfinished(&self, login: &Login, group: &GroupId, name: &FileName) -> Result<Entry, PeerError> {
        match login.library.find(group, name) {
            Some(entry) if entry.is_unfinished() => Ok(entry),
            Some(entry) if entry.download.is_some() => {
                Err(PeerError::DownloadComplete(group.clone(), name.clone()))
            }
            _ => Err(PeerError::NoDownload(group.clone(), name.clone())),
        }
    }
}

impl Login {
    fn remove(&self, entry: &Entry) {
        if let Err(error) = self.library.remove(entry.file) {
            tracing::error!(%error, "the library can't be written");
        }
    }
}

/// What is at `destination` is the file of that entry.
async fn compare(login: &Login, entry: &Entry, destination: PathBuf) -> Result<(), PeerError> {
    let (manifest, path) = (login.manifest(entry).await?, destination.clone());
    let same = tokio::task::spawn_blocking(move || {
        hashing::verify(&path, &manifest, &|_| ControlFlow::Continue(())).is_ok()
    });
    if same.await.map_err(PeerError::internal)? {
        Ok(())
    } else {
        Err(PeerError::DestinationExists(destination))
    }
}

/// Copies the whole file from where it is. It goes on when the verb that asked for it is gone.
async fn copy(
    login: &Login,
    entry: &Entry,
    manifest: Arc<Manifest>,
    options: &DownloadOptions,
) -> Result<(), PeerError> {
    check_room(&options.destination, entry.size)?;
    make_parent(options)?;
    let (from, destination) = (entry.path.clone(), options.destination.clone());
    let place = OpenStore { file: entry.file, manifest, destination };
    let stop = login.stop.clone();
    let go_on = move |_| if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let copying = login.tasks.spawn_blocking(move || storage::copy(&from, &place, &go_on));
    let done = copying.await.map_err(PeerError::internal)?;
    done.map_err(|error| crate::engine::store_error(&options.destination, error).into())
}

/// There is room for so many bytes, and this user may write there.
fn check_room(destination: &Path, bytes: u64) -> Result<(), PeerError> {
    let directory = || destination.parent().unwrap_or(Path::new("/")).to_owned();
    let room = storage::room(destination).map_err(|error| PeerError::Io { path: directory(), error })?;
    if room < bytes { Err(PeerError::NoRoom { path: directory(), bytes, room }) } else { Ok(()) }
}

/// The same file name in the same directory, however that is spelled.
fn is_same_place(a: &Path, b: &Path) -> bool {
    let directory = |path: &Path| path.parent().and_then(|parent| fs::canonicalize(parent).ok());
    a == b || (a.file_name() == b.file_name() && directory(a).is_some_and(|dir| Some(dir) == directory(b)))
}

/// The file at the destination is the one that was put there.
fn is_intact(entry: &Entry, found: &fs::Metadata) -> bool {
    found.is_file()
        && entry.stamp.is_none_or(|stamp| stamp == FileStamp::of(found))
        && found.len() == entry.size
}

fn make_parent(options: &DownloadOptions) -> Result<(), PeerError> {
    let parent = options.destination.parent().unwrap_or(Path::new("/"));
    let io_error = |error| PeerError::Io { path: parent.to_owned(), error };
    match fs::metadata(parent) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(PeerError::DestinationExists(parent.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && options.make_parents => {
            fs::create_dir_all(parent).map_err(io_error)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(PeerError::NoParent(parent.to_owned())),
        Err(error) => Err(io_error(error)),
    }
}

fn ignore_unknown(error: crate::engine::EngineError) -> Result<(), PeerError> {
    if matches!(error, crate::engine::EngineError::Unknown) { Ok(()) } else { Err(error.into()) }
}

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
    domain::{
        download_plan::{self, Found, Known, Plan, Refused, Start},
        explain::Explanation,
    },
    engine::{CLOCK_OFF, DownloadState, DownloadView, Problem},
    error::PeerError,
    hashing::FileStamp,
    library::{DownloadEntry, Entry, Phase},
    paths::word,
    storage::{self, OpenStore, Original},
    tracker::manifests,
};

/// The options of a download.
#[derive(Clone, Debug)]
pub(crate) struct DownloadOptions {
    /// The full path that the file gets.
    pub destination: PathBuf,
    /// Create missing parent directories.
    pub make_parents: bool,
    /// Download the pieces in order.
    pub sequential: bool,
    /// Read the whole file again at the end.
    pub verify: bool,
    /// Mend the copy that is at the destination.
    pub repair: bool,
    /// Patterns of the entries of a folder to download. Empty for all.
    pub only: Vec<String>,
    /// The caller's umask.
    pub umask: u32,
    /// The program that runs when it is complete or has failed, with its arguments. Empty for none.
    pub exec: Vec<String>,
}

/// A download and its current state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DownloadStatus {
    /// Its entry in the library.
    pub entry: Entry,
    /// Its state.
    pub view: DownloadView,
    /// Why it is as fast as it is.
    pub explanation: Explanation,
}

impl Agent {
    /// Starts or resumes a download, or finds that it already runs or is complete.
    ///
    /// # Errors
    /// Fails when the tracker refuses or can't be reached, or when the destination can't be used.
    pub(crate) async fn download(
        self: &Arc<Self>,
        group: &GroupId,
        name: &FileName,
        options: DownloadOptions,
    ) -> Result<(), PeerError> {
        let login = self.login_now()?;
        let started = login.within(self.download_within(&login, group, name, options)).await;
        started.map_err(|error| error.about(name))
    }

    async fn download_within(
        self: &Arc<Self>,
        login: &Arc<Login>,
        group: &GroupId,
        name: &FileName,
        mut options: DownloadOptions,
    ) -> Result<(), PeerError> {
        let here = login.library.find(group, name);
        if let Some(entry) = here.as_ref().filter(|entry| entry.folder)
            && is_same_place(&entry.path.join(name.as_str()), &options.destination)
        {
            // The words of an earlier call: its destination is the tree now, and so a directory.
            options.destination.clone_from(&entry.path);
        }
        let here = here.filter(|entry| !entry.outdated);
        if let Some(entry) = here.filter(|entry| !entry.only.is_empty()) {
            if !is_same_place(&entry.path, &options.destination) {
                return Err(PeerError::PartElsewhere { name: name.clone(), path: entry.path });
            }
            if !entry.covers(&options.only) {
                return self.widen(login, entry, &options.only, options.umask).await;
            }
        }
        let (plan, entry) = match self.plan(login, group, name, &options) {
            // The tracker's refusal counts for more than what lies at the destination.
            Err(exists @ PeerError::DestinationExists(_)) => {
                manifests::exists(self.tracker(), group, name).await?;
                return Err(exists);
            }
            plan => plan?,
        };
        match (plan, entry) {
            (Plan::Attach, Some(entry)) if entry.outdated => {
                manifests::exists(self.tracker(), group, name).await?;
                return Err(PeerError::outdated(&entry));
            }
            (Plan::Compare, Some(entry)) if entry.outdated => {
                return Err(PeerError::DestinationExists(options.destination));
            }
            (Plan::Attach, Some(entry)) if entry.is_whole() => {
                return self.share_again(login, entry, None).await;
            }
            (Plan::Attach, _) => return Ok(()),
            (Plan::Compare, Some(entry)) => {
                manifests::exists(self.tracker(), group, name).await?;
                compare(login, &entry, options.destination.clone()).await?;
                return self.share_again(login, entry, Some(&options.destination)).await;
            }
            _ => {}
        }
        // This is done outside the lock, so that a long manifest does not delay the operations on other
        // files.
        let (file, manifest) = manifests::fetch(self.tracker(), group, name).await?;
        let manifest = Arc::new(manifest);
        if manifest.header().folder.is_none() && !options.only.is_empty() {
            return Err(PeerError::NotAFolder(name.clone()));
        }
        let guard = login.files.lock().await;
        let (plan, known) = self.plan(login, group, name, &options)?;
        let is_current = known.as_ref().is_some_and(|known| known.file == file);
        let start = download_plan::start(plan, is_current);
        let start = start.map_err(|refused| refusal(refused, known.as_ref(), &options.destination))?;
        match (start, &known) {
            (Start::Attach, _) => return Ok(()),
            (Start::Copy, Some(entry)) => {
                drop(guard);
                self.check_room(&options.destination, manifest.layout().length())?;
                copy(login, entry, manifest, &options).await?;
                return self.share_again(login, entry.clone(), Some(&options.destination)).await;
            }
            (Start::Replace, Some(entry)) => {
                self.parts.engine.discard(entry.file, entry.path.clone()).await?;
            }
            (Start::Repair, _) => {
                self.parts.engine.take_back(file, resolved(&options.destination)?).await?;
            }
            _ => {}
        }
        let (begun, done_bytes) = match &known {
            Some(Entry { download: Some(download), .. }) if start == Start::Resume => {
                (download.begun, download.done_bytes)
            }
            _ => (false, 0),
        };
        // What goes on has what was asked for then. More of it was handled above.
        let only =
            known.as_ref().filter(|_| start == Start::Resume).map_or(&options.only, |known| &known.only);
        let only = only.clone();
        let size = manifest.layout().length();
        if !matches!(start, Start::Resume | Start::Repair) {
            // How much of a folder is wanted is known once its index is here.
            let least = if options.only.is_empty() { manifest.layout().length() } else { 0 };
            self.check_room(&options.destination, least)?;
            self.parts.engine.unshare(file);
        }
        make_parent(&options)?;
        let path = resolved(&options.destination)?;
        let entry = Entry {
            group: group.clone(),
            name: name.clone(),
            file,
            size,
            folder: manifest.header().folder.is_some(),
            path,
            shared: true,
            stamp: None,
            outdated: false,
            only,
            download: Some(DownloadEntry {
                sequential: options.sequential,
                verify: options.verify,
                phase: Phase::Active,
                umask: options.umask,
                exec: options.exec,
                begun,
                done_bytes,
                replaces: None,
            }),
        };
        self.parts.engine.forget_ended(file);
        let kept = login.keep(entry.clone(), &manifest).await;
        kept.map_err(|error| PeerError::Io { path: self.parts.home.directory().to_owned(), error })?;
        let started = self.run_download(login, &entry, manifest).await;
        if let Err(error) = &started {
            match start {
                Start::Resume | Start::Repair => {
                    self.set_phase(login, file, Phase::failed(error.reason(), error.to_string()));
                }
                _ => login.remove(&entry),
            }
        }
        started
    }

    /// Gathers what is known of the file and what is at the destination, and decides about the request.
    /// Returns the file's entry in the library with the plan.
    fn plan(
        &self,
        login: &Login,
        group: &GroupId,
        name: &FileName,
        options: &DownloadOptions,
    ) -> Result<(Plan, Option<Entry>), PeerError> {
        let destination = options.destination.as_path();
        let there = fs::symlink_metadata(destination);
        let entry = login.library.find(group, name);
        let known = entry.as_ref().map(|entry| {
            let is_here = is_same_place(&entry.path, destination);
            if entry.is_unfinished() {
                let is_active = entry.phase() == Some(&Phase::Active);
                let runs = is_active && (self.runs(entry) || self.has_completed(entry));
                return Known::Unfinished { is_here, runs };
            }
            let found = if is_here { fs::symlink_metadata(destination) } else { fs::metadata(&entry.path) };
            Known::Whole { is_here, is_intact: found.is_ok_and(|found| is_intact(entry, &found)) }
        });
        let is_whole = |found: &fs::Metadata| entry.as_ref().is_some_and(|entry| has_kind_of(entry, found));
        let found = match &there {
            Err(_) => Found::Nothing,
            Ok(found) if is_whole(found) => Found::SameLength,
            Ok(_) => Found::Other,
        };
        let plan = download_plan::plan(known, found, options.repair)
            .map_err(|refused| refusal(refused, entry.as_ref(), destination))?;
        if let (Plan::Attach, Some(Known::Unfinished { .. }), Some(entry)) = (plan, known, &entry) {
            self.parts.engine.look_for_room(entry.file);
        }
        Ok((plan, entry))
    }

    /// Checks that there is room for this many bytes beside what running downloads still need, and that this
    /// user may write there.
    pub(super) fn check_room(&self, destination: &Path, bytes: u64) -> Result<(), PeerError> {
        let directory = || destination.parent().unwrap_or(Path::new("/")).to_owned();
        let room = storage::room(destination).map_err(|error| PeerError::Io { path: directory(), error })?;
        let room = room.saturating_sub(self.parts.engine.needed_at(destination));
        if room < bytes { Err(PeerError::NoRoom { path: directory(), bytes, room }) } else { Ok(()) }
    }

    /// Shares a complete file again whose sharing was stopped. `at` is where it was asked for now, if that is
    /// another place.
    async fn share_again(
        &self,
        login: &Arc<Login>,
        entry: Entry,
        at: Option<&Path>,
    ) -> Result<(), PeerError> {
        if entry.shared {
            return Ok(());
        }
        let _guard = login.files.lock().await;
        let path = at.map_or_else(|| Ok(entry.path.clone()), resolved)?;
        let stamp = entry.stamp.filter(|_| path == entry.path);
        login.update(entry.file, |entry| {
            (entry.shared, entry.stamp, entry.path) = (true, stamp, path.clone());
        });
        let file = entry.file;
        if let Some(stamp) = self.run_share(login, &Entry { shared: true, stamp, path, ..entry }).await? {
            login.update(file, |entry| entry.stamp = Some(stamp));
        }
        Ok(())
    }

    /// Returns true if the engine works on the download.
    pub(super) fn runs(&self, entry: &Entry) -> bool {
        self.parts.engine.watch(entry.file).is_some_and(|view| !view.borrow().state.is_final())
    }

    /// Returns true when the engine has completed the download and the library does not know it yet.
    fn has_completed(&self, entry: &Entry) -> bool {
        self.parts.engine.watch(entry.file).is_some_and(|view| view.borrow().state == DownloadState::Complete)
    }

    /// Returns one download and its current state.
    ///
    /// # Errors
    /// Fails when there is no such download.
    pub(crate) fn find_download(
        &self,
        group: &GroupId,
        name: &FileName,
    ) -> Result<DownloadStatus, PeerError> {
        let login = self.login_now()?;
        let entry = login.library.find(group, name);
        let entry = entry.ok_or_else(|| PeerError::NoDownload(group.clone(), name.clone()))?;
        Ok(self.download_status(&login, entry))
    }

    /// Returns all downloads, in the order in which they were started.
    ///
    /// # Errors
    /// Fails when nobody is logged in.
    pub(crate) fn downloads(&self) -> Result<Vec<DownloadStatus>, PeerError> {
        let login = self.login_now()?;
        let entries = login.library.entries_where(|entry| entry.download.is_some());
        Ok(entries.into_iter().map(|entry| self.download_on_disk(&login, entry)).collect())
    }

    /// As [`Self::download_status`], and failed if the complete file is gone or is not what it should be.
    fn download_on_disk(&self, login: &Login, entry: Entry) -> DownloadStatus {
        let mut status = self.download_status(login, entry);
        if status.view.state == DownloadState::Complete
            && let Some(problem) = self.damage(login, &status.entry)
        {
            (status.view.state, status.view.problem) = (DownloadState::Failed, Some(problem));
            status.explanation = self.explanation_of(&status.view);
        }
        status
    }

    /// The reason why the complete file at the entry's path does not count as complete, if there is one.
    fn damage(&self, login: &Login, entry: &Entry) -> Option<Problem> {
        let Entry { group, name, path, .. } = entry;
        let (group, name, shown) = (word(group), word(name), path.display());
        let place = word(shown);
        let shared = self.parts.engine.share_problem(entry.file).or_else(|| login.problem(entry.file));
        let of_the_file = [Reason::FileChanged, Reason::PathNotFound, Reason::Io, Reason::Corrupt];
        let shared = shared.filter(|problem| of_the_file.contains(&problem.reason));
        let found = fs::metadata(path);
        let (reason, message) = match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let again = format!("`peer download {group} {name} {place}` downloads it again");
                (Reason::PathNotFound, format!("the file {} no longer exists; {again}", path.display()))
            }
            Err(error) => (Reason::of_io(&error), format!("{}: {error}", path.display())),
            // The times of the file say nothing: other permissions change them too.
            Ok(found) if shared.is_some() || !has_kind_of(entry, &found) => {
                let why = shared.map_or_else(
                    || format!("{} changed after the download", path.display()),
                    |problem| problem.message,
                );
                let next = if entry.folder {
                    format!("move it and `peer download {group} {name} {place}` again")
                } else {
                    format!("`peer download {group} {name} {place} --repair` repairs it")
                };
                (Reason::FileChanged, format!("{why}; {next}"))
            }
            Ok(_) => return None,
        };
        Some(Problem { reason, message })
    }

    /// Takes the finished downloads off the list. Their files and shares stay. Returns how many there were.
    ///
    /// # Errors
    /// Fails when nobody is logged in, or when the library can't be written.
    pub(crate) async fn clear_downloads(&self) -> Result<usize, PeerError> {
        let login = self.login_now()?;
        let _guard = login.files.lock().await;
        let cleared = login.library.clear_finished();
        cleared.map_err(|error| PeerError::Io { path: self.parts.home.directory().to_owned(), error })
    }

    /// Adds what is wrong here to the cause of a stall: the clock, or the connection to the tracker.
    fn add_own_trouble(&self, view: &mut DownloadView) {
        let announce = self.announce.borrow();
        let offset = announce.clock_offset;
        let own = if offset.unsigned_abs() > CLOCK_OFF {
            format!("this clock is {offset} s off the tracker's: set it right (NTP)")
        } else if let Some(problem) = announce.problem.as_ref().filter(|_| !announce.connected) {
            format!("no news of sources: {problem}")
        } else {
            return;
        };
        if let Some(problem) = &mut view.problem {
            problem.message = format!("{}. Besides, {own}", problem.message);
        }
    }

    fn download_status(&self, login: &Login, mut entry: Entry) -> DownloadStatus {
        let live = self.parts.engine.watch(entry.file).map(|view| view.borrow().clone());
        if let Some(ended) = live.as_ref().filter(|view| view.state.is_final())
            && entry.phase() == Some(&Phase::Active)
        {
            self.note_end(login, entry.file, ended);
            entry = login.library.find_file(entry.file).unwrap_or(entry);
        }
        let (state, problem) = match entry.phase() {
            None | Some(Phase::Complete) => (DownloadState::Complete, None),
            Some(Phase::Active) => (DownloadState::Queued, None),
            Some(Phase::Stopped) => {
                let message = "the user stopped it; `peer resume-download` continues it".into();
                (DownloadState::Stopped, Some(Problem { reason: Reason::Stopped, message }))
            }
            Some(Phase::Failed { reason, message }) => {
                let reason = Reason::from_text(reason).unwrap_or(Reason::Internal);
                (DownloadState::Failed, Some(Problem { reason, message: message.clone() }))
            }
        };
        // The engine's view counts while the download runs. It also counts afterwards if it agrees with the
        // library on how the download ended.
        let view = live.filter(|view| state == DownloadState::Queued || view.state == state);
        let mut view = view.unwrap_or_else(|| {
            let done_bytes = match &entry.download {
                Some(download) if state != DownloadState::Complete => download.done_bytes,
                _ => entry.size,
            };
            // Of a part of a folder, the library knows how much there was to download.
            let is_part = state == DownloadState::Complete && !entry.only.is_empty();
            let part = entry.download.as_ref().map_or(entry.size, |download| download.done_bytes);
            let (done_bytes, size) = if is_part { (part, part) } else { (done_bytes, entry.size) };
            DownloadView { state, done_bytes, ..DownloadView::queued(size) }
        });
        view.problem = view.problem.or(problem);
        if view.state == DownloadState::Stalled {
            self.add_own_trouble(&mut view);
        }
        let explanation = self.explanation_of(&view);
        DownloadStatus { entry, view, explanation }
    }

    /// Stops a download. With `discard`, also deletes what was downloaded, even if the download was stopped
    /// before.
    ///
    /// # Errors
    /// Fails when there is no such download, or when it is complete.
    pub(crate) async fn stop_download(
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
            self.give_up(&login, &entry).await;
        } else if entry.phase() == Some(&Phase::Active) {
            self.set_phase(&login, entry.file, Phase::Stopped);
        }
        Ok(())
    }

    /// Removes a download from the library. The entry that it was to replace comes back.
    pub(super) async fn give_up(&self, login: &Login, entry: &Entry) {
        match login.library.give_back(entry.file) {
            Ok(Some(old)) if old.outdated => login.set_problem(old.file, Some(super::tasks::outdated(&old))),
            Ok(Some(old)) if old.shared => {
                if let Err(error) = self.run_share(login, &old).await {
                    let problem = Problem { reason: error.reason(), message: error.to_string() };
                    self.share_later(login, &old, problem).await;
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => login.remove(entry),
            Err(error) => tracing::error!(%error, "the library can't be written"),
        }
    }

    /// Resumes a stopped or failed download.
    ///
    /// # Errors
    /// Fails when there is no such download, when it is complete, or when its destination can't be used.
    pub(crate) async fn resume_download(
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
            // The phase is set before the start, because a short download can end soon after it.
            self.parts.engine.forget_ended(entry.file);
            self.set_phase(&login, entry.file, Phase::Active);
            let started = self.run_kept_download(&login, &entry).await.map_err(|error| match error {
                PeerError::DestinationExists(path) => PeerError::in_the_way(&entry, path),
                error => error,
            });
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

fn refusal(refused: Refused, entry: Option<&Entry>, destination: &Path) -> PeerError {
    match (refused, entry) {
        (Refused::DownloadingElsewhere, Some(entry)) => PeerError::DownloadingElsewhere {
            group: entry.group.clone(),
            name: entry.name.clone(),
            path: entry.path.clone(),
        },
        (_, Some(entry)) if entry.is_unfinished() => PeerError::in_the_way(entry, destination.to_owned()),
        _ => PeerError::DestinationExists(destination.to_owned()),
    }
}

/// Succeeds if the file at `destination` has the content of that entry.
async fn compare(login: &Login, entry: &Entry, destination: PathBuf) -> Result<(), PeerError> {
    let manifest = login.manifest(entry).await?;
    let folder = login.folder(entry, &manifest).await;
    let original = Original { path: destination.clone(), manifest, folder, only: entry.only.clone() };
    let same = tokio::task::spawn_blocking(move || original.check(&|_| ControlFlow::Continue(())).is_ok());
    if same.await.map_err(PeerError::internal)? {
        Ok(())
    } else {
        Err(PeerError::DestinationExists(destination))
    }
}

/// Copies the file from the place where it is complete. The copying continues when the caller goes away.
async fn copy(
    login: &Login,
    entry: &Entry,
    manifest: Arc<Manifest>,
    options: &DownloadOptions,
) -> Result<(), PeerError> {
    make_parent(options)?;
    let folder = login.folder(entry, &manifest).await;
    let original =
        Original { path: entry.path.clone(), manifest: manifest.clone(), folder, only: Vec::new() };
    let stamp = entry.stamp;
    let destination = resolved(&options.destination)?;
    let place = OpenStore::at(entry.file, manifest, destination)
        .map_err(|error| crate::engine::store_error(&options.destination, error))?
        .with_umask(options.umask);
    let stop = login.stop.clone();
    let go_on = move |_| if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let copying = login.tasks.spawn_blocking(move || {
        let from = match stamp.and_then(|stamp| original.open(stamp)) {
            Some(reader) => reader,
            None => original.check(&go_on).map_err(|error| io::Error::other(error.to_string()))?,
        };
        storage::copy(&*from, &place, &go_on)
    });
    let done = copying.await.map_err(PeerError::internal)?;
    done.map_err(|error| crate::engine::store_error(&options.destination, error).into())
}

/// Returns true if what was found can be the complete file or folder of the entry, as far as its length tells.
fn has_kind_of(entry: &Entry, found: &fs::Metadata) -> bool {
    match entry.folder {
        true => found.is_dir(),
        false => found.is_file() && found.len() == entry.size,
    }
}

/// Resolves the symbolic links in the directory of the path. This accepts the links that exist now. Links
/// that are added later are refused.
pub(super) fn resolved(destination: &Path) -> Result<PathBuf, PeerError> {
    let io_error = |error| PeerError::Io { path: destination.to_owned(), error };
    let (Some(parent), Some(name)) = (destination.parent(), destination.file_name()) else {
        return Err(io_error(io::ErrorKind::InvalidInput.into()));
    };
    Ok(fs::canonicalize(parent).map_err(io_error)?.join(name))
}

/// Returns true for the same file name in the same directory, however the directory is spelled.
fn is_same_place(a: &Path, b: &Path) -> bool {
    let directory = |path: &Path| path.parent().and_then(|parent| fs::canonicalize(parent).ok());
    a == b || (a.file_name() == b.file_name() && directory(a).is_some_and(|dir| Some(dir) == directory(b)))
}

/// Returns true if the file that was found is the one that this peer put there.
fn is_intact(entry: &Entry, found: &fs::Metadata) -> bool {
    let now = FileStamp::of(found);
    if entry.folder {
        // Reading the stamps of all files would take long. The share is checked all the time anyway.
        return found.is_dir() && entry.stamp.is_none_or(|stamp| stamp.is_of_same(&now));
    }
    found.is_file() && entry.stamp.is_none_or(|stamp| stamp == now) && found.len() == entry.size
}

fn make_parent(options: &DownloadOptions) -> Result<(), PeerError> {
    let parent = options.destination.parent().unwrap_or(Path::new("/"));
    let io_error = |error| PeerError::Io { path: parent.to_owned(), error };
    match fs::metadata(parent) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(PeerError::DestinationExists(parent.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && options.make_parents => {
            storage::make_directories(parent, options.umask).map_err(io_error)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(PeerError::NoParent(parent.to_owned())),
        Err(error) => Err(io_error(error)),
    }
}

fn ignore_unknown(error: crate::engine::EngineError) -> Result<(), PeerError> {
    if matches!(error, crate::engine::EngineError::Unknown) { Ok(()) } else { Err(error.into()) }
}

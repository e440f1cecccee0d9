//! What is in a folder of a group, whether this peer has it or not.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    domain::{FileHeader, FileId, FileName, GroupId, Manifest, folder::Folder},
    pb,
    reason::Reason,
};

use super::{Agent, Login};
use crate::{
    engine::{DownloadSpec, EngineError, Problem, SourceAddr},
    error::PeerError,
    tracker::{announcer, line::Line, manifests},
};

/// The time to wait until a source of an index answers.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time to wait until there is a source.
const SHORT_PATIENCE: Duration = Duration::from_secs(3);
/// The time between two questions to the tracker who has an index.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl Agent {
    /// Returns the header of a group's file, and its entries if it is a folder. The index is fetched from others if
    /// this peer does not have it.
    ///
    /// # Errors
    /// Fails with the tracker's refusal; with [`Reason::NoSource`] if nobody who has the index can be reached.
    pub(crate) async fn entries(
        &self,
        group: &GroupId,
        name: &FileName,
    ) -> Result<(FileHeader, Option<Arc<Folder>>), PeerError> {
        let login = self.login_now()?;
        let work = async {
            let (file, header) = manifests::named(self.tracker(), group, name).await?;
            if header.folder.is_none() {
                return Ok((header, None));
            }
            if let Some(folder) = self.folder_here(&login, file).await {
                return Ok((header, Some(folder)));
            }
            let (file, manifest) = manifests::fetch(self.tracker(), group, name).await?;
            let header = manifest.header().clone();
            let folder = self.fetch_folder(group, name, file, Arc::new(manifest)).await?;
            Ok((header, Some(folder)))
        };
        login.within(work).await.map_err(|error| error.about(name))
    }

    /// The entries of a folder, if this peer knows them.
    async fn folder_here(&self, login: &Login, file: FileId) -> Option<Arc<Folder>> {
        if let Some(folder) = self.parts.engine.folder(file) {
            return Some(folder);
        }
        let entry = login.library.find_file(file)?;
        let manifest = login.manifest(&entry).await.ok()?;
        login.folder(&entry, &manifest).await
    }

    /// Fetches the entries of a folder from others.
    pub(super) async fn fetch_folder(
        &self,
        group: &GroupId,
        name: &FileName,
        file: FileId,
        manifest: Arc<Manifest>,
    ) -> Result<Arc<Folder>, PeerError> {
        // Who has just published it may not have announced it yet.
        let began = Instant::now();
        let sources = loop {
            let sources = self.sources_of(group, name, file).await?;
            if !sources.is_empty() {
                break sources;
            }
            if began.elapsed() >= SHORT_PATIENCE {
                let message = format!("nobody who has {name} is online");
                return Err(EngineError::NoFolder(Problem { reason: Reason::NoSource, message }).into());
            }
            tokio::time::sleep(ASK_AGAIN).await;
        };
        let spec = DownloadSpec {
            group: group.clone(),
            file,
            manifest,
            destination: PathBuf::new(),
            sequential: false,
            verify: false,
            umask: 0o077,
            begun: false,
            done_bytes: 0,
            copy: None,
            only: Vec::new(),
        };
        Ok(self.parts.engine.fetch_folder(spec, sources, PATIENCE).await?)
    }

    /// Asks the tracker who has a file. Nobody, if another file has its name.
    pub(super) async fn sources_of(
        &self,
        group: &GroupId,
        name: &FileName,
        file: FileId,
    ) -> Result<Vec<SourceAddr>, PeerError> {
        let request = pb::FindPeersRequest {
            group_id: group.to_string(),
            name: name.to_string(),
            ..Default::default()
        };
        let asked = self.tracker().ask(async |line: Line| {
            let mut swarm = line.swarm().await?;
            line.within(swarm.find_peers(request.clone())).await
        });
        let found = asked.await?;
        if found.file_id[..] != file.as_bytes()[..] {
            return Ok(Vec::new());
        }
        let found = found.read().map_err(|error| PeerError::TrackerAnswer(error.to_string()))?;
        Ok(found.into_iter().filter_map(announcer::source).collect())
    }
}

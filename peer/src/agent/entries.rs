//! What is in a folder of a group, whether this peer has it or not.

use std::{path::PathBuf, sync::Arc, time::Duration};

use proto::{
    domain::{FileHeader, FileId, FileName, GroupId, Manifest, folder::Folder},
    pb,
    reason::Reason,
};

use super::{Agent, Login};
use crate::{
    engine::{DownloadSpec, EngineError, Problem},
    error::PeerError,
    tracker::{announcer, line::Line, manifests},
};

/// The time to wait for a source of an index.
const PATIENCE: Duration = Duration::from_secs(10);

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
        let request = pb::FindPeersRequest {
            group_id: group.to_string(),
            name: name.to_string(),
            ..Default::default()
        };
        let asked = self.tracker().ask(async |line: Line| {
            let mut swarm = line.swarm().await?;
            line.within(swarm.find_peers(request.clone())).await
        });
        let found = asked.await?.read().map_err(|error| PeerError::TrackerAnswer(error.to_string()))?;
        let sources: Vec<_> = found.into_iter().filter_map(announcer::source).collect();
        if sources.is_empty() {
            let message = format!("nobody who has {name} is online");
            return Err(EngineError::NoFolder(Problem { reason: Reason::NoSource, message }).into());
        }
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
        };
        Ok(self.parts.engine.fetch_folder(spec, sources, PATIENCE).await?)
    }
}

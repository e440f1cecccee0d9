//! Gathers the evidence for [`explain`], and asks the tracker who has how much of a file.

use proto::{
    domain::{FileName, GroupId, PeerId},
    pb,
    reason::Reason,
};

use super::Agent;
use crate::{
    domain::explain::{Doing, Evidence, Explanation, Source, Stage, Trouble, explain},
    engine::{DownloadState, DownloadView, Problem, SourceState, SourceView},
    error::PeerError,
    tracker::{line::Line, manifests},
};

/// The number of peers that are asked for in one call.
const PAGE: u32 = 1_000;
/// The most pages that are fetched.
const PAGES: usize = 100;

/// A peer that shares or downloads a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePeer {
    /// What the tracker says about it.
    pub source: pb::Source,
    /// It is this peer.
    pub is_own: bool,
}

impl Agent {
    /// Says why a download is as fast as it is.
    ///
    /// # Errors
    /// Fails when there is no such download.
    pub(crate) fn explain(&self, group: &GroupId, name: &FileName) -> Result<Explanation, PeerError> {
        let status = self
            .downloads()?
            .into_iter()
            .find(|download| download.entry.group == *group && download.entry.name == *name);
        let status = status.ok_or_else(|| PeerError::NoDownload(group.clone(), name.clone()))?;
        Ok(status.explanation)
    }

    /// Why a download with this state is as fast as it is.
    pub(super) fn explanation_of(&self, view: &DownloadView) -> Explanation {
        let announce = self.announce.borrow();
        let away = announce.problem.clone().filter(|_| !announce.connected);
        let (_, limit) = self.parts.engine.set_limits(None, None);
        let local = view.local;
        explain(&Evidence {
            stage: stage(view.state),
            trouble: view.problem.as_ref().and_then(|problem| trouble(view.state, problem)),
            rate: view.rate,
            limit,
            limit_wait: local.limit_wait,
            check_wait: local.check_wait,
            hashing: local.hashing,
            writing: local.writing,
            own_cpu: local.processor,
            cpu_pressure: cpu_pressure(),
            tracker_away: away,
            clock_offset: announce.clock_offset,
            missing: view.missing,
            unheld: view.unheld,
            sources: view.sources.iter().map(source).collect(),
        })
    }

    /// All peers that share or download a file, those with most of it first, and the number of its pieces.
    ///
    /// # Errors
    /// Fails with the tracker's refusal.
    pub(crate) async fn peers_of(
        &self,
        group: &GroupId,
        name: &FileName,
    ) -> Result<(Vec<FilePeer>, u64), PeerError> {
        self.login_now()?;
        let pieces = u64::from(manifests::header(self.tracker(), group, name).await?.layout.count());
        Ok((self.everyone(group, name).await?, pieces))
    }

    /// All peers that announce a file, those with most of it first.
    pub(super) async fn everyone(
        &self,
        group: &GroupId,
        name: &FileName,
    ) -> Result<Vec<FilePeer>, PeerError> {
        let own: PeerId = self.login_now()?.key.peer();
        let mut request = pb::FindPeersRequest {
            group_id: group.to_string(),
            name: name.to_string(),
            everyone: true,
            page_size: PAGE,
            page_token: String::new(),
        };
        let mut peers = Vec::new();
        for _ in 0..PAGES {
            let ask = async |line: Line| {
                let mut swarm = line.swarm().await?;
                line.within(swarm.find_peers(request.clone())).await
            };
            let page = self.tracker().ask(ask).await?;
            let sources = page.read().map_err(|error| PeerError::TrackerAnswer(error.to_string()))?;
            peers.extend(sources.into_iter().map(|source| {
                let id = source.peer.as_ref().map(|peer| peer.peer_id.as_str());
                FilePeer { is_own: id == Some(own.to_string().as_str()), source }
            }));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let user = |peer: &FilePeer| peer.source.peer.as_ref().map(|peer| peer.username.clone());
        peers.sort_by_cached_key(|peer| (std::cmp::Reverse(peer.source.pieces), user(peer)));
        Ok(peers)
    }
}

fn stage(state: DownloadState) -> Stage {
    match state {
        DownloadState::Queued => Stage::Queued,
        DownloadState::Downloading => Stage::Running,
        DownloadState::Stalled => Stage::Stalled,
        DownloadState::Verifying => Stage::Verifying,
        DownloadState::Complete => Stage::Complete,
        DownloadState::Stopped => Stage::Stopped,
        DownloadState::Failed => Stage::Failed,
    }
}

/// The download's own problem, unless it is only what its sources show.
fn trouble(state: DownloadState, problem: &Problem) -> Option<(Trouble, String)> {
    let trouble = match problem.reason {
        Reason::DiskFull => Trouble::DiskFull,
        Reason::NotAMember => Trouble::NotAMember,
        Reason::FileNotFound => Trouble::FileGone,
        Reason::TrackerUnreachable | Reason::NotServing => Trouble::Tracker,
        _ if state == DownloadState::Failed => Trouble::Other,
        // A ticket is all that a download that has not started waits for.
        _ if state == DownloadState::Queued => Trouble::Tracker,
        _ => return None,
    };
    Some((trouble, problem.message.clone()))
}

fn source(view: &SourceView) -> Source {
    let doing = match view.state {
        SourceState::Connecting => Doing::Connecting,
        SourceState::Idle if view.wanted == 0 => Doing::NothingWanted,
        SourceState::Idle => Doing::Idle,
        SourceState::Queued => Doing::Waiting(view.place),
        SourceState::Sending => Doing::Sending,
        SourceState::Backoff => Doing::Resting,
        SourceState::Banned => Doing::Banned,
    };
    Source {
        user: view.username.to_string(),
        doing,
        rate: view.rate,
        limit: view.upload_limit,
        uploads: view.readers,
        trouble: view.cause.clone(),
        is_clock: view.is_clock,
    }
}

/// How much of the last ten seconds some program of this machine waited for a processor, in percent. `None` on a
/// machine that does not measure it.
fn cpu_pressure() -> Option<u8> {
    parse_pressure(&std::fs::read_to_string("/proc/pressure/cpu").ok()?)
}

fn parse_pressure(text: &str) -> Option<u8> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let average = some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    average.parse::<f64>().ok().map(|share| share.clamp(0.0, 100.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pressure_is_read() {
        let text = "some avg10=61.53 avg60=1.00 avg300=0.10 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(parse_pressure(text), Some(61));
        for bad in ["", "some", "some avg10=x", "full avg10=1.0"] {
            assert_eq!(parse_pressure(bad), None, "{bad}");
        }
    }
}

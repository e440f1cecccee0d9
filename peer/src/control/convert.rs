//! Conversions from the agent's types to messages.

use std::sync::Arc;

use proto::{
    convert::folder as wire,
    domain::{FileHeader, FileName, folder::Folder},
    pb,
};

use crate::{
    agent::{Check, DownloadStatus, FilePeer, Finding, LastCopy, ShareStatus},
    domain::explain::Explanation,
    engine::{DownloadState, SourceState, SourceView},
    hashing::Damage,
    paths,
    serve::receivers::Receiver,
    subscriptions::Subscription,
};

/// The most paths of files of a folder in one message.
const PATHS: usize = 1_000;
/// The most entries of a folder in one message. A long path has 4 KiB.
const ENTRIES: usize = 500;

pub(super) fn download(status: DownloadStatus) -> pb::Download {
    let DownloadStatus { entry, view, explanation } = status;
    let (reason, cause) = view
        .problem
        .map_or_else(Default::default, |problem| (problem.reason.as_str().to_owned(), problem.message));
    let (destination, destination_bytes) = paths::to_wire(&entry.path);
    pb::Download {
        group_id: entry.group.to_string(),
        name: entry.name.to_string(),
        state: download_state(view.state).into(),
        done_bytes: view.done_bytes,
        size: view.size,
        rate: view.rate,
        eta_seconds: view.eta.map(|eta| eta.as_secs()),
        sources: view.sources.into_iter().map(source).collect(),
        cause,
        reason,
        destination,
        destination_bytes,
        map: view.map.into(),
        had_source: view.had_source,
        all_banned: view.all_banned,
        verdict: explanation.verdict.code().to_owned(),
        why: explanation.summary,
        files: view.files.map(|(_, all)| all),
        taken_bytes: view.taken_bytes,
        done_files: view.files.map(|(done, _)| done),
    }
}

pub(super) fn explanation(explanation: Explanation) -> pb::ExplainResponse {
    let Explanation { verdict, summary, evidence } = explanation;
    pb::ExplainResponse { verdict: verdict.code().to_owned(), summary, evidence }
}

pub(super) fn file_peer(peer: FilePeer) -> pb::FilePeer {
    let FilePeer { source, is_own } = peer;
    let address = source.peer.unwrap_or_default();
    pb::FilePeer {
        peer_id: address.peer_id,
        username: address.username,
        token: address.token,
        pieces: source.pieces,
        load: source.load,
        own: is_own,
    }
}

/// The entries of a folder, or of a file itself, some in each message.
pub(super) fn entries(
    header: FileHeader,
    folder: Option<Arc<Folder>>,
) -> impl Iterator<Item = pb::ListEntriesResponse> + Send {
    let itself = pb::FolderEntry {
        path: header.name.to_string(),
        kind: Some(pb::folder_entry::Kind::File(pb::FolderFile {
            length: header.layout.length(),
            blake3: header.blake3.as_bytes().to_vec().into(),
            ..Default::default()
        })),
    };
    let count = folder.as_ref().map_or(1, |folder| folder.entries().len());
    let message = move |first: usize| {
        let entries = match &folder {
            None => vec![itself.clone()],
            Some(folder) => {
                folder.entries().iter().skip(first).take(ENTRIES).map(wire::entry_message).collect()
            }
        };
        pb::ListEntriesResponse {
            entries,
            files: header.folder.map(|folder| folder.files),
            size: header.layout.length(),
        }
    };
    // An empty folder has a message, too.
    (0..count.max(1)).step_by(ENTRIES).map(message)
}

fn download_state(state: DownloadState) -> pb::DownloadState {
    match state {
        DownloadState::Queued => pb::DownloadState::Queued,
        DownloadState::Downloading => pb::DownloadState::Downloading,
        DownloadState::Stalled => pb::DownloadState::Stalled,
        DownloadState::Verifying => pb::DownloadState::Verifying,
        DownloadState::Complete => pb::DownloadState::Complete,
        DownloadState::Stopped => pb::DownloadState::Stopped,
        DownloadState::Failed => pb::DownloadState::Failed,
    }
}

fn source(source: SourceView) -> pb::DownloadSource {
    let state = match source.state {
        SourceState::Connecting => pb::SourceState::Connecting,
        SourceState::Idle => pb::SourceState::Idle,
        SourceState::Queued => pb::SourceState::Queued,
        SourceState::Sending => pb::SourceState::Sending,
        SourceState::Backoff => pb::SourceState::Backoff,
        SourceState::Banned => pb::SourceState::Banned,
    };
    pb::DownloadSource {
        peer_id: source.peer.to_string(),
        username: source.username.to_string(),
        bytes: source.bytes,
        rate: source.rate,
        bad_pieces: source.bad_pieces,
        state: state.into(),
        cause: source.cause.unwrap_or_default(),
    }
}

pub(super) fn share(status: ShareStatus) -> pb::Share {
    let (path, path_bytes) = paths::to_wire(&status.entry.path);
    pb::Share {
        group_id: status.entry.group.to_string(),
        name: status.entry.name.to_string(),
        path,
        path_bytes,
        size: status.entry.size,
        done_bytes: status.done_bytes,
        uploaded_bytes: status.uploaded_bytes,
        changed_files: status.wrong_files.into_iter().take(PATHS).collect(),
        cause: status.problem.map(|problem| problem.message).unwrap_or_default(),
    }
}

pub(super) fn receiver((receiver, name): (Receiver, FileName)) -> pb::Receiver {
    let Receiver { peer, user, group, file: _, bytes, rate } = receiver;
    pb::Receiver {
        peer_id: peer.to_string(),
        username: user.to_string(),
        group_id: group.to_string(),
        name: name.to_string(),
        bytes,
        rate,
    }
}

pub(super) fn subscription(kept: Subscription) -> pb::Subscription {
    let (directory, directory_bytes) = paths::to_wire(&kept.directory);
    pb::Subscription {
        group_id: kept.group.to_string(),
        directory,
        directory_bytes,
        patterns: kept.patterns,
        update: kept.update,
        started: kept.started,
        cause: kept.problem.unwrap_or_default(),
    }
}

pub(super) fn last_copy(found: LastCopy) -> pb::LastCopy {
    let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
    pb::LastCopy {
        group_id: found.group.to_string(),
        name: found.name.to_string(),
        copies: count(found.others.copies),
        fetching: count(found.others.fetching),
    }
}

/// The ranges of bad pieces.
pub(super) fn bad_pieces(damage: &Damage) -> Vec<pb::BadPieces> {
    damage.bad.iter().map(|range| pb::BadPieces { first: *range.start(), last: *range.end() }).collect()
}

/// The paths of the bad files of a folder.
pub(super) fn bad_files(damage: &Damage) -> Vec<String> {
    damage.files.iter().take(PATHS).map(|(_, path)| path.clone()).collect()
}

pub(super) fn check(check: Check) -> pb::Check {
    let result = match check.finding {
        Finding::Good => pb::CheckResult::Ok,
        Finding::Warning => pb::CheckResult::Warning,
        Finding::Bad => pb::CheckResult::Bad,
    };
    pb::Check { name: check.name.into(), result: result.into(), message: check.message }
}

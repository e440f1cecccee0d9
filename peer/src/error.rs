//! What the daemon answers when something can't be done: one enum, one table to the wire.

use std::path::PathBuf;

use proto::{
    convert::ConvertError,
    domain::{FileName, GroupId, Username},
    reason::Reason,
};
use tonic::{Code, Status};

use crate::{engine::EngineError, hashing::HashError, units};

/// Why the daemon does not do what a verb asks.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The tracker says so; passed on as it is.
    #[error("{}", .0.message())]
    Tracker(Status),
    /// The tracker does not answer.
    #[error("the tracker at {tracker} can't be reached: {why}")]
    TrackerUnreachable {
        /// Its URL.
        tracker: String,
        /// What was tried, and what came of it.
        why: String,
    },
    /// Nobody has said yet which CA is the tracker's.
    #[error(
        "the CA of {0} is not known yet: give --ca FILE or --ca-sha256 FP, or log in at a terminal and look at it"
    )]
    AuthorityUnknown(String),
    /// The tracker's answer makes no sense.
    #[error("the tracker's answer is not usable: {0}")]
    TrackerAnswer(String),
    /// Nobody is logged in.
    #[error("nobody is logged in; `peer login USER` first")]
    NotLoggedIn,
    /// Somebody else is logged in.
    #[error("{0} is logged in here; `peer logout` first, or use another --home")]
    LoggedInAs(Username),
    /// The verb means another tracker than the daemon's.
    #[error(
        "this daemon works with {daemon}, not with {asked}; stop it with `peer daemon stop`, or use another --home"
    )]
    AnotherTracker {
        /// The daemon's.
        daemon: String,
        /// The verb's.
        asked: String,
    },
    /// A field of the request is off.
    #[error(transparent)]
    Request(#[from] ConvertError),
    /// A path is not absolute.
    #[error("{0:?} is not an absolute path")]
    RelativePath(String),
    /// The file at a path can't be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The engine refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Something else is at the destination.
    #[error("{} exists already and was left as it is; choose another destination", .0.display())]
    DestinationExists(PathBuf),
    /// The destination's directory is missing.
    #[error("{} does not exist; make it, or end the destination with a / to have it made", .0.display())]
    NoParent(PathBuf),
    /// The download goes somewhere else already.
    #[error("{name} of {group} is already being downloaded to {}; `peer stop-download {group} {name} --discard` drops that", .path.display())]
    DownloadingElsewhere {
        /// The group.
        group: GroupId,
        /// The file.
        name: FileName,
        /// Where to.
        path: PathBuf,
    },
    /// The file does not fit.
    #[error(
        "no space for {} in {}: {} can be used there; free some, or choose another destination",
        units::size(*.bytes), .path.display(), units::size(*.room)
    )]
    NoRoom {
        /// The destination's directory.
        path: PathBuf,
        /// Bytes that are needed.
        bytes: u64,
        /// Bytes that can be used.
        room: u64,
    },
    /// There is no such download.
    #[error("there is no download of {1} of {0}; `peer show-downloads` lists them")]
    NoDownload(GroupId, FileName),
    /// The download is complete.
    #[error("the download of {1} of {0} is complete; `peer stop-share` ends sharing it")]
    DownloadComplete(GroupId, FileName),
    /// This peer does not share the file.
    #[error("{1} of {0} is not shared from this peer; `peer list-shares` lists what is")]
    NotShared(GroupId, FileName),
    /// A file or directory can't be used.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A fault of ours. The text is for the log alone.
    #[error("{0}")]
    Internal(String),
}

impl PeerError {
    /// A fault of ours.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }

    /// What a failed call to the tracker means: its own answer, or that it can't be reached.
    pub fn of_call(tracker: &str, status: Status) -> Self {
        if is_transport(&status) {
            let why =
                std::error::Error::source(&status).map_or_else(|| status.message().to_owned(), innermost);
            Self::TrackerUnreachable { tracker: tracker.to_owned(), why }
        } else {
            Self::Tracker(status)
        }
    }

    /// What a channel that does not connect means.
    pub fn of_connection(tracker: &str, error: &tonic::transport::Error) -> Self {
        Self::TrackerUnreachable { tracker: tracker.to_owned(), why: innermost(error) }
    }

    /// The reason that goes with it on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Tracker(status) => Reason::of(status).unwrap_or(Reason::Internal),
            Self::TrackerUnreachable { .. } => Reason::TrackerUnreachable,
            Self::AuthorityUnknown(_) => Reason::AuthorityUnknown,
            Self::TrackerAnswer(_) => Reason::Corrupt,
            Self::NotLoggedIn => Reason::NotLoggedIn,
            Self::LoggedInAs(_) => Reason::LoggedInAsAnother,
            Self::AnotherTracker { .. } => Reason::AnotherTracker,
            Self::Request(error) => error.reason(),
            Self::RelativePath(_) => Reason::InvalidRequest,
            Self::Hash(error) => error.reason(),
            Self::Engine(error) => error.reason(),
            Self::DestinationExists(_) | Self::DownloadingElsewhere { .. } => Reason::DestinationExists,
            Self::NoRoom { .. } => Reason::DiskFull,
            Self::NoParent(_) => Reason::PathNotFound,
            Self::NoDownload(..) => Reason::DownloadNotFound,
            Self::DownloadComplete(..) => Reason::AlreadyExists,
            Self::NotShared(..) => Reason::NotShared,
            Self::Io { error, .. } => Reason::of_io(error),
            Self::Internal(_) => Reason::Internal,
        }
    }

    /// The session is over: unknown to the tracker, expired or revoked.
    pub fn is_session_over(&self) -> bool {
        matches!(self, Self::Tracker(status) if Reason::of(status) == Some(Reason::NotLoggedIn))
    }
}

impl From<PeerError> for Status {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Tracker(status) => status,
            PeerError::Internal(message) => {
                tracing::error!(%message, "unexpected");
                Reason::Internal.status("something went wrong in the daemon; its log says more")
            }
            error => error.reason().status(error.to_string()),
        }
    }
}

/// The call did not reach the tracker, or its answer did not come back: no reason of ours, and a code that the transport
/// makes up.
pub fn is_transport(status: &Status) -> bool {
    Reason::of(status).is_none()
        && matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal
        )
}

/// The innermost cause, which is the one that tells something: "connection refused" rather than "transport error".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<std::io::Error>() {
        // The TLS library's words for it are a lecture.
        Some(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => "the connection was cut".into(),
        _ => innermost.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trackers_own_answers_are_passed_on() {
        let said = Reason::NotAMember.status("not yours");
        let status = Status::from(PeerError::of_call("https://t:1", said));
        assert_eq!((status.code(), Reason::of(&status)), (Code::PermissionDenied, Some(Reason::NotAMember)));
        let serving = PeerError::of_call("https://t:1", Reason::NotServing.status("stopping"));
        assert_eq!(serving.reason(), Reason::NotServing, "it answered");
    }

    #[test]
    fn a_silent_tracker_is_unreachable() {
        for code in
            [Code::Unavailable, Code::DeadlineExceeded, Code::Unknown, Code::Cancelled, Code::Internal]
        {
            let error = PeerError::of_call("https://t:1", Status::new(code, "transport error"));
            assert_eq!(error.reason(), Reason::TrackerUnreachable);
        }
    }

    #[test]
    fn faults_of_ours_are_not_told() {
        let status = Status::from(PeerError::internal("secret detail"));
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("secret"));
    }
}

//! The errors that the daemon answers with: one enum, and one table from it to the wire.

mod reading;

use std::path::PathBuf;

use proto::{
    convert::ConvertError,
    domain::{FileName, GroupId, Username},
    reason::Reason,
};
use tonic::{Code, Status};
use transport::{ConnectError, ConnectFault};

pub(crate) use self::reading::ReadError;

use crate::{
    engine::EngineError,
    hashing::{Damage, HashError},
    library::Entry,
    page::PageError,
    paths::word,
    units,
};

/// The reason why the daemon does not do what a verb asks.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The tracker refused. Its status is passed on unchanged.
    #[error("{}", .0.message())]
    Tracker(Status),
    /// The tracker does not answer.
    #[error("the tracker at {tracker} can't be reached: {why}")]
    TrackerUnreachable {
        /// Its URL.
        tracker: String,
        /// What was tried, and how it failed.
        why: String,
    },
    /// No CA is trusted for this tracker yet.
    #[error(
        "the CA of {0} is not known yet; give --ca FILE or --ca-sha256 FP, or log in at a terminal to check its fingerprint"
    )]
    AuthorityUnknown(String),
    /// The tracker's answer is invalid.
    #[error("the tracker sent an invalid answer: {0}")]
    TrackerAnswer(String),
    /// Nobody is logged in.
    #[error("nobody is logged in; log in with `peer login USER`")]
    NotLoggedIn,
    /// The tracker does not know the token, or it is not one of a machine.
    #[error(
        "the tracker does not accept the token: it is unknown, expired or revoked, or not one of `peer create-token`"
    )]
    BadToken,
    /// A token can't end the sessions of its user.
    #[error(
        "{0} is logged in by the token {1} here, which can't end other sessions; `peer logout` ends this login"
    )]
    OfToken(Username, String),
    /// The tracker ended the session of this user.
    #[error("the session of {0} is over; `peer login {0}` goes on with its shares and downloads")]
    SessionOver(Username),
    /// Somebody else is logged in.
    #[error("{0} is logged in on this peer; log out with `peer logout` first, or use another --home")]
    LoggedInAs(Username),
    /// The verb means another tracker than the daemon's.
    #[error(
        "this daemon uses the tracker {daemon}, not {asked}; stop it with `peer daemon stop`, or use another --home"
    )]
    AnotherTracker {
        /// The daemon's tracker.
        daemon: String,
        /// The tracker that the verb means.
        asked: String,
    },
    /// A field of the request is invalid.
    #[error(transparent)]
    Request(#[from] ConvertError),
    /// A path is not absolute.
    #[error("{0:?} is not an absolute path")]
    RelativePath(PathBuf),
    /// The file at a path can't be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file can't be read from this peer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The page can't be served.
    #[error(transparent)]
    Page(#[from] PageError),
    /// Another file is at the destination.
    #[error("{} already exists and was not changed; choose another destination", .0.display())]
    DestinationExists(PathBuf),
    /// Something is at the destination of an unfinished download.
    #[error(
        "another file is at {}; move it away, then continue with `peer resume-download {} {}`",
        .path.display(), word(.group), word(.name)
    )]
    InTheWay {
        /// The group.
        group: GroupId,
        /// The file.
        name: FileName,
        /// The destination.
        path: PathBuf,
    },
    /// This peer's copy does not match the manifest.
    #[error("{damage}; {}", remedy(.group, .name, .damage))]
    Damaged {
        /// The group.
        group: GroupId,
        /// The file.
        name: FileName,
        /// What is wrong with the copy.
        damage: Box<Damage>,
    },
    /// This peer's copy is an older version of the file.
    #[error(
        "{} is an older version of {name}; `peer update {} {}` brings it to the new one",
        .path.display(), word(.group), word(.name)
    )]
    Outdated {
        /// The group.
        group: GroupId,
        /// The file.
        name: FileName,
        /// The copy.
        path: PathBuf,
    },
    /// This peer has no copy of the file to update.
    #[error("this peer has no copy of {1} of {0}; `peer download {0} {1}` fetches it")]
    NoCopy(GroupId, FileName),
    /// `--only` was given for a file.
    #[error("{0} is a file; --only chooses from a folder")]
    NotAFolder(FileName),
    /// A pattern is malformed.
    #[error("{0}")]
    Pattern(String),
    /// A part of the folder is at another place.
    #[error("a part of {name} is at {}; more of it can be downloaded to that place only", .path.display())]
    PartElsewhere {
        /// The folder.
        name: FileName,
        /// The part.
        path: PathBuf,
    },
    /// The new version is a folder and the copy is a file, or the other way round.
    #[error(
        "{} is a file and the new version is a folder, or the other way round; move it away, and `peer download {group} {name}`",
        .path.display()
    )]
    OtherKind {
        /// The copy.
        path: PathBuf,
        /// The group.
        group: GroupId,
        /// The file.
        name: FileName,
    },
    /// The destination's directory is missing.
    #[error("the directory {} does not exist; create it, or end the destination with a / to have it created", .0.display())]
    NoParent(PathBuf),
    /// The download already runs, to another destination.
    #[error("{name} of {group} is already being downloaded to {}; `peer stop-download {group} {name} --discard` ends that download", .path.display())]
    DownloadingElsewhere {
        /// The group.
        group: GroupId,
        /// The file.
        name: FileName,
        /// The destination of the running download.
        path: PathBuf,
    },
    /// There is not enough space for the file.
    #[error(
        "{} do not fit into {}, which has {} of free space beside what running downloads still need; free some space, or \
         choose another destination",
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
    #[error("this peer has no download of {1} of {0}; `peer show-downloads` lists the downloads")]
    NoDownload(GroupId, FileName),
    /// The download is complete.
    #[error("the download of {1} of {0} is complete; `peer stop-share` ends sharing it")]
    DownloadComplete(GroupId, FileName),
    /// The download is not complete.
    #[error("the download of {1} of {0} is not complete; `peer show-downloads` shows how far it is")]
    Unfinished(GroupId, FileName),
    /// This peer does not share the file.
    #[error("this peer does not share {1} of {0}; `peer list-shares` lists the shares")]
    NotShared(GroupId, FileName),
    /// There is no such subscription.
    #[error("this peer has no subscription of {0}; `peer list-subscriptions` lists them")]
    NotSubscribed(GroupId),
    /// A program can't be run after a download.
    #[error("a program to run has a name and at most 64 words of at most 4096 bytes each")]
    Exec,
    /// A file or directory can't be used.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The path of the file or directory.
        path: PathBuf,
        /// What the file system answered.
        error: std::io::Error,
    },
    /// A fault in the program. The text is for the log only.
    #[error("{0}")]
    Internal(String),
}

impl PeerError {
    /// A fault in the program.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }

    /// Converts the status of a failed call: to the tracker's own answer, or to the error that it can't be
    /// reached.
    pub fn of_call(tracker: &str, status: Status) -> Self {
        if is_transport(&status) {
            let why = std::error::Error::source(&status).map_or_else(|| status.message().to_owned(), words);
            Self::TrackerUnreachable { tracker: tracker.to_owned(), why }
        } else {
            Self::Tracker(status)
        }
    }

    /// Converts the error of a channel that does not connect.
    pub fn of_connection(tracker: &str, error: &tonic::transport::Error) -> Self {
        Self::TrackerUnreachable { tracker: tracker.to_owned(), why: words(error) }
    }

    /// Whether the tracker did not answer, or answered that it does not serve, so that another tracker of the
    /// network may.
    pub fn is_tracker_away(&self) -> bool {
        match self {
            Self::TrackerUnreachable { .. } => true,
            Self::Tracker(status) => Reason::of(status) == Some(Reason::NotServing),
            _ => false,
        }
    }

    /// Joins the errors of all trackers that were tried, of which none answers.
    pub fn no_tracker(errors: impl IntoIterator<Item = Self>) -> Self {
        let join = |first: Self, other: Self| match (first, other) {
            (
                Self::TrackerUnreachable { tracker, why },
                Self::TrackerUnreachable { tracker: other, why: also },
            ) => Self::TrackerUnreachable { tracker, why: format!("{why}; nor can {other}: {also}") },
            // The answer of a tracker that does not serve says less.
            (first @ Self::TrackerUnreachable { .. }, _) => first,
            (_, other) => other,
        };
        errors.into_iter().reduce(join).unwrap_or_else(|| Self::internal("no tracker was tried"))
    }

    /// The reason that represents the error on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Tracker(status) => Reason::of(status).unwrap_or(Reason::Internal),
            Self::TrackerUnreachable { .. } => Reason::TrackerUnreachable,
            Self::AuthorityUnknown(_) => Reason::AuthorityUnknown,
            Self::TrackerAnswer(_) => Reason::Corrupt,
            Self::BadToken => Reason::BadCredentials,
            Self::OfToken(..) => Reason::OutOfScope,
            Self::NotLoggedIn | Self::SessionOver(_) => Reason::NotLoggedIn,
            Self::LoggedInAs(_) => Reason::LoggedInAsAnother,
            Self::AnotherTracker { .. } => Reason::AnotherTracker,
            Self::Request(error) => error.reason(),
            Self::RelativePath(_) | Self::Pattern(_) | Self::Exec => Reason::InvalidRequest,
            Self::Hash(error) => error.reason(),
            Self::Engine(error) => error.reason(),
            Self::Read(error) => error.reason(),
            Self::Page(error) => error.reason(),
            Self::DestinationExists(_) | Self::DownloadingElsewhere { .. } | Self::InTheWay { .. } => {
                Reason::DestinationExists
            }
            Self::Damaged { .. } => Reason::FileChanged,
            Self::Outdated { .. } => Reason::NewVersion,
            Self::NoRoom { .. } => Reason::DiskFull,
            Self::NoParent(_) => Reason::PathNotFound,
            Self::NoCopy(..) => Reason::NotShared,
            Self::OtherKind { .. } | Self::PartElsewhere { .. } => Reason::DestinationExists,
            Self::NotAFolder(_) => Reason::InvalidRequest,
            Self::NotSubscribed(_) => Reason::NotSubscribed,
            Self::NoDownload(..) => Reason::DownloadNotFound,
            Self::DownloadComplete(..) => Reason::AlreadyExists,
            Self::NotShared(..) | Self::Unfinished(..) => Reason::NotShared,
            Self::Io { error, .. } => Reason::of_io(error),
            Self::Internal(_) => Reason::Internal,
        }
    }

    /// Names the file in the tracker's refusal of a call that exceeds a rate. The tracker does not know what the
    /// call was for.
    #[must_use]
    pub fn about(self, name: &FileName) -> Self {
        match self {
            Self::Tracker(status) if Reason::of(&status) == Some(Reason::RateLimited) => {
                let message = format!("{name}: {}", status.message());
                let after = proto::reason::retry_after(&status).unwrap_or_default();
                Self::Tracker(Reason::RateLimited.status_retry(message, after))
            }
            other => other,
        }
    }

    /// Something is in the way of an unfinished download.
    pub(crate) fn in_the_way(entry: &Entry, path: PathBuf) -> Self {
        Self::InTheWay { group: entry.group.clone(), name: entry.name.clone(), path }
    }

    /// This peer's copy is an older version.
    pub(crate) fn outdated(entry: &Entry) -> Self {
        Self::Outdated { group: entry.group.clone(), name: entry.name.clone(), path: entry.path.clone() }
    }

    /// What the tracker says if another announce stream with this peer's key took the place of this one.
    pub fn evicted_by(&self) -> Option<&str> {
        match self {
            Self::Tracker(status) if Reason::of(status) == Some(Reason::Replaced) => Some(status.message()),
            _ => None,
        }
    }

    /// Returns true if the session is over: unknown to the tracker, expired or revoked.
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
                Reason::Internal.status("an internal fault occurred in the daemon; see its log")
            }
            error => error.reason().status(error.to_string()),
        }
    }
}

/// What to do about a copy that is damaged.
fn remedy(group: &GroupId, name: &FileName, damage: &Damage) -> String {
    let (group, name, path) = (word(group), word(name), word(damage.path.display()));
    if damage.files.is_empty() {
        format!("`peer download {group} {name} {path} --repair` downloads the bad pieces again")
    } else {
        format!(
            "the other files are shared all the same; move it away, and `peer download {group} {name} {path}` again"
        )
    }
}

/// Returns true if the call did not reach the tracker, or its answer did not come back. Such a status has no
/// reason of ours, and a code that the transport makes up.
pub(crate) fn is_transport(status: &Status) -> bool {
    Reason::of(status).is_none()
        && matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal
        )
}

/// The cause in people's words, if it is known.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    match ConnectError::of(error) {
        Some(failed) if failed.fault() != ConnectFault::Other => failed.words(),
        _ => innermost(error),
    }
}

/// The innermost cause, which is the informative one: "connection refused" rather than "transport error".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<std::io::Error>() {
        // The TLS library's own message for this is too long.
        Some(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the connection was closed".into()
        }
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
    fn a_refusal_for_the_rate_names_the_file() {
        let wait = std::time::Duration::from_secs(3);
        let refused = PeerError::Tracker(Reason::RateLimited.status_retry("too many calls", wait));
        let status = Status::from(refused.about(&"movie.mp4".parse().expect("a name")));
        assert_eq!(status.message(), "movie.mp4: too many calls");
        assert_eq!(proto::reason::retry_after(&status), Some(wait));
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
    fn the_error_of_several_trackers_names_them_all() {
        let away = |port: u16, why: &str| PeerError::TrackerUnreachable {
            tracker: format!("https://t:{port}"),
            why: why.to_owned(),
        };
        let serving = PeerError::Tracker(Reason::NotServing.status("stopping"));
        assert!(serving.is_tracker_away() && away(1, "no answer").is_tracker_away());
        assert!(!PeerError::NotLoggedIn.is_tracker_away());
        let error = PeerError::no_tracker([away(1, "connection refused"), serving, away(2, "no answer")]);
        assert_eq!(
            error.to_string(),
            "the tracker at https://t:1 can't be reached: connection refused; nor can https://t:2: no answer"
        );
    }

    #[test]
    fn faults_of_ours_are_not_told() {
        let status = Status::from(PeerError::internal("secret detail"));
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("secret"));
    }
}

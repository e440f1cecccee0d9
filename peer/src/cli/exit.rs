//! The ends of verbs: one table from errors to exit codes.

use std::{fmt, io, process::ExitCode};

use proto::reason::{Reason, code_name};
use tonic::{Code, Status};

use crate::invitation::InvitationError;

/// The reason of a daemon that does not answer.
const SILENT: &str = "DAEMON_SILENT";

/// All exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// Success.
    Done = 0,
    /// Any other error.
    Other = 1,
    /// The command line, or a value in it, is wrong.
    Usage = 2,
    /// The thing that was named does not exist.
    NotFound = 3,
    /// Nobody is logged in, or the password is wrong.
    NotLoggedIn = 4,
    /// Not allowed.
    Denied = 5,
    /// It exists already, or something is in the way.
    Conflict = 6,
    /// The tracker can't be reached.
    TrackerUnreachable = 7,
    /// Nobody has the file.
    NoSource = 8,
    /// No space left.
    DiskFull = 9,
    /// There is no daemon.
    NoDaemon = 10,
    /// Data is not what it should be.
    Integrity = 11,
    /// Somebody else cancelled it.
    Cancelled = 12,
    /// A limit was exceeded: too much, or too often.
    Limited = 13,
    /// It took too long.
    TimedOut = 124,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// Returns the exit code for a reason.
    pub(super) fn of_reason(reason: Reason) -> Self {
        match reason {
            Reason::InvalidRequest
            | Reason::InvalidName
            | Reason::WeakPassword
            | Reason::InvalidManifest
            | Reason::OutOfRange => Self::Usage,
            Reason::NotLoggedIn | Reason::BadCredentials | Reason::WrongPassword => Self::NotLoggedIn,
            Reason::NoCertificate
            | Reason::TicketInvalid
            | Reason::TicketExpired
            | Reason::StaleEpoch
            | Reason::TicketMismatch
            | Reason::NotAMember
            | Reason::NotTheOwner
            | Reason::OutOfScope
            | Reason::ReadsOnly
            | Reason::NotYourPeer
            | Reason::InviteInvalid
            | Reason::RegistrationClosed
            | Reason::GroupCreationClosed
            | Reason::NotPermitted => Self::Denied,
            Reason::GroupNotFound
            | Reason::FileNotFound
            | Reason::UserNotFound
            | Reason::InviteNotFound
            | Reason::TokenNotFound
            | Reason::NotShared
            | Reason::DownloadNotFound
            | Reason::NotSubscribed
            | Reason::PathNotFound => Self::NotFound,
            Reason::AlreadyExists
            | Reason::AlreadyAsked
            | Reason::DestinationExists
            | Reason::NoSuchRequest
            | Reason::TargetNotAMember
            | Reason::TargetIsOwner
            | Reason::LoggedInAsAnother
            | Reason::AnotherTracker
            | Reason::NewVersion
            | Reason::Replaced => Self::Conflict,
            Reason::FileChanged | Reason::Corrupt => Self::Integrity,
            Reason::Stopped => Self::Cancelled,
            Reason::RateLimited | Reason::QuotaExceeded | Reason::Busy => Self::Limited,
            Reason::DiskFull => Self::DiskFull,
            Reason::TooSlow | Reason::Deadline => Self::TimedOut,
            Reason::NoSource => Self::NoSource,
            Reason::TrackerUnreachable | Reason::AuthorityUnknown | Reason::NotServing => {
                Self::TrackerUnreachable
            }
            Reason::ClockOff | Reason::Io | Reason::Internal => Self::Other,
        }
    }

    /// Returns the exit code for a status without one of our reasons.
    pub(super) fn of_code(code: Code) -> Self {
        match code {
            Code::Ok => Self::Done,
            Code::InvalidArgument | Code::OutOfRange => Self::Usage,
            Code::NotFound => Self::NotFound,
            Code::Unauthenticated => Self::NotLoggedIn,
            Code::PermissionDenied => Self::Denied,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Self::Conflict,
            Code::Unavailable => Self::TrackerUnreachable,
            Code::DataLoss => Self::Integrity,
            Code::Cancelled => Self::Cancelled,
            Code::ResourceExhausted => Self::Limited,
            Code::DeadlineExceeded => Self::TimedOut,
            Code::Unknown | Code::Internal | Code::Unimplemented => Self::Other,
        }
    }
}

/// The failure of a verb: what is printed, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The exit code.
    pub(super) exit: Exit,
    /// A gRPC status code's name, such as `NOT_FOUND`.
    pub(super) code: &'static str,
    /// A reason of the closed set, or one of the command line's own.
    pub(super) reason: String,
    /// What happened, to what, and what to do next.
    pub(super) message: String,
}

impl Failure {
    fn own(exit: Exit, code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code_name(code), reason: reason.into(), message: message.into() }
    }

    /// The command line, or a value in it, is wrong.
    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self::own(Exit::Usage, Code::InvalidArgument, "USAGE", message.to_string())
    }

    /// A failure with a reason of the closed set.
    pub(super) fn of(reason: Reason, message: impl Into<String>) -> Self {
        Self::own(Exit::of_reason(reason), reason.code(), reason.as_str(), message)
    }

    /// There is no daemon, and none may be started.
    pub(super) fn no_daemon() -> Self {
        let message = "no daemon is running for this home; `peer daemon` starts one, and so does any verb that needs it";
        Self::own(Exit::NoDaemon, Code::Unavailable, "NO_DAEMON", message)
    }

    /// There is a daemon, and it does not answer.
    pub(super) fn silent(message: impl Into<String>) -> Self {
        Self::own(Exit::NoDaemon, Code::Unavailable, SILENT, message)
    }

    /// The daemon ended, or was killed, before it answered.
    pub(super) fn daemon_ended() -> Self {
        Self::silent("the daemon ended before it answered; repeat the command to continue")
    }

    /// Returns true if there is a daemon that does not answer.
    pub(super) fn is_silence(&self) -> bool {
        self.reason == SILENT
    }

    /// A daemon can't be started.
    pub(super) fn daemon(message: impl Into<String>) -> Self {
        Self::own(Exit::Other, Code::Unavailable, "DAEMON_FAILED", message)
    }

    /// The time limit has passed.
    pub(super) fn timed_out(message: impl Into<String>) -> Self {
        Self::own(Exit::TimedOut, Code::DeadlineExceeded, "TIMED_OUT", message)
    }

    /// The user pressed Ctrl-C.
    pub(super) fn interrupted() -> Self {
        Self::own(Exit::Interrupted, Code::Cancelled, "INTERRUPTED", "interrupted")
    }

    /// Others would lose the only copy of something.
    pub(super) fn last_copy(message: impl Into<String>) -> Self {
        Self::own(Exit::Conflict, Code::FailedPrecondition, "LAST_COPY", message)
    }

    /// A local file or directory can't be used.
    pub(super) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::of(Reason::of_io(error), format!("{what}: {error}"))
    }
}

impl From<InvitationError> for Failure {
    fn from(error: InvitationError) -> Self {
        match error {
            InvitationError::NoTls(_) | InvitationError::BadName(_) => Self::usage(error),
            other => Self::of(other.reason(), other.to_string()),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match Reason::of(&status) {
            Some(reason) => {
                let again = proto::reason::retry_after(&status).map(|wait| wait.as_secs_f64().ceil());
                let next = again
                    .map(|wait| format!("try again in {wait} s"))
                    .filter(|_| !message.contains("try again"));
                let next = next.or_else(|| next_step(reason).map(str::to_owned));
                let message = next.map_or_else(|| message.clone(), |next| format!("{message}; {next}"));
                Self { code: code_name(status.code()), ..Self::of(reason, message) }
            }
            // Only the daemon is called, so a status without a reason comes from the connection to it.
            None if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => {
                Self::daemon_ended()
            }
            None => Self::own(Exit::of_code(status.code()), status.code(), "UNSPECIFIED", message),
        }
    }
}

/// The advice that goes with an answer of the tracker, which does not know the verbs. The daemon's own
/// messages already contain their advice.
fn next_step(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::GroupNotFound => Some("`peer list-groups` lists the groups"),
        Reason::NotAMember => Some("`peer join-group GROUP` requests membership"),
        Reason::NotTheOwner => Some("`peer list-members GROUP` shows the owner"),
        Reason::FileNotFound => Some("`peer list-files GROUP` lists them"),
        Reason::UserNotFound | Reason::TargetNotAMember => Some("`peer list-members GROUP` lists them"),
        Reason::InviteNotFound => Some("`peer list-invites GROUP` lists them"),
        Reason::TokenNotFound => Some("`peer list-tokens` lists them"),
        Reason::NoSuchRequest => Some("`peer list-requests GROUP` lists them"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_agree_with_their_codes_unless_they_know_better() {
        let finer = [
            (Reason::WrongPassword, Exit::NotLoggedIn),
            (Reason::NoCertificate, Exit::Denied),
            (Reason::TicketInvalid, Exit::Denied),
            (Reason::TicketExpired, Exit::Denied),
            (Reason::StaleEpoch, Exit::Denied),
            (Reason::FileChanged, Exit::Integrity),
            (Reason::DiskFull, Exit::DiskFull),
            (Reason::NoSource, Exit::NoSource),
            (Reason::ClockOff, Exit::Other),
        ];
        for &reason in Reason::ALL {
            let expected = finer.iter().find(|(finer, _)| *finer == reason).map(|(_, exit)| *exit);
            let expected = expected.unwrap_or_else(|| Exit::of_code(reason.code()));
            assert_eq!(Exit::of_reason(reason), expected, "{reason:?}");
        }
    }

    #[test]
    fn codes_have_their_numbers() {
        let table = [
            (Code::Ok, 0),
            (Code::Unknown, 1),
            (Code::Internal, 1),
            (Code::Unimplemented, 1),
            (Code::InvalidArgument, 2),
            (Code::OutOfRange, 2),
            (Code::NotFound, 3),
            (Code::Unauthenticated, 4),
            (Code::PermissionDenied, 5),
            (Code::AlreadyExists, 6),
            (Code::FailedPrecondition, 6),
            (Code::Aborted, 6),
            (Code::Unavailable, 7),
            (Code::DataLoss, 11),
            (Code::Cancelled, 12),
            (Code::ResourceExhausted, 13),
            (Code::DeadlineExceeded, 124),
        ];
        for (code, number) in table {
            assert_eq!(Exit::of_code(code) as u8, number, "{code:?}");
        }
        assert_eq!(Exit::of_reason(Reason::NoSource) as u8, 8);
        assert_eq!(Exit::of_reason(Reason::DiskFull) as u8, 9);
        assert_eq!(Failure::no_daemon().exit as u8, 10);
        assert_eq!(Failure::interrupted().exit as u8, 130);
    }

    #[test]
    fn a_status_tells_when_to_try_again() {
        let status = Reason::RateLimited
            .status_retry("too many failed logins", std::time::Duration::from_millis(1_500));
        let failure = Failure::from(status);
        assert_eq!(
            (failure.exit, failure.code, failure.reason.as_str()),
            (Exit::Limited, "RESOURCE_EXHAUSTED", "RATE_LIMITED")
        );
        assert_eq!(failure.message, "too many failed logins; try again in 2 s");
        let failure = Failure::from(Reason::GroupNotFound.status("the group does not exist"));
        assert_eq!(failure.message, "the group does not exist; `peer list-groups` lists the groups");
    }

    #[test]
    fn a_daemon_that_goes_away_is_no_missing_tracker() {
        let failure = Failure::from(Status::unavailable("broken pipe"));
        assert_eq!(failure.exit, Exit::NoDaemon);
        assert!(failure.message.contains("repeat the command"), "{}", failure.message);
    }
}

//! The closed set of error reasons: one enum, its text on the wire both ways, and how to put it into a status.

use std::{collections::HashMap, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of every `google.rpc.ErrorInfo` of ours.
pub const DOMAIN: &str = "minitorrent";

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $code:ident;)+) => {
        /// Why a call failed: finer than the status code, coarser than the message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The reason as text, as it is on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The reason of that text.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)+ _ => None }
            }

            /// The status code that always goes with it.
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)+ }
            }
        }
    };
}

reasons! {
    /// A field of the request is off.
    InvalidRequest = "INVALID_REQUEST", InvalidArgument;
    /// A name is not allowed.
    InvalidName = "INVALID_NAME", InvalidArgument;
    /// A password is too short, too long or too common.
    WeakPassword = "WEAK_PASSWORD", InvalidArgument;
    /// The frames of a manifest are off.
    InvalidManifest = "INVALID_MANIFEST", InvalidArgument;
    /// An index or a range that the file does not have.
    OutOfRange = "OUT_OF_RANGE", OutOfRange;
    /// No session token, or one that is unknown, expired or revoked.
    NotLoggedIn = "NOT_LOGGED_IN", Unauthenticated;
    /// Unknown user or wrong password.
    BadCredentials = "BAD_CREDENTIALS", Unauthenticated;
    /// The old password is wrong.
    WrongPassword = "WRONG_PASSWORD", PermissionDenied;
    /// No client certificate, or not one of this tracker's.
    NoCertificate = "NO_CERTIFICATE", Unauthenticated;
    /// Not a ticket that this tracker signed, or not yet valid.
    TicketInvalid = "TICKET_INVALID", Unauthenticated;
    /// The ticket's time is over.
    TicketExpired = "TICKET_EXPIRED", Unauthenticated;
    /// A member left the group since the ticket was signed: fetch a new one.
    StaleEpoch = "STALE_EPOCH", Unauthenticated;
    /// A good ticket, but of another peer or for another file.
    TicketMismatch = "TICKET_MISMATCH", PermissionDenied;
    /// The caller is not a member of the group.
    NotAMember = "NOT_A_MEMBER", PermissionDenied;
    /// The caller is not the group's owner.
    NotTheOwner = "NOT_THE_OWNER", PermissionDenied;
    /// The peer is another user's.
    NotYourPeer = "NOT_YOUR_PEER", PermissionDenied;
    /// The group does not exist.
    GroupNotFound = "GROUP_NOT_FOUND", NotFound;
    /// The file does not exist in the group.
    FileNotFound = "FILE_NOT_FOUND", NotFound;
    /// The user is not a member of the group.
    UserNotFound = "USER_NOT_FOUND", NotFound;
    /// The peer does not share the file, or holds none of the wanted pieces.
    NotShared = "NOT_SHARED", NotFound;
    /// There is no such download.
    DownloadNotFound = "DOWNLOAD_NOT_FOUND", NotFound;
    /// There is no such path, or it is not a regular file.
    PathNotFound = "PATH_NOT_FOUND", NotFound;
    /// The name is taken.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists;
    /// Member already, or asked already.
    AlreadyAsked = "ALREADY_ASKED", AlreadyExists;
    /// Another file is at the destination.
    DestinationExists = "DESTINATION_EXISTS", AlreadyExists;
    /// There is no such open request.
    NoSuchRequest = "NO_SUCH_REQUEST", FailedPrecondition;
    /// Not a member, so it can't be done to or by them.
    TargetNotAMember = "TARGET_NOT_A_MEMBER", FailedPrecondition;
    /// The owner can't be removed.
    TargetIsOwner = "TARGET_IS_OWNER", FailedPrecondition;
    /// Somebody else is logged in at this daemon.
    LoggedInAsAnother = "LOGGED_IN_AS_ANOTHER", FailedPrecondition;
    /// The daemon works with another tracker.
    AnotherTracker = "ANOTHER_TRACKER", FailedPrecondition;
    /// The file on disk is not what was shared.
    FileChanged = "FILE_CHANGED", FailedPrecondition;
    /// A newer request of the same peer took this one's place.
    Replaced = "REPLACED", Aborted;
    /// Stopped by the user.
    Stopped = "STOPPED", Cancelled;
    /// Too many calls; try again later.
    RateLimited = "RATE_LIMITED", ResourceExhausted;
    /// A quota is used up.
    QuotaExceeded = "QUOTA_EXCEEDED", ResourceExhausted;
    /// The server has all the work it takes; try again later.
    Busy = "BUSY", ResourceExhausted;
    /// The disk is full.
    DiskFull = "DISK_FULL", ResourceExhausted;
    /// The caller was too slow.
    TooSlow = "TOO_SLOW", DeadlineExceeded;
    /// The call took longer than its deadline.
    Deadline = "DEADLINE", DeadlineExceeded;
    /// No usable source of the file is known.
    NoSource = "NO_SOURCE", Unavailable;
    /// The tracker does not answer.
    TrackerUnreachable = "TRACKER_UNREACHABLE", Unavailable;
    /// The tracker's CA is not known to this peer, so it can't be told from another's.
    AuthorityUnknown = "AUTHORITY_UNKNOWN", Unavailable;
    /// The server is stopping, or its store is not to be had.
    NotServing = "NOT_SERVING", Unavailable;
    /// The server's clock is too far from the tracker's for it to judge tickets.
    ClockOff = "CLOCK_OFF", Unavailable;
    /// The bytes are not what the manifest says.
    Corrupt = "CORRUPT", DataLoss;
    /// This user may not read or write a file or directory of this machine.
    NotPermitted = "NOT_PERMITTED", PermissionDenied;
    /// A file can't be read or written.
    Io = "IO", Unknown;
    /// A fault of ours; the log of the server says more.
    Internal = "INTERNAL", Internal;
}

impl Reason {
    /// A status that bears this reason.
    pub fn status(self, message: impl Into<String>) -> Status {
        Status::with_error_details(
            self.code(),
            message,
            ErrorDetails::with_error_info(self.as_str(), DOMAIN, HashMap::new()),
        )
    }

    /// A status that bears this reason and says when to try again.
    pub fn status_retry(self, message: impl Into<String>, after: Duration) -> Status {
        let mut details = ErrorDetails::with_error_info(self.as_str(), DOMAIN, HashMap::new());
        details.set_retry_info(Some(after));
        Status::with_error_details(self.code(), message, details)
    }

    /// What a failure of the file system means.
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::PathNotFound,
            io::ErrorKind::AlreadyExists => Self::DestinationExists,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::NotPermitted,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io,
        }
    }

    /// The reason that a status bears, if it is one of ours.
    pub fn of(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info()?;
        (info.domain == DOMAIN).then(|| Self::from_text(&info.reason))?
    }
}

/// A status code's name as gRPC writes it, such as `NOT_FOUND`.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// How long the server asks to wait before the next try.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for &reason in Reason::ALL {
            let status = reason.status("why");
            assert_eq!(Reason::of(&status), Some(reason));
            assert_eq!(status.code(), reason.code());
            assert_eq!(Reason::from_text(reason.as_str()), Some(reason));
        }
        let wait = Duration::from_secs(3);
        assert_eq!(retry_after(&Reason::Busy.status_retry("later", wait)), Some(wait));
        assert_eq!(Reason::of(&Status::not_found("somebody else's")), None);
    }
}

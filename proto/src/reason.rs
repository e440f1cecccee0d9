//! The closed set of error reasons: one enum, its text on the wire in both directions, and its place in a
//! status.

use std::{collections::HashMap, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of every `google.rpc.ErrorInfo` that this system sends.
pub const DOMAIN: &str = "minitorrent";

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $code:ident;)+) => {
        /// Why a call failed: finer than the status code, coarser than the message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The text of the reason on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The reason with this text on the wire.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)+ _ => None }
            }

            /// The status code of this reason. It is always the same.
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)+ }
            }
        }
    };
}

reasons! {
    /// A field of the request is invalid.
    InvalidRequest = "INVALID_REQUEST", InvalidArgument;
    /// A name is not allowed.
    InvalidName = "INVALID_NAME", InvalidArgument;
    /// A password is too short, too long or too common.
    WeakPassword = "WEAK_PASSWORD", InvalidArgument;
    /// The frames of a manifest are invalid.
    InvalidManifest = "INVALID_MANIFEST", InvalidArgument;
    /// The file does not have this index or range.
    OutOfRange = "OUT_OF_RANGE", OutOfRange;
    /// No session token, or one that is unknown, expired or revoked.
    NotLoggedIn = "NOT_LOGGED_IN", Unauthenticated;
    /// Unknown user or wrong password.
    BadCredentials = "BAD_CREDENTIALS", Unauthenticated;
    /// The old password is wrong.
    WrongPassword = "WRONG_PASSWORD", PermissionDenied;
    /// No client certificate, or not one that this tracker issued.
    NoCertificate = "NO_CERTIFICATE", Unauthenticated;
    /// The ticket is not one that this tracker signed, or is not yet valid.
    TicketInvalid = "TICKET_INVALID", Unauthenticated;
    /// The ticket has expired.
    TicketExpired = "TICKET_EXPIRED", Unauthenticated;
    /// A member left the group since the ticket was signed: fetch a new one.
    StaleEpoch = "STALE_EPOCH", Unauthenticated;
    /// A valid ticket, but of another peer or for another file.
    TicketMismatch = "TICKET_MISMATCH", PermissionDenied;
    /// The caller is not a member of the group.
    NotAMember = "NOT_A_MEMBER", PermissionDenied;
    /// The caller is not the group's owner.
    NotTheOwner = "NOT_THE_OWNER", PermissionDenied;
    /// The caller is a reader of the group, and may not publish.
    ReadsOnly = "READS_ONLY", PermissionDenied;
    /// The caller's token does not allow the call.
    OutOfScope = "OUT_OF_SCOPE", PermissionDenied;
    /// The peer belongs to another user.
    NotYourPeer = "NOT_YOUR_PEER", PermissionDenied;
    /// The invitation is unknown, expired, revoked or used up.
    InviteInvalid = "INVITE_INVALID", PermissionDenied;
    /// The tracker makes no account for this caller.
    RegistrationClosed = "REGISTRATION_CLOSED", PermissionDenied;
    /// The operator did not name the caller among those who make groups.
    GroupCreationClosed = "GROUP_CREATION_CLOSED", PermissionDenied;
    /// The group has no such invitation.
    InviteNotFound = "INVITE_NOT_FOUND", NotFound;
    /// The user has no such token.
    TokenNotFound = "TOKEN_NOT_FOUND", NotFound;
    /// The group does not exist.
    GroupNotFound = "GROUP_NOT_FOUND", NotFound;
    /// The file does not exist in the group.
    FileNotFound = "FILE_NOT_FOUND", NotFound;
    /// The user is not a member of the group.
    UserNotFound = "USER_NOT_FOUND", NotFound;
    /// The peer does not share the file, or has none of the wanted pieces.
    NotShared = "NOT_SHARED", NotFound;
    /// There is no such download.
    DownloadNotFound = "DOWNLOAD_NOT_FOUND", NotFound;
    /// There is no such subscription.
    NotSubscribed = "NOT_SUBSCRIBED", NotFound;
    /// There is no such path, or it is not a regular file.
    PathNotFound = "PATH_NOT_FOUND", NotFound;
    /// The name is already in use.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists;
    /// The user is already a member, or has already asked to join.
    AlreadyAsked = "ALREADY_ASKED", AlreadyExists;
    /// Another file is at the destination.
    DestinationExists = "DESTINATION_EXISTS", AlreadyExists;
    /// There is no such open request.
    NoSuchRequest = "NO_SUCH_REQUEST", FailedPrecondition;
    /// The user that the action names is not a member.
    TargetNotAMember = "TARGET_NOT_A_MEMBER", FailedPrecondition;
    /// The action cannot remove the group's owner.
    TargetIsOwner = "TARGET_IS_OWNER", FailedPrecondition;
    /// Another user is logged in at this daemon.
    LoggedInAsAnother = "LOGGED_IN_AS_ANOTHER", FailedPrecondition;
    /// The daemon uses another tracker.
    AnotherTracker = "ANOTHER_TRACKER", FailedPrecondition;
    /// The file on disk is not what was shared.
    FileChanged = "FILE_CHANGED", FailedPrecondition;
    /// A newer request of the same peer replaced this one.
    Replaced = "REPLACED", Aborted;
    /// Another version of the file took its place in the group.
    NewVersion = "NEW_VERSION", Aborted;
    /// Stopped by the user.
    Stopped = "STOPPED", Cancelled;
    /// Too many calls; try again later.
    RateLimited = "RATE_LIMITED", ResourceExhausted;
    /// A quota is used up.
    QuotaExceeded = "QUOTA_EXCEEDED", ResourceExhausted;
    /// The server is at its limit of work; try again later.
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
    /// This peer does not know the tracker's CA, so it cannot verify that this is the right tracker.
    AuthorityUnknown = "AUTHORITY_UNKNOWN", Unavailable;
    /// The server is stopping, its store is unavailable, or it does not know a group's epoch yet.
    NotServing = "NOT_SERVING", Unavailable;
    /// The server's clock differs too much from the tracker's to judge tickets.
    ClockOff = "CLOCK_OFF", Unavailable;
    /// The bytes are not what the manifest says.
    Corrupt = "CORRUPT", DataLoss;
    /// This user may not read or write a file or directory on this machine.
    NotPermitted = "NOT_PERMITTED", PermissionDenied;
    /// A file cannot be read or written.
    Io = "IO", Unknown;
    /// A bug in the server; its log has the details.
    Internal = "INTERNAL", Internal;
}

impl Reason {
    /// A status with this reason.
    pub fn status(self, message: impl Into<String>) -> Status {
        Status::with_error_details(
            self.code(),
            message,
            ErrorDetails::with_error_info(self.as_str(), DOMAIN, HashMap::new()),
        )
    }

    /// A status with this reason and the time to wait before a retry.
    pub fn status_retry(self, message: impl Into<String>, after: Duration) -> Status {
        let mut details = ErrorDetails::with_error_info(self.as_str(), DOMAIN, HashMap::new());
        details.set_retry_info(Some(after));
        Status::with_error_details(self.code(), message, details)
    }

    /// The reason for an error of the file system.
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::PathNotFound,
            io::ErrorKind::AlreadyExists => Self::DestinationExists,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::NotPermitted,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io,
        }
    }

    /// The reason in a status, if it has one of this set.
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

/// How long the server asks the caller to wait before a retry.
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

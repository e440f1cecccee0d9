//! The errors of calls, and the one table of the statuses that callers get.

use std::time::{Duration, Instant};

use proto::{convert::ConvertError, domain::manifest::ManifestError, reason::Reason};
use tonic::{Code, Status};
use transport::LogThrottle;

use crate::{
    ca::CsrError,
    domain::{Refusal, address::AddressError, invite::InviteError, token::TokenError},
    store::StoreError,
};

/// The reason why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// A rule refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A field is invalid.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The frames of a manifest are invalid.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A message in a stream cannot be decoded. The status is the library's.
    #[error("the request can't be decoded")]
    Unreadable(Status),
    /// Something else in the request is invalid; the text says what.
    #[error("{0}")]
    Invalid(&'static str),
    /// A password is not allowed; the text says why.
    #[error("{0}")]
    WeakPassword(&'static str),
    /// The tracker is at its limit of concurrent work.
    #[error("the tracker is too busy; try again later")]
    Busy(Duration),
    /// Too many calls.
    #[error("too many calls; try again later")]
    RateLimited(Duration),
    /// The caller took too long.
    #[error("{0}")]
    TooSlow(&'static str),
    /// The tracker is stopping, or its store is unavailable.
    #[error("the tracker is not serving; try again later")]
    NotServing,
    /// The store's disk is full.
    #[error("the tracker's disk is full")]
    DiskFull,
    /// An internal fault. Its text goes into the log only; the caller is not told.
    #[error("internal fault: {0}")]
    Internal(String),
}

impl From<AddressError> for TrackerError {
    fn from(error: AddressError) -> Self {
        Self::Invalid(match error {
            AddressError::Malformed => {
                "advertise must be HOST:PORT with an IP address or a host name, at most 255 bytes"
            }
            AddressError::Port => "the port in advertise must be 1-65535",
            AddressError::Unreachable => "advertise is an address that other hosts can't reach",
            AddressError::Loopback => {
                "advertise may be a loopback address only for a peer that connects over loopback"
            }
            AddressError::TooMany => "a peer can announce at most 4 addresses",
        })
    }
}

impl From<InviteError> for TrackerError {
    fn from(error: InviteError) -> Self {
        Self::Invalid(match error {
            InviteError::Uses => "an invitation has 1 to 1,000 uses",
            InviteError::Lifetime => "an invitation lasts from 1 minute to 90 days",
        })
    }
}

impl From<TokenError> for TrackerError {
    fn from(error: TokenError) -> Self {
        Self::Invalid(match error {
            TokenError::Lifetime => "a token lasts from 1 minute to 366 days",
            TokenError::Groups => "a token is limited to at most 64 groups",
        })
    }
}

impl From<CsrError> for TrackerError {
    fn from(error: CsrError) -> Self {
        match error {
            CsrError::TooLong => Self::Invalid("csr_der is longer than 4 KiB"),
            CsrError::Malformed => Self::Invalid("csr_der is not a PKCS #10 certificate request"),
            CsrError::NotP256 => Self::Invalid("the key in csr_der is not an ECDSA P-256 key"),
            CsrError::BadSignature => Self::Invalid("csr_der is not signed by its own key"),
            CsrError::Failed => Self::Internal("a peer's certificate can't be signed".to_owned()),
        }
    }
}

impl From<StoreError> for TrackerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => Self::Refused(refusal),
            StoreError::Unavailable(why) => {
                static UNAVAILABLE: LogThrottle = LogThrottle::new();
                if let Some(times) = UNAVAILABLE.due(Instant::now()) {
                    tracing::warn!(why, times, "the store is not available");
                }
                Self::NotServing
            }
            StoreError::Full => {
                static FULL: LogThrottle = LogThrottle::new();
                if let Some(times) = FULL.due(Instant::now()) {
                    tracing::error!(times, "the store's disk is full");
                }
                Self::DiskFull
            }
            StoreError::Fault(why) => Self::Internal(why),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        TrackerError::from(error).into()
    }
}

impl From<TrackerError> for Status {
    fn from(error: TrackerError) -> Self {
        let message = error.to_string();
        match error {
            TrackerError::Refused(refusal) => refused(refusal, message),
            TrackerError::Convert(error) => error.into(),
            TrackerError::Manifest(_) => Reason::InvalidManifest.status(message),
            TrackerError::Unreadable(status) => readable(&status).unwrap_or(status),
            TrackerError::Invalid(_) => Reason::InvalidRequest.status(message),
            TrackerError::WeakPassword(_) => Reason::WeakPassword.status(message),
            TrackerError::Busy(after) => Reason::Busy.status_retry(message, after),
            TrackerError::RateLimited(after) => Reason::RateLimited.status_retry(message, after),
            TrackerError::TooSlow(_) => Reason::TooSlow.status(message),
            TrackerError::NotServing => Reason::NotServing.status(message),
            TrackerError::DiskFull => Reason::DiskFull.status(message),
            TrackerError::Internal(why) => {
                tracing::error!(why, "internal fault");
                Reason::Internal.status("internal fault; see the tracker's log")
            }
        }
    }
}

/// Replaces the library's own statuses for messages that it cannot decode. The new status has a reason, and a
/// code that names the right side: broken protobuf and frames get INVALID_ARGUMENT instead of INTERNAL.
/// Returns `None` for a status that needs no change.
pub(crate) fn readable(status: &Status) -> Option<Status> {
    if Reason::of(status).is_some() {
        return None;
    }
    match status.code() {
        Code::Internal => Some(Reason::InvalidRequest.status("the request can't be decoded")),
        Code::OutOfRange => Some(Reason::OutOfRange.status("the request is larger than the limit")),
        _ => None,
    }
}

fn refused(refusal: Refusal, message: String) -> Status {
    let reason = match refusal {
        Refusal::NotLoggedIn => Reason::NotLoggedIn,
        Refusal::BadCredentials => Reason::BadCredentials,
        Refusal::OutOfScope => Reason::OutOfScope,
        Refusal::TokenNotFound => Reason::TokenNotFound,
        Refusal::WrongPassword => Reason::WrongPassword,
        Refusal::NotAMember => Reason::NotAMember,
        Refusal::NotTheOwner | Refusal::NotAManager | Refusal::NotThePublisher => Reason::NotTheOwner,
        Refusal::ReadsOnly => Reason::ReadsOnly,
        Refusal::NotYourPeer => Reason::NotYourPeer,
        Refusal::InviteInvalid => Reason::InviteInvalid,
        Refusal::InviteNotFound => Reason::InviteNotFound,
        Refusal::RegistrationClosed | Refusal::RegistrationByInvite => Reason::RegistrationClosed,
        Refusal::GroupNotFound => Reason::GroupNotFound,
        Refusal::FileNotFound => Reason::FileNotFound,
        Refusal::UserNotFound | Refusal::MemberNotFound => Reason::UserNotFound,
        Refusal::UsernameTaken | Refusal::GroupTaken | Refusal::FileTaken | Refusal::TokenTaken => {
            Reason::AlreadyExists
        }
        Refusal::AlreadyAMember | Refusal::AlreadyAsked => Reason::AlreadyAsked,
        Refusal::NoSuchRequest => Reason::NoSuchRequest,
        Refusal::TargetNotAMember => Reason::TargetNotAMember,
        Refusal::TargetIsOwner => Reason::TargetIsOwner,
        Refusal::Quota(_) | Refusal::TooMuch(_) => Reason::QuotaExceeded,
        Refusal::GroupCreationClosed => Reason::GroupCreationClosed,
        Refusal::Throttled(after) => return Reason::RateLimited.status_retry(message, after),
    };
    reason.status(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_librarys_own_refusals_are_reworded() {
        let code = |status: Status| readable(&status).map(|status| status.code());
        assert_eq!(code(Status::internal("x")), Some(Code::InvalidArgument));
        assert_eq!(
            readable(&Status::out_of_range("x")).as_ref().and_then(Reason::of),
            Some(Reason::OutOfRange)
        );
        assert_eq!(code(Reason::Internal.status("ours")), None);
        assert_eq!(code(Status::unimplemented("x")), None);
    }

    #[test]
    fn faults_tell_the_caller_nothing() {
        let status = Status::from(TrackerError::Internal("no such table: sessions".into()));
        assert_eq!(Reason::of(&status), Some(Reason::Internal));
        assert!(!status.message().contains("table"));
    }
}

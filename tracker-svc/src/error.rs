//! Everything that can go wrong in a call, and the one table of what the caller is told.

use std::time::Duration;

use proto::{convert::ConvertError, domain::manifest::ManifestError, reason::Reason};
use tonic::{Code, Status};

use crate::{
    ca::CsrError,
    domain::{Refusal, address::AddressError},
    store::StoreError,
};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// A rule forbids it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A field is off.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The frames of a manifest are off.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A message in a stream can't be read; what the library says of it.
    #[error("the request can't be read")]
    Unreadable(Status),
    /// Something else of the request is off; says what.
    #[error("{0}")]
    Invalid(&'static str),
    /// A password is not allowed; says why.
    #[error("{0}")]
    WeakPassword(&'static str),
    /// All the work that is taken on is taken.
    #[error("too busy: try again later")]
    Busy(Duration),
    /// Too many calls.
    #[error("too many calls: try again later")]
    RateLimited(Duration),
    /// The caller took too long.
    #[error("{0}")]
    TooSlow(&'static str),
    /// The tracker stops, or its store is not to be had.
    #[error("not serving: try again later")]
    NotServing,
    /// The store's disk is full.
    #[error("the tracker's disk is full")]
    DiskFull,
    /// A fault of ours. What it was goes into the log; the caller is told nothing of it.
    #[error("internal fault: {0}")]
    Internal(String),
}

impl From<AddressError> for TrackerError {
    fn from(error: AddressError) -> Self {
        Self::Invalid(match error {
            AddressError::Malformed => {
                "advertise is HOST:PORT: an IP address or a host name, at most 255 bytes"
            }
            AddressError::Port => "a port is 1-65535",
            AddressError::Unreachable => "advertise can't be reached from elsewhere",
            AddressError::Loopback => "a loopback address is only taken from loopback",
        })
    }
}

impl From<CsrError> for TrackerError {
    fn from(error: CsrError) -> Self {
        match error {
            CsrError::TooLong => Self::Invalid("csr_der has at most 4 KiB"),
            CsrError::Malformed => Self::Invalid("csr_der is not a PKCS #10 certificate request"),
            CsrError::NotP256 => Self::Invalid("the request's key is not an ECDSA P-256 key"),
            CsrError::BadSignature => Self::Invalid("the request is not signed by its own key"),
            CsrError::Failed => Self::Internal("can't sign a peer's certificate".to_owned()),
        }
    }
}

impl From<StoreError> for TrackerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => Self::Refused(refusal),
            StoreError::Unavailable(why) => {
                tracing::warn!(why, "the store is not available");
                Self::NotServing
            }
            StoreError::Full => {
                tracing::error!("the store's disk is full");
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
                Reason::Internal.status("internal fault: the tracker's log says more")
            }
        }
    }
}

/// Gives the library's own refusals of messages that it can't read a reason, and a code that puts the blame right:
/// broken protobuf and frames are INVALID_ARGUMENT rather than INTERNAL. `None` for a status to be left as it is.
pub fn readable(status: &Status) -> Option<Status> {
    if Reason::of(status).is_some() {
        return None;
    }
    match status.code() {
        Code::Internal => Some(Reason::InvalidRequest.status("the request can't be read")),
        Code::OutOfRange => Some(Reason::OutOfRange.status("the request is larger than it may be")),
        _ => None,
    }
}

fn refused(refusal: Refusal, message: String) -> Status {
    let reason = match refusal {
        Refusal::NotLoggedIn => Reason::NotLoggedIn,
        Refusal::BadCredentials => Reason::BadCredentials,
        Refusal::WrongPassword => Reason::WrongPassword,
        Refusal::NotAMember => Reason::NotAMember,
        Refusal::NotTheOwner | Refusal::NotThePublisher => Reason::NotTheOwner,
        Refusal::NotYourPeer => Reason::NotYourPeer,
        Refusal::GroupNotFound => Reason::GroupNotFound,
        Refusal::FileNotFound => Reason::FileNotFound,
        Refusal::UserNotFound | Refusal::MemberNotFound => Reason::UserNotFound,
        Refusal::UsernameTaken | Refusal::GroupTaken | Refusal::FileTaken => Reason::AlreadyExists,
        Refusal::AlreadyAMember | Refusal::AlreadyAsked => Reason::AlreadyAsked,
        Refusal::NoSuchRequest => Reason::NoSuchRequest,
        Refusal::TargetNotAMember => Reason::TargetNotAMember,
        Refusal::TargetIsOwner => Reason::TargetIsOwner,
        Refusal::Quota(_) => Reason::QuotaExceeded,
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

//! Quotas of users and groups. A call that would exceed a quota fails with RESOURCE_EXHAUSTED.

use crate::refusal::Refusal;

pub use crate::refusal::Quota;

/// Bytes of hashes per piece: 20 of SHA-1, 32 of BLAKE3.
pub const BYTES_A_PIECE: u64 = 52;

/// Maximum number of sessions of a user. The next login ends the session that has been unused for longest.
pub const SESSIONS: u32 = 20;

impl Quota {
    /// The maximum.
    pub fn limit(self) -> u64 {
        match self {
            Self::GroupsOwned => 100,
            Self::GroupsJoined => 500,
            Self::Members => 1_000,
            Self::Files => 10_000,
            Self::RequestsOfUser => 20,
            Self::RequestsOnGroup => 500,
            Self::Invites => 200,
            Self::Tokens => 100,
            Self::ManifestBytes => 256 << 20,
            Self::Peers => 16,
        }
    }

    /// Checks that `more` fits in addition to `used`.
    ///
    /// # Errors
    /// [`Refusal::Quota`] if it does not.
    pub fn admit(self, used: u64, more: u64) -> Result<(), Refusal> {
        match used.checked_add(more) {
            Some(sum) if sum <= self.limit() => Ok(()),
            _ => Err(Refusal::Quota(self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_fits_and_one_more_does_not() {
        assert_eq!(Quota::Peers.admit(15, 1), Ok(()));
        assert_eq!(Quota::Peers.admit(16, 1), Err(Refusal::Quota(Quota::Peers)));
        assert_eq!(Quota::ManifestBytes.admit(u64::MAX, 1), Err(Refusal::Quota(Quota::ManifestBytes)));
    }

    #[test]
    fn the_largest_manifest_fits_a_users_quota() {
        let bytes = u64::from(domain::limits::MAX_PIECES) * BYTES_A_PIECE;
        assert_eq!(Quota::ManifestBytes.admit(0, bytes), Ok(()));
    }
}

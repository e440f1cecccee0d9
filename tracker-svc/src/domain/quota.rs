//! How much of everything a user or a group may have. Reached quotas answer RESOURCE_EXHAUSTED.

use super::Refusal;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Quota {
    /// Groups that a user owns.
    #[error("you own as many groups as one may: 100")]
    GroupsOwned,
    /// Groups that a user is a member of.
    #[error("that user is in as many groups as one may be: 500")]
    GroupsJoined,
    /// Members of a group.
    #[error("the group has as many members as it may: 1,000")]
    Members,
    /// Files of a group.
    #[error("the group has as many files as it may: 10,000")]
    Files,
    /// Open requests of a user.
    #[error("you have as many open requests to join as one may: 20")]
    RequestsOfUser,
    /// Open requests on a group.
    #[error("the group has as many open requests as it may: 500")]
    RequestsOnGroup,
    /// Bytes of piece hashes that a user published.
    #[error("you have published as many bytes of manifests as one may: 256 MiB")]
    ManifestBytes,
    /// Peers of a user.
    #[error("you have as many peers as one may: 16; their certificates run out after 7 days")]
    Peers,
}

/// Bytes of hashes that a piece costs: 20 of SHA-1, 32 of BLAKE3.
pub const BYTES_A_PIECE: u64 = 52;

/// Most sessions of a user. The next login ends the one that was used least lately.
pub const SESSIONS: u32 = 20;

impl Quota {
    /// The most there may be.
    pub fn limit(self) -> u64 {
        match self {
            Self::GroupsOwned => 100,
            Self::GroupsJoined => 500,
            Self::Members => 1_000,
            Self::Files => 10_000,
            Self::RequestsOfUser => 20,
            Self::RequestsOnGroup => 500,
            Self::ManifestBytes => 256 << 20,
            Self::Peers => 16,
        }
    }

    /// Whether `more` fits beside the `used`.
    ///
    /// # Errors
    /// [`Refusal::Quota`] when it does not.
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
        let bytes = u64::from(proto::domain::limits::MAX_PIECES) * BYTES_A_PIECE;
        assert_eq!(Quota::ManifestBytes.admit(0, bytes), Ok(()));
    }
}

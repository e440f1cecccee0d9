//! Tokens for machines: what one may do, for whom, and for how long.
//!
//! A token belongs to an account, and is used in place of a session. It may do what its account may, and of that only
//! what its [`TokenScope`] allows. The table of methods ([`crate::access::TABLE`]) says what each method asks of a token.

use std::time::{Duration, SystemTime};

use domain::limits::{DEFAULT_TOKEN_LIFETIME, MAX_TOKEN_GROUPS, TOKEN_LIFETIME};

pub use crate::scope::{Allow, TokenScope};
use crate::session::SessionHash;

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The hash of its secret.
    pub hash: SessionHash,
    /// What it may do.
    pub scope: TokenScope,
    /// When it expires.
    pub expires: SystemTime,
}

/// The reason why a token can't be made as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a lifetime.
    #[error("a token lasts from 1 minute to 366 days")]
    Lifetime,
    /// Too many groups.
    #[error("a token is limited to at most 64 groups")]
    Groups,
}

impl NewToken {
    /// A token that lasts for `lifetime` or the default.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn new(
        hash: SessionHash,
        scope: TokenScope,
        lifetime: Option<Duration>,
        now: SystemTime,
    ) -> Result<Self, TokenError> {
        let lifetime = lifetime.unwrap_or(DEFAULT_TOKEN_LIFETIME);
        if !TOKEN_LIFETIME.contains(&lifetime) {
            return Err(TokenError::Lifetime);
        }
        if scope.groups.as_ref().is_some_and(|groups| groups.len() > MAX_TOKEN_GROUPS) {
            return Err(TokenError::Groups);
        }
        let expires = now.checked_add(lifetime).ok_or(TokenError::Lifetime)?;
        Ok(Self { hash, scope, expires })
    }
}

#[cfg(test)]
mod tests {
    use domain::GroupId;

    use super::*;

    fn scope(groups: Option<usize>) -> TokenScope {
        let groups = groups
            .map(|count| (0..count).map(|number| format!("g{number}").parse().expect("a group")).collect());
        TokenScope { name: "ci".parse().expect("a name"), allow: Allow::Read, groups }
    }

    #[test]
    fn lifetimes_and_groups_have_limits() {
        let now = SystemTime::UNIX_EPOCH;
        let make = |groups, seconds: Option<u64>| {
            NewToken::new([1; 32].into(), scope(groups), seconds.map(Duration::from_secs), now)
                .map(|made| made.expires)
        };
        assert_eq!(make(None, None), Ok(now + DEFAULT_TOKEN_LIFETIME));
        assert_eq!(make(Some(64), Some(60)), Ok(now + Duration::from_mins(1)));
        assert_eq!(make(Some(65), None), Err(TokenError::Groups));
        for seconds in [0, 59, 366 * 86_400 + 1, u64::MAX] {
            assert_eq!(make(None, Some(seconds)), Err(TokenError::Lifetime), "{seconds}");
        }
    }

    #[test]
    fn a_scope_covers_its_groups_alone() {
        let group = |name: &str| name.parse::<GroupId>().expect("a group");
        assert!(scope(None).covers(&group("any")));
        assert!(scope(Some(2)).covers(&group("g1")) && !scope(Some(2)).covers(&group("g2")));
        assert!(!scope(Some(0)).covers(&group("g0")));
    }

    #[test]
    fn levels_are_ordered_and_named() {
        assert!(Allow::ALL.is_sorted());
        for allow in Allow::ALL {
            assert_eq!(Allow::from_text(allow.as_str()), Some(allow));
        }
        assert_eq!(Allow::from_text("Read"), None);
    }
}

//! Sessions: the format of a token, the stored part of it, and the end of a session.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use data_encoding::BASE64URL_NOPAD;
use domain::Username;
use sha2::{Digest as _, Sha256};

use crate::scope::TokenScope;

/// Maximum time that a session lasts without use.
pub const IDLE: Duration = Duration::from_hours(7 * 24);
/// Maximum lifetime of a session.
pub const ABSOLUTE: Duration = Duration::from_hours(30 * 24);
/// Maximum age of the stored time of last use.
pub const TOUCH_EVERY: Duration = Duration::from_mins(1);

/// The start of the token of a session, and of the token of a machine.
const PREFIX: &str = "mts_";
const MACHINE_PREFIX: &str = "mtt_";
const SECRET_BYTES: usize = 32;
/// Characters of a token: the prefix and 32 bytes in base64url without padding.
const TOKEN_LENGTH: usize = PREFIX.len() + 43;

/// The stored part of a token: its SHA-256. A reader of the database cannot use it as a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionHash([u8; 32]);

impl SessionHash {
    /// The hash of a received token. `None` for text that cannot be a token.
    pub fn of_token(token: &str) -> Option<Self> {
        if token.len() != TOKEN_LENGTH {
            return None;
        }
        let secret = token.strip_prefix(PREFIX).or_else(|| token.strip_prefix(MACHINE_PREFIX))?;
        let secret = BASE64URL_NOPAD.decode(secret.as_bytes()).ok()?;
        (secret.len() == SECRET_BYTES).then(|| Self(Sha256::digest(token.as_bytes()).into()))
    }

    /// The hash's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for SessionHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for SessionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to follow a session in a log, but too little to look it up.
        write!(f, "session:{}", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// The token for 32 random bytes.
pub fn token(secret: &[u8; SECRET_BYTES]) -> String {
    format!("{PREFIX}{}", BASE64URL_NOPAD.encode(secret))
}

/// The token of a machine for 32 random bytes.
pub fn machine_token(secret: &[u8; SECRET_BYTES]) -> String {
    format!("{MACHINE_PREFIX}{}", BASE64URL_NOPAD.encode(secret))
}

/// What makes a session one of a machine: a [token](crate::token) takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What the token may do.
    pub scope: Arc<TokenScope>,
    /// When it expires, however much it is used.
    pub expires: SystemTime,
}

/// A session as it is stored, or a token in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The SHA-256 of its token.
    pub hash: SessionHash,
    /// Its user.
    pub user: Username,
    /// The user's key in the store.
    pub account: AccountId,
    /// Whether the account is disabled.
    pub disabled: bool,
    /// The time when it was opened.
    pub opened: SystemTime,
    /// The time of last use, to the minute.
    pub used: SystemTime,
    /// Set for a token.
    pub machine: Option<Machine>,
}

/// An account's key in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub i64);

impl Session {
    /// The time when it ends if it is not used again.
    pub fn expires(&self) -> SystemTime {
        match &self.machine {
            Some(machine) => machine.expires,
            None => (self.used + IDLE).min(self.opened + ABSOLUTE),
        }
    }

    /// The latest time when it ends.
    pub fn ends(&self) -> SystemTime {
        self.machine.as_ref().map_or(self.opened + ABSOLUTE, |machine| machine.expires)
    }

    /// Whether it is valid at `now`.
    pub fn is_alive(&self, now: SystemTime) -> bool {
        !self.disabled && now < self.expires()
    }

    /// Whether the time of last use should be written to the store.
    pub fn wants_touch(&self, now: SystemTime) -> bool {
        now.duration_since(self.used).is_ok_and(|idle| idle >= TOUCH_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Allow;

    #[test]
    fn tokens_hash_alike_and_nothing_else_is_a_token() {
        let good = token(&[7; 32]);
        assert_eq!(good.len(), TOKEN_LENGTH);
        assert_eq!(SessionHash::of_token(&good), SessionHash::of_token(&good));
        assert!(SessionHash::of_token(&good).is_some());
        assert_ne!(SessionHash::of_token(&good), SessionHash::of_token(&token(&[8; 32])));
        assert_ne!(SessionHash::of_token(&machine_token(&[7; 32])), SessionHash::of_token(&good));
        assert!(SessionHash::of_token(&machine_token(&[7; 32])).is_some());
        let stored = SessionHash::of_token(&good).expect("a token");
        assert_eq!(stored.as_bytes()[..], Sha256::digest(&good)[..]);
        let shown = SessionHash::from([0xab; 32]);
        assert_eq!(format!("{shown:?}"), "session:abababab", "too little to look it up");
        let long = "a".repeat(1 << 20);
        for bad in
            ["", "mts_", "' OR 1=1--", &good[1..], &good.replace("mts_", "mtx_"), &long, &"é".repeat(23)]
        {
            assert_eq!(SessionHash::of_token(bad), None, "{bad:.60}");
        }
    }

    #[test]
    fn sessions_end_by_idleness_age_and_disabling() {
        let opened = SystemTime::UNIX_EPOCH + Duration::from_hours(1_000_000);
        let session = Session {
            hash: [1; 32].into(),
            user: "ann".parse().expect("a username"),
            account: AccountId(1),
            disabled: false,
            opened,
            used: opened,
            machine: None,
        };
        let day = Duration::from_hours(24);
        assert_eq!((IDLE, ABSOLUTE), (day * 7, day * 30), "as the documentation says");
        assert_eq!(session.ends(), opened + ABSOLUTE);
        assert!(session.is_alive(opened + IDLE - Duration::from_secs(1)));
        assert!(!session.is_alive(opened + IDLE));
        let busy = Session { used: opened + ABSOLUTE - Duration::from_secs(2), ..session.clone() };
        assert!(busy.is_alive(opened + ABSOLUTE - Duration::from_secs(1)));
        assert!(!busy.is_alive(opened + ABSOLUTE));
        assert!(!Session { disabled: true, ..session.clone() }.is_alive(opened));
        assert!(!session.wants_touch(opened + Duration::from_secs(59)));
        assert!(session.wants_touch(opened + Duration::from_secs(60)));
        let scope =
            Arc::new(TokenScope { name: "ci".parse().expect("a name"), allow: Allow::Read, groups: None });
        let machine = Some(Machine { scope, expires: opened + ABSOLUTE * 2 });
        let token = Session { machine, ..session.clone() };
        assert!(token.is_alive(opened + ABSOLUTE), "a token does not have to be used");
        assert!(!token.is_alive(token.ends()) && token.ends() == opened + ABSOLUTE * 2);
        // A clock that was set back must neither cause a panic nor end the session.
        assert!(session.is_alive(opened - Duration::from_secs(9)));
        assert!(!session.wants_touch(opened - Duration::from_secs(9)));
    }
}

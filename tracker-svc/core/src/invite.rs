//! Invitations: the stored part of a secret, what an owner asks for, and who may make an account.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use domain::{
    FileName,
    invite::InviteSecret,
    limits::{DEFAULT_INVITE_LIFETIME, INVITE_LIFETIME, INVITE_USES},
};
use sha2::{Digest as _, Sha256};

/// The stored part of an invitation's secret: its SHA-256. A reader of the database cannot use it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InviteHash([u8; 32]);

impl InviteHash {
    /// The hash of a secret.
    pub fn of(secret: &InviteSecret) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// The hash's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for InviteHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteHash(..)")
    }
}

/// An invitation to be made.
#[derive(Clone, Debug)]
pub struct NewInvite {
    /// The hash of its secret.
    pub hash: InviteHash,
    /// How many accounts may use it.
    pub uses: u32,
    /// When it expires.
    pub expires: SystemTime,
    /// The file that its link names.
    pub file: Option<FileName>,
}

/// The reason why an invitation can't be made as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Not a number of uses.
    #[error("an invitation has 1 to 1,000 uses")]
    Uses,
    /// Not a lifetime.
    #[error("an invitation lasts from 1 minute to 90 days")]
    Lifetime,
}

impl NewInvite {
    /// An invitation of `uses` uses, or 1 if that is 0, that lasts for `lifetime` or the default.
    ///
    /// # Errors
    /// [`InviteError`].
    pub fn new(
        secret: &InviteSecret,
        uses: u32,
        lifetime: Option<Duration>,
        file: Option<FileName>,
        now: SystemTime,
    ) -> Result<Self, InviteError> {
        let uses = uses.max(1);
        let lifetime = lifetime.unwrap_or(DEFAULT_INVITE_LIFETIME);
        if !INVITE_USES.contains(&uses) {
            return Err(InviteError::Uses);
        }
        if !INVITE_LIFETIME.contains(&lifetime) {
            return Err(InviteError::Lifetime);
        }
        let expires = now.checked_add(lifetime).ok_or(InviteError::Lifetime)?;
        Ok(Self { hash: InviteHash::of(secret), uses, expires, file })
    }
}

/// Who may make an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    /// Everybody.
    #[default]
    Open,
    /// Whoever has a valid invitation.
    Invite,
    /// The operator.
    Closed,
}

impl FromStr for Registration {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "open" => Ok(Self::Open),
            "invite" => Ok(Self::Invite),
            "closed" => Ok(Self::Closed),
            _ => Err("registration is open, invite or closed"),
        }
    }
}

impl Registration {
    /// Whether an account may be made, with or without an invitation. An invitation still has to be checked.
    ///
    /// # Errors
    /// [`Refusal::RegistrationClosed`](crate::Refusal::RegistrationClosed) or
    /// [`Refusal::RegistrationByInvite`](crate::Refusal::RegistrationByInvite).
    pub fn admit(self, has_invite: bool) -> Result<(), crate::Refusal> {
        match self {
            Self::Closed => Err(crate::Refusal::RegistrationClosed),
            Self::Invite if !has_invite => Err(crate::Refusal::RegistrationByInvite),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Refusal;

    const SECRET: [u8; 16] = [7; 16];

    #[test]
    fn uses_and_lifetimes_have_limits() {
        let now = SystemTime::UNIX_EPOCH;
        let make = |uses, seconds: Option<u64>| {
            NewInvite::new(&SECRET.into(), uses, seconds.map(Duration::from_secs), None, now)
                .map(|made| (made.uses, made.expires))
        };
        let default = now + DEFAULT_INVITE_LIFETIME;
        assert_eq!(make(0, None), Ok((1, default)));
        assert_eq!(make(1_000, Some(60)), Ok((1_000, now + Duration::from_mins(1))));
        assert_eq!(make(1_001, None), Err(InviteError::Uses));
        for seconds in [0, 59, 90 * 86_400 + 1, u64::MAX] {
            assert_eq!(make(1, Some(seconds)), Err(InviteError::Lifetime), "{seconds}");
        }
    }

    #[test]
    fn who_may_make_an_account() {
        for (text, without, with) in [
            ("open", Ok(()), Ok(())),
            ("invite", Err(Refusal::RegistrationByInvite), Ok(())),
            ("closed", Err(Refusal::RegistrationClosed), Err(Refusal::RegistrationClosed)),
        ] {
            let registration: Registration = text.parse().expect(text);
            assert_eq!((registration.admit(false), registration.admit(true)), (without, with), "{text}");
        }
        assert!("Open".parse::<Registration>().is_err());
    }

    #[test]
    fn a_hash_is_the_sha256_of_the_secret_and_does_not_show_itself() {
        let hash = InviteHash::of(&SECRET.into());
        assert_eq!(hash.as_bytes()[..], Sha256::digest(SECRET)[..]);
        assert_ne!(hash, InviteHash::of(&[8; 16].into()));
        assert_eq!(format!("{hash:?}"), "InviteHash(..)");
    }
}

//! Tickets: the tracker's signed statement that a peer may fetch one file of one group. A serving peer
//! verifies a ticket without asking the tracker.
//!
//! The format is PASETO v4.public. It is Ed25519 only, so there is no choice of algorithm to confuse. A peer
//! shows its ticket to every peer that serves it. So a ticket is bound to the key of the peer that fetches
//! (`cnf`), and is useless to anybody else. It is also bound to the group's epoch (`ep`), which grows when a
//! member leaves.
//!
//! Non-goals: delegation, attenuation, tickets for anything but pieces.

use std::{collections::HashMap, sync::Arc};

use data_encoding::HEXLOWER;
use ed25519_compact::{KeyPair, Seed};
use parking_lot::Mutex;
use pasetors::{
    Public,
    keys::{AsymmetricPublicKey, AsymmetricSecretKey},
    token::UntrustedToken,
    version4::{PublicToken, V4},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    domain::{Blake3, FileId, GroupId, Name as _, PeerId, Username, limits::MAX_TICKET},
    reason::Reason,
};

/// Maximum difference between the clocks of tracker and peer, in seconds.
pub const LEEWAY: u64 = 60;

const ISSUER: &str = "tracker";
const AUDIENCE: &str = "peer-chunk";
/// Signed together with every ticket, but never sent. A signature that the same key made for another use is
/// not a ticket.
const ASSERTION: &[u8] = b"minitorrent/chunk/v1";
/// Maximum number of verified tickets that a [`Verifier`] remembers.
const REMEMBERED: usize = 4_096;

/// The claims of a ticket. Times are seconds since 1970, by the tracker's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The user that fetches.
    pub user: Username,
    /// The group that the file is listed in.
    pub group: GroupId,
    /// The file.
    pub file: FileId,
    /// The file's BLAKE3 root.
    pub root: Blake3,
    /// The peer that may use the ticket.
    pub peer: PeerId,
    /// The group's epoch at signing.
    pub epoch: u64,
    /// The time of signing.
    pub issued: u64,
    /// The start of its validity.
    pub not_before: u64,
    /// The end of its validity.
    pub expires: u64,
    /// Random, so that no two tickets are the same.
    pub id: [u8; 16],
}

/// The reason why a ticket is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TicketError {
    /// Not a ticket signed by a known key of the tracker.
    #[error("the ticket was not signed by this tracker")]
    Invalid,
    /// The ticket is not valid yet.
    #[error("the ticket is not valid yet")]
    NotYetValid,
    /// The ticket has expired.
    #[error("the ticket has expired")]
    Expired,
    /// A member left the group after signing.
    #[error("the ticket was issued before the group's membership changed; fetch a new ticket")]
    StaleEpoch,
    /// The ticket is bound to another peer's key.
    #[error("the ticket belongs to another peer")]
    OtherPeer,
    /// The ticket is for another file.
    #[error("the ticket is for another file")]
    OtherFile,
}

impl TicketError {
    /// The reason on the wire for this error.
    pub fn reason(self) -> Reason {
        match self {
            Self::Invalid | Self::NotYetValid => Reason::TicketInvalid,
            Self::Expired => Reason::TicketExpired,
            Self::StaleEpoch => Reason::StaleEpoch,
            Self::OtherPeer | Self::OtherFile => Reason::TicketMismatch,
        }
    }
}

/// The checks of a ticket besides its signature. Each goes through [`Check::passes`], so that a test can
/// disable one at a time and prove what it protects against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Issuer,
    Audience,
    NotBefore,
    Expiry,
    Epoch,
    Peer,
    File,
}

impl Check {
    fn passes(self, holds: bool) -> bool {
        #[cfg(test)]
        if tests::LEFT_OUT.get() == Some(self) {
            return true;
        }
        holds
    }
}

impl From<TicketError> for tonic::Status {
    fn from(error: TicketError) -> Self {
        error.reason().status(error.to_string())
    }
}

impl Claims {
    /// Checks that the ticket is for the peer `shower`, known by its certificate, and for `file`.
    ///
    /// # Errors
    /// [`TicketError::OtherPeer`], [`TicketError::OtherFile`].
    pub fn covers(&self, shower: &PeerId, file: FileId) -> Result<(), TicketError> {
        if !Check::Peer.passes(self.peer.as_bytes().ct_eq(shower.as_bytes()).into()) {
            return Err(TicketError::OtherPeer);
        }
        if !Check::File.passes(self.file == file) {
            return Err(TicketError::OtherFile);
        }
        Ok(())
    }

    /// Checks that the ticket is valid at `now` (seconds since 1970). Call this before every piece, not only
    /// once per stream.
    ///
    /// # Errors
    /// [`TicketError::NotYetValid`], [`TicketError::Expired`].
    pub fn in_time(&self, now: u64) -> Result<(), TicketError> {
        if !Check::NotBefore.passes(self.not_before <= now.saturating_add(LEEWAY)) {
            return Err(TicketError::NotYetValid);
        }
        if !Check::Expiry.passes(now <= self.expires.saturating_add(LEEWAY)) {
            return Err(TicketError::Expired);
        }
        Ok(())
    }

    /// Checks that the ticket is valid in a group whose oldest accepted epoch is `min_epoch`. Call this
    /// before every piece as well.
    ///
    /// # Errors
    /// [`TicketError::StaleEpoch`].
    pub fn in_epoch(&self, min_epoch: u64) -> Result<(), TicketError> {
        if !Check::Epoch.passes(self.epoch >= min_epoch) {
            return Err(TicketError::StaleEpoch);
        }
        Ok(())
    }
}

/// A public key that tickets are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    /// The key's name in a ticket's footer.
    pub id: String,
    /// The Ed25519 public key.
    pub bytes: [u8; 32],
}

impl VerifyingKey {
    fn new(bytes: [u8; 32]) -> Self {
        Self { id: HEXLOWER.encode(&Sha256::digest(bytes)[..8]), bytes }
    }
}

/// Signs tickets.
pub struct Signer {
    key: AsymmetricSecretKey<V4>,
    public: VerifyingKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Signer {
    /// The signer with this Ed25519 seed. Returns `None` for the seed of all zeros, which is not a secret.
    pub fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        if *seed == [0; 32] {
            return None;
        }
        let pair = KeyPair::from_seed(Seed::new(*seed));
        let key = AsymmetricSecretKey::from(pair.sk.as_ref()).ok()?;
        Some(Self { key, public: VerifyingKey::new(*pair.pk) })
    }

    /// The key that verifies this signer's tickets.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    /// Signs a ticket with these claims: at most [`MAX_TICKET`] bytes.
    pub fn sign(&self, claims: &Claims) -> String {
        let payload = serde_json::to_vec(&Payload::from(claims)).expect("text and numbers are always JSON");
        let footer = serde_json::to_vec(&Footer { kid: &self.public.id }).expect("text is always JSON");
        PublicToken::sign(&self.key, &payload, Some(&footer), Some(ASSERTION))
            .expect("the key was checked and the payload is not empty")
    }
}

/// Verifies tickets with the tracker's keys. A peer shows the same ticket with each of its requests, so the
/// verifier remembers the tickets that it has verified. That memory is bounded.
#[derive(Debug, Default)]
pub struct Verifier {
    keys: HashMap<String, AsymmetricPublicKey<V4>>,
    /// By the BLAKE3 of the whole ticket. The lock is held for a lookup only.
    verified: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl Verifier {
    /// A verifier with these keys and no others.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        let usable = |key: VerifyingKey| Some((key.id, AsymmetricPublicKey::from(&key.bytes).ok()?));
        Self { keys: keys.into_iter().filter_map(usable).collect(), verified: Mutex::default() }
    }

    /// Returns the ticket's claims if the tracker signed it for serving pieces and it is valid at `now`
    /// (seconds since 1970). The caller checks epoch, peer and file with [`Claims::in_epoch`] and
    /// [`Claims::covers`].
    ///
    /// # Errors
    /// [`TicketError::Invalid`], [`TicketError::NotYetValid`], [`TicketError::Expired`].
    pub fn verify(&self, ticket: &str, now: u64) -> Result<Arc<Claims>, TicketError> {
        if ticket.len() > MAX_TICKET {
            return Err(TicketError::Invalid);
        }
        let hash = *blake3::hash(ticket.as_bytes()).as_bytes();
        let known = self.verified.lock().get(&hash).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(self.verify_signature(ticket)?);
                self.remember(hash, Arc::clone(&claims), now);
                claims
            }
        };
        claims.in_time(now)?;
        Ok(claims)
    }

    /// Verifies the signature first. Nothing of the payload is read before that.
    fn verify_signature(&self, ticket: &str) -> Result<Claims, TicketError> {
        let token = UntrustedToken::<Public, V4>::try_from(ticket).map_err(|_| TicketError::Invalid)?;
        let footer: Footer<'_> =
            serde_json::from_slice(token.untrusted_footer()).map_err(|_| TicketError::Invalid)?;
        let key = self.keys.get(footer.kid).ok_or(TicketError::Invalid)?;
        let trusted =
            PublicToken::verify(key, &token, None, Some(ASSERTION)).map_err(|_| TicketError::Invalid)?;
        let payload: Payload = serde_json::from_str(trusted.payload()).map_err(|_| TicketError::Invalid)?;
        payload.claims().ok_or(TicketError::Invalid)
    }

    fn remember(&self, hash: [u8; 32], claims: Arc<Claims>, now: u64) {
        let mut verified = self.verified.lock();
        if verified.len() >= REMEMBERED {
            verified.retain(|_, claims| claims.in_time(now).is_ok());
        }
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(hash, claims);
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer<'a> {
    kid: &'a str,
}

/// The claims as JSON. An unknown claim makes the ticket invalid, because it could be a condition.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    iss: String,
    aud: String,
    sub: String,
    grp: String,
    fid: String,
    root: String,
    cnf: String,
    ep: u64,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
}

impl From<&Claims> for Payload {
    fn from(claims: &Claims) -> Self {
        Self {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: claims.user.to_string(),
            grp: claims.group.to_string(),
            fid: claims.file.to_string(),
            root: claims.root.to_hex(),
            cnf: claims.peer.to_string(),
            ep: claims.epoch,
            iat: claims.issued,
            nbf: claims.not_before,
            exp: claims.expires,
            jti: HEXLOWER.encode(&claims.id),
        }
    }
}

impl Payload {
    fn claims(&self) -> Option<Claims> {
        let known = Check::Issuer.passes(self.iss == ISSUER) && Check::Audience.passes(self.aud == AUDIENCE);
        known.then_some(())?;
        Some(Claims {
            user: self.sub.parse().ok()?,
            group: GroupId::stored(&self.grp).ok()?,
            file: FileId::try_from(&bytes(&self.fid)?[..]).ok()?,
            root: Blake3::try_from(&bytes(&self.root)?[..]).ok()?,
            peer: self.cnf.parse().ok()?,
            epoch: self.ep,
            issued: self.iat,
            not_before: self.nbf,
            expires: self.exp,
            id: bytes(&self.jti)?.try_into().ok()?,
        })
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    HEXLOWER.decode(hex.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    std::thread_local! {
        /// The check that is disabled on this thread: it passes whatever it finds.
        pub(super) static LEFT_OUT: Cell<Option<Check>> = const { Cell::new(None) };
    }

    const NOW: u64 = 1_800_000_000;

    fn signer(seed: u8) -> Signer {
        Signer::from_seed(&[seed; 32]).expect("not all zeros")
    }

    fn verifier(signer: &Signer) -> Verifier {
        Verifier::new([signer.verifying_key().clone()])
    }

    fn claims() -> Claims {
        Claims {
            user: "ann".parse().expect("a username"),
            group: "films \"of\" the \u{e9}t\u{e9}".parse().expect("a group"),
            file: FileId::try_from(&[7; 16][..]).expect("a file id"),
            root: Blake3::from([8; 32]),
            peer: PeerId::from([9; 32]),
            epoch: 3,
            issued: NOW,
            not_before: NOW,
            expires: NOW + 1_800,
            id: [10; 16],
        }
    }

    /// Signs any payload and footer with the tracker's own key.
    fn forge(signer: &Signer, payload: &str, footer: &str, assertion: &[u8]) -> String {
        PublicToken::sign(&signer.key, payload.as_bytes(), Some(footer.as_bytes()), Some(assertion))
            .expect("a good key")
    }

    #[test]
    fn what_was_signed_is_what_is_read() {
        let signer = signer(1);
        let ticket = signer.sign(&claims());
        assert!(ticket.len() <= MAX_TICKET && ticket.starts_with("v4.public."));
        let verifier = verifier(&signer);
        for _ in 0..2 {
            assert_eq!(verifier.verify(&ticket, NOW).as_deref(), Ok(&claims()));
        }
        let longest = Claims {
            user: "a".repeat(32).parse().expect("a username"),
            group: "\u{1f3ac}".repeat(64).parse().expect("a group"),
            epoch: u64::MAX,
            ..claims()
        };
        assert!(signer.sign(&longest).len() <= MAX_TICKET);
    }

    #[test]
    fn no_bit_of_a_ticket_may_change() {
        let signer = signer(1);
        let (ticket, verifier) = (signer.sign(&claims()), verifier(&signer));
        assert!(verifier.verify(&ticket, NOW).is_ok());
        for at in 0..ticket.len() {
            for bit in 0..7 {
                let mut bytes = ticket.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).expect("still ASCII");
                assert_eq!(verifier.verify(&changed, NOW), Err(TicketError::Invalid), "byte {at}, bit {bit}");
            }
            assert_eq!(verifier.verify(&ticket[..at], NOW), Err(TicketError::Invalid), "cut at {at}");
        }
    }

    #[test]
    fn time_counts_to_the_second() {
        let signer = signer(1);
        let (ticket, verifier) = (signer.sign(&claims()), verifier(&signer));
        let end = NOW + 1_800;
        for (now, outcome) in [
            (NOW - 61, Err(TicketError::NotYetValid)),
            (NOW - 60, Ok(())),
            (end + 60, Ok(())),
            (end + 61, Err(TicketError::Expired)),
            (0, Err(TicketError::NotYetValid)),
            (u64::MAX, Err(TicketError::Expired)),
        ] {
            // Twice: a remembered ticket must be checked for its time as well.
            for _ in 0..2 {
                assert_eq!(verifier.verify(&ticket, now).map(drop), outcome, "at {now}");
            }
        }
    }

    #[test]
    fn a_ticket_is_as_long_as_the_limit_at_most() {
        let signer = signer(1);
        let verifier = verifier(&signer);
        let payload = serde_json::to_string(&Payload::from(&claims())).expect("JSON");
        let footer = serde_json::to_string(&Footer { kid: &signer.public.id }).expect("JSON");
        // Spaces between the claims change the length alone.
        let padded = |spaces: usize| {
            let payload = payload.replacen('{', &format!("{{{}", " ".repeat(spaces)), 1);
            forge(&signer, &payload, &footer, ASSERTION)
        };
        // Three bytes of the payload are four characters.
        let about = (MAX_TICKET - padded(0).len()) * 3 / 4;
        let longest = (about - 2..about + 2).find(|spaces| padded(*spaces).len() == MAX_TICKET);
        let longest = longest.expect("a ticket of that length");
        assert!(verifier.verify(&padded(longest), NOW).is_ok());
        assert_eq!(verifier.verify(&padded(longest + 1), NOW), Err(TicketError::Invalid));
    }

    #[test]
    fn only_the_very_claims_of_a_ticket_count() {
        let signer = signer(1);
        let verifier = verifier(&signer);
        let good = serde_json::to_value(Payload::from(&claims())).expect("JSON");
        let footer = serde_json::to_string(&Footer { kid: &signer.public.id }).expect("JSON");
        let with = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
            let mut payload = good.clone();
            change(payload.as_object_mut().expect("an object"));
            forge(&signer, &payload.to_string(), &footer, ASSERTION)
        };
        assert!(verifier.verify(&with(&|_| {}), NOW).is_ok());
        for key in good.as_object().expect("an object").keys() {
            let missing = with(&|payload| drop(payload.remove(key)));
            assert_eq!(verifier.verify(&missing, NOW), Err(TicketError::Invalid), "without {key}");
            let wrong = with(&|payload| drop(payload.insert(key.clone(), "other".into())));
            // Any text is a valid user or group.
            let free = ["sub", "grp"].contains(&key.as_str());
            assert_eq!(verifier.verify(&wrong, NOW).is_ok(), free, "another {key}");
        }
        let unknown = with(&|payload| drop(payload.insert("only".into(), "sundays".into())));
        assert_eq!(verifier.verify(&unknown, NOW), Err(TicketError::Invalid));

        let payload = good.to_string();
        let other_use = forge(&signer, &payload, &footer, b"minitorrent/other/v1");
        assert_eq!(verifier.verify(&other_use, NOW), Err(TicketError::Invalid));
        let not_json = forge(&signer, "not json", &footer, ASSERTION);
        assert_eq!(verifier.verify(&not_json, NOW), Err(TicketError::Invalid));
        for footer in ["", "{}", r#"{"kid":"unknown"}"#, r#"{"kid":1}"#, "kid"] {
            let ticket = forge(&signer, &payload, footer, ASSERTION);
            assert_eq!(verifier.verify(&ticket, NOW), Err(TicketError::Invalid), "footer {footer}");
        }
    }

    #[test]
    fn other_keys_and_other_kinds_of_token_are_refused() {
        let (signer, stranger) = (signer(1), signer(2));
        let verifier = verifier(&signer);
        assert_eq!(verifier.verify(&stranger.sign(&claims()), NOW), Err(TicketError::Invalid));
        let payload = serde_json::to_string(&Payload::from(&claims())).expect("JSON");
        let footer = serde_json::to_string(&Footer { kid: &signer.public.id }).expect("JSON");
        let borrowed_kid = forge(&stranger, &payload, &footer, ASSERTION);
        assert_eq!(verifier.verify(&borrowed_kid, NOW), Err(TicketError::Invalid));

        let good = signer.sign(&claims());
        let encoded = data_encoding::BASE64URL_NOPAD.encode(payload.as_bytes());
        let none = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
        let mut bad = vec![
            String::new(),
            ".".into(),
            "v4.public.".into(),
            format!("{none}.{encoded}."),
            format!("{good}."),
            format!("{good}.{good}"),
            format!(" {good}"),
            "a".repeat(3 << 10),
            format!("v4.public.{}", "A".repeat(3 << 10)),
        ];
        bad.extend(
            ["v2.public", "v3.public", "v1.public", "v2.local", "v4.local"]
                .map(|kind| good.replacen("v4.public", kind, 1)),
        );
        for ticket in bad {
            assert_eq!(verifier.verify(&ticket, NOW), Err(TicketError::Invalid), "{ticket}");
        }
    }

    #[test]
    fn a_ticket_is_worth_nothing_to_another_peer_for_another_file_or_in_a_later_epoch() {
        let claims = claims();
        let other = FileId::try_from(&[1; 16][..]).expect("a file id");
        assert_eq!(claims.covers(&claims.peer, claims.file), Ok(()));
        assert_eq!(claims.covers(&PeerId::from([1; 32]), claims.file), Err(TicketError::OtherPeer));
        assert_eq!(claims.covers(&claims.peer, other), Err(TicketError::OtherFile));
        assert_eq!(claims.in_epoch(3), Ok(()));
        assert_eq!(claims.in_epoch(4), Err(TicketError::StaleEpoch));
    }

    /// Whether a ticket with this payload, signed by `by` under the id `kid`, gives the peer of [`claims`]
    /// access to its file.
    fn opens(verifier: &Verifier, by: &Signer, kid: &str, payload: &Payload) -> bool {
        let payload = serde_json::to_string(payload).expect("JSON");
        let footer = serde_json::to_string(&Footer { kid }).expect("JSON");
        let ticket = forge(by, &payload, &footer, ASSERTION);
        let good = claims();
        verifier.verify(&ticket, NOW).is_ok_and(|claims| {
            claims.covers(&good.peer, good.file).is_ok() && claims.in_epoch(good.epoch).is_ok()
        })
    }

    #[test]
    fn no_check_can_be_left_out() {
        let (signer, kid) = (signer(1), signer(1).public.id);
        let good = || Payload::from(&claims());
        // Each ticket is valid except in one respect, which exactly one check detects.
        let attacks = [
            (Check::Issuer, Payload { iss: "somebody".into(), ..good() }),
            (Check::Audience, Payload { aud: "another-use".into(), ..good() }),
            (Check::NotBefore, Payload { nbf: NOW + LEEWAY + 1, ..good() }),
            (Check::Expiry, Payload { exp: NOW - LEEWAY - 1, ..good() }),
            (Check::Epoch, Payload { ep: claims().epoch - 1, ..good() }),
            (Check::Peer, Payload { cnf: PeerId::from([1; 32]).to_string(), ..good() }),
            (Check::File, Payload { fid: HEXLOWER.encode(&[1; 16]), ..good() }),
        ];
        assert!(opens(&verifier(&signer), &signer, &kid, &good()));
        for (check, attack) in &attacks {
            for (left_out, _) in &attacks {
                LEFT_OUT.set(Some(*left_out));
                let opened = opens(&verifier(&signer), &signer, &kid, attack);
                assert_eq!(opened, left_out == check, "{check:?}, without {left_out:?}");
            }
            LEFT_OUT.set(None);
            assert!(!opens(&verifier(&signer), &signer, &kid, attack), "{check:?}");
        }
        // Signature and key are one check against the trusted keys. If a stranger's key is trusted, the
        // stranger's tickets are valid.
        let stranger = self::signer(2);
        let strangers = &stranger.public.id;
        assert!(!opens(&verifier(&signer), &stranger, strangers, &good()));
        assert!(opens(&verifier(&stranger), &stranger, strangers, &good()));
        assert!(!opens(&verifier(&signer), &signer, strangers, &good()), "the right key under another's id");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let signer = signer(1);
        let verifier = verifier(&signer);
        let remembered = Arc::new(claims());
        for count in 0..REMEMBERED as u64 + 1 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&count.to_le_bytes());
            verifier.remember(hash, Arc::clone(&remembered), NOW);
            assert!(verifier.verified.lock().len() <= REMEMBERED);
        }
        assert!(verifier.verify(&signer.sign(&claims()), NOW).is_ok());
    }

    #[test]
    fn what_is_valid_is_remembered_longer_than_what_has_expired() {
        let verifier = verifier(&signer(1));
        let (expired, valid) = (Arc::new(Claims { expires: NOW - 100, ..claims() }), Arc::new(claims()));
        let hash = |count: u64| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&count.to_le_bytes());
            hash
        };
        let is_known = |count| verifier.verified.lock().contains_key(&hash(count));
        verifier.remember(hash(0), Arc::clone(&valid), NOW);
        for count in 1..REMEMBERED as u64 {
            verifier.remember(hash(count), Arc::clone(&expired), NOW);
        }
        assert!(is_known(0) && is_known(1), "there is room for both");
        verifier.remember(hash(REMEMBERED as u64), valid, NOW);
        assert!(is_known(0) && is_known(REMEMBERED as u64) && !is_known(1));
    }

    #[test]
    fn a_seed_of_zeros_is_no_secret() {
        assert!(Signer::from_seed(&[0; 32]).is_none());
        let shown = format!("{:?}", signer(5));
        assert!(shown.contains(&signer(5).public.id) && !shown.contains("050505"), "{shown}");
    }
}

//! The keys that sign tickets. The first is made at first start. A new one replaces it every 30 days. An old
//! key is kept until all its tickets have expired.
//!
//! The keys are in a file of the data directory, or in the database that several trackers share
//! ([`crate::vault`]). There each tracker reads them again regularly. Whichever first finds that a key is due
//! makes it, and the others read it.
//!
//! A new key is distributed for some time before it signs, so that every connected peer knows it by then. An
//! old key is kept for twice the life of a ticket after its replacement.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use data_encoding::BASE64;
use parking_lot::Mutex;
use program::durable::{self, Readers};
use proto::ticket::{Signer, VerifyingKey};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::vault::{self, Vault, VaultError};

/// How long a key signs, in seconds.
const SIGNS_FOR: u64 = 30 * 24 * 3_600;
/// How long a key is distributed before it signs, in seconds.
const KNOWN_BEFORE: u64 = 600;

/// The same where trackers share the keys: their clocks may differ by ten minutes, and the others learn of the
/// key a minute later.
const KNOWN_BEFORE_BY_ALL: u64 = 1_800;
/// How long trackers that share the keys keep an old one longer, because their clocks may differ.
const CLOCKS: u64 = 900;

/// The reason why there are no ticket keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// The file has invalid content. It is never overwritten in this case.
    #[error("{0} is not a file of ticket keys; restore the original file, or remove it to create a new key")]
    Broken(PathBuf),
    /// The shared keys cannot be read or written.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Where the keys are kept.
enum Keep {
    File(PathBuf),
    Shared(Vault),
}

/// The ticket keys. Times are seconds since 1970.
pub struct TicketKeys {
    keep: Keep,
    /// Life of a ticket, in seconds.
    ticket_life: u64,
    /// Oldest first, never empty. The lock is held briefly, also while the file is written, so that no reader
    /// sees half a change.
    ring: Mutex<Vec<Key>>,
    verifying: watch::Sender<Arc<[VerifyingKey]>>,
}

#[derive(Clone)]
struct Key {
    signer: Arc<Signer>,
    seed: Arc<Zeroizing<[u8; 32]>>,
    signs_from: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    keys: Vec<KeyLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyLine {
    /// The key's name in tickets. It follows from the seed; it is here for people.
    kid: String,
    /// Base64 of the Ed25519 seed.
    seed: Zeroizing<String>,
    /// Seconds since 1970.
    signs_from: u64,
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").finish_non_exhaustive()
    }
}

impl TicketKeys {
    /// Opens `keys.json` in the data directory, or makes it there with a first key.
    ///
    /// # Errors
    /// Fails if the file cannot be read or written, or is broken.
    pub fn open_or_create(data_dir: &Path, ticket_life: Duration, now: u64) -> Result<Self, KeysError> {
        let path = data_dir.join(vault::TICKET_KEYS_FILE);
        let text =
            durable::read_secret_if_there(&path).map_err(|error| KeysError::File(path.clone(), error))?;
        let ring = match text.map(Zeroizing::new) {
            Some(text) => parse(&text).ok_or_else(|| KeysError::Broken(path.clone()))?,
            None => Vec::new(),
        };
        let verifying = watch::Sender::new(verifying(&ring));
        let keep = Keep::File(path.clone());
        let keys = Self { keep, ticket_life: ticket_life.as_secs(), ring: Mutex::new(ring), verifying };
        keys.tend_file(&path, now)?;
        Ok(keys)
    }

    /// Opens the keys that trackers share, or makes a first one there.
    ///
    /// # Errors
    /// Fails if the keys cannot be read or written, or are broken.
    pub async fn open_shared(vault: Vault, ticket_life: Duration, now: u64) -> Result<Self, KeysError> {
        let verifying = watch::Sender::new(verifying(&[]));
        let (keep, ring) = (Keep::Shared(vault.clone()), Mutex::default());
        let keys = Self { keep, ticket_life: ticket_life.as_secs(), ring, verifying };
        keys.tend_shared(&vault, now).await?;
        Ok(keys)
    }

    /// The key that signs at `now`.
    pub fn signer(&self, now: u64) -> Arc<Signer> {
        let ring = self.ring.lock();
        let key = ring.iter().rev().find(|key| key.signs_from <= now).or(ring.first());
        Arc::clone(&key.expect("there is always a key").signer)
    }

    /// All keys whose tickets may still be valid, and the next signing key. The watch also receives later
    /// changes.
    pub fn verifying_keys(&self) -> watch::Receiver<Arc<[VerifyingKey]>> {
        self.verifying.subscribe()
    }

    /// Adds a key when the newest has signed for long enough, and drops keys whose last tickets have expired.
    /// Learns what other trackers changed. Call it regularly.
    ///
    /// # Errors
    /// Fails if the keys cannot be read or written. They then stay as they were.
    pub async fn tend(&self, now: u64) -> Result<(), KeysError> {
        match &self.keep {
            Keep::File(path) => self.tend_file(path, now),
            Keep::Shared(vault) => self.tend_shared(vault, now).await,
        }
    }

    fn tend_file(&self, path: &Path, now: u64) -> Result<(), KeysError> {
        let mut ring = self.ring.lock();
        let Some(keys) = renewed(&ring, now, 2 * self.ticket_life, KNOWN_BEFORE) else { return Ok(()) };
        durable::write(path, &text(&keys), Readers::Owner)
            .map_err(|error| KeysError::File(path.to_owned(), error))?;
        self.verifying.send_replace(verifying(&keys));
        *ring = keys;
        Ok(())
    }

    async fn tend_shared(&self, vault: &Vault, now: u64) -> Result<(), KeysError> {
        for _ in 0..vault::TRIES {
            let (version, stored) = match vault.read(vault::TICKET_KEYS).await? {
                None => (None, Vec::new()),
                Some((version, bytes)) => {
                    let keys = std::str::from_utf8(&bytes).ok().and_then(parse);
                    (Some(version), keys.ok_or(VaultError::Damaged(vault::TICKET_KEYS))?)
                }
            };
            let kept_for = 2 * self.ticket_life + CLOCKS;
            let keys = match renewed(&stored, now, kept_for, KNOWN_BEFORE_BY_ALL) {
                None => stored,
                Some(keys) if vault.replace(vault::TICKET_KEYS, version, &text(&keys)).await? => keys,
                // Another tracker was faster. Its keys count.
                Some(_) => continue,
            };
            let mut ring = self.ring.lock();
            let fresh = verifying(&keys);
            self.verifying.send_if_modified(|known| {
                let is_new = !known.iter().map(|key| &key.id).eq(fresh.iter().map(|key| &key.id));
                if is_new {
                    *known = fresh;
                }
                is_new
            });
            *ring = keys;
            return Ok(());
        }
        Err(VaultError::Contended(vault::TICKET_KEYS).into())
    }
}

/// The keys after all that is due at `now`, or `None` if nothing is. An old key stays for `kept_for` seconds
/// after its replacement, and a new one signs after `known_before` seconds.
fn renewed(ring: &[Key], now: u64, kept_for: u64, known_before: u64) -> Option<Vec<Key>> {
    let mut keys: Vec<Key> = Vec::new();
    for (at, key) in ring.iter().enumerate() {
        let replaced = ring.get(at + 1).map(|next| next.signs_from);
        if replaced.is_none_or(|since| now <= since.saturating_add(kept_for)) {
            keys.push(key.clone());
        }
    }
    match ring.last().map(|key| key.signs_from) {
        None => keys.push(new_key(now)),
        Some(since) if now >= since.saturating_add(SIGNS_FOR) => keys.push(new_key(now + known_before)),
        Some(_) if keys.len() == ring.len() => return None,
        Some(_) => {}
    }
    Some(keys)
}

fn text(keys: &[Key]) -> Zeroizing<Vec<u8>> {
    let file = KeysFile { keys: keys.iter().map(line).collect() };
    Zeroizing::new(serde_json::to_vec_pretty(&file).expect("text and numbers are always JSON"))
}

fn verifying(ring: &[Key]) -> Arc<[VerifyingKey]> {
    ring.iter().map(|key| key.signer.verifying_key().clone()).collect()
}

fn new_key(signs_from: u64) -> Key {
    loop {
        let seed = Zeroizing::new(rand::random::<[u8; 32]>());
        if let Some(signer) = Signer::from_seed(&seed) {
            return Key { signer: Arc::new(signer), seed: Arc::new(seed), signs_from };
        }
    }
}

fn line(key: &Key) -> KeyLine {
    KeyLine {
        kid: key.signer.verifying_key().id.clone(),
        seed: Zeroizing::new(BASE64.encode(&**key.seed)),
        signs_from: key.signs_from,
    }
}

fn parse(text: &str) -> Option<Vec<Key>> {
    let file: KeysFile = serde_json::from_str(text).ok()?;
    let mut keys = Vec::new();
    for line in file.keys {
        let bytes = Zeroizing::new(BASE64.decode(line.seed.as_bytes()).ok()?);
        let seed = Zeroizing::new(<[u8; 32]>::try_from(&bytes[..]).ok()?);
        let signer = Signer::from_seed(&seed).filter(|signer| signer.verifying_key().id == line.kid)?;
        keys.push(Key { signer: Arc::new(signer), seed: Arc::new(seed), signs_from: line.signs_from });
    }
    (!keys.is_empty() && keys.is_sorted_by_key(|key| key.signs_from)).then_some(keys)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const LIFE: u64 = 1_800;

    fn open(directory: &Path, now: u64) -> Result<TicketKeys, KeysError> {
        TicketKeys::open_or_create(directory, Duration::from_secs(LIFE), now)
    }

    fn ids(keys: &TicketKeys) -> Vec<String> {
        keys.verifying_keys().borrow().iter().map(|key| key.id.clone()).collect()
    }

    fn signing(keys: &TicketKeys, now: u64) -> String {
        keys.signer(now).verifying_key().id.clone()
    }

    #[test]
    fn keys_are_made_once_and_kept_secret() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let first = open(directory.path(), NOW).expect("made");
        let file = directory.path().join("keys.json");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        let again = open(directory.path(), NOW + 5).expect("opened");
        assert_eq!(ids(&first), ids(&again));
        let other = tempfile::tempdir().expect("a temporary directory");
        assert_ne!(ids(&first), ids(&open(other.path(), NOW).expect("made")), "never a default");

        for broken in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kid":"a","seed":"AA==","signs_from":1}]}"#] {
            fs::write(&file, broken).expect("written");
            assert!(matches!(open(directory.path(), NOW), Err(KeysError::Broken(_))), "{broken}");
            assert_eq!(fs::read_to_string(&file).expect("there"), broken, "never overwritten");
        }
    }

    #[tokio::test]
    async fn a_new_key_is_known_before_it_signs_and_an_old_one_after() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let keys = open(directory.path(), NOW).expect("made");
        let mut changes = keys.verifying_keys();
        let old = signing(&keys, NOW);
        keys.tend(NOW + SIGNS_FOR - 1).await.expect("nothing to do");
        assert!(!changes.has_changed().expect("open"));

        let turn = NOW + SIGNS_FOR;
        keys.tend(turn).await.expect("a new key");
        assert!(changes.has_changed().expect("open"));
        changes.mark_unchanged();
        let [first, new] = &ids(&keys)[..] else { panic!("two keys") };
        assert_eq!((first, signing(&keys, turn + KNOWN_BEFORE - 1)), (&old, old.clone()));
        assert_eq!(signing(&keys, turn + KNOWN_BEFORE), *new);

        let gone = turn + KNOWN_BEFORE + 2 * LIFE;
        keys.tend(gone).await.expect("nothing to do");
        assert_eq!(ids(&keys).len(), 2);
        keys.tend(gone + 1).await.expect("one key less");
        assert_eq!(ids(&keys).as_slice(), std::slice::from_ref(new));
        let opened = open(directory.path(), gone + 1).expect("opened");
        assert_eq!(ids(&opened).as_slice(), std::slice::from_ref(new));
    }

    #[test]
    fn a_clock_that_was_set_back_still_signs() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let keys = open(directory.path(), NOW).expect("made");
        assert_eq!(signing(&keys, NOW - 1_000_000), signing(&keys, NOW));
    }
}

//! The keys that tickets are signed with: made at first start, changed every 30 days, kept until no ticket of theirs counts.
//!
//! A new key is handed out for a while before it signs, so that every connected peer knows it by then; an old one is
//! kept for twice the life of a ticket after.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use data_encoding::BASE64;
use proto::{
    durable::{self, Readers},
    ticket::{Signer, VerifyingKey},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// How long a key signs.
const SIGNS_FOR: u64 = 30 * 24 * 3_600;
/// How long a key is handed out before it signs.
const KNOWN_BEFORE: u64 = 600;

/// Why there are no ticket keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file can't be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// The file is not what it should be; it is never overwritten then.
    #[error("{0}: not a file of ticket keys; put back the right one, or remove it to begin with a new key")]
    Broken(PathBuf),
}

/// The ticket keys. Times are seconds since 1970.
pub struct TicketKeys {
    path: PathBuf,
    /// Life of a ticket, in seconds.
    ticket_life: u64,
    /// Oldest first, never empty. Held for a moment, also while the file is written: nobody is to see half a change.
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
    /// Names the key in tickets; for people, it follows from the seed.
    kid: String,
    /// Base64 of the Ed25519 seed.
    seed: Zeroizing<String>,
    /// Seconds since 1970.
    signs_from: u64,
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").field("path", &self.path).finish_non_exhaustive()
    }
}

impl TicketKeys {
    /// Opens `keys.json` in the data directory, or makes it there with a first key.
    ///
    /// # Errors
    /// When it can't be read or written, or is broken.
    pub fn open_or_create(data_dir: &Path, ticket_life: Duration, now: u64) -> Result<Self, KeysError> {
        let path = data_dir.join("keys.json");
        let text =
            durable::read_secret_if_there(&path).map_err(|error| KeysError::File(path.clone(), error))?;
        let ring = match text.map(Zeroizing::new) {
            Some(text) => parse(&text).ok_or_else(|| KeysError::Broken(path.clone()))?,
            None => Vec::new(),
        };
        let verifying = watch::Sender::new(verifying(&ring));
        let keys = Self { path, ticket_life: ticket_life.as_secs(), ring: Mutex::new(ring), verifying };
        keys.tend(now)?;
        Ok(keys)
    }

    /// The key that signs now.
    pub fn signer(&self, now: u64) -> Arc<Signer> {
        let ring = self.lock();
        let key = ring.iter().rev().find(|key| key.signs_from <= now).or(ring.first());
        Arc::clone(&key.expect("there is always a key").signer)
    }

    /// Every key that a ticket in force may be signed with, and the one that will sign next; now, and as they change.
    pub fn verifying_keys(&self) -> watch::Receiver<Arc<[VerifyingKey]>> {
        self.verifying.subscribe()
    }

    /// Adds a key when the newest has signed for long enough, and drops those whose last tickets are over. To be called
    /// now and then.
    ///
    /// # Errors
    /// When the file can't be written; the keys stay as they were.
    pub fn tend(&self, now: u64) -> Result<(), KeysError> {
        let mut ring = self.lock();
        let mut keys: Vec<Key> = Vec::new();
        for (at, key) in ring.iter().enumerate() {
            let replaced = ring.get(at + 1).map(|next| next.signs_from);
            if replaced.is_none_or(|since| now <= since.saturating_add(2 * self.ticket_life)) {
                keys.push(key.clone());
            }
        }
        match ring.last().map(|key| key.signs_from) {
            None => keys.push(new_key(now)),
            Some(since) if now >= since.saturating_add(SIGNS_FOR) => keys.push(new_key(now + KNOWN_BEFORE)),
            Some(_) if keys.len() == ring.len() => return Ok(()),
            Some(_) => {}
        }
        let file = KeysFile { keys: keys.iter().map(line).collect() };
        let text =
            Zeroizing::new(serde_json::to_vec_pretty(&file).expect("text and numbers are always JSON"));
        durable::write(&self.path, &text, Readers::Owner)
            .map_err(|error| KeysError::File(self.path.clone(), error))?;
        self.verifying.send_replace(verifying(&keys));
        *ring = keys;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Key>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    #[test]
    fn a_new_key_is_known_before_it_signs_and_an_old_one_after() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let keys = open(directory.path(), NOW).expect("made");
        let mut changes = keys.verifying_keys();
        let old = signing(&keys, NOW);
        keys.tend(NOW + SIGNS_FOR - 1).expect("nothing to do");
        assert!(!changes.has_changed().expect("open"));

        let turn = NOW + SIGNS_FOR;
        keys.tend(turn).expect("a new key");
        assert!(changes.has_changed().expect("open"));
        changes.mark_unchanged();
        let [first, new] = &ids(&keys)[..] else { panic!("two keys") };
        assert_eq!((first, signing(&keys, turn + KNOWN_BEFORE - 1)), (&old, old.clone()));
        assert_eq!(signing(&keys, turn + KNOWN_BEFORE), *new);

        let gone = turn + KNOWN_BEFORE + 2 * LIFE;
        keys.tend(gone).expect("nothing to do");
        assert_eq!(ids(&keys).len(), 2);
        keys.tend(gone + 1).expect("one key less");
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

//! The secrets that several trackers share: the key of the authority, and the keys that sign tickets.
//!
//! They are rows of the common database, encrypted under the cluster key. Each tracker reads the cluster key
//! from a file. So whoever reads the database, or a copy of it, can neither issue certificates nor sign
//! tickets.
//!
//! A row is one version byte, a random nonce of 12 bytes, and the secret under ChaCha20-Poly1305 (RFC 8439).
//! The secret's name is authenticated too, so that no row can stand in for another. A secret changes once in
//! weeks, which is far from the number of random nonces that would be unsafe.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use data_encoding::HEXLOWER_PERMISSIVE;
use program::durable;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    ca::{self, Authority, CaError, OwnCertificate},
    store::{Shared, Store, StoreError},
};

/// The first byte of a sealed secret.
const FORM: u8 = 1;
/// Length of the cluster key, in bytes.
const KEY: usize = 32;
/// The authority's name among the secrets.
const AUTHORITY: &str = "authority";
/// The ticket keys' name among the secrets.
pub(crate) const TICKET_KEYS: &str = "ticket keys";
/// The file of the ticket keys in a data directory.
pub(crate) const TICKET_KEYS_FILE: &str = "keys.json";
/// How often a change is tried again, because another tracker changed the secret at the same moment.
pub(crate) const TRIES: usize = 8;

/// The reason why the shared secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// There is no cluster key.
    #[error(
        "trackers that share a database need --cluster-key FILE, the same 32 random bytes for all of them; make it once with `head -c 32 /dev/urandom > FILE`"
    )]
    NoKey,
    /// The file of the cluster key cannot be read.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// The file does not contain a cluster key.
    #[error("{0} is not a cluster key: it must contain 32 bytes, or 64 hexadecimal digits")]
    Malformed(PathBuf),
    /// The secret was sealed under another key.
    #[error(
        "the {0} in the database can't be decrypted; --cluster-key must name the key that the first tracker used"
    )]
    AnotherKey(&'static str),
    /// The secret was decrypted, and is not what it should be.
    #[error("the {0} in the database is damaged")]
    Damaged(&'static str),
    /// Other trackers changed the secret again and again.
    #[error("the {0} in the database changed too often at this moment; try again")]
    Contended(&'static str),
    /// The database belongs to one tracker alone.
    #[error("this database is not shared")]
    NotShared,
    /// The authority is unusable.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The shared secrets.
#[derive(Clone)]
pub struct Vault {
    store: Arc<dyn Store>,
    key: Arc<Zeroizing<[u8; KEY]>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

/// The authority as it is sealed. Both are PEM.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    key: Zeroizing<String>,
    certificate: String,
}

impl Vault {
    /// Opens the secrets of a shared store with the cluster key in a file.
    ///
    /// # Errors
    /// Fails without a readable cluster key. Whether it is the right one shows when a secret is read.
    pub fn open(store: Arc<dyn Store>, key_file: Option<&Path>) -> Result<Self, VaultError> {
        Ok(Self { store, key: Arc::new(read_key(key_file.ok_or(VaultError::NoKey)?)?) })
    }

    fn shared(&self) -> Result<&dyn Shared, VaultError> {
        self.store.shared().ok_or(VaultError::NotShared)
    }

    /// Returns a secret and its version.
    pub(crate) async fn read(
        &self,
        name: &'static str,
    ) -> Result<Option<(i64, Zeroizing<Vec<u8>>)>, VaultError> {
        let Some((version, sealed)) = self.shared()?.secret(name).await? else { return Ok(None) };
        let plain = unseal(&self.key, name, sealed).ok_or(VaultError::AnotherKey(name))?;
        Ok(Some((version, plain)))
    }

    /// Replaces a secret that still has the version `was`. `None` stands for one that is not there yet.
    /// Returns whether it did.
    pub(crate) async fn replace(
        &self,
        name: &'static str,
        was: Option<i64>,
        plain: &[u8],
    ) -> Result<bool, VaultError> {
        let sealed = seal(&self.key, name, plain);
        Ok(self.shared()?.replace_secret(name, was, &sealed).await?)
    }

    /// Opens the authority that all trackers share. The first one makes it.
    ///
    /// # Errors
    /// [`VaultError`]. An authority that cannot be read is never replaced.
    pub async fn authority(&self, own: OwnCertificate, now: SystemTime) -> Result<Authority, VaultError> {
        for _ in 0..TRIES {
            if let Some((_, plain)) = self.read(AUTHORITY).await? {
                let root: Root =
                    serde_json::from_slice(&plain).map_err(|_| VaultError::Damaged(AUTHORITY))?;
                return Ok(Authority::of_root(&root.key, root.certificate, own, now)?);
            }
            let (key, certificate) = ca::new_root(now)?;
            self.replace(AUTHORITY, None, &authority_secret(&key, &certificate)?).await?;
        }
        Err(VaultError::Contended(AUTHORITY))
    }
}

fn authority_secret(key: &str, certificate: &str) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let root = Root { key: Zeroizing::new(key.to_owned()), certificate: certificate.to_owned() };
    Ok(Zeroizing::new(serde_json::to_vec(&root).map_err(|_| VaultError::Damaged(AUTHORITY))?))
}

/// Reads the secrets of a data directory and seals them under the cluster key in a file: what
/// [`crate::store::takeover`] takes over. Secrets that are not there yet are left out.
///
/// # Errors
/// Fails if a file cannot be read, or has not the content that it should have.
pub fn seal_files(
    data_dir: &Path,
    key_file: Option<&Path>,
    now: SystemTime,
) -> Result<Vec<(&'static str, Vec<u8>)>, VaultError> {
    let cluster_key = read_key(key_file.ok_or(VaultError::NoKey)?)?;
    let mut secrets = Vec::new();
    let (key_file, certificate_file) = (data_dir.join("ca.key"), data_dir.join("ca.pem"));
    let failed = |error| VaultError::File(key_file.clone(), error);
    if let Some(key) = durable::read_secret_if_there(&key_file).map_err(failed)?.map(Zeroizing::new) {
        let failed = |error| VaultError::File(certificate_file.clone(), error);
        let certificate = fs::read_to_string(&certificate_file).map_err(failed)?;
        // Checks that the two belong together.
        Authority::of_root(&key, certificate.clone(), OwnCertificate::Issued(Vec::new()), now)?;
        secrets.push((AUTHORITY, seal(&cluster_key, AUTHORITY, &authority_secret(&key, &certificate)?)));
    }
    let failed = |error| VaultError::File(data_dir.join(TICKET_KEYS_FILE), error);
    if let Some(keys) = durable::read_secret_if_there(&data_dir.join(TICKET_KEYS_FILE)).map_err(failed)? {
        let keys = Zeroizing::new(keys);
        secrets.push((TICKET_KEYS, seal(&cluster_key, TICKET_KEYS, keys.as_bytes())));
    }
    Ok(secrets)
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; KEY]>, VaultError> {
    let bytes = fs::read(path).map_err(|error| VaultError::File(path.to_owned(), error))?;
    let bytes = Zeroizing::new(bytes);
    let decoded = match bytes.len() {
        KEY => Some(bytes),
        _ => HEXLOWER_PERMISSIVE.decode(bytes.trim_ascii()).ok().map(Zeroizing::new),
    };
    let key = decoded.and_then(|key| <[u8; KEY]>::try_from(&key[..]).ok());
    // A file of zeros comes from a disk that was full, or from a mistake.
    let key = key.filter(|key| *key != [0; KEY]).ok_or_else(|| VaultError::Malformed(path.to_owned()))?;
    Ok(Zeroizing::new(key))
}

fn cipher(key: &[u8; KEY]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of 32 bytes"))
}

fn seal(key: &[u8; KEY], name: &str, plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_LEN] = rand::random();
    let mut text = plain.to_vec();
    let tag = cipher(key).seal_in_place_separate_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(name.as_bytes()),
        &mut text,
    );
    let tag = tag.expect("a secret is far shorter than the limit of the cipher");
    [&[FORM][..], &nonce, &text, tag.as_ref()].concat()
}

fn unseal(key: &[u8; KEY], name: &str, sealed: Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
    let rest = sealed.strip_prefix(&[FORM])?;
    let (nonce, text) = rest.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = Zeroizing::new(text.to_vec());
    let length = cipher(key).open_in_place(nonce, Aad::from(name.as_bytes()), &mut text).ok()?.len();
    text.truncate(length);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_under_its_key_and_its_name() {
        let sealed = seal(&[1; KEY], "a", b"secret");
        let open = |key: [u8; KEY], name, sealed: &[u8]| unseal(&key, name, sealed.to_vec());
        assert_eq!(open([1; KEY], "a", &sealed).as_deref().map(Vec::as_slice), Some(&b"secret"[..]));
        assert!(open([2; KEY], "a", &sealed).is_none());
        assert!(open([1; KEY], "b", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open([1; KEY], "a", &changed).is_none(), "byte {at}");
            assert!(open([1; KEY], "a", &sealed[..at]).is_none(), "{at} bytes");
        }
        assert_ne!(sealed, seal(&[1; KEY], "a", b"secret"), "each time another nonce");
    }

    #[test]
    fn a_cluster_key_is_32_bytes_or_64_digits() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("key");
        let read = |content: &[u8]| {
            fs::write(&file, content).expect("written");
            read_key(&file)
        };
        assert_eq!(*read(&[7; 32]).expect("a key"), [7; 32]);
        let digits = format!("{}\n", "0A".repeat(32));
        assert_eq!(*read(digits.as_bytes()).expect("a key"), [10; 32]);
        for bad in [&b""[..], &[7; 31], &[7; 33], &[0; 32], &[b'x'; 64]] {
            assert!(matches!(read(bad), Err(VaultError::Malformed(_))), "{bad:?}");
        }
        assert!(matches!(read_key(Path::new("/nonexistent")), Err(VaultError::File(..))));
    }
}

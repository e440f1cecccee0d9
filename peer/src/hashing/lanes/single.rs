//! SHA-1 of one message.

use proto::domain::Sha1;
use sha1::Digest as _;

/// The SHA-1 of a message that is made of parts, one after the other.
pub(super) fn sha1_of<T: AsRef<[u8]>>(parts: &[T]) -> Sha1 {
    let mut hasher = sha1::Sha1::new();
    parts.iter().for_each(|part| hasher.update(part));
    <[u8; 20]>::from(hasher.finalize()).into()
}

//! Buffers of chunks on their way out, used again and again.
//!
//! Memory of that size, taken and given back per chunk, would go back to the kernel each time and have to be cleared and
//! mapped again; measured, up to a tenth of the rate.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers kept for reuse. More may be on their way; those are freed.
const KEPT: usize = 16;

/// A pool of buffers of one size.
#[derive(Debug)]
pub(crate) struct Buffers {
    size: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

/// Goes back to its pool with the last reference to the bytes.
struct Lent {
    bytes: Vec<u8>,
    pool: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(bytes);
        }
    }
}

impl Buffers {
    pub(crate) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, free: Mutex::new(Vec::new()) })
    }

    /// A buffer of the pool's size, with whatever was last in it.
    pub(crate) fn take(&self) -> Vec<u8> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| vec![0; self.size])
    }

    /// Lends the first `length` bytes of the buffer out; it comes back by itself.
    pub(crate) fn lend(self: &Arc<Self>, bytes: Vec<u8>, length: usize) -> Bytes {
        Bytes::from_owner(Lent { bytes, pool: self.clone() }).slice(..length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_reference() {
        let pool = Buffers::new(100);
        let mut buffer = pool.take();
        let at = buffer.as_ptr();
        buffer[..3].copy_from_slice(b"abc");
        let whole = pool.lend(buffer, 3);
        assert_eq!(&whole[..], b"abc");
        let part = whole.slice(1..2);
        drop(whole);
        let other = pool.take();
        assert_ne!(other.as_ptr(), at);
        assert_eq!(&part[..], b"b");
        drop(part);
        let again = pool.take();
        assert!(again.as_ptr() == at && again.len() == 100);
    }
}

//! Counters of the whole engine.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Stats;

/// What was moved since the start.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    uploaded: AtomicU64,
    downloaded: AtomicU64,
    verified: AtomicU64,
    bad: AtomicU64,
}

impl Totals {
    /// A piece of so many bytes was verified and written.
    pub(crate) fn verified(&self, bytes: u64) {
        self.downloaded.fetch_add(bytes, Ordering::Relaxed);
        self.verified.fetch_add(1, Ordering::Relaxed);
    }

    /// A piece was not what the manifest says.
    pub(crate) fn bad(&self) {
        self.bad.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes of data went out.
    pub(crate) fn uploaded(&self, bytes: u64) {
        self.uploaded.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The counters; gauges are left at zero.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            uploaded_bytes: self.uploaded.load(Ordering::Relaxed),
            downloaded_bytes: self.downloaded.load(Ordering::Relaxed),
            pieces_verified: self.verified.load(Ordering::Relaxed),
            pieces_bad: self.bad.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }
}

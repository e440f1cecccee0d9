//! Counters of the whole engine.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters and gauges of the whole engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The rate over the last seconds, in bytes a second.
    pub upload_rate: u64,
    /// The rate over the last seconds, in bytes a second.
    pub download_rate: u64,
    /// The bytes sent since the start.
    pub uploaded_bytes: u64,
    /// The verified bytes received since the start.
    pub downloaded_bytes: u64,
    /// The number of pieces verified since the start.
    pub pieces_verified: u64,
    /// The number of bad pieces received since the start.
    pub pieces_bad: u64,
    /// The number of running uploads.
    pub uploads_active: u32,
    /// The number of requests that wait for a slot.
    pub uploads_waiting: u32,
    /// The number of connected sources of all downloads.
    pub sources: u32,
}

/// What was transferred since the start.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    uploaded: AtomicU64,
    downloaded: AtomicU64,
    verified: AtomicU64,
    bad: AtomicU64,
}

impl Totals {
    /// Counts a verified and written piece of this number of bytes.
    pub(crate) fn verified(&self, bytes: u64) {
        self.downloaded.fetch_add(bytes, Ordering::Relaxed);
        self.verified.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a piece that did not match the manifest.
    pub(crate) fn bad(&self) {
        self.bad.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts this number of sent bytes.
    pub(crate) fn uploaded(&self, bytes: u64) {
        self.uploaded.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The counters. The gauges are zero.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            uploaded_bytes: self.uploaded.load(Ordering::Relaxed),
            downloaded_bytes: self.downloaded.load(Ordering::Relaxed),
            pieces_verified: self.verified.load(Ordering::Relaxed),
            pieces_bad: self.bad.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }
}

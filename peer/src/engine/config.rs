//! The engine's settings, fixed at its start.

use std::{path::PathBuf, time::Duration};

/// The engine's settings, fixed at its start. The defaults are those of the daemon.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The number of uploads that run at the same time.
    pub upload_slots: u32,
    /// The most requests that wait for a slot.
    pub upload_queue: u32,
    /// Upload limit in bytes a second; 0 for none.
    pub upload_limit: u64,
    /// Download limit in bytes a second; 0 for none.
    pub download_limit: u64,
    /// The pause before a download that a full disk stopped tries again.
    pub disk_retry: Duration,
    /// The directory that keeps epochs and bans over restarts; `None` keeps them only in memory.
    pub state_dir: Option<PathBuf>,
    /// The seed of all random choices. The network adds its own randomness. Random by default.
    pub seed: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            upload_slots: 2,
            upload_queue: 64,
            upload_limit: 0,
            download_limit: 0,
            disk_retry: Duration::from_secs(30),
            state_dir: None,
            seed: rand::random(),
        }
    }
}

//! Polls with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The longest wait of a test. It is far longer than anything takes, also on a busy machine, so that it ends
/// only a hang.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The time between two polls. Nothing depends on its length.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits until `condition` holds, for at most [`PATIENCE`].
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(PATIENCE, what, condition).await;
}

/// Waits until `condition` holds, for at most `limit`.
pub async fn eventually_within(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Polls until `look` returns a value, for at most [`PATIENCE`].
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, look)
}

/// Polls until `look` returns a value, for at most `limit`.
pub fn wait_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        #[allow(clippy::disallowed_methods, reason = "there is no runtime to await on")]
        thread::sleep(PAUSE);
    }
}

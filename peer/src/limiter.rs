//! A rate limit that many streams share, in bytes a second.
//!
//! The limit is a bucket that may be overdrawn. A stream that finds credit takes what it needs at once, and
//! the streams after it pay off the debt. So chunks of any size pass, and the rate still holds. Waiting
//! streams are served in order.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// The most that may pass at once after a pause, as time at the full rate.
const BURST: Duration = Duration::from_millis(200);

/// A shared rate limit.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// Bytes a second; 0 for no limit.
    rate: AtomicU64,
    bucket: Mutex<Bucket>,
    /// Serves waiting streams in the order in which they came.
    turn: tokio::sync::Mutex<()>,
    /// Notified when the rate has changed, so that the waiting stream calculates its wait again.
    changed: Notify,
}

#[derive(Debug)]
struct Bucket {
    /// Bytes that may pass now; negative while a debt is paid off.
    credit: f64,
    at: Instant,
}

impl Limiter {
    /// A limit of `rate` bytes a second; 0 for none.
    pub(crate) fn new(rate: u64) -> Self {
        Self {
            rate: AtomicU64::new(rate),
            bucket: Mutex::new(Bucket { credit: 0.0, at: Instant::now() }),
            turn: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
        }
    }

    /// The rate in bytes a second; 0 for no limit.
    pub(crate) fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// Sets the rate, also for streams that wait now.
    pub(crate) fn set(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Waits until `bytes` may pass. A future that is dropped before that takes nothing.
    pub(crate) async fn pass(&self, bytes: usize) {
        if self.rate() == 0 {
            return;
        }
        let _turn = self.turn.lock().await;
        loop {
            let Some(at) = self.take(bytes) else { return };
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Takes the bytes and returns `None`, or returns the time at which to try again.
    fn take(&self, bytes: usize) -> Option<Instant> {
        let rate = self.rate() as f64;
        if rate == 0.0 {
            return None;
        }
        let now = Instant::now();
        let mut bucket = self.bucket.lock();
        let earned = now.saturating_duration_since(bucket.at).as_secs_f64() * rate;
        bucket.credit = (bucket.credit + earned).min(BURST.as_secs_f64() * rate);
        bucket.at = now;
        if bucket.credit >= 0.0 {
            bucket.credit -= bytes as f64;
            return None;
        }
        // The wait is at least a millisecond, which is the resolution of the timer.
        Some(now + Duration::from_secs_f64((-bucket.credit / rate).clamp(0.001, 3_600.0)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn holds_the_rate_over_chunks_of_any_size() {
        let limiter = Limiter::new(1 << 20);
        let start = Instant::now();
        for bytes in [512 << 10, 1 << 10, 255 << 10, 256 << 10, 4 << 20, 1] {
            limiter.pass(bytes).await;
        }
        let seconds = start.elapsed().as_secs_f64();
        assert!((5.0..5.1).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_does_not_wait_and_a_new_limit_bites_at_once() {
        let limiter = Arc::new(Limiter::new(0));
        let start = Instant::now();
        limiter.pass(1 << 40).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        limiter.set(1);
        limiter.pass(1_000_000).await;
        let waiting = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.pass(1).await }
        });
        tokio::task::yield_now().await;
        limiter.set(0);
        waiting.await.expect("it does not panic");
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_earns_no_more_than_a_burst() {
        let limiter = Limiter::new(1_000_000);
        limiter.pass(1).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..20 {
            limiter.pass(100_000).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(1_600));
    }
}

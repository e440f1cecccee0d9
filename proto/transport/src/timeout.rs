//! Timeouts that count only the time in which this program runs.
//!
//! A program that was stopped, frozen or starved of the processor for a minute finds all its deadlines over
//! when it continues, and answers that arrived in time are still unread. The other side is not responsible
//! for that minute.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// Interval at which the timer checks whether the program was stopped.
const STEP: Duration = Duration::from_secs(1);
/// A timer that is late by less than this is only late. A later one means that the program was stopped.
const LATE: Duration = Duration::from_millis(500);

/// The error of a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer came in time")]
pub struct TimedOut;

/// Returns after this program has run for `limit`.
pub async fn sleep_running(limit: Duration) {
    let mut left = limit;
    while !left.is_zero() {
        let (step, start) = (left.min(STEP), Instant::now());
        sleep(step).await;
        // If the program was stopped, the step counts with its planned length.
        let took = start.elapsed();
        left = left.saturating_sub(if took > step + LATE { step } else { took });
    }
}

/// Runs `future` for at most `limit`, counting only the time in which this program runs.
///
/// # Errors
/// Fails after `limit`. The future is dropped then.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, TimedOut> {
    tokio::select! {
        biased;
        done = future => Ok(done),
        () = sleep_running(limit) => Err(TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_while_the_program_runs() {
        let start = Instant::now();
        assert_eq!(within(Duration::from_millis(7_300), std::future::pending::<()>()).await, Err(TimedOut));
        let took = start.elapsed();
        assert!((7_300..7_400).contains(&took.as_millis()), "{took:?}");
        assert_eq!(within(Duration::ZERO, async { 7 }).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_program_did_not_run_is_not_counted() {
        let answer = async {
            // The clock is paused. This sleep is the duration under test.
            sleep(Duration::from_secs(3)).await;
            // Simulates a stopped program: the clock advances, and no task runs.
            tokio::time::advance(Duration::from_secs(600)).await;
            // The clock is paused, as above.
            sleep(Duration::from_secs(3)).await;
        };
        assert_eq!(within(Duration::from_secs(15), answer).await, Ok(()));
    }
}

//! The context that every verb gets, and the wait for Ctrl-C.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    exit::Failure,
    link::{self, Daemon},
    render::Style,
};
use crate::config::Config;

/// Settings and surroundings of a verb.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: Config,
    /// The directory that relative paths start from.
    pub(super) directory: std::path::PathBuf,
    pub(super) style: Style,
    pub(super) limit: Option<Duration>,
    pub(super) in_shell: bool,
    /// The time that a person has spent at prompts of this verb.
    pub(super) typing: Typing,
}

impl Context {
    /// Connects to the daemon, and starts one if there is none.
    pub(super) async fn daemon(&self) -> Result<Daemon, Failure> {
        link::reach(&self.config, true).await
    }

    /// Connects to the daemon, if one runs.
    pub(super) async fn running_daemon(&self) -> Result<Daemon, Failure> {
        // Which tracker is meant does not matter for a daemon's own state and end.
        link::reach(&Config { tracker_insisted: false, ..self.config.clone() }, false).await
    }
}

/// Measures the time that a person spends at prompts. The time limit of a verb does not run then.
#[derive(Debug, Default)]
pub(super) struct Typing(Mutex<(Duration, Option<Instant>)>);

impl Typing {
    /// Runs a prompt.
    pub(super) async fn during<T>(&self, prompt: impl Future<Output = T>) -> T {
        self.0.lock().1 = Some(Instant::now());
        let answer = prompt.await;
        let mut spent = self.0.lock();
        let this_time = spent.1.take().map(|since| since.elapsed()).unwrap_or_default();
        spent.0 += this_time;
        answer
    }

    /// The time at prompts so far.
    fn spent(&self) -> Duration {
        let spent = self.0.lock();
        spent.0 + spent.1.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Returns after `limit`, without the time at prompts.
    pub(super) async fn limit(&self, limit: Duration) {
        let begin = Instant::now();
        loop {
            let left = (limit + self.spent()).saturating_sub(begin.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// Returns at Ctrl-C.
pub(super) async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_limit_does_not_run_at_a_prompt() {
        let (typing, second) = (Typing::default(), Duration::from_secs(1));
        let begin = Instant::now();
        let prompt = async {
            // The time is virtual: nobody waits for it.
            tokio::time::sleep(second).await;
            // The same holds here.
            typing.during(tokio::time::sleep(60 * second)).await;
        };
        tokio::join!(prompt, typing.limit(30 * second));
        assert_eq!(begin.elapsed(), 90 * second);
    }
}

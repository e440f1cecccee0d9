//! Carries out a [`Race`]: attempts to connect to one server at several addresses.

use std::future::Future;

use domain::race::{Race, Step};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, timeout_at};

/// Starts the attempts as [`Race`] decides, and returns the result of the first that succeeds. The others are
/// dropped.
///
/// # Errors
/// Fails if all attempts fail, with their errors in the order in which they failed. Without an attempt there
/// is no error.
pub async fn race<T, E, F>(attempts: impl IntoIterator<Item = F>) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut attempts: Vec<_> = attempts.into_iter().map(Some).collect();
    let mut race = Race::new(attempts.len());
    let (mut running, mut errors) = (FuturesUnordered::new(), Vec::new());
    let begin = Instant::now();
    loop {
        let ended = match race.step(begin.elapsed()) {
            Step::Start(number) => {
                running.extend(attempts.get_mut(number).and_then(Option::take));
                continue;
            }
            Step::WaitUntil(moment) => match timeout_at(begin + moment, running.next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
            Step::Wait => running.next().await,
            Step::Lost => return Err(errors),
        };
        match ended {
            Some(Ok(won)) => return Ok(won),
            Some(Err(error)) => errors.push(error),
            // The race counts the attempts that run, so this is not reached.
            None => return Err(errors),
        }
        race.failed();
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::Pin, time::Duration};

    use domain::race::STAGGER;
    use tokio::time::sleep;

    use super::*;

    type Attempt = Pin<Box<dyn Future<Output = Result<u8, u8>>>>;

    fn after(milliseconds: u64, result: Result<u8, u8>) -> Attempt {
        Box::pin(async move {
            // The time is virtual.
            sleep(Duration::from_millis(milliseconds)).await;
            result
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_a_quarter_of_a_second() {
        let begin = Instant::now();
        assert_eq!(race([after(60_000, Ok(1)), after(10, Ok(2))]).await, Ok(2));
        assert_eq!(begin.elapsed(), STAGGER + Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_costs_nothing() {
        let begin = Instant::now();
        assert_eq!(race([after(0, Err(1)), after(20, Ok(2))]).await, Ok(2));
        assert!(begin.elapsed() < STAGGER);
        assert_eq!(race([after(30, Err(1)), after(10, Err(2))]).await, Err(vec![1, 2]));
        assert_eq!(race::<u8, u8, Attempt>([]).await, Err(vec![]));
    }
}

//! How many accounts a network may make: so many at once, and one more each time that one of them is paid off.

use std::time::Duration;

use crate::throttle::Moment;

/// Maximum number of new accounts per hour from one IPv4 address or one IPv6 /64.
pub const ACCOUNTS_AN_HOUR: u32 = 600;
const HOUR: Duration = Duration::from_hours(1);

/// Lets one more account in at `now`. `due` is when all earlier ones are paid off; `None` if there were none lately.
/// Returns the new value of `due`.
///
/// # Errors
/// How long to wait.
pub fn admit(due: Option<Moment>, now: Moment) -> Result<Moment, Duration> {
    let due = due.map_or(now, |due| due.max(now)) + HOUR / ACCOUNTS_AN_HOUR;
    match due.checked_sub(now + HOUR) {
        None | Some(Duration::ZERO) => Ok(due),
        Some(wait) => Err(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_hundred_come_at_once_and_then_one_every_six_seconds() {
        let (mut due, mut now) = (None, HOUR * 1_000);
        for number in 0..ACCOUNTS_AN_HOUR {
            due = Some(admit(due, now).unwrap_or_else(|wait| panic!("{number} waits {wait:?}")));
        }
        let step = Duration::from_secs(6);
        assert_eq!(admit(due, now), Err(step));
        for _ in 0..10 {
            now += step;
            assert_eq!(admit(due, now - Duration::from_millis(1)), Err(Duration::from_millis(1)));
            due = Some(admit(due, now).expect("one is paid off"));
        }
        assert_eq!(admit(due, now + 2 * HOUR), Ok(now + 2 * HOUR + step), "all are forgotten");
    }
}

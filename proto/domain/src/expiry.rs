//! Decides when to warn that a certificate ends.

use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);
/// The days before the end at which the warnings begin.
const WARNINGS: [u32; 3] = [1, 7, 30];

/// Returns the warning that is due for a certificate with this time left: it ends within this number of days.
/// A certificate that its owner renews by itself when `renewed_with` is left gets a warning only if that is
/// overdue.
pub fn warning(left: Duration, renewed_with: Option<Duration>) -> Option<u32> {
    let is_due = |days: &u32| left <= DAY * *days && renewed_with.is_none_or(|with| DAY * *days < with);
    WARNINGS.into_iter().find(is_due)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warnings_begin_thirty_seven_and_one_days_before_the_end() {
        for (hours, expected) in [
            (31 * 24, None),
            (30 * 24, Some(30)),
            (8 * 24, Some(30)),
            (7 * 24, Some(7)),
            (25, Some(7)),
            (24, Some(1)),
            (0, Some(1)),
        ] {
            assert_eq!(warning(Duration::from_hours(hours), None), expected, "{hours}");
        }
    }

    #[test]
    fn a_certificate_that_is_renewed_in_time_gets_none() {
        let month = Some(DAY * 30);
        assert_eq!(warning(DAY * 29, month), None, "it is being renewed");
        assert_eq!(warning(DAY * 6, month), Some(7), "it should have been");
        assert_eq!(warning(DAY * 2, Some(DAY * 2)), None);
        assert_eq!(warning(DAY, Some(DAY * 2)), Some(1));
    }
}

//! Sizes, rates and times in the form that users write and read.

use std::time::Duration;

use proto::domain::size as sizes;
pub(crate) use proto::domain::size::show as size;

/// Text that is not a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a rate; write bytes per second, such as 500K, 1MiB or 2.5M, or 0 for no limit")]
pub(crate) struct RateError(String);

/// Parses a rate in bytes a second: a size ([`proto::domain::size::parse`]) that `/s` may follow. 0 means no limit.
///
/// # Errors
/// Fails when the text is anything else, or the rate is too large.
pub(crate) fn parse_rate(text: &str) -> Result<u64, RateError> {
    sizes::parse(text.trim().trim_end_matches("/s")).ok_or_else(|| RateError(text.to_owned()))
}

/// Formats a rate for users.
pub(crate) fn rate(bytes_a_second: u64) -> String {
    format!("{}/s", size(bytes_a_second))
}

/// Formats a rate limit as users type it: `500K`, `1.5MiB`, `none`. [`parse_rate`] reads it again.
pub(crate) fn limit(bytes_a_second: u64) -> String {
    const UNITS: [(&str, u64); 6] = [
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("G", 1_000_000_000),
        ("M", 1_000_000),
        ("K", 1_000),
    ];
    if bytes_a_second == 0 {
        return "none".into();
    }
    // The unit in which the number has at most two decimals.
    let fits =
        |unit: u64| bytes_a_second >= unit && bytes_a_second.checked_mul(100).is_some_and(|n| n % unit == 0);
    let shown = UNITS.iter().filter(|(_, unit)| fits(*unit));
    let shown = shown.map(|(name, unit)| format!("{}{name}", bytes_a_second as f64 / *unit as f64));
    shown.min_by_key(String::len).unwrap_or_else(|| bytes_a_second.to_string())
}

/// Formats a number of things: `1 source`, `2 sources`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Formats seconds for users: `1h02m`, `3m05s`, `7s`.
pub(crate) fn seconds(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s:02}s"),
        (0, h, m, _) => format!("{h}h{m:02}m"),
        (d, h, _, _) => format!("{d}d{h:02}h"),
    }
}

/// Parses a time limit in seconds, with or without a fraction.
///
/// # Errors
/// Fails when it is not a positive number.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let error = || format!("{text:?} is not a duration; write seconds, such as 30 or 2.5");
    let seconds: f64 = text.trim().parse().map_err(|_| error())?;
    if seconds > 0.0 { Duration::try_from_secs_f64(seconds).map_err(|_| error()) } else { Err(error()) }
}

/// Parses how long something lasts: a number with a unit, `s`, `m`, `h` or `d`.
///
/// # Errors
/// Fails when it is anything else.
pub(crate) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let error = || format!("{text:?} is not a time; write a number and a unit, such as 90m, 12h or 2d");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(error()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    // Whoever takes it has a limit far below this one.
    let seconds = seconds.filter(|seconds| *seconds <= 1 << 40);
    seconds.map(Duration::from_secs).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_as_typed() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("12h", 43_200), ("2d", 172_800), ("0d", 0)] {
            assert_eq!(parse_lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "2", "d", "-2d", "2.5d", "2 d", "2w", "99999999999999999999d", "9999999999999999999s"]
        {
            assert!(parse_lifetime(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_as_typed() {
        let good = [("0", 0), ("500kB/s", 500_000), ("1.5 MiB", 1_572_864)];
        for (text, bytes) in good {
            assert_eq!(parse_rate(text), Ok(bytes), "{text}");
        }
        for text in ["", "-1", "fast", "/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_shown_as_they_are_typed() {
        for text in ["500K", "1MiB", "1.5MiB", "2G", "64KiB", "12.25M", "7"] {
            let bytes = parse_rate(text).expect("a rate");
            assert_eq!(limit(bytes), text);
            assert_eq!(parse_rate(&limit(bytes)), Ok(bytes));
        }
        assert_eq!((limit(0), limit(1_234_567)), ("none".to_owned(), "1234567".to_owned()));
    }

    #[test]
    fn times_as_shown_and_typed() {
        for (value, text) in [(0, "0s"), (65, "1m05s"), (3_720, "1h02m"), (100_000, "1d03h")] {
            assert_eq!(seconds(value), text);
        }
        assert_eq!(parse_seconds("2.5"), Ok(Duration::from_millis(2_500)));
        for text in ["0", "-1", "", "soon", "inf", "NaN"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}

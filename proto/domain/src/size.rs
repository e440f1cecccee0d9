//! Numbers of bytes in the form that users write and read.

/// Reads a number of bytes: a number with an optional unit (`K M G T` of 1000, `Ki Mi Gi Ti` of 1024; a `B` may
/// follow). `None` for anything else, and for more than fits.
///
/// ```
/// use domain::size;
///
/// assert_eq!(size::parse("1.5 MiB"), Some(1_572_864));
/// assert_eq!(size::parse("fast"), None);
/// ```
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().trim_end_matches(['b', 'B']).to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        "ki" => 1 << 10,
        "mi" => 1 << 20,
        "gi" => 1 << 30,
        "ti" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes.is_finite() && bytes <= 1e15).then_some(bytes as u64)
}

/// Writes a number of bytes in IEC units: `1.5 MiB`.
pub fn show(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // 1023.95 would print as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_typed() {
        let good = [
            ("0", 0),
            ("1", 1),
            ("500K", 500_000),
            ("1MiB", 1 << 20),
            ("1.5 MiB", 1_572_864),
            ("2g", 2_000_000_000),
            ("10TiB", 10 << 40),
            (" 7 B ", 7),
        ];
        for (text, bytes) in good {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in
            ["", "-1", "K", "1X", "fast", "1e9", "99999999999999999999G", "1.2.3", "nan", "inf", "1/s"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_as_shown() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_610_612_736, "1.5 GiB"),
            (1 << 40, "1.0 TiB"),
        ] {
            assert_eq!(show(bytes), text);
        }
    }
}

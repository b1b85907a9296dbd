//! Times as `250ms`, `2s`, `10m`, and sizes as `64KiB`, `1GiB`: how people write them, and how they are read.

use std::time::Duration;

/// Why a text is no time or no size. Says what would be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{text}\" is not a {what}: {accepted}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    accepted: &'static str,
}

/// Nanoseconds of each unit of time, the longest name first so that `ms` is not read as `m`.
const TIMES: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// Bytes of each unit of size.
const SIZES: [(&str, u64); 5] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];

/// Reads `250ms`, `2s`, `1.5s`, `10m`, `1h`, `7d`. A bare number is refused: of what?
///
/// # Errors
/// Anything else, and times that do not fit (more than about 500 years).
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let error = || UnitError {
        text: text.to_string(),
        what: "time",
        accepted: "write a number and a unit, such as 250ms, 2s, 10m, 1h, 7d",
    };
    let (number, unit) = split(text).ok_or_else(error)?;
    let (_, nanos) = TIMES.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
    scaled(number, *nanos).map(Duration::from_nanos).ok_or_else(error)
}

/// Reads `64KiB`, `8MiB`, `1GiB`, `100B`, and a bare number of bytes.
///
/// # Errors
/// Anything else, and sizes of 2^64 bytes or more.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let error = || UnitError {
        text: text.to_string(),
        what: "size",
        accepted: "write a number and a unit, such as 256B, 64KiB, 8MiB, 1GiB",
    };
    if let Ok(bytes) = text.parse() {
        return Ok(bytes);
    }
    let (number, unit) = split(text).ok_or_else(error)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
    scaled(number, *bytes).ok_or_else(error)
}

/// Reads counts such as `100k`, `2M`, `500`.
///
/// # Errors
/// Anything else.
pub fn count(text: &str) -> Result<u64, UnitError> {
    let error = || UnitError {
        text: text.to_string(),
        what: "number",
        accepted: "write a number, such as 500, 10k, 2M",
    };
    if let Ok(n) = text.parse() {
        return Ok(n);
    }
    match split(text).ok_or_else(error)? {
        (number, "k") => scaled(number, 1_000).ok_or_else(error),
        (number, "M") => scaled(number, 1_000_000).ok_or_else(error),
        _ => Err(error()),
    }
}

/// Prints a size in the largest unit that leaves it whole: what [`size`] reads back as the same number.
pub fn show_size(bytes: u64) -> String {
    let unit = SIZES.iter().rev().skip(1).find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// Prints a time for a person: three digits are plenty.
pub fn show_duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// The number and the unit of `1.5s`.
fn split(text: &str) -> Option<(&str, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(at);
    (!number.is_empty()).then_some((number, unit.trim_start()))
}

/// `number` times `unit`, exactly where the number is whole.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    let value = number.parse::<f64>().ok()? * unit as f64;
    (value < u64::MAX as f64).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit_and_know_seven() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3_600)));
        for wrong in ["", "2", "s", "2 weeks", "-1s", "1..5s", "999999999999999d", "nan s"] {
            let error = duration(wrong).expect_err(wrong).to_string();
            assert!(error.contains("250ms"), "{error}");
        }
    }

    #[test]
    fn sizes_read_back_as_printed() {
        for (text, bytes) in
            [("64KiB", 65_536), ("8MiB", 8 << 20), ("1GiB", 1 << 30), ("1000B", 1_000), ("0B", 0)]
        {
            assert_eq!(size(text), Ok(bytes));
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(size("1000"), Ok(1_000));
        assert_eq!(size("1.5KiB"), Ok(1_536));
        for wrong in ["", "KiB", "8MB", "8 elephants", "99999999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn counts_know_thousands_and_millions() {
        assert_eq!(count("100k"), Ok(100_000));
        assert_eq!(count("2M"), Ok(2_000_000));
        assert_eq!(count("7"), Ok(7));
        assert!(count("7 dwarfs").is_err());
    }
}

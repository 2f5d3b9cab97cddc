//! Sizes as people write and read them.
//!
//! The one thing to know: `K`, `KB` and `KiB` all mean 1024 bytes; nobody sizes memory in powers of
//! ten. This file must not round what it parses.

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no size: a whole number, then nothing or one of KiB, MiB, GiB, TiB")]
pub(super) struct ParseBytesError {
    text: String,
}

const UNITS: [(&str, u32); 5] = [("", 0), ("k", 10), ("m", 20), ("g", 30), ("t", 40)];

/// Reads `2GiB`, `512m`, `4096`.
pub(super) fn parse(text: &str) -> Result<u64, ParseBytesError> {
    let error = || ParseBytesError { text: text.to_owned() };
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = lower.split_at(digits);
    let unit = unit.trim();
    let unit = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit);
    let (_, shift) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
    let number: u64 = number.parse().map_err(|_| error())?;
    number.checked_mul(1 << shift).ok_or_else(error)
}

/// Writes a size with three digits or so.
pub(super) fn show(bytes: u64) -> String {
    let (mut value, mut names) = (bytes as f64, ["B", "KiB", "MiB", "GiB"].into_iter());
    while value >= 1024.0
        && let Some(_) = names.next()
    {
        value /= 1024.0;
    }
    match names.next().unwrap_or("TiB") {
        "B" => format!("{bytes} B"),
        unit => format!("{value:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let check = |text, bytes| assert_eq!(parse(text), Ok(bytes), "{text:?}");
        check("0", 0);
        check("4096", 4096);
        check("2GiB", 2 << 30);
        check("512m", 512 << 20);
        check("3 kb", 3 << 10);
        check("1T", 1 << 40);
        check("7B", 7);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "-1", "1.5G", "1X", "99999999999999999999", "99999999T"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_written() {
        let check = |bytes, text| assert_eq!(show(bytes), text);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check(2 << 30, "2.0 GiB");
        check(5 << 40, "5.0 TiB");
    }
}

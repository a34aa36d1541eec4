//! The values that options take, each a type with its parser.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use bitcoin::address::{Address, NetworkUnchecked};

use crate::chain::coinbase::CoinbaseText;
use crate::scan::Throttle;
use crate::value_error::{ValueError, slip};

/// Whether the version field is rolled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum VersionRolling {
    /// Where the job allows it.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// The form of the log on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Takes a share of the time, 1 to 100 percent.
///
/// # Errors
/// When it is anything else.
pub fn throttle(text: &str) -> Result<Throttle, ValueError> {
    let percent = text.strip_suffix('%').unwrap_or(text).parse().ok();
    percent
        .and_then(Throttle::percent)
        .ok_or_else(|| ValueError::new("it must be a whole number from 1 to 100"))
}

/// Takes what goes into the coinbase.
///
/// # Errors
/// When it is too long or unprintable.
pub fn coinbase_text(text: &str) -> Result<CoinbaseText, ValueError> {
    CoinbaseText::new(text).map_err(|error| ValueError::new(error.to_string()))
}

/// Takes `90s`, `10m`, `1h30m`, `500ms`: whole numbers, the larger units first.
///
/// # Errors
/// When it is none of these, is zero, or is longer than ten years (no clock is sure to add that).
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    const LONGEST: u64 = 3_650 * 86_400_000;
    let form =
        || ValueError::new("it is no duration").hint("write it like 500ms, 90s, 10m, 2h or 1h30m");
    let mut rest = text;
    let mut units = UNITS.as_slice();
    let mut total = 0u64;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(form());
        }
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() && rest == text && after.is_empty() {
            return Err(ValueError::new("its unit is missing")
                .hint(format!("write {number}s for seconds; m, h, d and ms are known too")));
        }
        let position = units.iter().position(|(name, _)| *name == unit).ok_or_else(form)?;
        total = number
            .parse()
            .ok()
            .and_then(|number: u64| number.checked_mul(units[position].1))
            .and_then(|milliseconds| milliseconds.checked_add(total))
            .filter(|total| *total <= LONGEST)
            .ok_or_else(|| ValueError::new("it is longer than ten years"))?;
        units = &units[position + 1..];
        rest = after;
    }
    if total == 0 {
        return Err(ValueError::new("it must be longer than zero"));
    }
    Ok(Duration::from_millis(total))
}

/// The names of all commands.
pub(super) fn commands() -> Vec<String> {
    use clap::CommandFactory as _;
    let root = super::Cli::command();
    root.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

/// Takes the name of a command.
///
/// # Errors
/// When there is none of that name.
pub fn command(text: &str) -> Result<String, ValueError> {
    let names = commands();
    if names.iter().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    let why = "there is no such command";
    Err(match slip(text, names.iter().map(String::as_str)) {
        Some(near) => ValueError::new(why).hint(format!("did you mean {near}?")),
        None => ValueError::new(why).hint("--help lists what there is"),
    })
}

/// Takes a number of things, at least one.
///
/// # Errors
/// When it is no such number.
pub fn count(text: &str) -> Result<NonZeroU64, ValueError> {
    text.parse().map_err(|_| ValueError::new("it must be a whole number, at least 1"))
}

/// Takes a number of threads.
///
/// # Errors
/// When it is no number, zero, or more than any machine has.
pub fn threads(text: &str) -> Result<NonZeroUsize, ValueError> {
    match text.parse::<NonZeroUsize>() {
        Ok(threads) if threads.get() <= 4_096 => Ok(threads),
        _ => Err(ValueError::new("it must be a whole number from 1 to 4096")),
    }
}

/// Takes an address of any chain; which chain it is of is to be checked against the source.
///
/// # Errors
/// When it is no address.
pub fn address(text: &str) -> Result<Address<NetworkUnchecked>, ValueError> {
    text.parse().map_err(|error: bitcoin::address::ParseError| {
        let lower = text.to_lowercase();
        let segwit = ["bc1", "tb1", "bcrt1"].iter().any(|prefix| lower.starts_with(prefix));
        let why = match (segwit, error) {
            (true, bitcoin::address::ParseError::Bech32(error)) => {
                format!("it is no bitcoin address: {error}")
            }
            _ => "it is no bitcoin address".to_owned(),
        };
        ValueError::new(why).hint("a letter may be wrong or missing: copy it once more")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("1d1ms", 86_400_001),
            ("0h1s", 1_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1x", "1.5h", "1m1m", "1s1h", "1 s", "1h30", "١s", "1s "] {
            assert_eq!(duration(text).unwrap_err().why, "it is no duration", "{text}");
        }
        assert_eq!(duration("90").unwrap_err().why, "its unit is missing");
        assert_eq!(duration("0s").unwrap_err().why, "it must be longer than zero");
        for text in ["99999999999999999999s", "18446744073709551615h", "3651d", "3650d1ms"] {
            assert_eq!(duration(text).unwrap_err().why, "it is longer than ten years", "{text}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(throttle("50%").ok(), Throttle::percent(50));
        assert!(throttle("0").is_err() && throttle("101").is_err());
        assert!(count("0").is_err() && count("-1").is_err() && count("x").is_err());
        assert!(threads("0").is_err() && threads("4097").is_err());
        assert!(coinbase_text(&"x".repeat(CoinbaseText::MAX_LEN)).is_ok());
        assert!(coinbase_text(&"x".repeat(CoinbaseText::MAX_LEN + 1)).is_err());
    }

    #[test]
    fn addresses_of_every_kind_are_taken_and_nonsense_is_not() {
        for text in [
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            "3P14159f73E4gFr7JterCCQh9QjiTjiZrG",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
            "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
            "TB1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KXPJZSX",
        ] {
            assert!(address(text).is_ok(), "{text}");
        }
        for text in ["", "x", "bc1", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "1A1zP1", "ü"] {
            assert!(address(text).unwrap_err().why.starts_with("it is no bitcoin address"));
        }
        assert!(address(&"1".repeat(1 << 16)).is_err());
    }
}

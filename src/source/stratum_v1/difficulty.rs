//! Reads a difficulty as a pool writes it, and computes its target exactly, in 256 bits.

use num_bigint::BigUint;

use crate::chain::target::Target;

/// The most characters of a number that are read; a float needs 24 at most.
const LENGTH_MAX: usize = 400;

/// Why a difficulty is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DifficultyError {
    /// It is not a decimal number.
    #[error("it is not a number")]
    NotANumber,
    /// It has more than 400 characters.
    #[error("it is a number of too many digits")]
    TooLong,
    /// Zero or less: it has no target.
    #[error("it is not above 0")]
    NotPositive,
    /// Its target is below 1.
    #[error("no hash can meet it")]
    TooHigh,
}

/// The target of the difficulty that `text` writes as a decimal number (as JSON does, or as JSON
/// does in a string): difficulty 1's target divided by it, rounded down, and never above the target that
/// every hash meets.
///
/// # Errors
/// When it is not a number, not above 0, or so high that no hash could meet it.
pub fn target_of(text: &str) -> Result<Target, DifficultyError> {
    let text = text.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if text.len() > LENGTH_MAX {
        return Err(DifficultyError::TooLong);
    }
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, read_exponent(exponent)?),
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().next().is_none() || !digits().all(|b| b.is_ascii_digit()) {
        return Err(DifficultyError::NotANumber);
    }
    let digits: Vec<u8> = digits().skip_while(|b| *b == b'0').collect();
    if digits.is_empty() || negative {
        return Err(DifficultyError::NotPositive);
    }
    // The number is DIGITS times ten to this power.
    let count = |digits: usize| i64::try_from(digits).unwrap_or(i64::MAX);
    let power = exponent - count(fraction.len());
    let magnitude = power + count(digits.len());
    if magnitude > 80 {
        return Err(DifficultyError::TooHigh);
    }
    if magnitude < -20 {
        return Ok(Target::max());
    }
    let ten_to = |power: i64| BigUint::from(10u8).pow(u32::try_from(power).unwrap_or(0));
    let mantissa = BigUint::parse_bytes(&digits, 10).ok_or(DifficultyError::NotANumber)?;
    let one = BigUint::from_bytes_be(&Target::DIFFICULTY_1.to_be_bytes());
    let target = (one * ten_to(-power)) / (mantissa * ten_to(power));
    let bytes = target.to_bytes_be();
    match bytes.as_slice() {
        [0] => Err(DifficultyError::TooHigh),
        bytes if bytes.len() > 32 => Ok(Target::max()),
        bytes => {
            let mut whole = [0; 32];
            whole[32 - bytes.len()..].copy_from_slice(bytes);
            Ok(Target::from_be_bytes(whole))
        }
    }
}

/// Reads an exponent, and limits it to a million: more makes no difference.
fn read_exponent(text: &str) -> Result<i64, DifficultyError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DifficultyError::NotANumber);
    }
    let size: i64 = digits.parse().unwrap_or(i64::MAX).min(1_000_000);
    Ok(if text.starts_with('-') { -size } else { size })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        target_of(text).unwrap().to_string()
    }

    #[test]
    fn targets_are_exact() {
        let one = format!("00000000ffff{}", "0".repeat(52));
        for text in ["1", "1.0", "\"1\"", "10e-1", "0.001E+3", " 1 ", "1.000000000000000000000000"]
        {
            assert_eq!(shown(text), one, "{text}");
        }
        assert_eq!(shown("2"), format!("000000007fff8{}", "0".repeat(51)));
        assert_eq!(shown("0.5"), format!("00000001fffe{}", "0".repeat(52)));
        // Python: hex(int(Fraction(0xffff << 208) / Fraction("0.001"))) and so on.
        assert_eq!(
            shown("0.001"),
            "000003e7fc180000000000000000000000000000000000000000000000000000"
        );
        assert_eq!(shown("3"), "0000000055550000000000000000000000000000000000000000000000000000");
        assert_eq!(shown("7"), "0000000024922492492492492492492492492492492492492492492492492492");
        assert_eq!(shown("1e67"), format!("{:0>64}", "2"));
    }

    #[test]
    fn invalid_difficulties_are_told_apart() {
        use DifficultyError::*;
        for (text, error) in [
            ("0", NotPositive),
            ("0.000", NotPositive),
            ("-1", NotPositive),
            ("-0.0", NotPositive),
            ("0e999999999999999999999", NotPositive),
            ("1e300", TooHigh),
            ("1e68", TooHigh),
            ("9e99999999999999999999999", TooHigh),
            ("NaN", NotANumber),
            ("\"NaN\"", NotANumber),
            ("Infinity", NotANumber),
            ("", NotANumber),
            (".", NotANumber),
            ("1e", NotANumber),
            ("null", NotANumber),
            ("[1]", NotANumber),
            ("\"", NotANumber),
        ] {
            assert_eq!(target_of(text), Err(error), "{text}");
        }
        assert_eq!(target_of(&"1".repeat(401)), Err(TooLong));
        assert_eq!(target_of("1e-300"), Ok(Target::max()));
        assert_eq!(target_of("2.3e-10"), Ok(Target::max()));
        assert!(target_of("2.4e-10").unwrap() < Target::max());
    }

    proptest! {
        #[test]
        fn it_agrees_with_floats_as_far_as_these_go(difficulty in 1e-9f64..1e15) {
            let target = target_of(&format!("{difficulty:e}")).unwrap();
            let back = target.difficulty().to_f64();
            prop_assert!((back / difficulty - 1.0).abs() < 1e-9, "{difficulty} {back}");
        }

        #[test]
        fn whatever_is_written_there_is_an_answer(text in "\\PC{0,40}") {
            let _ = target_of(&text);
        }
    }
}

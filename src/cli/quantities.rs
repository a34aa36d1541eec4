//! Options that take a quantity: a number, an SI prefix where that is usual, and its unit.

use bitcoin::Amount;

use crate::chain::target::Difficulty;
use crate::plot::{self, NoForm, PlotFile};
use crate::units::{HashRate, Price, Watts};
use crate::value_error::ValueError;

/// A plain number, without the words that Rust takes for one.
fn number(text: &str) -> Option<f64> {
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    text.chars().all(plain).then(|| text.parse().ok())?.filter(|value: &f64| value.is_finite())
}

/// A number that may end with an SI prefix: `150M`, `152.3T`.
fn scaled(text: &str) -> Option<f64> {
    let text = text.trim_end();
    let (digits, factor) = match text.chars().next_back()? {
        'k' | 'K' => (&text[..text.len() - 1], 1e3),
        'M' => (&text[..text.len() - 1], 1e6),
        'G' => (&text[..text.len() - 1], 1e9),
        'T' => (&text[..text.len() - 1], 1e12),
        'P' => (&text[..text.len() - 1], 1e15),
        'E' => (&text[..text.len() - 1], 1e18),
        _ => (text, 1.0),
    };
    Some(number(digits.trim_end())? * factor)
}

/// Takes `150MH/s`, `150 MH/s`, `1.5e8`.
///
/// # Errors
/// When it is no such rate, or not above zero.
pub fn hash_rate(text: &str) -> Result<HashRate, ValueError> {
    let bare = text.strip_suffix("H/s").or_else(|| text.strip_suffix("h/s")).unwrap_or(text);
    match scaled(bare).filter(|rate| rate.is_finite() && *rate > 0.0) {
        Some(rate) => Ok(HashRate::from_f64(rate)),
        None => Err(ValueError::new("it is no hash rate above zero")
            .hint("write it like 150MH/s, 7.2GH/s or 1.5e8")),
    }
}

/// Takes `152.3T`, `1`, `0.001`, `4.66e-10`.
///
/// # Errors
/// When it is no such number, or not above zero.
pub fn difficulty(text: &str) -> Result<Difficulty, ValueError> {
    scaled(text).and_then(Difficulty::from_f64).ok_or_else(|| {
        ValueError::new("it is no difficulty above zero")
            .hint("write it like 152.3T, 1.5e14 or 0.001")
    })
}

/// Takes `65`, `65W`, `1.2kW`.
///
/// # Errors
/// When it is no such power, or not above zero.
pub fn watts(text: &str) -> Result<Watts, ValueError> {
    scaled(text.strip_suffix('W').unwrap_or(text)).and_then(Watts::new).ok_or_else(|| {
        ValueError::new("it is no power above zero").hint("write it like 65W or 1.2kW")
    })
}

/// Takes a price in any currency, which is not named.
///
/// # Errors
/// When it is no number, or negative.
pub fn price(text: &str) -> Result<Price, ValueError> {
    number(text)
        .and_then(Price::new)
        .ok_or_else(|| ValueError::new("it is no price").hint("write a plain number, like 0.25"))
}

/// Takes a quotient, such as 0.95.
///
/// # Errors
/// When it is not a number, or not above zero.
pub fn ratio(text: &str) -> Result<f64, ValueError> {
    number(text).filter(|ratio| *ratio > 0.0 && *ratio <= 1.0).ok_or_else(|| {
        ValueError::new("it is no ratio above 0 and up to 1").hint("0.9 stands for 10 % slower")
    })
}

/// Takes the name of a file to draw into.
///
/// # Errors
/// When its name does not say in which form, or this build draws none.
pub fn plot_file(name: &str) -> Result<PlotFile, ValueError> {
    if let Some(why) = plot::NOT_BUILT {
        return Err(ValueError::new(why));
    }
    name.parse().map_err(|error: NoForm| ValueError::new(error.to_string()))
}

/// Takes an amount of coins.
///
/// # Errors
/// When it is not a number, negative, or more coins than there will be.
pub fn coins(text: &str) -> Result<Amount, ValueError> {
    number(text)
        .and_then(|coins| Amount::from_btc(coins).ok())
        .filter(|coins| *coins <= Amount::MAX_MONEY)
        .ok_or_else(|| {
            ValueError::new("it is no amount of coins")
                .hint("write it like 3.125, eight decimals at most")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_people_write_them() {
        for text in ["150MH/s", "150 MH/s", "150M", "1.5e8", "150000kH/s", "0.15Gh/s"] {
            let rate = hash_rate(text).unwrap().to_f64();
            assert!((rate / 1.5e8 - 1.0).abs() < 1e-12, "{text}: {rate}");
        }
        assert!((difficulty("152.3T").unwrap().to_f64() / 152.3e12 - 1.0).abs() < 1e-12);
        assert!((difficulty("4.66e-10").unwrap().to_f64() / 4.66e-10 - 1.0).abs() < 1e-12);
        assert!((watts("1.2kW").unwrap().to_f64() - 1_200.0).abs() < 1e-9);
        assert_eq!(watts("65").unwrap(), watts("65W").unwrap());
        assert_eq!(price("0").unwrap(), Price::new(0.0).unwrap());
        assert_eq!(coins("3.125").unwrap(), Amount::from_sat(312_500_000));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "-1", "nan", "inf", "1e400", "x", "H/s", "MH/s", "1M M", "é", "1é"]
        {
            assert!(hash_rate(text).is_err(), "{text}");
            assert!(difficulty(text).is_err(), "{text}");
            assert!(watts(text).is_err(), "{text}");
        }
        for text in ["", "-1", "nan", "1 €", "0x1"] {
            assert!(price(text).is_err(), "{text}");
            assert!(coins(text).is_err(), "{text}");
        }
        assert!(coins("21000001").is_err() && coins("0.000000001").is_err());
    }
}

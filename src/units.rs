//! Quantities, each a type of its own, and how numbers are written for people.

use std::fmt;

/// Hashes per second: (version, nonce) pairs tried against the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct HashRate(f64);

impl HashRate {
    /// The rate at which `hashes` are done in `seconds`; 0 where no time has passed.
    #[must_use]
    pub fn of(hashes: u64, seconds: f64) -> Self {
        if seconds > 0.0 { Self(hashes as f64 / seconds) } else { Self(0.0) }
    }

    /// From a plain number of hashes per second.
    #[must_use]
    pub const fn from_f64(hashes_per_second: f64) -> Self {
        Self(hashes_per_second)
    }

    /// Hashes per second as a plain number.
    #[must_use]
    pub const fn to_f64(self) -> f64 {
        self.0
    }
}

/// With an SI prefix: `31.5 MH/s`.
impl fmt::Display for HashRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, " ")?;
        f.write_str("H/s")
    }
}

/// Writes four significant digits, `gap`, and an SI prefix if there is one.
pub(crate) fn write_scaled(f: &mut fmt::Formatter<'_>, value: f64, gap: &str) -> fmt::Result {
    const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut scaled = value;
    let mut prefix = 0;
    while scaled >= 999.95 && prefix + 1 < PREFIXES.len() {
        scaled /= 1000.0;
        prefix += 1;
    }
    let decimals = match scaled {
        x if prefix == 0 && x.fract() == 0.0 => 0,
        x if x < 10.0 => 3,
        x if x < 100.0 => 2,
        _ => 1,
    };
    write!(f, "{scaled:.decimals$}{gap}{}", PREFIXES[prefix])
}

/// Energy.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Joules(f64);

impl Joules {
    /// From a plain number of joules.
    #[must_use]
    pub const fn from_f64(joules: f64) -> Self {
        Self(joules)
    }

    /// From a counter's microjoules.
    #[must_use]
    pub const fn from_micro(microjoules: u64) -> Self {
        Self(microjoules as f64 / 1e6)
    }

    /// As a plain number of joules.
    #[must_use]
    pub const fn to_f64(self) -> f64 {
        self.0
    }

    /// In kilowatt-hours of 3.6 million joules.
    #[must_use]
    pub const fn kilowatt_hours(self) -> f64 {
        self.0 / 3.6e6
    }
}

impl std::ops::Add for Joules {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

/// Power.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Watts(f64);

impl Watts {
    /// From a plain number of watts; `None` where it is no finite number, or not above zero.
    #[must_use]
    pub fn new(watts: f64) -> Option<Self> {
        (watts.is_finite() && watts > 0.0).then_some(Self(watts))
    }

    /// As a plain number of watts.
    #[must_use]
    pub const fn to_f64(self) -> f64 {
        self.0
    }

    /// The energy of this power over `seconds`.
    #[must_use]
    pub const fn over(self, seconds: f64) -> Joules {
        Joules(self.0 * seconds)
    }
}

/// `65.2 W`.
impl fmt::Display for Watts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} W", self.0)
    }
}

/// Money in whatever currency the user thinks in, not negative.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Price(f64);

impl Price {
    /// From a plain number; `None` where it is negative or no finite number.
    #[must_use]
    pub fn new(price: f64) -> Option<Self> {
        (price.is_finite() && price >= 0.0).then_some(Self(price))
    }

    /// As a plain number.
    #[must_use]
    pub const fn to_f64(self) -> f64 {
        self.0
    }
}

impl std::ops::Mul<f64> for Price {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self(self.0 * times)
    }
}

impl std::ops::Div<f64> for Price {
    type Output = Self;

    fn div(self, parts: f64) -> Self {
        Self(self.0 / parts)
    }
}

/// Three significant digits, thousands in groups: `0.0123`, `4.56`, `78.9`, `1,230`.
#[must_use]
pub fn three_digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e15).contains(&value.abs()) {
        return format!("{value:.2e}");
    }
    // The exponent after rounding: 9.996 is 10.0.
    let exponent = format!("{value:.2e}").rsplit('e').next().and_then(|e| e.parse::<i32>().ok());
    let decimals = 2 - exponent.unwrap_or(0);
    if decimals > 0 {
        return format!("{value:.*}", decimals as usize);
    }
    let unit = 10f64.powi(-decimals);
    let digits = format!("{:.0}", (value / unit).round() * unit);
    grouped_digits(&digits)
}

/// A whole number with a comma every three digits.
#[must_use]
pub fn grouped(number: u64) -> String {
    grouped_digits(&number.to_string())
}

fn grouped_digits(digits: &str) -> String {
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The `s` of a plural: empty for one.
#[must_use]
pub fn plural<N: PartialEq + From<u8>>(count: N) -> &'static str {
    if count == N::from(1) { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_four_digits() {
        assert_eq!(HashRate::of(31_512_345, 1.0).to_string(), "31.51 MH/s");
        assert_eq!(HashRate::of(999_960, 1.0).to_string(), "1.000 MH/s");
        assert_eq!(HashRate::of(7, 1.0).to_string(), "7 H/s");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!([0_u64, 1, 2].map(plural), ["s", "", "s"]);
    }

    #[test]
    fn units() {
        assert_eq!(Joules::from_micro(1_500_000), Joules::from_f64(1.5));
        assert!((Joules::from_f64(7.2e6).kilowatt_hours() - 2.0).abs() < 1e-12);
        assert_eq!(Watts::new(50.0).unwrap().over(2.0), Joules::from_f64(100.0));
        for no in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Watts::new(no), None);
        }
    }
}

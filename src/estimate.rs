//! How long a block or a share takes at some hash rate, and what it costs.
//!
//! Every hash meets the target with the same small probability, whatever was tried before. So the
//! time to the next one is exponentially distributed: with a mean of m, half of all waits are over
//! within m ln 2, and of twenty one is longer than m ln 20. Nothing is ever "due".

use std::fmt;

use bitcoin::Amount;

use crate::chain::target::Difficulty;
use crate::units::{HashRate, Joules, Price, Watts, three_digits};

/// A time in seconds, from nanoseconds to far beyond the age of the universe.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Wait(f64);

/// A year of 365.25 days, in seconds.
const YEAR: f64 = 31_557_600.0;

impl Wait {
    /// From a number of seconds.
    #[must_use]
    pub const fn from_seconds(seconds: f64) -> Self {
        Self(seconds)
    }

    /// In seconds.
    #[must_use]
    pub const fn seconds(self) -> f64 {
        self.0
    }

    /// In years of 365.25 days.
    #[must_use]
    pub const fn years(self) -> f64 {
        self.0 / YEAR
    }
}

/// Three significant digits in the most readable unit.
impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(f64, &str); 11] = [
            (1e9 * YEAR, "billion years"),
            (1e6 * YEAR, "million years"),
            (1e3 * YEAR, "thousand years"),
            (YEAR, "years"),
            (86_400.0, "days"),
            (3_600.0, "hours"),
            (60.0, "minutes"),
            (1.0, "seconds"),
            (1e-3, "ms"),
            (1e-6, "µs"),
            (1e-9, "ns"),
        ];
        // A little below a unit still rounds to it.
        let found = UNITS.iter().find(|(size, _)| self.0 >= size * 0.999_5);
        let (size, unit) = *found.unwrap_or(&UNITS[UNITS.len() - 1]);
        let value = self.0 / size;
        // Up to a million of the largest there is in words; beyond that in powers of ten.
        if value >= 1e6 {
            return write!(f, "{:.2e} years", self.years());
        }
        write!(f, "{} {unit}", three_digits(value))
    }
}

/// What is known beside the difficulty.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How fast.
    pub rate: HashRate,
    /// What the machine draws meanwhile.
    pub watts: Option<Watts>,
    /// What a kilowatt-hour costs.
    pub price_per_kwh: Option<Price>,
    /// What a block pays.
    pub reward: Option<Amount>,
    /// What a coin is worth.
    pub coin_price: Option<Price>,
}

/// What is to be expected of one difficulty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Of what is to be found.
    pub difficulty: Difficulty,
    /// On average.
    pub mean: Wait,
    /// Half of all waits are shorter.
    pub median: Wait,
    /// 95 % of all waits are shorter.
    pub within_95_percent: Wait,
    /// Used on average until it is found.
    pub energy: Option<Joules>,
    /// What that energy costs.
    pub cost: Option<Price>,
}

impl Outlook {
    /// At `difficulty` and on these terms.
    #[must_use]
    pub fn new(difficulty: Difficulty, terms: &Terms) -> Self {
        let mean = difficulty.expected_hashes() / terms.rate.to_f64();
        let energy = terms.watts.map(|watts| watts.over(mean));
        let cost = energy.zip(terms.price_per_kwh);
        Self {
            difficulty,
            mean: Wait(mean),
            median: Wait(mean * std::f64::consts::LN_2),
            within_95_percent: Wait(mean * 20f64.ln()),
            energy,
            cost: cost.map(|(energy, price)| price * energy.kilowatt_hours()),
        }
    }

    /// The probability that it is found within `seconds`, 0 to 1.
    #[must_use]
    pub fn chance_within(&self, seconds: f64) -> f64 {
        // Exact where the chance is tiny, too.
        -(-seconds / self.mean.0).exp_m1()
    }

    /// What a coin must be worth for a block's reward to pay for its energy.
    #[must_use]
    pub fn break_even_coin_price(&self, terms: &Terms) -> Option<Price> {
        let coins = terms.reward.map(Amount::to_btc).filter(|coins| *coins > 0.0)?;
        Some(self.cost? / coins)
    }

    /// What a kilowatt-hour may cost for a block's reward to pay for its energy.
    #[must_use]
    pub fn break_even_price_per_kwh(&self, terms: &Terms) -> Option<Price> {
        let worth = terms.coin_price? * terms.reward?.to_btc();
        Some(worth / self.energy?.kilowatt_hours())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(rate: f64) -> Terms {
        Terms {
            rate: HashRate::from_f64(rate),
            watts: Watts::new(100.0),
            price_per_kwh: Price::new(0.25),
            reward: Some(Amount::from_btc(3.125).unwrap()),
            coin_price: Price::new(60_000.0),
        }
    }

    fn difficulty(value: f64) -> Difficulty {
        Difficulty::from_f64(value).unwrap()
    }

    fn near(a: f64, b: f64) -> bool {
        (a / b - 1.0).abs() < 1e-9
    }

    #[test]
    fn the_wait_is_exponential() {
        // Difficulty 65535/65536 takes 2^32 hashes.
        let outlook = Outlook::new(difficulty(65_535.0 / 65_536.0), &terms(4_294_967_296.0 / 10.0));
        assert!(near(outlook.mean.seconds(), 10.0));
        assert!(near(outlook.chance_within(outlook.median.seconds()), 0.5));
        assert!(near(outlook.chance_within(outlook.within_95_percent.seconds()), 0.95));
        assert!(near(outlook.chance_within(1e-15), 1e-16));
        assert!(near(outlook.chance_within(1e9), 1.0));
    }

    #[test]
    fn energy_and_prices_follow() {
        let terms = terms(1e12);
        let outlook = Outlook::new(difficulty(1e6), &terms);
        let seconds = 1e6 * 65_536.0 / 65_535.0 * 4_294_967_296.0 / 1e12;
        let kwh = seconds * 100.0 / 3.6e6;
        assert!(near(outlook.energy.unwrap().kilowatt_hours(), kwh));
        assert!(near(outlook.cost.unwrap().to_f64(), kwh * 0.25));
        assert!(near(outlook.break_even_coin_price(&terms).unwrap().to_f64(), kwh * 0.25 / 3.125));
        let power = outlook.break_even_price_per_kwh(&terms).unwrap().to_f64();
        assert!(near(power, 3.125 * 60_000.0 / kwh));
        let free = Terms { watts: None, ..terms };
        let outlook = Outlook::new(difficulty(1e6), &free);
        assert_eq!((outlook.energy, outlook.cost), (None, None));
        assert_eq!(outlook.break_even_coin_price(&free), None);
    }

    #[test]
    fn waits_read_as_a_person_would_say_them() {
        for (seconds, text) in [
            (0.0, "0 ns"),
            (1.3e-8, "13.0 ns"),
            (4.56e-3, "4.56 ms"),
            (1.0, "1.00 seconds"),
            (59.99, "1.00 minutes"),
            (599.9, "10.0 minutes"),
            (90.0, "1.50 minutes"),
            (7_200.0, "2.00 hours"),
            (86_400.0 * 3.0, "3.00 days"),
            (YEAR * 12.0, "12.0 years"),
            (YEAR * 4_560.0, "4.56 thousand years"),
            (YEAR * 1.372e8, "137 million years"),
            (YEAR * 4.2e12, "4,200 billion years"),
            (YEAR * 4.2e20, "4.20e20 years"),
            (f64::INFINITY, "inf years"),
        ] {
            assert_eq!(Wait(seconds).to_string(), text);
        }
    }

    #[test]
    fn prices_are_no_nonsense() {
        assert_eq!(Price::new(-0.1), None);
        assert_eq!(Price::new(f64::NAN), None);
        assert!(Price::new(0.0).is_some());
    }
}

//! What `adit estimate` has to show.

use std::fmt::Write as _;

use bitcoin::Amount;
use serde::Serialize;

use super::results::Shown;
use crate::estimate::{Outlook, Terms, Wait};
use crate::source::getblocktemplate::{MiningInfo, Side};
use crate::units::{Price, three_digits};

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The user said it.
    Given,
    /// It was measured just now.
    Measured,
}

/// An estimate with all that went into it.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    version: &'static str,
    hashes_per_second: f64,
    hash_rate_from: Origin,
    watts: Option<f64>,
    watts_from: Option<Origin>,
    watts_reason: Option<String>,
    network: Option<&'static str>,
    height: Option<u64>,
    twenty_minute_rule: Option<Side>,
    price_per_kwh: Option<f64>,
    coin_price: Option<f64>,
    block: Option<Block>,
    share: Option<Find>,
    #[serde(skip)]
    terms: Terms,
}

#[derive(Clone, Debug, Serialize)]
struct Block {
    #[serde(flatten)]
    find: Find,
    reward: Option<f64>,
    break_even_coin_price: Option<f64>,
    break_even_price_per_kwh: Option<f64>,
}

/// What it takes to find one.
#[derive(Clone, Debug, Serialize)]
struct Find {
    difficulty: f64,
    expected_hashes: f64,
    seconds: Seconds,
    chance_within_day: f64,
    chance_within_year: f64,
    joules: Option<f64>,
    cost: Option<f64>,
    #[serde(skip)]
    outlook: Outlook,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Seconds {
    mean: f64,
    median: f64,
    within_95_percent: f64,
}

const DAY: f64 = 86_400.0;
const YEAR: f64 = 365.25 * DAY;

/// From this average on, the text says what it means.
const LIFETIME: f64 = 100.0 * YEAR;

impl Find {
    fn new(outlook: Outlook) -> Self {
        Self {
            difficulty: outlook.difficulty.to_f64(),
            expected_hashes: outlook.difficulty.expected_hashes(),
            seconds: Seconds {
                mean: outlook.mean.seconds(),
                median: outlook.median.seconds(),
                within_95_percent: outlook.within_95_percent.seconds(),
            },
            chance_within_day: outlook.chance_within(DAY),
            chance_within_year: outlook.chance_within(YEAR),
            joules: outlook.energy.map(crate::units::Joules::to_f64),
            cost: outlook.cost.map(Price::to_f64),
            outlook,
        }
    }

    fn rows(&self, text: &mut String) {
        let Outlook { mean, median, within_95_percent, energy, cost, .. } = self.outlook;
        row(text, "hashes", &format!("{} on average", three_digits(self.expected_hashes)));
        row(text, "time", &format!("{mean} on average"));
        row(text, "", &format!("{median} or less in half of all cases (the median)"));
        row(text, "", &format!("{within_95_percent} or less in 95 % of them"));
        row(text, "chance in a day", &chance(self.chance_within_day));
        row(text, "chance in a year", &chance(self.chance_within_year));
        if let Some(energy) = energy {
            row(
                text,
                "energy",
                &format!("{} kWh on average", three_digits(energy.kilowatt_hours())),
            );
        }
        if let Some(cost) = cost {
            row(text, "its cost", &three_digits(cost.to_f64()));
        }
    }
}

impl Estimate {
    /// `terms` as they are, what is known of the node, and what is looked for.
    #[must_use]
    pub fn new(
        terms: Terms,
        hash_rate_from: Origin,
        watts_from: Result<Origin, String>,
        node: Option<&MiningInfo>,
        block: Option<Outlook>,
        share: Option<Outlook>,
    ) -> Self {
        let block = block.map(|outlook| Block {
            reward: terms.reward.map(Amount::to_btc),
            break_even_coin_price: outlook.break_even_coin_price(&terms).map(Price::to_f64),
            break_even_price_per_kwh: outlook.break_even_price_per_kwh(&terms).map(Price::to_f64),
            find: Find::new(outlook),
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            hashes_per_second: terms.rate.to_f64(),
            hash_rate_from,
            watts: terms.watts.map(crate::units::Watts::to_f64),
            watts_from: watts_from.as_ref().ok().copied(),
            watts_reason: watts_from.err(),
            network: node.map(|node| node.params.name),
            height: node.map(|node| node.height),
            twenty_minute_rule: node.and_then(|node| node.side),
            price_per_kwh: terms.price_per_kwh.map(Price::to_f64),
            coin_price: terms.coin_price.map(Price::to_f64),
            block,
            share: share.map(Find::new),
            terms,
        }
    }
}

impl Shown for Estimate {
    fn table(&self) -> String {
        let mut text = String::new();
        let from = |origin| match origin {
            Origin::Given => "given",
            Origin::Measured => "measured",
        };
        row(
            &mut text,
            "hash rate",
            &format!("{} ({})", self.terms.rate, from(self.hash_rate_from)),
        );
        match (self.terms.watts, self.watts_from, &self.watts_reason) {
            (Some(watts), Some(origin), _) => {
                row(&mut text, "power", &format!("{watts} ({})", from(origin)));
            }
            (_, _, Some(reason)) => {
                row(&mut text, "power", &format!("-, {reason}; --watts gives it"));
            }
            _ => {}
        }
        if let (Some(network), Some(height)) = (self.network, self.height) {
            row(&mut text, "chain", &format!("{network}, block {height} is next"));
        }
        if let Some(block) = &self.block {
            let _ = writeln!(
                text,
                "\na block of difficulty {}{}",
                block.find.outlook.difficulty,
                self.twenty_minute_rule.map_or("", which),
            );
            block.find.rows(&mut text);
            if let Some(reward) = block.reward {
                row(&mut text, "pays", &format!("{reward} coins, fees left aside"));
            }
            if let Some(price) = block.break_even_coin_price {
                row(
                    &mut text,
                    "pays for its energy",
                    &format!("with a coin at {}", three_digits(price)),
                );
            }
            if let Some(price) = block.break_even_price_per_kwh {
                let price = three_digits(price);
                let label =
                    if block.break_even_coin_price.is_some() { "" } else { "pays for its energy" };
                row(&mut text, label, &format!("with a kWh at {price}"));
            }
            if block.find.seconds.mean > LIFETIME {
                let years = Wait::from_seconds(block.find.seconds.mean);
                let _ = writeln!(
                    text,
                    "\nDo not expect to find a block here: at this rate one takes {years} on average."
                );
            }
        }
        if let Some(share) = &self.share {
            let _ = write!(text, "\na share of difficulty {}\n", share.outlook.difficulty);
            share.rows(&mut text);
        }
        text
    }
}

/// Which of two difficulties it is, and for how long.
const fn which(side: Side) -> &'static str {
    match side {
        Side::PeriodStart => ", which a period's first block has whenever it comes",
        Side::Period => ", the period's own, until the tip is twenty minutes old, then the lowest",
        Side::Lowest => ", the lowest, until a block comes, then the period's own",
    }
}

fn row(text: &mut String, label: &str, value: &str) {
    let _ = writeln!(text, "{label:<21}{value}");
}

/// `63.2 %`, and small ones in words that show how small: `1 in 50,500,000,000`.
fn chance(chance: f64) -> String {
    if chance <= 0.0 {
        return "none to speak of".to_owned();
    }
    if chance >= 0.01 {
        // Never a certainty that it is not.
        let percent = (chance * 100.0).min(99.99);
        let sign = if chance > 0.9999 { "over " } else { "" };
        return format!("{sign}{percent:.2} %");
    }
    format!("1 in {}", three_digits(1.0 / chance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_said_so_that_they_can_be_felt() {
        assert_eq!(chance(0.0), "none to speak of");
        assert_eq!(chance(0.5), "50.00 %");
        assert_eq!(chance(1.0), "over 99.99 %");
        assert_eq!(chance(2e-11), "1 in 50,000,000,000");
    }
}

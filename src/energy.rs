//! What hashing costs in energy: read from the processor's and the cards' own counters, or told by
//! the user. Where there is neither, there is no figure and a reason.

#[cfg(feature = "energy")]
mod nvml;
#[cfg(not(feature = "energy"))]
#[path = "energy/no_nvml.rs"]
mod nvml;
mod rapl;
mod totals;

pub use self::nvml::Nvml;
pub use self::rapl::Rapl;
pub use self::totals::EnergyTotals;
use crate::units::Joules;

/// Why there is no figure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReading {
    /// The system has no counters of the processor's energy.
    #[error("this system has no RAPL counters (no package domain in /sys/class/powercap)")]
    NoRapl,
    /// They are there, and we may not read them.
    #[error("RAPL's energy_uj may not be read by this user (usually only by root)")]
    Forbidden,
    /// A counter holds no number, or vanished.
    #[error("RAPL: {0}")]
    Rapl(String),
    /// They do not count.
    #[error("the energy counters stand still, as those of some virtual machines do")]
    Still,
    /// The NVIDIA driver's library is not there, or does not work.
    #[error("NVML: {0}")]
    Nvml(String),
    /// No card of that name, or more than one.
    #[error("NVML knows {count} cards of the name {name:?}, and it takes one")]
    WhichCard {
        /// The card as its backend names it.
        name: String,
        /// How many have that name.
        count: usize,
    },
    /// Energy is not read in this build.
    #[error(
        "this build of adit reads no energy counters: it was built without the feature `energy`"
    )]
    NotBuilt,
    /// Nothing was read because nothing was measured.
    #[error("nothing was measured")]
    Nothing,
}

/// Whose energy is to be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consumer {
    /// All of the processor's packages.
    Cpu,
    /// The card of this name.
    Gpu(String),
}

/// Everything that can be read here.
#[derive(Debug)]
pub struct Meters {
    rapl: Result<Rapl, NoReading>,
    nvml: Result<Nvml, NoReading>,
}

/// The counters of some consumers at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    rapl: Option<rapl::Counters>,
    /// Millijoules, card by card.
    cards: Vec<u64>,
}

impl Meters {
    /// Looks what there is. The driver's library is loaded only where a card is among `consumers`.
    #[must_use]
    pub fn open(consumers: &[Consumer]) -> Self {
        if !cfg!(feature = "energy") {
            return Self { rapl: Err(NoReading::NotBuilt), nvml: Err(NoReading::NotBuilt) };
        }
        let rapl = Rapl::open(&powercap());
        let cards = consumers.iter().any(|consumer| matches!(consumer, Consumer::Gpu(_)));
        let nvml = if cards { Nvml::open() } else { Err(NoReading::Nothing) };
        Self { rapl, nvml }
    }

    /// Whether there are any counters.
    fn are_there_any(&self) -> bool {
        self.rapl.is_ok() || self.nvml.is_ok()
    }

    /// What the counters of `consumers` say now.
    ///
    /// # Errors
    /// When the counter of one of them cannot be read: a sum that leaves one out is no sum.
    pub fn read(&self, consumers: &[Consumer]) -> Result<Reading, NoReading> {
        let mut reading = Reading { rapl: None, cards: Vec::new() };
        for consumer in consumers {
            match consumer {
                Consumer::Cpu => {
                    reading.rapl = Some(self.rapl.as_ref().map_err(Clone::clone)?.read()?);
                }
                Consumer::Gpu(name) => {
                    let nvml = self.nvml.as_ref().map_err(Clone::clone)?;
                    reading.cards.push(nvml.millijoules(name)?);
                }
            }
        }
        Ok(reading)
    }

    /// What was used from one reading of some consumers to a later one of the same.
    #[must_use]
    pub fn between(&self, before: &Reading, after: &Reading) -> Joules {
        let mut used = Joules::default();
        if let (Ok(rapl), Some(before), Some(after)) = (&self.rapl, &before.rapl, &after.rapl) {
            used = used + rapl.between(before, after);
        }
        for (before, after) in before.cards.iter().zip(&after.cards) {
            used = used + Joules::from_micro(after.saturating_sub(*before) * 1_000);
        }
        used
    }
}

/// Where Linux shows its power caps. In a debug build a test may put another folder in its place.
fn powercap() -> std::path::PathBuf {
    #[cfg(debug_assertions)]
    if let Some(folder) = std::env::var_os("ADIT_POWERCAP") {
        return folder.into();
    }
    "/sys/class/powercap".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_has_a_reason() {
        let meters = Meters { rapl: Err(NoReading::NoRapl), nvml: Err(NoReading::Nothing) };
        assert_eq!(meters.read(&[Consumer::Cpu]).unwrap_err(), NoReading::NoRapl);
        let card = Consumer::Gpu("a card".into());
        assert_eq!(meters.read(&[card]).unwrap_err(), NoReading::Nothing);
        let nothing = meters.read(&[]).unwrap();
        assert_eq!(meters.between(&nothing, &nothing), Joules::default());
    }
}

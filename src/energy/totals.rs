//! What has been used since a run began.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use super::{Consumer, Meters, Reading};
use crate::units::Joules;

/// How often the counters are read. A processor's start again at zero after a minute or more.
const READ_EVERY: Duration = Duration::from_secs(1);

type Totals = BTreeMap<Consumer, Joules>;

/// What some consumers have used since this was started. A thread of its own reads the counters, since a
/// driver's library may take its time, or never return where its card has failed; it ends by itself where
/// there are no counters, and within a second once nothing asks any more.
#[derive(Debug)]
pub struct EnergyTotals(Arc<Mutex<Totals>>);

impl EnergyTotals {
    /// Begins to read the counters of `consumers`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(consumers: Vec<Consumer>) -> io::Result<Self> {
        let totals = Arc::new(Mutex::new(Totals::new()));
        let published = Arc::downgrade(&totals);
        thread::Builder::new().name("energy".to_owned()).spawn(move || {
            let meters = Meters::open(&consumers);
            if !meters.are_there_any() {
                return;
            }
            let mut counters = Counters::default();
            while let Some(totals) = published.upgrade() {
                for consumer in &consumers {
                    let used = counters.read(&meters, consumer);
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    match used {
                        Some(used) => totals.insert(consumer.clone(), used),
                        None => totals.remove(consumer),
                    };
                }
                drop(totals);
                thread::sleep(READ_EVERY);
            }
        })?;
        Ok(Self(totals))
    }

    /// What `consumer` has used, in joules, when that was last read, a second ago or less; `None` where it
    /// cannot be read, and as long as its counter stands still, as those of some virtual machines do.
    /// What it used while it could not be read counts once it can.
    #[must_use]
    pub fn of(&self, consumer: &Consumer) -> Option<Joules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(consumer).copied()
    }
}

/// The last readings, and what was used until then.
#[derive(Default)]
struct Counters(BTreeMap<Consumer, (Reading, Joules)>);

impl Counters {
    fn read(&mut self, meters: &Meters, consumer: &Consumer) -> Option<Joules> {
        let now = meters.read(std::slice::from_ref(consumer)).ok()?;
        let first = || (now.clone(), Joules::default());
        let (last, used) = self.0.entry(consumer.clone()).or_insert_with(first);
        *used = *used + meters.between(last, &now);
        *last = now;
        (*used > Joules::default()).then_some(*used)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{NoReading, Rapl};
    use super::*;

    #[test]
    fn what_is_used_adds_up_over_the_counters_end_and_over_what_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("intel-rapl:0");
        fs::create_dir(&package).unwrap();
        let write = |name: &str, text: &str| fs::write(package.join(name), text).unwrap();
        write("name", "package-0\n");
        write("max_energy_range_uj", "10000000\n");
        write("energy_uj", "9000000\n");
        let rapl = Rapl::open(folder.path());
        let meters = Meters { rapl, nvml: Err(NoReading::Nothing) };
        let mut counters = Counters::default();
        let mut read = || counters.read(&meters, &Consumer::Cpu).map(Joules::to_f64);
        assert_eq!(read(), None, "nothing is used yet");
        assert_eq!(read(), None, "a counter that stands still measures nothing");
        write("energy_uj", "9500000\n");
        assert_eq!(read(), Some(0.5));
        write("energy_uj", "?\n");
        assert_eq!(read(), None);
        write("energy_uj", "500000\n");
        assert!(read().is_some_and(|used| (used - 1.5).abs() < 1e-3));
        let card = Consumer::Gpu("a card".to_owned());
        assert_eq!(counters.read(&meters, &card), None);
    }

    #[test]
    fn where_there_are_no_counters_there_are_no_totals() {
        let totals = EnergyTotals::start(Vec::new()).unwrap();
        assert_eq!(totals.of(&Consumer::Cpu), None);
    }
}

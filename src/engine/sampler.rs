//! The thread that reads the engine's counters: it publishes the status and announces hash rates.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::rates::RateHistory;
use super::state::Shared;
use super::status::Status;
use crate::event::Event;
use crate::scan::BackendInfo;
use crate::units::{HashRate, Joules};

/// How often the status is published.
const STATUS_EVERY: Duration = Duration::from_millis(100);
/// How often the hash rate is announced.
const RATE_EVERY: Duration = Duration::from_secs(2);
/// The first rate comes sooner, so that there is something to see.
const FIRST_RATE: Duration = Duration::from_millis(500);

/// How often the energy is read, if there is a meter.
const ENERGY_EVERY: Duration = Duration::from_secs(1);

/// Reads the energy that a backend has used since the meter began, which may be with the first call;
/// `None` where it cannot be read. It is called by the thread that publishes the status, once a second
/// for each backend, and delays the status as long as it takes.
pub type EnergyMeter = Box<dyn FnMut(&BackendInfo) -> Option<Joules> + Send>;

/// What the thread works with.
pub(super) struct Sampler {
    shared: Arc<Shared>,
    history: RateHistory,
    status: watch::Sender<Status>,
    /// The counters at the last announced rate, and when that was.
    announced: (Vec<u64>, Instant),
    next_rate: Instant,
    meter: Option<EnergyMeter>,
    /// What each backend has used when that was last read.
    energy: Vec<Option<Joules>>,
    next_energy: Instant,
}

impl Sampler {
    /// Begins with a run that has just begun.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let begun = shared.begun.1;
        let history = RateHistory::new(begun, shared.backends.len());
        let energy = vec![None; shared.backends.len()];
        let status = watch::Sender::new(Status::read(&shared, &history, &energy));
        let announced = (vec![0; shared.backends.len()], begun);
        Self {
            shared,
            history,
            status,
            announced,
            next_rate: begun + FIRST_RATE,
            meter: None,
            energy,
            next_energy: begun,
        }
    }

    /// Where the status is published.
    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Publishes and announces until the other end of `meters` is dropped; reads the energy by the meter
    /// that comes over it. Gives itself back for the last status, which comes when all is counted.
    pub(super) fn run(mut self, meters: &Receiver<EnergyMeter>) -> Self {
        loop {
            match meters.recv_timeout(STATUS_EVERY) {
                Ok(meter) => self.meter = Some(meter),
                Err(RecvTimeoutError::Timeout) => self.sample(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.read_energy();
                    return self;
                }
            }
        }
    }

    fn sample(&mut self) {
        let (now, hashes) = (Instant::now(), self.shared.hashes());
        self.history.note(now, &hashes);
        if now >= self.next_rate && !*self.shared.stopping.borrow() {
            self.announce_rate(now, &hashes);
            self.next_rate = now + RATE_EVERY;
        }
        if now >= self.next_energy {
            self.read_energy();
            self.next_energy = now + ENERGY_EVERY;
        }
        self.publish();
    }

    /// Reads what each backend has used, if there is a meter.
    fn read_energy(&mut self) {
        if let Some(meter) = &mut self.meter {
            let backends = self.shared.backends.iter();
            self.energy = backends.map(|backend| meter(&backend.info)).collect();
        }
    }

    /// Publishes the status as of now.
    pub(super) fn publish(&self) {
        let status = Status::read(&self.shared, &self.history, &self.energy);
        let rate = status.rates.minute.to_f64().to_bits();
        self.shared.hash_rate.store(rate, Ordering::Relaxed);
        self.status.send_replace(status);
    }

    /// Announces the rate since this was last done.
    fn announce_rate(&mut self, now: Instant, hashes: &[u64]) {
        let (before, at) = &self.announced;
        let seconds = now.saturating_duration_since(*at).as_secs_f64();
        let done: Vec<u64> =
            hashes.iter().zip(before).map(|(now, before)| now.saturating_sub(*before)).collect();
        let total = HashRate::of(done.iter().sum(), seconds);
        let infos = self.shared.backends.iter().map(|backend| backend.info.clone());
        let backends = infos.zip(done).map(|(info, done)| (info, HashRate::of(done, seconds)));
        self.shared.announcer.announce(Event::Rate { total, backends: backends.collect() });
        self.announced = (hashes.to_vec(), now);
    }
}

//! Hash rates over several spans of time, from readings of the counters.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::units::HashRate;

/// The last seconds.
const SECONDS: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
const TEN_MINUTES: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3_600);

/// How far the readings for the last minute are apart, and how many there are.
const FINE: (Duration, usize) = (Duration::from_secs(1), 61);
/// The same for the last hour.
const COARSE: (Duration, usize) = (Duration::from_secs(10), 361);

/// Hash rates over the last seconds, minute, ten minutes and hour: each over the time since the
/// start, where that is shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Over the last five seconds.
    pub seconds: HashRate,
    /// Over the last minute.
    pub minute: HashRate,
    /// Over the last ten minutes.
    pub ten_minutes: HashRate,
    /// Over the last hour.
    pub hour: HashRate,
}

impl Rates {
    /// The one over this span, which is one of the four.
    fn over(&mut self, span: Duration) -> &mut HashRate {
        match span {
            SECONDS => &mut self.seconds,
            MINUTE => &mut self.minute,
            TEN_MINUTES => &mut self.ten_minutes,
            _ => &mut self.hour,
        }
    }
}

/// The counters of all backends at one moment.
#[derive(Debug)]
struct Reading {
    at: Instant,
    hashes: Vec<u64>,
}

/// Readings of the counters, dense for the last minute and sparse for the last hour.
#[derive(Debug)]
pub(super) struct RateHistory {
    fine: VecDeque<Reading>,
    coarse: VecDeque<Reading>,
}

impl RateHistory {
    /// Begins at `at`, when this many backends had not hashed yet.
    pub(super) fn new(at: Instant, backends: usize) -> Self {
        let first = || VecDeque::from([Reading { at, hashes: vec![0; backends] }]);
        Self { fine: first(), coarse: first() }
    }

    /// Keeps a reading, if it is time for one.
    pub(super) fn note(&mut self, at: Instant, hashes: &[u64]) {
        for (readings, (apart, most)) in [(&mut self.fine, FINE), (&mut self.coarse, COARSE)] {
            let last = readings.back().map(|reading| reading.at);
            if last.is_some_and(|last| at.saturating_duration_since(last) < apart) {
                continue;
            }
            if readings.len() == most {
                readings.pop_front();
            }
            readings.push_back(Reading { at, hashes: hashes.to_vec() });
        }
    }

    /// The rates of all backends together, and of each, at this moment with these counters.
    pub(super) fn rates(&self, at: Instant, hashes: &[u64]) -> (Rates, Vec<Rates>) {
        let mut total = Rates::default();
        let mut each = vec![Rates::default(); hashes.len()];
        for span in [SECONDS, MINUTE, TEN_MINUTES, HOUR] {
            let readings = if span <= MINUTE { &self.fine } else { &self.coarse };
            let is_before = |reading: &&Reading| at.saturating_duration_since(reading.at) >= span;
            let base = readings.iter().rev().find(is_before).or_else(|| readings.front());
            let Some(base) = base else { continue };
            let seconds = at.saturating_duration_since(base.at).as_secs_f64();
            let mut sum = 0;
            for ((now, before), rates) in hashes.iter().zip(&base.hashes).zip(&mut each) {
                let done = now.saturating_sub(*before);
                sum += done;
                *rates.over(span) = HashRate::of(done, seconds);
            }
            *total.over(span) = HashRate::of(sum, seconds);
        }
        (total, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hours with readings ten times a second: the first hour at 100 and 10 hashes a second, the
    /// second at 200 and none.
    #[test]
    fn each_rate_is_of_its_span() {
        let begun = Instant::now();
        let mut history = RateHistory::new(begun, 2);
        let counters = |tenths: u64| {
            let (first, second) = (tenths.min(36_000), tenths.saturating_sub(36_000));
            [10 * first + 20 * second, first]
        };
        let rates = |history: &RateHistory, tenths: u64| {
            let at = begun + Duration::from_millis(100 * tenths);
            let (total, each) = history.rates(at, &counters(tenths));
            let figures = |rates: Rates| {
                [rates.seconds, rates.minute, rates.ten_minutes, rates.hour]
                    .map(|rate| rate.to_f64().round() as u64)
            };
            (figures(total), figures(each[1]))
        };
        assert_eq!(rates(&history, 0), ([0; 4], [0; 4]), "no time has passed");
        let mut at = 0;
        let mut go_to = |history: &mut RateHistory, tenths: u64| {
            for now in at..=tenths {
                history.note(begun + Duration::from_millis(100 * now), &counters(now));
            }
            at = tenths;
        };
        go_to(&mut history, 3);
        assert_eq!(rates(&history, 3), ([110; 4], [10; 4]), "since the start");
        go_to(&mut history, 36_000);
        assert_eq!(rates(&history, 36_000), ([110; 4], [10; 4]));
        go_to(&mut history, 36_050);
        let (total, second) = rates(&history, 36_050);
        assert_eq!((total[0], second[0]), (200, 0), "the last seconds");
        assert_eq!((total[1], second[1]), (118, 9), "five of sixty seconds");
        assert!((110..112).contains(&total[2]) && total[3] == 110, "{total:?}");
        go_to(&mut history, 72_000);
        assert_eq!(rates(&history, 72_000), ([200; 4], [0; 4]));
        assert!(history.fine.len() <= FINE.1 && history.coarse.len() <= COARSE.1);
    }
}
